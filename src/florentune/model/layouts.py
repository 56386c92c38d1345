"""The names of a Florence-2's weights, in transformers' own layout ("native") and in Microsoft's.

The table below is the whole translation, read in both directions. The shapes follow from the configuration, so a file
of weights can be judged by its header alone, before anything is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

Shape = tuple[int, ...]

EMBEDDING = "model.language_model.shared.weight"
HEAD = "lm_head.weight"
PROJECTION = "model.multi_modal_projector.image_projection.weight"
# The word embedding under the names a file may give it; accelerate keeps whichever of them comes first.
EMBEDDING_ALIASES = (
    EMBEDDING,
    "model.language_model.encoder.embed_tokens.weight",
    "model.language_model.decoder.embed_tokens.weight",
)
MICROSOFT_HEAD = "language_model.lm_head.weight"
MICROSOFT_BIAS = "language_model.final_logits_bias"

_TOWER = r"vision_tower\.blocks\.(\d+\.\d+)\.(spatial_block|channel_block)\."
_NATIVE_TOWER = r"model\.vision_tower\.blocks\.(\d+\.\d+)\.(spatial_block|channel_block)\."
_PROJECTOR = "model.multi_modal_projector."
# Microsoft pattern and what it becomes, native pattern and what it becomes. The whole prefix of a name must match.
_TABLE: tuple[tuple[str, str, str, str], ...] = (
    (r"language_model\.lm_head\.", "lm_head.", r"lm_head\.", "language_model.lm_head."),
    (r"language_model\.model\.", "model.language_model.", r"model\.language_model\.", "language_model.model."),
    (r"image_projection$", PROJECTION, re.escape(PROJECTION) + "$", "image_projection"),
    (
        r"image_proj_norm\.",
        f"{_PROJECTOR}image_proj_norm.",
        re.escape(f"{_PROJECTOR}image_proj_norm."),
        "image_proj_norm.",
    ),
    (
        r"image_pos_embed\.",
        f"{_PROJECTOR}image_position_embed.",
        re.escape(f"{_PROJECTOR}image_position_embed."),
        "image_pos_embed.",
    ),
    (
        r"visual_temporal_embed\.",
        f"{_PROJECTOR}visual_temporal_embed.",
        re.escape(f"{_PROJECTOR}visual_temporal_embed."),
        "visual_temporal_embed.",
    ),
    (
        r"vision_tower\.convs\.(\d+)\.proj\.",
        r"model.vision_tower.convs.\1.conv.",
        r"model\.vision_tower\.convs\.(\d+)\.conv\.",
        r"vision_tower.convs.\1.proj.",
    ),
    (
        r"vision_tower\.convs\.(\d+)\.norm\.",
        r"model.vision_tower.convs.\1.norm.",
        r"model\.vision_tower\.convs\.(\d+)\.norm\.",
        r"vision_tower.convs.\1.norm.",
    ),
    (
        _TOWER + r"(conv[12])\.fn\.dw\.",
        r"model.vision_tower.blocks.\1.\2.\3.",
        _NATIVE_TOWER + r"(conv[12])\.",
        r"vision_tower.blocks.\1.\2.\3.fn.dw.",
    ),
    (
        _TOWER + r"(window_attn|channel_attn)\.fn\.(qkv|proj)\.",
        r"model.vision_tower.blocks.\1.\2.\3.\4.",
        _NATIVE_TOWER + r"(window_attn|channel_attn)\.(qkv|proj)\.",
        r"vision_tower.blocks.\1.\2.\3.fn.\4.",
    ),
    (
        r"vision_tower\.blocks\.(\d+\.\d+)\.spatial_block\.window_attn\.norm\.",
        r"model.vision_tower.blocks.\1.spatial_block.norm1.",
        r"model\.vision_tower\.blocks\.(\d+\.\d+)\.spatial_block\.norm1\.",
        r"vision_tower.blocks.\1.spatial_block.window_attn.norm.",
    ),
    (
        r"vision_tower\.blocks\.(\d+\.\d+)\.channel_block\.channel_attn\.norm\.",
        r"model.vision_tower.blocks.\1.channel_block.norm1.",
        r"model\.vision_tower\.blocks\.(\d+\.\d+)\.channel_block\.norm1\.",
        r"vision_tower.blocks.\1.channel_block.channel_attn.norm.",
    ),
    (
        _TOWER + r"ffn\.norm\.",
        r"model.vision_tower.blocks.\1.\2.norm2.",
        _NATIVE_TOWER + r"norm2\.",
        r"vision_tower.blocks.\1.\2.ffn.norm.",
    ),
    (
        _TOWER + r"ffn\.fn\.net\.(fc[12])\.",
        r"model.vision_tower.blocks.\1.\2.ffn.\3.",
        _NATIVE_TOWER + r"ffn\.(fc[12])\.",
        r"vision_tower.blocks.\1.\2.ffn.fn.net.\3.",
    ),
)
_TO_NATIVE = tuple((re.compile(theirs), ours) for theirs, ours, _, _ in _TABLE)
_TO_MICROSOFT = tuple((re.compile(ours), theirs) for _, _, ours, theirs in _TABLE)


def to_native(name: str) -> str | None:
    """The native name of a weight that Microsoft's layout calls `name`; None when the layout has no such weight.

    `image_projection` is also transposed: (in, out) there, (out, in) here.
    """
    return _renamed(name, _TO_NATIVE)


def to_microsoft(name: str) -> str | None:
    """The name Microsoft's layout gives a native weight; None when there is no such weight. Inverse of to_native."""
    return _renamed(name, _TO_MICROSOFT)


def _renamed(name: str, table: tuple[tuple[re.Pattern[str], str], ...]) -> str | None:
    for pattern, replacement in table:
        if pattern.match(name):
            return pattern.sub(replacement, name, count=1)
    return None


def layout_of(names: Iterable[str]) -> str | None:
    """ "native" or "microsoft" by the names of the weights; None when they are no Florence-2 at all."""
    for name in names:
        if name.startswith(("model.vision_tower.", "model.language_model.")):
            return "native"
        if name.startswith(("vision_tower.", "language_model.")):
            return "microsoft"
    return None


def native_shapes(config: dict[str, Any]) -> dict[str, Shape]:
    """Name and shape of every weight of a native model of that configuration; a tied lm_head is not among them.

    In the order of the model's own state dictionary, as far as the file format cares (it does not).
    """
    shapes = {**_tower_shapes(config["vision_config"]), **_projector_shapes(config["vision_config"])}
    shapes |= _text_shapes(config["text_config"])
    if not config["tie_word_embeddings"]:
        shapes[HEAD] = shapes[EMBEDDING]
    return shapes


def microsoft_shapes(config: dict[str, Any]) -> dict[str, Shape]:
    """The same in Microsoft's layout, where a separate lm_head is always written and the projection transposed."""
    shapes = native_shapes(config)
    shapes[HEAD] = shapes[EMBEDDING]
    shapes[PROJECTION] = shapes[PROJECTION][::-1]
    found = {to_microsoft(name) or name: shape for name, shape in shapes.items()}
    found[MICROSOFT_BIAS] = (1, config["text_config"]["vocab_size"])
    return found


def _linear(name: str, width_in: int, width_out: int, bias: bool = True) -> dict[str, Shape]:
    return {f"{name}.weight": (width_out, width_in), **({f"{name}.bias": (width_out,)} if bias else {})}


def _norm(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _tower_shapes(vision: dict[str, Any]) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    widths = vision["embed_dim"]
    for stage, width in enumerate(widths):
        before = widths[stage - 1] if stage else vision["in_channels"]
        size = vision["patch_size"][stage]
        conv = f"model.vision_tower.convs.{stage}"
        shapes |= {f"{conv}.conv.weight": (width, before, size, size), f"{conv}.conv.bias": (width,)}
        shapes |= _norm(f"{conv}.norm", before if vision["patch_prenorm"][stage] else width)
        for depth in range(vision["depths"][stage]):
            for block, attention in (("spatial_block", "window_attn"), ("channel_block", "channel_attn")):
                name = f"model.vision_tower.blocks.{stage}.{depth}.{block}"
                shapes |= _block_shapes(name, attention, width, vision)
    return shapes


def _block_shapes(name: str, attention: str, width: int, vision: dict[str, Any]) -> dict[str, Shape]:
    hidden = int(width * vision["mlp_ratio"])
    shapes: dict[str, Shape] = {}
    for index in (1, 2):
        shapes |= {f"{name}.conv{index}.weight": (width, 1, 3, 3), f"{name}.conv{index}.bias": (width,)}
        shapes |= _norm(f"{name}.norm{index}", width)
    shapes |= _linear(f"{name}.{attention}.qkv", width, 3 * width, vision["qkv_bias"])
    shapes |= _linear(f"{name}.{attention}.proj", width, width)
    shapes |= _linear(f"{name}.ffn.fc1", width, hidden) | _linear(f"{name}.ffn.fc2", hidden, width)
    return shapes


def _projector_shapes(vision: dict[str, Any]) -> dict[str, Shape]:
    width, positions = vision["embed_dim"][-1], vision["max_position_embeddings"]
    embed = f"{_PROJECTOR}image_position_embed"
    return {
        PROJECTION: (vision["projection_dim"], width),
        **_norm(f"{_PROJECTOR}image_proj_norm", vision["projection_dim"]),
        f"{embed}.row_embeddings.weight": (positions, width // 2),
        f"{embed}.column_embeddings.weight": (positions, width - width // 2),
        f"{_PROJECTOR}visual_temporal_embed.pos_idx_to_embed": (vision["max_temporal_embeddings"], width),
    }


def _text_shapes(text: dict[str, Any]) -> dict[str, Shape]:
    width = text["d_model"]
    shapes: dict[str, Shape] = {EMBEDDING: (text["vocab_size"], width)}
    for side in ("encoder", "decoder"):
        top = f"model.language_model.{side}"
        # BART's learned positions start at 2, so the table has two rows more than positions.
        shapes[f"{top}.embed_positions.weight"] = (text["max_position_embeddings"] + 2, width)
        shapes |= _norm(f"{top}.layernorm_embedding", width)
        for index in range(text[f"{side}_layers"]):
            layer = f"{top}.layers.{index}"
            for attention in ("self_attn", "encoder_attn")[: 1 if side == "encoder" else 2]:
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    shapes |= _linear(f"{layer}.{attention}.{part}", width, width)
                shapes |= _norm(f"{layer}.{attention}_layer_norm", width)
            hidden = text[f"{side}_ffn_dim"]
            shapes |= _linear(f"{layer}.fc1", width, hidden) | _linear(f"{layer}.fc2", hidden, width)
            shapes |= _norm(f"{layer}.final_layer_norm", width)
    return shapes
