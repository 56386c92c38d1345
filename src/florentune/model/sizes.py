"""The three sizes of Florence-2 as native configurations (the keys of transformers' Florence2Config).

base and large are Microsoft's published sizes; nano is the small one that ships with this package.
"""

from __future__ import annotations

import copy
from typing import Any

_TEXT = {
    "model_type": "bart",
    "activation_function": "gelu",
    "attention_dropout": 0.1,
    "activation_dropout": 0.1,
    "dropout": 0.1,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
    "is_encoder_decoder": True,
    "scale_embedding": False,
    "max_position_embeddings": 1024,
}
_VISION = {
    "model_type": "florence_vision",
    "depths": [1, 1, 9, 1],
    "patch_size": [7, 3, 3, 3],
    "patch_stride": [4, 2, 2, 2],
    "patch_padding": [3, 1, 1, 1],
    "patch_prenorm": [False, True, True, True],
    "window_size": 12,
    "drop_path_rate": 0.1,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "max_position_embeddings": 50,
    "max_temporal_embeddings": 100,
}


def _size(image_size: int, text: dict[str, Any], vision: dict[str, Any]) -> dict[str, Any]:
    width = text["d_model"]
    layers, heads, ffn = text.pop("layers"), text.pop("heads"), text.pop("ffn")
    encoder_layers, decoder_layers = layers
    return {
        "image_size": image_size,
        "text_config": {
            **_TEXT,
            "encoder_layers": encoder_layers,
            "decoder_layers": decoder_layers,
            "encoder_attention_heads": heads,
            "decoder_attention_heads": heads,
            "encoder_ffn_dim": ffn,
            "decoder_ffn_dim": ffn,
            **text,
        },
        "vision_config": {**_VISION, "projection_dim": width, **vision},
    }


_SIZES = {
    "nano": _size(
        576,
        {
            "d_model": 256,
            "layers": (2, 3),
            "heads": 8,
            "ffn": 512,
            "encoder_ffn_dim": 768,
            "vocab_size": 3072,
            "max_position_embeddings": 512,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
        },
        {
            "embed_dim": [64, 128, 256, 256],
            "num_heads": [2, 4, 8, 8],
            "num_groups": [2, 4, 8, 8],
            "depths": [1, 1, 3, 1],
            "patch_stride": [8, 2, 2, 1],
            "window_size": 6,
            "drop_path_rate": 0.0,
        },
    ),
    "base": _size(
        768,
        {"d_model": 768, "layers": (6, 6), "heads": 12, "ffn": 3072, "vocab_size": 51289},
        {"embed_dim": [128, 256, 512, 1024], "num_heads": [4, 8, 16, 32], "num_groups": [4, 8, 16, 32]},
    ),
    "large": _size(
        768,
        {"d_model": 1024, "layers": (12, 12), "heads": 16, "ffn": 4096, "vocab_size": 51289},
        {"embed_dim": [256, 512, 1024, 2048], "num_heads": [8, 16, 32, 64], "num_groups": [8, 16, 32, 64]},
    ),
}
SIZE_NAMES = tuple(_SIZES)


def size_config(name: str) -> dict[str, Any]:
    """A fresh native configuration: {"image_size", "text_config", "vision_config"}; KeyError for an unknown size.

    `image_size` is the side in pixels of the square the processor resizes pages to; it is not a key of the model.
    """
    return copy.deepcopy(_SIZES[name])
