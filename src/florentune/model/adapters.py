"""LoRA adapters of peft: read by their weights, attached to the native model and merged into it.

Which modules an adapter changes, and with which rank, is in the names and shapes of its weights; its configuration
gives only the scale. So an adapter trained on Microsoft's layout fits too: its names are translated first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import safe_open
from transformers import Florence2ForConditionalGeneration

from ..errors import CheckpointError, MissingExtraError
from . import layouts
from .checkpoint import Checkpoint
from .weights import Tensor, read_headers, read_object

_PREFIX = "base_model.model."
_PART = re.compile(r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_magnitude_vector)(\.weight)?")
# Settings that change the base's weights or the forward pass in ways that merging lora_B x lora_A does not cover.
_UNSUPPORTED = (
    "layer_replication",
    "lora_bias",
    "alora_invocation_tokens",
    "trainable_token_indices",
    "megatron_config",
)
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
_HIGHEST_RANK = 2048
_SHARED = ("lm_head", layouts.EMBEDDING.removesuffix(".weight"))


def merge_adapter(
    model: Florence2ForConditionalGeneration, checkpoint: Checkpoint
) -> Florence2ForConditionalGeneration:
    """The model with the adapter's change added to its weights; no trace of peft is left in it.

    Raises CheckpointError when the adapter is not a LoRA or does not fit the model (a base/large mix-up).
    """
    try:
        from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    except ImportError:
        raise MissingExtraError("peft", "train") from None
    names = _native_names(read_headers(checkpoint.weights), checkpoint)
    lora = {name: tensor for name, tensor in names.items() if _PART.fullmatch(name)}
    _untie(model, names)
    _check_fit(model, names, checkpoint)
    weights = {name: _with_image_row(name, tensor, model) for name, tensor in _read(checkpoint, names).items()}
    model.load_state_dict({name: weights[name] for name in names if name not in lora}, strict=False)
    if not lora:
        return model
    try:
        wrapped = get_peft_model(model, LoraConfig(**lora_settings(lora, checkpoint)))
        set_peft_model_state_dict(wrapped, {_PREFIX + _with_suffix(name): weights[name] for name in lora})
        return wrapped.merge_and_unload()
    except (ValueError, NotImplementedError) as error:  # for example LoRA on the tower's depthwise convolutions
        raise CheckpointError(f"{checkpoint.path}: peft cannot merge this adapter ({str(error)[:200]})") from None


def lora_settings(lora: Mapping[str, Tensor], checkpoint: Checkpoint) -> dict[str, Any]:
    """The arguments of peft's LoraConfig: modules and ranks from the weights, the scale from adapter_config.json."""
    where = checkpoint.path / "adapter_config.json"
    settings = read_object(checkpoint.path, where.name) or {}
    if settings.get("peft_type") != "LORA":
        raise CheckpointError(f"{where}: peft_type is {settings.get('peft_type')!r:.40}; only LORA adapters are read")
    blocking = [field for field in _UNSUPPORTED if settings.get(field)]
    if settings.get("init_lora_weights", True) not in _PLAIN_STARTS:
        blocking.append("init_lora_weights")
    if blocking:
        raise CheckpointError(f"{where}: {blocking[0]} is not supported; merge the adapter with peft where it was made")
    patterns = settings.get("alpha_pattern") or {}
    alpha = _alpha(settings.get("lora_alpha"), where)
    if not isinstance(patterns, dict):
        raise CheckpointError(f"{where}: alpha_pattern must be a JSON object")
    ranks = {_module(name): tensor.shape[0] for name, tensor in lora.items() if _part(name) == "lora_A"}
    alphas = {
        module: _alpha(value, where)
        for module in ranks
        for key, value in patterns.items()
        if f".{module}".endswith(f".{key}")
    }
    return {
        "target_modules": sorted(ranks),
        "r": min(ranks.values()),
        "rank_pattern": ranks,
        "lora_alpha": alpha,
        "alpha_pattern": alphas,
        "use_rslora": bool(settings.get("use_rslora")),
        "use_dora": bool(settings.get("use_dora")),
    }


def _alpha(value: Any, where: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CheckpointError(f"{where}: lora_alpha must be a finite number, not {value!r:.40}")
    return value


def _module(name: str) -> str:
    match = _PART.fullmatch(name)
    return match["module"] if match else name.rpartition(".")[0]


def _part(name: str) -> str | None:
    match = _PART.fullmatch(name)
    return match["part"] if match else None


def _with_suffix(name: str) -> str:
    return name if name.endswith(".weight") else f"{name}.weight"


def _native_names(tensors: Mapping[str, Tensor], checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The adapter's tensors by native names without peft's prefix, whichever layout it was trained on."""
    # peft writes the weight of an adapted lm_head or embedding beside its adapter, as `base_layer`.
    bare = {name.removeprefix(_PREFIX).replace(".base_layer.", "."): tensor for name, tensor in tensors.items()}
    if len(bare) != len(tensors):
        raise CheckpointError(f"{checkpoint.path}: two of the adapter's weights have one name")
    native = layouts.layout_of(bare) != "microsoft" and not any(name.startswith("language_model.") for name in bare)
    found = {}
    for name, tensor in bare.items():
        module, part = _module(name), _part(name)
        translated = f"{module}.weight" if native else layouts.to_native(f"{module}.weight")
        if translated is None or "lora_embedding" in name:
            raise CheckpointError(f"{checkpoint.path}: the adapter's {name} has no place in a Florence-2")
        rest = part if part else name.rpartition(".")[2]
        found[f"{translated.removesuffix('.weight')}.{rest}"] = tensor
    return found


def _untie(model: Florence2ForConditionalGeneration, names: Mapping[str, Tensor]) -> None:
    """Give lm_head a copy of its own when the adapter changes it or the embedding alone: merged, they differ."""
    if {_module(name) for name in names} & set(_SHARED) and model.config.tie_word_embeddings:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        model.config.tie_word_embeddings = False


def _check_fit(model: Florence2ForConditionalGeneration, names: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, tensor in names.items():
        module, part = _module(name), _part(name)
        target = shapes.get(f"{module}.weight" if part else name)
        if target is None:
            raise CheckpointError(f"{checkpoint.path}: the adapter changes {module}, which the model does not have")
        if not (_fits(part, tensor.shape, target) or _lacks_image_row(module, part, tensor.shape, target)):
            raise CheckpointError(
                f"{checkpoint.path}: the adapter's {name} is {tensor.shape} and does not fit a weight of {target}; "
                "it was trained on another size of model: name its own with --base"
            )
        if part and not {f"{module}.lora_A", f"{module}.lora_B"} <= names.keys():
            raise CheckpointError(f"{checkpoint.path}: the adapter has only one half of {module}")


def _lacks_image_row(module: str, part: str | None, shape: layouts.Shape, target: layouts.Shape) -> bool:
    """An adapter of lm_head made before the vocabulary had a row for the image token."""
    return module in _SHARED and part in ("lora_B", None) and shape[0] + 1 == target[0]


def _fits(part: str | None, shape: layouts.Shape, target: layouts.Shape) -> bool:
    if part == "lora_A":
        return shape[1:] == target[1:] and 1 <= shape[0] <= _HIGHEST_RANK
    if part == "lora_B":
        return shape[0] == target[0] and len(shape) == len(target)
    if part == "lora_magnitude_vector":
        return math.prod(shape) == target[0]
    return shape == target


def _with_image_row(name: str, tensor: torch.Tensor, model: Florence2ForConditionalGeneration) -> torch.Tensor:
    """The tensor with a last row for the image token where it lacks one: no change in an adapter, `<unk>`'s in full."""
    rows = model.config.text_config.vocab_size
    if _module(name) not in _SHARED or _part(name) == "lora_A" or tensor.shape[0] != rows - 1:
        return tensor
    return torch.cat([tensor, torch.zeros_like(tensor[:1]) if _part(name) else tensor[3:4]])


def _read(checkpoint: Checkpoint, names: Mapping[str, Tensor]) -> dict[str, torch.Tensor]:
    (file,) = checkpoint.weights
    with safe_open(file, framework="pt") as tensors:
        keys = dict(zip(names, read_headers((file,)), strict=True))
        return {name: tensors.get_tensor(key) for name, key in keys.items()}
