"""The configuration of a Florence-2: read from either layout, checked, and written for either loader.

Inside the package a configuration is always native: a plain dictionary with the keys of transformers'
Florence2Config. Only the fields listed here are read, so nothing else in a config.json reaches a library, and every
number has bounds, so that no config.json can ask for more memory than a Florence-2 can need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from .remote_code import AUTO_MAP

JsonObject = dict[str, Any]
# field: (default, lowest, highest); the defaults are those of transformers' BartConfig and Florence2VisionConfig.
_TEXT_NUMBERS: dict[str, tuple[float, float, float]] = {
    "vocab_size": (51289, 1010, 1_000_000),
    "max_position_embeddings": (1024, 8, 65_536),
    "d_model": (1024, 8, 8192),
    "encoder_layers": (12, 1, 96),
    "decoder_layers": (12, 1, 96),
    "encoder_attention_heads": (16, 1, 256),
    "decoder_attention_heads": (16, 1, 256),
    "encoder_ffn_dim": (4096, 8, 65_536),
    "decoder_ffn_dim": (4096, 8, 65_536),
    "dropout": (0.1, 0, 0.99),
    "attention_dropout": (0.0, 0, 0.99),
    "activation_dropout": (0.0, 0, 0.99),
    "encoder_layerdrop": (0.0, 0, 0.99),
    "decoder_layerdrop": (0.0, 0, 0.99),
    "classifier_dropout": (0.0, 0, 0.99),
    "init_std": (0.02, 0, 10),
    "bos_token_id": (0, 0, 999_999),
    "pad_token_id": (1, 0, 999_999),
    "eos_token_id": (2, 0, 999_999),
    "decoder_start_token_id": (2, 0, 999_999),
    "forced_eos_token_id": (2, 0, 999_999),
}
_VISION_NUMBERS: dict[str, tuple[float, float, float]] = {
    "in_channels": (3, 3, 3),
    "window_size": (12, 1, 64),
    "drop_path_rate": (0.1, 0, 0.99),
    "mlp_ratio": (4.0, 0.25, 16),
    "projection_dim": (1024, 8, 8192),
    "max_temporal_embeddings": (100, 1, 10_000),
    "max_position_embeddings": (50, 1, 1024),
    "initializer_range": (0.02, 0, 10),
}
_FRACTIONS = ("drop", "init_", "initializer", "mlp_ratio")
_STAGES: dict[str, tuple[tuple[int, ...], int, int]] = {
    "depths": ((1, 1, 9, 1), 1, 64),
    "patch_size": ((7, 3, 3, 3), 1, 64),
    "patch_stride": ((4, 2, 2, 2), 1, 64),
    "patch_padding": ((3, 1, 1, 1), 0, 32),
    "embed_dim": ((128, 256, 512, 1024), 8, 16_384),
    "num_heads": ((4, 8, 16, 32), 1, 512),
    "num_groups": ((4, 8, 16, 32), 1, 512),
}
_ACTIVATIONS = ("gelu", "relu", "silu", "gelu_new")
# What Microsoft's remote code reads in text_config; BartConfig of transformers 5 has no field for these.
GENERATION_FIELDS: dict[str, tuple[float, float, float]] = {
    "num_beams": (1, 1, 64),
    "no_repeat_ngram_size": (0, 0, 64),
    "forced_bos_token_id": (0, 0, 999_999),
    "forced_eos_token_id": (2, 0, 999_999),
    "max_new_tokens": (1024, 1, 65_536),
}
_MAX_PARAMETERS = 4_000_000_000


class _Reader:
    """Takes checked fields out of one JSON object; every problem names the file and the field."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise CheckpointError(f"{where}: must be a JSON object, not {type(value).__name__}")
        self.value = value
        self.where = where

    def fail(self, field: str, why: str) -> CheckpointError:
        return CheckpointError(f"{self.where}.{field}: {why}")

    def number(self, field: str, default: float, low: float, high: float) -> float:
        found = self.value.get(field)
        if found is None:
            return default
        whole = not field.startswith(_FRACTIONS) and "drop" not in field
        kinds = int if whole else int | float
        if isinstance(found, bool) or not isinstance(found, kinds) or not math.isfinite(found):
            raise self.fail(field, f"{_shown(found)} is not {'a whole' if whole else 'a finite'} number")
        if not low <= found <= high:
            raise self.fail(field, f"{_shown(found)} is outside {low}..{high}")
        return found

    def numbers(self, bounds: Mapping[str, tuple[float, float, float]]) -> JsonObject:
        return {field: self.number(field, *limits) for field, limits in bounds.items()}

    def stages(self, field: str, default: tuple[int, ...], low: int, high: int) -> list[int]:
        found = self.value.get(field, list(default))
        if not isinstance(found, list) or not 1 <= len(found) <= 8:
            raise self.fail(field, "must be a list with one number for each stage")
        inner = _Reader({str(index): item for index, item in enumerate(found)}, f"{self.where}.{field}")
        return [int(inner.number(str(index), low, low, high)) for index in range(len(found))]

    def flag(self, field: str, default: bool) -> bool:
        found = self.value.get(field, default)
        if not isinstance(found, bool):
            raise self.fail(field, f"{_shown(found)} is neither true nor false")
        return found

    def choice(self, field: str, choices: tuple[str, ...]) -> str:
        found = self.value.get(field, choices[0])
        if found not in choices:
            raise self.fail(field, f"{_shown(found)} is none of {', '.join(choices)}")
        return str(found)


def _shown(value: Any) -> str:
    return repr(value)[:60]


def native_config(raw: Any, where: str = "config.json") -> JsonObject:
    """The native configuration in a parsed config.json of either layout, with every field checked.

    `image_token_id` is taken as it is written (Microsoft's files have none: then it is the first free id, the
    vocabulary's size). Raises CheckpointError naming the field that is missing, unknown or out of bounds.
    """
    top = _Reader(raw, where)
    if raw.get("model_type") != "florence2":
        raise CheckpointError(
            f"{where}: model_type is {_shown(raw.get('model_type'))}, not 'florence2'; this is not a Florence-2 model"
        )
    if not {"text_config", "vision_config"} <= set(raw):
        raise CheckpointError(f"{where}: has no text_config and vision_config; use the model's original config.json")
    text = _text(_Reader(raw["text_config"], f"{where}: text_config"))
    vision = _vision(_Reader(raw["vision_config"], f"{where}: vision_config"))
    config = {
        "architectures": ["Florence2ForConditionalGeneration"],
        "model_type": "florence2",
        "is_encoder_decoder": True,
        "image_token_id": int(top.number("image_token_id", text["vocab_size"], 0, 1_000_000)),
        "tie_word_embeddings": top.flag("tie_word_embeddings", True),
        "text_config": text,
        "vision_config": vision,
    }
    if vision["projection_dim"] != text["d_model"]:
        raise CheckpointError(
            f"{where}: vision_config.projection_dim is {vision['projection_dim']} but text_config.d_model is "
            f"{text['d_model']}; they must be equal"
        )
    if parameters_at_least(config) > _MAX_PARAMETERS:
        raise CheckpointError(f"{where}: describes a model of more than {_MAX_PARAMETERS:,} parameters")
    return config


def _text(reader: _Reader) -> JsonObject:
    text = reader.numbers(_TEXT_NUMBERS)
    for side in ("encoder", "decoder"):
        if text["d_model"] % text[f"{side}_attention_heads"]:
            raise reader.fail(f"{side}_attention_heads", "does not divide d_model")
    return {
        "model_type": "bart",
        **text,
        "activation_function": reader.choice("activation_function", _ACTIVATIONS),
        "scale_embedding": reader.flag("scale_embedding", False),
        "is_encoder_decoder": True,
    }


def _vision(reader: _Reader) -> JsonObject:
    reader = _Reader(_with_native_names(reader), reader.where)
    stages = {field: reader.stages(field, *limits) for field, limits in _STAGES.items()}
    prenorm = reader.value.get("patch_prenorm", [False, True, True, True])
    if not isinstance(prenorm, list) or not all(isinstance(item, bool) for item in prenorm):
        raise reader.fail("patch_prenorm", "must be a list of true and false, one for each stage")
    stages["patch_prenorm"] = prenorm
    if len({len(values) for values in stages.values()}) != 1:
        raise reader.fail("/".join(stages), "must have one entry for each stage, but their lengths differ")
    for width, heads, groups in zip(stages["embed_dim"], stages["num_heads"], stages["num_groups"], strict=True):
        if width % heads or width % groups:
            raise reader.fail("num_heads/num_groups", f"{heads} and {groups} must divide the stage's width {width}")
    return {
        "model_type": "florence_vision",
        **stages,
        **reader.numbers(_VISION_NUMBERS),
        "qkv_bias": reader.flag("qkv_bias", True),
        "activation_function": reader.choice("activation_function", _ACTIVATIONS),
    }


def _with_native_names(reader: _Reader) -> JsonObject:
    """Microsoft's names of the tower's fields turned into the native ones; native ones are left as they are."""
    found = dict(reader.value)
    if "dim_embed" in found:
        found["embed_dim"] = found["dim_embed"]
    for group, theirs, ours in (
        ("image_pos_embed", "max_pos_embeddings", "max_position_embeddings"),
        ("visual_temporal_embedding", "max_temporal_embeddings", "max_temporal_embeddings"),
    ):
        if isinstance(found.get(group), Mapping) and theirs in found[group]:
            found[ours] = found[group][theirs]
    if found.get("image_feature_source", list(_FEATURE_SOURCE)) != list(_FEATURE_SOURCE):
        raise reader.fail("image_feature_source", f"only {list(_FEATURE_SOURCE)} is supported")
    return found


_FEATURE_SOURCE = ("spatial_avg_pool", "temporal_avg_pool")


def parameters_at_least(config: JsonObject) -> int:
    """A lower bound of the parameter count from the sizes alone, cheap enough for a hostile config.json."""
    text, vision = config["text_config"], config["vision_config"]
    width = text["d_model"]
    layers = sum(text[f"{side}_layers"] * (4 * width + 2 * text[f"{side}_ffn_dim"]) for side in ("encoder", "decoder"))
    tower = sum(
        depth * 2 * int((4 + 2 * vision["mlp_ratio"]) * size**2)
        for depth, size in zip(vision["depths"], vision["embed_dim"], strict=True)
    )
    return int(width * (text["vocab_size"] + layers) + tower)


def generation_settings(raw: Any, where: str) -> JsonObject:
    """The generation settings in a parsed generation_config.json or in Microsoft's text_config; only what is there."""
    reader = _Reader(raw, where)
    found = {field: value for field, value in reader.numbers(GENERATION_FIELDS).items() if raw.get(field) is not None}
    if isinstance(raw.get("early_stopping"), bool):
        found["early_stopping"] = raw["early_stopping"]
    return found


def microsoft_config(config: JsonObject, generation: JsonObject) -> JsonObject:
    """The config.json that Microsoft's remote code wants, from a native configuration.

    auto_map names AutoConfig and AutoModelForCausalLM only, the tower's model_type is "davit" and text_config has
    none: the remote code asserts the first and transformers 5 refuses "florence2_language".
    """
    text = {key: value for key, value in config["text_config"].items() if key != "model_type"}
    native = dict(config["vision_config"])
    vision = {
        "model_type": "davit",
        "dim_embed": native.pop("embed_dim"),
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": native.pop("max_position_embeddings")},
        "visual_temporal_embedding": {
            "type": "COSINE",
            "max_temporal_embeddings": native.pop("max_temporal_embeddings"),
        },
        "image_feature_source": list(_FEATURE_SOURCE),
        "enable_checkpoint": False,
    }
    for field in ("model_type", "in_channels", "activation_function", "initializer_range", "mlp_ratio", "qkv_bias"):
        native.pop(field)
    settings = {key: value for key, value in generation.items() if key != "max_new_tokens"}
    return {
        "architectures": ["Florence2ForConditionalGeneration"],
        "auto_map": dict(AUTO_MAP),
        "model_type": "florence2",
        "bos_token_id": text["bos_token_id"],
        "eos_token_id": text["eos_token_id"],
        "pad_token_id": text["pad_token_id"],
        "ignore_index": -100,
        "is_encoder_decoder": True,
        "projection_dim": config["vision_config"]["projection_dim"],
        "vocab_size": text["vocab_size"],
        "text_config": {**text, "num_hidden_layers": text["encoder_layers"], **settings},
        "vision_config": {**vision, **native},
    }
