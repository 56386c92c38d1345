"""The model itself in torch: transformers' native Florence-2, called by its class name, never through remote code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Florence2Config, Florence2ForConditionalGeneration, GenerationConfig

from ..errors import CheckpointError
from ..files import disk_full, write_json, written_whole
from . import layouts
from .checkpoint import Checkpoint, open_checkpoint
from .config import native_config
from .folders import replaced_folder, umask
from .processor import (
    IMAGE_MEAN,
    IMAGE_STD,
    IMAGE_TOKEN,
    complete_tokenizer,
    image_seq_length,
    token_id,
    write_processor,
)
from .sizes import SIZE_NAMES, size_config
from .weights import WEIGHTS

Weights = dict[str, torch.Tensor]


def build_model(
    size: str | Mapping[str, Any], *, dtype: torch.dtype = torch.float32
) -> Florence2ForConditionalGeneration:
    """A model with random weights: "nano", "base", "large", or a native configuration."""
    if isinstance(size, str):
        if size not in SIZE_NAMES:
            raise CheckpointError(f"there is no size {size!r}; sizes are {', '.join(SIZE_NAMES)}")
        size = size_config(size)
    config = native_config({"model_type": "florence2", **size}, "configuration")
    return Florence2ForConditionalGeneration(_model_config(config, dtype)).to(dtype)


def load_model(
    checkpoint: Checkpoint | str | Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Florence2ForConditionalGeneration:
    """The model of a checkpoint in evaluation mode; an adapter is merged into its base.

    The vocabulary has a row for the image token, and lm_head is tied to the embedding only where the two are equal.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = open_checkpoint(checkpoint)
    source = checkpoint.base or checkpoint
    if not source.weights:
        raise CheckpointError(f"{source.path}: has ONNX graphs but no model.safetensors; use the onnx engine")
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration(_model_config(source.config, dtype))
    weights = read_weights(source, dtype)
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    left = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
    if left:
        raise CheckpointError(f"{source.path}: the weights lack {', '.join(left[:3])}")
    if checkpoint.base is not None:
        from .adapters import merge_adapter

        model = merge_adapter(model, checkpoint)
    model.generation_config = GenerationConfig(**generation_config(source.config, checkpoint.generation))
    return model.to(device).eval()


def _model_config(config: Mapping[str, Any], dtype: torch.dtype) -> Florence2Config:
    return Florence2Config(**config, dtype=dtype)


def read_weights(checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> Weights:
    """Native weights by native names, with a row for the image token; no lm_head where it is tied."""
    found: Weights = {}
    for file in checkpoint.weights:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dictionary
                native = layouts.to_native(name) if checkpoint.names == "microsoft" else name
                if native is not None:
                    found[native] = tensors.get_tensor(name).to(dtype)
    if checkpoint.names == "microsoft":
        found[layouts.PROJECTION] = found[layouts.PROJECTION].t().contiguous()
    embedding = next(found[name] for name in (*layouts.EMBEDDING_ALIASES, layouts.HEAD) if name in found)
    for name in (*layouts.EMBEDDING_ALIASES, *([layouts.HEAD] if checkpoint.config["tie_word_embeddings"] else [])):
        found.pop(name, None)
    found[layouts.EMBEDDING] = embedding
    return with_rows(found, checkpoint.config["text_config"]["vocab_size"])


def with_rows(weights: Weights, rows: int) -> Weights:
    """The weights with an embedding (and lm_head) of at least `rows` rows; new ones repeat the row of `<unk>` (id 3).

    `<unk>` is never an answer, so a trained model gives its copy a low logit too, and no random number is drawn.
    """
    for name in (layouts.EMBEDDING, layouts.HEAD):
        if name in weights and (missing := rows - weights[name].shape[0]) > 0:
            weights[name] = torch.cat([weights[name], weights[name][3:4].expand(missing, -1)])
    return weights


def model_weights(model: Florence2ForConditionalGeneration) -> tuple[dict[str, Any], Weights]:
    """The native configuration of a live model and exactly the weights that are written for it.

    lm_head is left out when it is the embedding's own tensor, or equal to it; the configuration says so.
    """
    state = model.state_dict()
    raw = model.config.to_dict()
    config = native_config(raw, "the model's configuration")
    head, embedding = state[layouts.HEAD], state[layouts.EMBEDDING]
    config["tie_word_embeddings"] = head.data_ptr() == embedding.data_ptr() or torch.equal(head, embedding)
    names = layouts.native_shapes(config)
    missing = sorted(set(names) - set(state))
    if missing:
        raise CheckpointError(f"the model lacks {missing[0]}; merge adapters before saving it")
    return config, {name: state[name].detach() for name in names}


def generation_config(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """generation_config.json: the reference's forced `<s>` and `</s>`, greedy unless `settings` say otherwise.

    no_repeat_ngram_size is 0 by default: Microsoft's 3 forbids legitimate repeats such as the columns of two boxes.
    """
    text = config["text_config"]
    return {
        "bos_token_id": text["bos_token_id"],
        "pad_token_id": text["pad_token_id"],
        "eos_token_id": text["eos_token_id"],
        "decoder_start_token_id": text["decoder_start_token_id"],
        "forced_bos_token_id": text["bos_token_id"],
        "forced_eos_token_id": text["forced_eos_token_id"],
        "do_sample": False,
        "num_beams": 1,
        "no_repeat_ngram_size": 0,
        **settings,
    }


def save_checkpoint(
    model: Florence2ForConditionalGeneration,
    folder: Path,
    *,
    tokenizer: Tokenizer,
    image_size: tuple[int, int],
    labels: Sequence[str] | None,
    max_new_tokens: int,
    calibration: Mapping[str, Any] | None = None,
    card: str | None = None,
    generation: Mapping[str, Any] | None = None,
    image_mean: Sequence[float] = IMAGE_MEAN,
    image_std: Sequence[float] = IMAGE_STD,
) -> None:
    """Write a native checkpoint folder, whole or not at all; stock transformers loads it without edits.

    `image_size` is (height, width) in pixels; `labels` are None for a model that is no detector yet; `card` is the
    text of README.md; `generation` overrides the greedy settings of generation_config.json. A checkpoint already in
    `folder` is replaced; any other non-empty folder is refused. Raises DiskFullError when there is no room.
    """
    config, weights = model_weights(model)
    tokenizer = complete_tokenizer(tokenizer)
    config["image_token_id"] = token_id(tokenizer, IMAGE_TOKEN)
    rows = max(tokenizer.get_vocab_size(), config["text_config"]["vocab_size"])
    config["text_config"]["vocab_size"] = rows
    image_tokens = image_seq_length(config["vision_config"], image_size)
    settings = {**(generation or {}), "max_new_tokens": max_new_tokens}
    with replaced_folder(folder) as target:
        save_weights(with_rows(weights, rows), target)
        dtype = str(weights[layouts.EMBEDDING].dtype).removeprefix("torch.")
        write_json(target / "config.json", {**config, **_top_ids(config), "dtype": dtype})
        write_json(target / "generation_config.json", generation_config(config, settings))
        write_processor(
            target,
            tokenizer,
            image_size=image_size,
            image_tokens=image_tokens,
            max_positions=config["text_config"]["max_position_embeddings"],
            mean=image_mean,
            std=image_std,
        )
        write_detector_files(target, labels, max_new_tokens, calibration, card)


def _top_ids(config: Mapping[str, Any]) -> dict[str, int]:
    names = ("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id")
    return {name: config["text_config"][name] for name in names}


def write_detector_files(
    folder: Path,
    labels: Sequence[str] | None,
    max_new_tokens: int,
    calibration: Mapping[str, Any] | None,
    card: str | None,
) -> None:
    """labels.json, calibration.json and README.md: what every layout of ours has beside the model."""
    if labels is not None:
        value = {"labels": list(labels), "task": "<OD>", "max_new_tokens": max_new_tokens}
        write_json(folder / "labels.json", value)
    if calibration is not None:
        write_json(folder / "calibration.json", calibration)
    with written_whole(folder / "README.md") as stream:
        stream.write(card if card is not None else _card(labels))


def _card(labels: Sequence[str] | None) -> str:
    what = f"finds {', '.join(labels)}" if labels else "is not fine-tuned to find anything yet"
    return (
        "---\nlibrary_name: transformers\npipeline_tag: object-detection\ntags: [florence2, florentune]\n---\n\n"
        f"# A Florence-2 that {what}\n\nWritten by florentune. Load it with `florentune predict --model FOLDER`, or "
        "with `Florence2ForConditionalGeneration.from_pretrained` and `Florence2Processor.from_pretrained`.\n"
    )


def save_weights(weights: Weights, folder: Path) -> None:
    """model.safetensors of contiguous tensors on the CPU; DiskFullError before the first byte when there is no room."""
    needed = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    stats = os.statvfs(folder)
    if stats.f_bavail * stats.f_frsize < needed:
        raise disk_full(folder, needed)
    ready = {name: tensor.contiguous().cpu() for name, tensor in weights.items()}
    save_file(ready, folder / WEIGHTS, metadata={"format": "pt"})
    os.chmod(folder / WEIGHTS, 0o666 & ~umask())
    with open(folder / WEIGHTS, "rb") as stream:
        os.fsync(stream.fileno())
