"""A checkpoint: a folder of safetensors and JSON, read and checked without torch and without loading its weights.

Four layouts are read. "native" is transformers' own and what florentune writes; "microsoft" is the layout of the
remote code; "bare" is weights only (accelerate's save_model), which need `base` for all else; "adapter" is a LoRA
folder of peft on top of a base. Code and pickles in a folder are never touched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ..errors import CheckpointError, InputError
from ..locations import check_label
from .config import generation_settings, native_config
from .layouts import layout_of
from .processor import IMAGE_TOKEN, image_seq_length, read_image_settings, read_tokenizer, token_id
from .weights import (
    ADAPTER_WEIGHTS,
    Tensor,
    check_weights,
    head_is_tied,
    optional_names,
    pickles_in,
    read_headers,
    read_object,
    safe_file,
    weight_files,
)

BUILT_IN = ("nano",)
_PACKAGE = Path(__file__).parent.parent
_MOST_NEW_TOKENS = 1024


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a model before its weights are loaded.

    `config` is native, whatever the layout, and has room for the image token; `image_size` is (height, width) in
    pixels; `weights` are the safetensors files (an adapter's are its own, the model's are `base.weights`); `names` is
    the layout of the weights' names; `files` is the folder the tokenizer comes from; `labels` are None for a model
    that was not fine-tuned here; `calibration` is {"temperature", "shift", "thresholds", "ece", "pages"}; `onnx` is
    the folder of exported graphs.
    """

    path: Path
    layout: str
    config: dict[str, Any]
    image_size: tuple[int, int]
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    max_new_tokens: int
    weights: tuple[Path, ...]
    names: str
    files: Path
    labels: tuple[str, ...] | None = None
    calibration: dict[str, Any] | None = None
    onnx: Path | None = None
    generation: dict[str, Any] = field(default_factory=dict)
    base: Checkpoint | None = None

    def tokenizer(self) -> Tokenizer:
        """A fresh tokenizer with every token of Florence-2 and `<image>`."""
        return read_tokenizer(self.files)

    @property
    def image_tokens(self) -> int:
        """How many encoder positions an image takes."""
        return image_seq_length(self.config["vision_config"], self.image_size)


def open_checkpoint(source: str | Path, *, base: str | Path | None = None) -> Checkpoint:
    """The checkpoint in a folder of any layout, of the model in this package ("nano"), or of a hub id "owner/name".

    A hub id may name a revision, "owner/name@revision". `base` (a folder or hub id) gives configuration and tokenizer
    to bare weights, and the model to an adapter that names none. Only headers are read, so a folder that lies about
    its sizes costs nothing. Raises CheckpointError, naming file, field and remedy.
    """
    folder = locate(source)
    if (adapter := read_object(folder, "adapter_config.json")) is not None:
        return _open_adapter(folder, adapter, base)
    raw = read_object(folder, "config.json")
    if raw is None:
        return _open_bare(folder, base)
    return _open_full(folder, raw)


def locate(source: str | Path) -> Path:
    """The local folder of a source; a hub id is downloaded (only the files that are read) or found in the cache."""
    if source in BUILT_IN:
        folder = _PACKAGE / str(source)
        if not folder.is_dir():
            raise CheckpointError(f"this installation has no built-in model {source!r}; name a folder or a hub id")
        return folder
    path = Path(source)
    if path.is_dir():
        return path
    from . import hub

    if not path.exists() and isinstance(source, str) and hub.is_hub_id(source):
        return hub.download(source)
    if path.is_file():
        raise CheckpointError(f"{path}: is a file; name the model folder that holds it")
    raise CheckpointError(f"{path}: no such model folder (and not a hub id like owner/name)", reason="missing")


def _open_full(folder: Path, raw: dict[str, Any]) -> Checkpoint:
    where = folder / "config.json"
    config = native_config(raw, str(where))
    files = weight_files(folder)
    onnx = _onnx(folder)
    names = _judge_weights(folder, files, config, onnx)
    tokenizer = read_tokenizer(folder)
    _make_room_for_image(config, tokenizer, names, where)
    size, mean, std = read_image_settings(folder)
    image_seq_length(config["vision_config"], size, folder)
    generation = _generation(folder, raw, names)
    labels, most = _labels(folder)
    longest = min(_MOST_NEW_TOKENS, config["text_config"]["max_position_embeddings"])
    return Checkpoint(
        path=folder,
        layout=names,
        config=config,
        image_size=size,
        image_mean=mean,
        image_std=std,
        max_new_tokens=min(most or generation.get("max_new_tokens", longest), longest),
        weights=files,
        names=names,
        files=folder,
        labels=labels,
        calibration=_calibration(folder, labels),
        onnx=onnx,
        generation=generation,
    )


def _judge_weights(folder: Path, files: tuple[Path, ...], config: dict[str, Any], onnx: Path | None) -> str:
    """The layout of the weights' names, after their headers were held against `config`; sets tie_word_embeddings."""
    if not files:
        if onnx is not None:
            return "native"
        pickles = [name for name in pickles_in(folder) if name != "training_args.bin"]
        if pickles:
            raise CheckpointError(
                f"{folder}: has only pickles ({', '.join(pickles[:3])}), which can run code and are not opened; "
                f"make safetensors of them: florentune import-weights {folder / pickles[0]} {folder}"
            )
        raise CheckpointError(f"{folder}: has no model.safetensors")
    tensors = read_headers(files)
    names = check_weights(tensors, config, folder)
    config["tie_word_embeddings"] = head_is_tied(tensors)
    return names


def _make_room_for_image(config: dict[str, Any], tokenizer: Tokenizer, names: str, where: Path) -> None:
    """Set image_token_id from the tokenizer, and grow vocab_size by the row of `<image>` where the weights lack it."""
    text, image = config["text_config"], token_id(tokenizer, IMAGE_TOKEN)
    if image > text["vocab_size"] or tokenizer.get_vocab_size() > max(text["vocab_size"], image + 1):
        raise CheckpointError(
            f"{where}: vocab_size is {text['vocab_size']} but the tokenizer has {tokenizer.get_vocab_size()} tokens; "
            "tokenizer and weights are not of the same model"
        )
    if names == "native" and config["image_token_id"] != image:
        raise CheckpointError(
            f"{where}: image_token_id is {config['image_token_id']} but the tokenizer's {IMAGE_TOKEN} is {image}; "
            "run florentune repair"
        )
    config["image_token_id"] = image
    text["vocab_size"] = max(text["vocab_size"], image + 1)


def _generation(folder: Path, raw: dict[str, Any], names: str) -> dict[str, Any]:
    # Microsoft's generate delegates to the language model, whose settings are in text_config.
    if names == "microsoft":
        return generation_settings(raw["text_config"], f"{folder / 'config.json'}: text_config")
    name = "generation_config.json"
    return generation_settings(read_object(folder, name) or {}, str(folder / name))


def _labels(folder: Path) -> tuple[tuple[str, ...] | None, int | None]:
    where = folder / "labels.json"
    found = read_object(folder, where.name)
    if found is None:
        return None, None
    labels, most = found.get("labels"), found.get("max_new_tokens")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise CheckpointError(f"{where}: labels must be a list of names")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise CheckpointError(f"{where}: max_new_tokens must be a positive whole number, not {most!r:.60}")
    try:
        return tuple(check_label(label) for label in labels), most
    except InputError as error:
        raise CheckpointError(f"{where}: {error}") from None


def _calibration(folder: Path, labels: tuple[str, ...] | None) -> dict[str, Any] | None:
    where = folder / "calibration.json"
    found = read_object(folder, where.name)
    if found is None:
        return None
    temperature, thresholds = found.get("temperature", 1.0), found.get("thresholds", {})
    if not _is_number(temperature) or not 0 < temperature < 1000:
        raise CheckpointError(f"{where}: temperature must be a positive number, not {temperature!r:.60}")
    if not _is_number(shift := found.get("shift", 0.0)):
        raise CheckpointError(f"{where}: shift must be a number, not {shift!r:.60}")
    if not isinstance(thresholds, dict) or not all(_is_number(t) and 0 <= t <= 1 for t in thresholds.values()):
        raise CheckpointError(f"{where}: thresholds must give each label a number from 0 to 1")
    strangers = sorted(set(thresholds) - set(labels or ()))
    if strangers:
        raise CheckpointError(f"{where}: has a threshold for {strangers[0]!r}, which labels.json does not have")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _onnx(folder: Path) -> Path | None:
    found = folder / "onnx"
    return found if found.is_dir() and not found.is_symlink() else None


def _open_bare(folder: Path, base: str | Path | None) -> Checkpoint:
    files = weight_files(folder)
    if not files and pickles_in(folder):
        _judge_weights(folder, files, {}, None)
    if not files:
        raise CheckpointError(f"{folder}: is no model folder: it has neither config.json nor model.safetensors")
    if base is None:
        raise CheckpointError(
            f"{folder}: has weights but no config.json; name the model they were trained from, "
            "for example --base microsoft/Florence-2-base-ft"
        )
    source = _open_base(base)
    config = {**source.config, "text_config": dict(source.config["text_config"])}
    tensors = read_headers(files)
    names = check_weights(tensors, _config_on_disk(config, tensors), folder)
    config["tie_word_embeddings"] = head_is_tied(tensors)
    return _replaced(source, folder, "bare", files, names, config, None)


def _config_on_disk(config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """`config` without the row for the image token, when the weights come from a vocabulary that has none."""
    aliases, (head, *_) = optional_names(layout_of(tensors) or "native")
    rows = {tensors[name].shape[0] for name in (*aliases, head) if name in tensors}
    size = config["text_config"]["vocab_size"]
    if rows != {size - 1} or config["image_token_id"] != size - 1:
        return config
    return {**config, "text_config": {**config["text_config"], "vocab_size": size - 1}}


def _open_adapter(folder: Path, adapter: dict[str, Any], base: str | Path | None) -> Checkpoint:
    file = safe_file(folder, ADAPTER_WEIGHTS, max_bytes=None)
    if file is None:
        raise CheckpointError(f"{folder}: has adapter_config.json but no {ADAPTER_WEIGHTS}")
    named = adapter.get("base_model_name_or_path")
    if base is None and not (isinstance(named, str) and named):
        raise CheckpointError(f"{folder}: the adapter does not name its base model; name it with --base")
    source = _open_base(base or str(named))
    return _replaced(source, folder, "adapter", (file,), source.names, source.config, source)


def _open_base(base: str | Path) -> Checkpoint:
    folder = locate(base)
    raw = read_object(folder, "config.json")
    if raw is None or read_object(folder, "adapter_config.json") is not None:
        raise CheckpointError(f"{folder}: cannot be a base model: it needs config.json and weights of its own")
    return _open_full(folder, raw)


def _replaced(
    source: Checkpoint,
    folder: Path,
    layout: str,
    files: tuple[Path, ...],
    names: str,
    config: dict[str, Any],
    base: Checkpoint | None,
) -> Checkpoint:
    """`source` with the weights of `folder`, and with that folder's labels where it has them."""
    labels, most = _labels(folder)
    return Checkpoint(
        path=folder,
        layout=layout,
        config=config,
        image_size=source.image_size,
        image_mean=source.image_mean,
        image_std=source.image_std,
        max_new_tokens=most or source.max_new_tokens,
        weights=files,
        names=names,
        files=source.files,
        labels=labels,
        calibration=_calibration(folder, labels),
        generation=source.generation,
        base=base,
    )
