"""The tower as an ONNX graph: DaViT and the projector, from pixels to image tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx

from ..errors import CheckpointError
from .graph import Graph, Weights, floats, heads_attention, heads_first, keys_first, model


def vision_encoder(
    weights: Weights, config: Mapping[str, Any], image_size: tuple[int, int], precision: str = "fp32"
) -> onnx.ModelProto:
    """pixel_values (batch, 3, height, width) to image_features (batch, tokens, d_model): DaViT and the projector."""
    graph, vision = Graph(weights, precision), config["vision_config"]
    height, width = image_size
    image = "pixel_values"
    for stage, depth in enumerate(vision["depths"]):
        image, (height, width) = _embed_patches(graph, image, vision, stage, (height, width))
        for index in range(depth):
            name = f"model.vision_tower.blocks.{stage}.{index}"
            image = _spatial_block(graph, image, f"{name}.spatial_block", vision, stage, (height, width))
            image = _channel_block(graph, image, f"{name}.channel_block", vision, stage, (height, width))
    features = _project(graph, image, vision, (height, width))
    graph.rename(features, "image_features")
    pixels = floats("pixel_values", "batch", 3, *image_size)
    out = floats("image_features", "batch", height * width + 1, vision["projection_dim"])
    return model(graph, "vision_encoder", [pixels], [out])


def _embed_patches(
    graph: Graph, image: str, vision: Mapping[str, Any], stage: int, size: tuple[int, int]
) -> tuple[str, tuple[int, int]]:
    name, is_first_norm = f"model.vision_tower.convs.{stage}", vision["patch_prenorm"][stage]
    patch, stride, padding = (vision[f"patch_{key}"][stage] for key in ("size", "stride", "padding"))
    if is_first_norm:
        image = _normalised(graph, image, f"{name}.norm")
    height, width = ((side + 2 * padding - patch) // stride + 1 for side in size)
    # Pixels keep their precision: the first convolution is a hundredth of the work.
    if graph.precision == "int8" and stage:
        rows = graph.integer_patches(
            graph.transpose(image, 0, 2, 3, 1), f"{name}.conv", (height, width), stride, padding
        )
        image = _image(graph, rows, (height, width), vision["embed_dim"][stage])
    else:
        kernel, bias = graph.weight(f"{name}.conv.weight"), graph.weight(f"{name}.conv.bias")
        settings: dict[str, Any] = {"strides": [stride] * 2, "pads": [padding] * 4, "kernel_shape": [patch] * 2}
        image = graph.op("Conv", image, kernel, bias, **settings)
    if not is_first_norm:
        image = _normalised(graph, image, f"{name}.norm")
    return image, (height, width)


def _normalised(graph: Graph, image: str, name: str) -> str:
    return graph.transpose(graph.norm(graph.transpose(image, 0, 2, 3, 1), name), 0, 3, 1, 2)


def _mixed(graph: Graph, image: str, name: str, channels: int) -> str:
    """image + depthwise 3 x 3 convolution of it, as one convolution, given as rows of tokens (batch * h * w, c)."""
    kernel = graph.weights[f"{name}.weight"].copy()
    kernel[:, :, 1, 1] += 1.0
    bias = graph.weight(f"{name}.bias")
    pads, shape = [1] * 4, [3, 3]
    mixed = graph.op(
        "Conv", image, graph.weight(f"{name}.kernel", kernel), bias, group=channels, pads=pads, kernel_shape=shape
    )
    return graph.reshape(graph.transpose(mixed, 0, 2, 3, 1), -1, channels)


def _image(graph: Graph, rows: str, size: tuple[int, int], channels: int) -> str:
    return graph.transpose(graph.reshape(rows, -1, *size, channels), 0, 3, 1, 2)


def _spatial_block(
    graph: Graph, image: str, name: str, vision: Mapping[str, Any], stage: int, size: tuple[int, int]
) -> str:
    def attend(rows: str) -> str:
        return _window_attention(graph, rows, f"{name}.window_attn", vision, stage, size)

    return _block(graph, image, name, attend, vision["embed_dim"][stage], size)


def _channel_block(
    graph: Graph, image: str, name: str, vision: Mapping[str, Any], stage: int, size: tuple[int, int]
) -> str:
    channels = vision["embed_dim"][stage]

    def attend(rows: str) -> str:
        return _channel_attention(graph, rows, f"{name}.channel_attn", vision["num_groups"][stage], channels, size)

    return _block(graph, image, name, attend, channels, size)


def _block(
    graph: Graph, image: str, name: str, attend: Callable[[str], str], channels: int, size: tuple[int, int]
) -> str:
    """What both kinds of block share: convolution, attention, convolution, feed-forward."""
    rows = _mixed(graph, image, f"{name}.conv1", channels)
    attended = attend(graph.norm(rows, f"{name}.norm1"))
    image = _image(graph, graph.op("Add", rows, attended), size, channels)
    rows = _mixed(graph, image, f"{name}.conv2", channels)
    rows = graph.feed_forward(rows, f"{name}.norm2", f"{name}.ffn.fc1", f"{name}.ffn.fc2")
    return _image(graph, rows, size, channels)


def _window_attention(
    graph: Graph, rows: str, name: str, vision: Mapping[str, Any], stage: int, size: tuple[int, int]
) -> str:
    channels, heads, side = vision["embed_dim"][stage], vision["num_heads"][stage], vision["window_size"]
    height, width = size
    down, across = -(-height // side), -(-width // side)
    is_padded = (down * side, across * side) != size
    if is_padded:
        pads = graph.constant([0, 0, 0, 0, 0, down * side - height, across * side - width, 0])
        rows = graph.op("Pad", graph.reshape(rows, -1, height, width, channels), pads)
    # (batch * down, y, across, x, channels) to (windows, y * x, channels)
    windows = graph.transpose(graph.reshape(rows, -1, side, across, side, channels), 0, 2, 1, 3, 4)
    parts = graph.thirds(graph.reshape(windows, -1, channels), f"{name}.qkv")
    query, key, value = (graph.reshape(part, -1, side * side, channels) for part in parts)
    mixed = heads_attention(graph, query, key, value, heads)
    mixed = graph.transpose(graph.reshape(mixed, -1, across, side, side, channels), 0, 2, 1, 3, 4)
    if is_padded:
        mixed = graph.reshape(mixed, -1, down * side, across * side, channels)
        mixed = graph.op("Slice", mixed, *(graph.constant(at) for at in ([0, 0], [height, width], [1, 2])))
    return graph.linear(graph.reshape(mixed, -1, channels), f"{name}.proj")


def _channel_attention(graph: Graph, rows: str, name: str, groups: int, channels: int, size: tuple[int, int]) -> str:
    tokens, depth = size[0] * size[1], channels // groups
    rows = graph.reshape(graph.transpose(graph.reshape(rows, -1, tokens, channels), 1, 0, 2), -1, channels)
    query, key, value = (graph.reshape(part, tokens, -1, groups, depth) for part in graph.thirds(rows, f"{name}.qkv"))
    # Channels attend to channels, so the product runs over the tokens; (q k^T) v = (v^T (q k^T)^T)^T.
    scores = graph.op("MatMul", keys_first(graph, query), heads_first(graph, key))
    scale = graph.constant(tokens**-0.5, np.float32)
    shares = graph.op("Softmax", graph.op("Mul", scores, scale), axis=-1)
    mixed = graph.op("MatMul", heads_first(graph, value), graph.transpose(shares, 0, 1, 3, 2))
    return graph.linear(graph.reshape(graph.transpose(mixed, 0, 2, 1, 3), -1, channels), f"{name}.proj")


def _project(graph: Graph, image: str, vision: Mapping[str, Any], size: tuple[int, int]) -> str:
    """Learned and temporal positions, the mean of all tokens in front, the projection and its norm."""
    name, channels = "model.multi_modal_projector", vision["embed_dim"][-1]
    rows = graph.weights[f"{name}.image_position_embed.row_embeddings.weight"]
    columns = graph.weights[f"{name}.image_position_embed.column_embeddings.weight"]
    if max(size) > len(rows):
        raise CheckpointError(f"the image gives {size[0]} x {size[1]} tokens but there are {len(rows)} positions")
    height, width = size
    places = np.concatenate(
        [np.tile(columns[None, :width], (height, 1, 1)), np.tile(rows[:height, None], (1, width, 1))], axis=-1
    )
    places = places + graph.weights[f"{name}.visual_temporal_embed.pos_idx_to_embed"][0]
    tokens = graph.reshape(graph.transpose(image, 0, 2, 3, 1), -1, height * width, channels)
    tokens = graph.op("Add", tokens, graph.weight(f"{name}.places", places.reshape(-1, channels)))
    mean = graph.op("ReduceMean", tokens, graph.constant([1]), keepdims=1)
    tokens = graph.reshape(graph.op("Concat", mean, tokens, axis=1), -1, channels)
    projected = graph.norm(graph.linear(tokens, f"{name}.image_projection", bias=False), f"{name}.image_proj_norm")
    return graph.reshape(projected, -1, height * width + 1, vision["projection_dim"])
