"""Repair a saved checkpoint: the defects that save_pretrained, trainers and hand edits leave in its files.

What is right depends on the layout of the weights' names. Native weights want a native config.json and a complete
processor; Microsoft's want one that names the remote code once and its tower "davit". Repairing twice changes nothing.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ..errors import CheckpointError
from ..files import write_json, written_whole
from . import layouts
from .checkpoint import open_checkpoint
from .config import JsonObject, microsoft_config, native_config
from .processor import (
    IMAGE_TOKEN,
    image_seq_length,
    image_settings,
    processor_settings,
    read_image_settings,
    read_tokenizer,
    token_id,
    tokenizer_settings,
)
from .remote_code import AUTO_MAP, CODE_FILES, PROCESSOR_MAP, REPOSITORY, code_in, missing_code_advice
from .weights import (
    INDEX,
    WEIGHTS,
    Rewritten,
    Tensor,
    head_is_tied,
    optional_names,
    pickles_in,
    read_headers,
    read_object,
    rewrite,
    unchanged,
    weight_files,
    with_more_rows,
)

# Fields of transformers' base configuration that saving remote code pours into vision_config, where they mean nothing.
_GENERIC_NAMES = (
    "return_dict output_hidden_states output_attentions torchscript use_bfloat16 tf_legacy_loss pruned_heads "
    "tie_word_embeddings chunk_size_feed_forward is_encoder_decoder is_decoder cross_attention_hidden_size "
    "add_cross_attention tie_encoder_decoder max_length min_length do_sample early_stopping num_beams num_beam_groups "
    "diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size "
    "encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores return_dict_in_generate "
    "forced_bos_token_id forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens "
    "begin_suppress_tokens architectures finetuning_task id2label label2id tokenizer_class prefix bos_token_id "
    "pad_token_id eos_token_id sep_token_id decoder_start_token_id task_specific_params problem_type _name_or_path "
    "_attn_implementation_autoset"
)
_GENERIC = frozenset(_GENERIC_NAMES.split())
_MICROSOFT_VISION = ("dim_embed", "image_pos_embed", "visual_temporal_embedding", "image_feature_source")
_NATIVE_VISION = ("embed_dim", "max_position_embeddings", "max_temporal_embeddings")


@dataclass
class Repair:
    """What was found in a folder: `problems` that were (or with --check would be) mended, `advice` for the rest."""

    folder: Path
    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    backup: Path | None = None


@dataclass
class _Folder:
    """The files of a checkpoint in memory; a file is written when it differs from what was read."""

    path: Path
    layout: str
    tensors: dict[str, Tensor]
    config: JsonObject
    tokenizer: Tokenizer
    report: Repair
    objects: dict[str, JsonObject | None] = field(default_factory=dict)
    before: dict[str, JsonObject | None] = field(default_factory=dict)
    weights: dict[str, Rewritten] | None = None
    new_tokenizer: bool = False

    def read(self, name: str) -> JsonObject | None:
        if name not in self.objects:
            self.before[name] = read_object(self.path, name)
            self.objects[name] = copy.deepcopy(self.before[name])
        return self.objects[name]

    def say(self, file: str, what: str) -> None:
        self.report.problems.append(f"{file}: {what}")

    def changed(self) -> dict[str, JsonObject]:
        return {name: value for name, value in self.objects.items() if value is not None and value != self.before[name]}


def repair(folder: Path, *, check: bool = False, code: Path | None = None) -> Repair:
    """Find and mend the defects of a checkpoint folder; with `check` nothing is changed.

    `code` is a folder with the three files of the remote code, which are copied into a Microsoft folder that lacks
    them. Originals of all files that change are kept in `repair-backup`. Raises CheckpointError for what cannot be
    mended: no weights, weights of another model, no tokenizer.
    """
    found = _read(folder)
    if found.layout == "native":
        _native_config(found)
        _native_processor(found)
        _native_generation(found)
    else:
        _microsoft_config(found)
        _microsoft_head(found)
        _microsoft_code(found, code, check)
        _microsoft_preprocessor(found)
    if not check and (found.changed() or found.weights or found.new_tokenizer):
        found.report.backup = _write(found)
        open_checkpoint(folder)
    return found.report


def _read(folder: Path) -> _Folder:
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such model folder", reason="missing")
    files = weight_files(folder)
    if not files:
        pickles = pickles_in(folder)
        remedy = f"; make them of {pickles[0]}: florentune import-weights" if pickles else ""
        raise CheckpointError(f"{folder}: has no safetensors weights to repair{remedy}")
    tensors = read_headers(files)
    layout = layouts.layout_of(tensors)
    if layout is None:
        raise CheckpointError(f"{folder}: its weights have none of Florence-2's names")
    config = read_object(folder, "config.json")
    if config is None:
        raise CheckpointError(f"{folder}: has no config.json; copy the base model's and repair again, or use --base")
    native_config(config, str(folder / "config.json"))
    found = _Folder(folder, layout, tensors, {}, read_tokenizer(folder), Repair(folder))
    found.config = found.read("config.json") or {}
    return found


def _native_config(found: _Folder) -> None:
    config, text, vision = found.config, found.config["text_config"], found.config["vision_config"]
    if config.pop("auto_map", None) is not None:
        found.say("config.json", "auto_map refers to remote code, which native weights do not fit; removed")
    if text.get("model_type") != "bart":
        found.say("config.json", f"text_config.model_type is {text.get('model_type')!r}, must be 'bart'")
        text["model_type"] = "bart"
    if vision.get("model_type") != "florence_vision" or any(name in vision for name in _MICROSOFT_VISION):
        found.say("config.json", "vision_config is Microsoft's, which the native loader ignores; translated")
        config["vision_config"] = native_config(config)["vision_config"]
    _prune(found, config["vision_config"])
    for name, value in (("architectures", ["Florence2ForConditionalGeneration"]), ("is_encoder_decoder", True)):
        if config.get(name) != value:
            found.say("config.json", f"{name} must be {value}")
            config[name] = value
    tied = head_is_tied(found.tensors)
    if config.get("tie_word_embeddings", True) != tied:
        why = "lm_head differs from the embedding" if not tied else "lm_head is missing or equals the embedding"
        found.say("config.json", f"tie_word_embeddings must be {str(tied).lower()}: {why}")
        config["tie_word_embeddings"] = tied


def _prune(found: _Folder, vision: JsonObject) -> None:
    noise = sorted(_GENERIC & vision.keys())
    if noise:
        found.say("config.json", f"vision_config has {len(noise)} generic fields ({noise[0]}, ...); removed")
        for name in noise:
            del vision[name]


def _native_processor(found: _Folder) -> None:
    tokenizer, text = found.tokenizer, found.config["text_config"]
    stored = read_object(found.path, "tokenizer.json") or {}
    if not any(token.get("content") == IMAGE_TOKEN for token in stored.get("added_tokens", [])):
        found.say("tokenizer.json", "lacks tokens of Florence-2 or <image>; added")
        found.new_tokenizer = True
    image = token_id(tokenizer, IMAGE_TOKEN)
    if found.config.get("image_token_id", 51289) != image:
        found.say("config.json", f"image_token_id must be {image}, the id of {IMAGE_TOKEN}")
    if found.config.get("image_token_id") != image:
        found.config["image_token_id"] = image
    if text.get("vocab_size", 0) <= image:
        found.say("model.safetensors", f"the embedding has no row for {IMAGE_TOKEN} ({image}); added")
        _grow(found, image + 1)
    settings = tokenizer_settings(tokenizer, text.get("max_position_embeddings", 1024))
    names = (
        "model_specific_special_tokens",
        "tokenizer_class",
        *(["mask_token"] if not settings["mask_token"] else []),
    )
    _complete(found, "tokenizer_config.json", {name: settings[name] for name in names}, settings)
    size, mean, std = read_image_settings(found.path)
    tokens = image_seq_length(native_config(found.config)["vision_config"], size)
    wanted = processor_settings(size, tokens, mean, std)
    _complete(found, "processor_config.json", {"processor_class": wanted["processor_class"]}, wanted)
    processor = found.read("processor_config.json") or {}
    parsers = processor.get("post_processor_config")
    if not isinstance(parsers, dict) or not wanted["post_processor_config"].keys() <= parsers.keys():
        found.say("processor_config.json", "post_processor_config lacks parsers, so no answer can be read; added")
        processor["post_processor_config"] = {**wanted["post_processor_config"], **(parsers or {})}
    # transformers 4 kept the image processor in a file of its own, which version 5 still reads.
    images = processor.get("image_processor") or read_object(found.path, "preprocessor_config.json")
    if not isinstance(images, dict) or images.get("image_seq_length") != tokens:
        found.say("processor_config.json", f"image_seq_length must be {tokens} for images of {size[0]} x {size[1]}")
        processor["image_processor"] = {**wanted["image_processor"], **(images or {}), "image_seq_length": tokens}


def _complete(found: _Folder, name: str, required: JsonObject, whole: JsonObject) -> None:
    """Make sure a file has the required values; a missing file becomes `whole`."""
    value = found.read(name)
    if value is None:
        found.say(name, "is missing; written")
        found.objects[name] = whole
        return
    wrong = [key for key, wanted in required.items() if key not in value or not _includes(value[key], wanted)]
    for key in wrong:
        found.say(name, f"{key} must be {required[key]!r}")
        value[key] = required[key]


def _includes(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(value, Mapping) and all(value.get(key) == item for key, item in wanted.items())
    if isinstance(wanted, str):  # BartTokenizer and BartTokenizerFast, RobertaTokenizer are one class now
        return isinstance(value, str) and (value == wanted or value.endswith(("Tokenizer", "TokenizerFast")))
    return bool(value == wanted)


def _grow(found: _Folder, rows: int) -> None:
    aliases, (head, *_) = optional_names("native")
    found.weights = {
        name: with_more_rows(tensor, rows) if name in (*aliases, head) else unchanged(tensor)
        for name, tensor in found.tensors.items()
    }
    found.config["text_config"]["vocab_size"] = rows


def _native_generation(found: _Folder) -> None:
    text = native_config(found.config)["text_config"]
    forced = {"forced_bos_token_id": text["bos_token_id"], "decoder_start_token_id": text["decoder_start_token_id"]}
    ids = {name: text[name] for name in ("bos_token_id", "pad_token_id", "eos_token_id", "forced_eos_token_id")}
    _complete(found, "generation_config.json", forced, {**ids, **forced, "num_beams": 1, "no_repeat_ngram_size": 0})


def _microsoft_config(found: _Folder) -> None:
    config, text, vision = found.config, found.config["text_config"], found.config["vision_config"]
    if text.get("model_type", "bart") != "bart":
        found.say("config.json", f"text_config.model_type is {text['model_type']!r}, which transformers 5 refuses")
        del text["model_type"]
    if vision.get("model_type") != "davit":
        found.say("config.json", f"vision_config.model_type is {vision.get('model_type')!r}, must be 'davit'")
        vision["model_type"] = "davit"
    if any(name in vision for name in _NATIVE_VISION) or not all(name in vision for name in _MICROSOFT_VISION[:3]):
        found.say("config.json", "vision_config has native names, which the remote code does not read; translated")
        config["vision_config"] = microsoft_config(native_config(config), {})["vision_config"]
    _prune(found, config["vision_config"])


def _microsoft_head(found: _Folder) -> None:
    aliases, (head, *_) = optional_names("microsoft")
    if head not in found.tensors:
        found.say("model.safetensors", "lm_head is missing and the remote code does not tie it; added")
        embedding = next(found.tensors[name] for name in aliases if name in found.tensors)
        found.weights = {name: unchanged(tensor) for name, tensor in found.tensors.items()}
        found.weights[head] = unchanged(embedding)


def _microsoft_code(found: _Folder, code: Path | None, check: bool) -> None:
    if not code_in(found.path) and code is not None:
        if not code_in(code):
            raise CheckpointError(f"{code}: lacks some of {', '.join(CODE_FILES)}")
        found.say("remote code", f"is not in the folder; copied from {code}")
        for name in () if check else CODE_FILES:
            shutil.copyfile(code / name, found.path / name)
    local = bool(code_in(found.path)) or code is not None
    if not local:
        found.say("remote code", "is not in the folder, so it loads only where the hub can be reached")
        found.report.advice.append(missing_code_advice(found.path))
    _auto_map(found, "config.json", AUTO_MAP, local)


def _microsoft_preprocessor(found: _Folder) -> None:
    name = "preprocessor_config.json"
    if found.read(name) is None:
        found.say(name, "is missing; written")
        size, mean, std = read_image_settings(found.path)
        tokens = image_seq_length(native_config(found.config)["vision_config"], size)
        found.objects[name] = image_settings(size, tokens, mean, std)
    local = bool(code_in(found.path)) or not found.report.advice
    _auto_map(found, name, PROCESSOR_MAP, local)


def _auto_map(found: _Folder, name: str, names: Mapping[str, str], local: bool) -> None:
    """Make auto_map name exactly these classes, in the folder when the code is there, else in one repository."""
    value = found.read(name) or {}
    before = value.get("auto_map")
    wanted = {key: ("" if local else f"{REPOSITORY}--") + item for key, item in names.items()}
    if isinstance(before, dict) and not local and before.keys() == names.keys():
        repositories = {item.partition("--")[0] for item in before.values() if isinstance(item, str) and "--" in item}
        if len(repositories) == 1 and {item.rpartition("--")[2] for item in before.values()} == set(names.values()):
            wanted = {key: f"{min(repositories)}--{item}" for key, item in names.items()}
    if before != wanted:
        found.say(name, f"auto_map is {before}, must be {wanted}")
        value["auto_map"] = wanted


def _write(found: _Folder) -> Path:
    """Keep the originals, then write each changed file whole. Returns the folder of originals."""
    backup = _new_backup(found.path)
    changed = found.changed()
    weights = [*(file.name for file in weight_files(found.path)), INDEX] if found.weights else []
    for name in (*changed, *weights, *(["tokenizer.json"] if found.new_tokenizer else [])):
        if (found.path / name).exists():
            _keep(found.path / name, backup / name)
    if found.weights:
        rewrite(found.path / WEIGHTS, found.weights)
        for name in set(weights) - {WEIGHTS}:
            (found.path / name).unlink(missing_ok=True)
    if found.new_tokenizer:
        with written_whole(found.path / "tokenizer.json") as stream:
            stream.write(found.tokenizer.to_str())
    for name, value in changed.items():
        write_json(found.path / name, value)
    return backup


def _new_backup(folder: Path) -> Path:
    number = 1
    while (backup := folder / f"repair-backup{'' if number == 1 else f'-{number}'}").exists():
        number += 1
    backup.mkdir()
    return backup


def _keep(path: Path, copy_to: Path) -> None:
    """Keep a file without copying gigabytes where the file system can link: the original is replaced, not changed."""
    try:
        os.link(path, copy_to)
    except OSError:
        shutil.copy2(path, copy_to)
