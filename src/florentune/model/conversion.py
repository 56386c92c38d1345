"""Write a checkpoint in another layout: native for transformers, Microsoft's for loaders of the remote code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import Florence2ForConditionalGeneration

from ..errors import CheckpointError
from ..files import write_json
from . import layouts
from .checkpoint import Checkpoint
from .config import microsoft_config
from .florence import (
    Weights,
    generation_config,
    load_model,
    model_weights,
    save_checkpoint,
    save_weights,
    write_detector_files,
)
from .folders import replaced_folder
from .processor import IMAGE_TOKEN, image_settings, token_id
from .remote_code import CODE_FILES, code_in, missing_code_advice, refer_to_code
from .weights import read_headers

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_STORED = {"F64": torch.float32, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def convert_checkpoint(checkpoint: Checkpoint, folder: Path, *, to: str, dtype: str | None = None) -> list[str]:
    """Write `checkpoint` (adapters merged) to `folder` in the layout `to`, "native" or "microsoft".

    `dtype` is "fp32", "fp16" or "bf16", None keeps the stored one. Returns what the user still has to know or do.
    """
    model = load_model(checkpoint, dtype=DTYPES[dtype] if dtype else _stored_dtype(checkpoint))
    if to == "microsoft":
        return save_microsoft(model, checkpoint, folder)
    save_checkpoint(
        model,
        folder,
        tokenizer=checkpoint.tokenizer(),
        image_size=checkpoint.image_size,
        labels=checkpoint.labels,
        max_new_tokens=checkpoint.max_new_tokens,
        calibration=checkpoint.calibration,
        generation=checkpoint.generation,
        image_mean=checkpoint.image_mean,
        image_std=checkpoint.image_std,
    )
    return []


def _stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    tensors = read_headers((checkpoint.base or checkpoint).weights)
    return _STORED[max(tensors.values(), key=lambda tensor: tensor.end - tensor.start).dtype]


def save_microsoft(model: Florence2ForConditionalGeneration, checkpoint: Checkpoint, folder: Path) -> list[str]:
    """Write a folder in Microsoft's layout with a correct config.json; the code is kept where the source has it.

    Without the code files the configuration refers to Microsoft's repository by id, and the returned advice says how
    to put the pinned revision beside the weights: none of that code is part of florentune.
    """
    config, weights = model_weights(model)
    _check_expressible(config, checkpoint)
    tokenizer, rows = _without_image_token(checkpoint.tokenizer(), config["text_config"]["vocab_size"])
    config["text_config"]["vocab_size"] = rows
    settings = generation_config(config, checkpoint.generation)
    code = code_in(checkpoint.path)
    with replaced_folder(folder) as target:
        save_weights(microsoft_weights(weights, rows), target)
        dtype = str(model.dtype).removeprefix("torch.")
        described = {**microsoft_config(config, _language_settings(settings)), "torch_dtype": dtype}
        preprocessor = _preprocessor(checkpoint)
        for name in code:
            shutil.copyfile(checkpoint.path / name, target / name)
        refer_to_code(described, preprocessor, local=bool(code))
        write_json(target / "config.json", described)
        write_json(target / "generation_config.json", settings)
        write_json(target / "preprocessor_config.json", preprocessor)
        (target / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
        write_json(target / "tokenizer_config.json", _tokenizer_settings(config))
        write_detector_files(
            target, checkpoint.labels, checkpoint.max_new_tokens, checkpoint.calibration, _card(bool(code))
        )
    return [] if code else [missing_code_advice(folder)]


def microsoft_weights(weights: Weights, rows: int) -> Weights:
    """Native weights under Microsoft's names, with lm_head as a tensor of its own and a vocabulary of `rows` rows."""
    found = dict(weights)
    found[layouts.EMBEDDING] = weights[layouts.EMBEDDING][:rows]
    found[layouts.HEAD] = weights.get(layouts.HEAD, weights[layouts.EMBEDDING])[:rows].clone()
    found[layouts.PROJECTION] = weights[layouts.PROJECTION].t()
    named = {layouts.to_microsoft(name) or name: tensor for name, tensor in found.items()}
    named[layouts.MICROSOFT_BIAS] = torch.zeros(1, rows, dtype=weights[layouts.EMBEDDING].dtype)
    return named


def _check_expressible(config: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    vision, (height, width) = config["vision_config"], checkpoint.image_size
    fixed = {"mlp_ratio": 4.0, "qkv_bias": True, "activation_function": "gelu", "in_channels": 3}
    for field, value in fixed.items():
        if vision[field] != value:
            raise CheckpointError(
                f"{checkpoint.path}: Microsoft's code has {field} {value}, this model {vision[field]}"
            )
    if height != width:
        raise CheckpointError(f"{checkpoint.path}: Microsoft's code takes square images, this model {height} x {width}")


def _without_image_token(tokenizer: Tokenizer, rows: int) -> tuple[Tokenizer, int]:
    """Microsoft's vocabulary has no `<image>`: without it and its row of the embedding, where it is the last token."""
    image = token_id(tokenizer, IMAGE_TOKEN)
    if image + 1 != tokenizer.get_vocab_size():
        return tokenizer, rows
    value = json.loads(tokenizer.to_str())
    value["added_tokens"] = [token for token in value["added_tokens"] if token["id"] != image]
    value["model"]["vocab"].pop(IMAGE_TOKEN, None)
    return Tokenizer.from_str(json.dumps(value)), image


def _language_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the remote code's language model reads from text_config (its generate delegates there)."""
    names = ("num_beams", "early_stopping", "no_repeat_ngram_size", "forced_bos_token_id", "forced_eos_token_id")
    return {name: settings[name] for name in names if name in settings}


def _preprocessor(checkpoint: Checkpoint) -> dict[str, Any]:
    found = image_settings(checkpoint.image_size, checkpoint.image_tokens, checkpoint.image_mean, checkpoint.image_std)
    return {**found, "processor_class": "Florence2Processor"}


def _tokenizer_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"tokenizer_class": "BartTokenizer", "model_max_length": config["text_config"]["max_position_embeddings"]}


def _card(has_code: bool) -> str:
    where = "in this folder" if has_code else "not in this folder; put the pinned files here before loading offline"
    return (
        "# Florence-2 in Microsoft's layout\n\nWritten by florentune for loaders of the remote code "
        f"({', '.join(CODE_FILES)}), which are {where}.\n"
        "With transformers 5.13 or newer use the native layout instead: `florentune export THIS OUT --to native`.\n"
    )
