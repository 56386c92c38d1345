"""Florence-2 as ONNX graphs, written node by node from the weights.

Written by hand and not traced, because the arrangement is where the time is: tokens stay rows of one matrix (so every
linear layer is one Gemm with its bias), the residual of a depthwise convolution is part of its kernel, window
partition and head split are one transpose, cross attention's keys and values are computed once. The four graphs have
the inputs and outputs transformers.js expects of a Florence-2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..errors import CheckpointError

Weights = Mapping[str, NDArray[np.float32]]

OPSET = 20
_CONTRIB = "com.microsoft"
_LOWEST = float(np.finfo(np.float32).min)


class Graph:
    """Nodes in the making. A branch of an If shares the weights and constants of its root."""

    def __init__(self, weights: Weights, precision: str, root: Graph | None = None) -> None:
        self.weights, self.precision = weights, precision
        self.root = root or self
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.count = 0

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Append a node and give the name of its output, or a list of names."""
        self.root.count += 1
        names = [f"{kind}_{self.root.count}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def rename(self, name: str, output: str) -> None:
        """Let the last node that gives `name` give it as a graph output."""
        self.nodes.append(helper.make_node("Identity", [name], [output]))

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """A small constant, stored once."""
        array = np.asarray(value, dtype=dtype)
        name = f"c_{array.dtype}_{'x'.join(map(str, array.shape))}_{'_'.join(map(str, array.ravel().tolist()))}"
        self.root.initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, array: NDArray[np.float32] | None = None) -> str:
        """A weight as float32, stored as float16 where the precision says so."""
        if name in self.root.initializers or f"{name}.half" in self.root.initializers:
            return name
        array = np.ascontiguousarray(self.weights[name] if array is None else array)
        if self.precision != "fp16" or array.ndim < 2:
            self.root.initializers[name] = numpy_helper.from_array(array, name)
        else:
            self.root.initializers[f"{name}.half"] = numpy_helper.from_array(array.astype(np.float16), f"{name}.half")
            cast = helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT)
            self.root.nodes.insert(0, cast)
        return name

    def linear(self, rows: str, *names: str, bias: bool = True) -> str:
        """rows (n, in) times one or several layers side by side: (n, sum of their outputs)."""
        matrix = np.concatenate([self.weights[f"{name}.weight"] for name in names]).T
        offset = np.concatenate([self.weights[f"{name}.bias"] for name in names]) if bias else None
        key = "+".join(names)
        if self.precision == "int8":
            return self._linear_int8(rows, key, matrix, offset)
        inputs = [rows, self.weight(f"{key}.matrix", matrix)]
        if offset is not None:
            inputs.append(self.weight(f"{key}.offset", offset))
        return str(self.op("Gemm", *inputs))

    def _linear_int8(self, rows: str, key: str, matrix: NDArray[np.float32], offset: NDArray[np.float32] | None) -> str:
        """The same with weights in 8 bits, symmetric, one scale an output; rows are quantised as they come."""
        scale = np.maximum(np.abs(matrix).max(axis=0), 1e-12).astype(np.float32) / np.float32(127)
        small = np.clip(np.rint(matrix / scale), -127, 127).astype(np.int8)
        stored = self.root.initializers
        for suffix, value in (("int8", small), ("scale", scale), ("zero", np.zeros(len(scale), np.int8))):
            stored.setdefault(f"{key}.{suffix}", numpy_helper.from_array(value, f"{key}.{suffix}"))
        inputs = [rows, f"{key}.int8", f"{key}.scale", f"{key}.zero"]
        if offset is not None:
            inputs.append(self.weight(f"{key}.offset", offset))
        return str(self.op("DynamicQuantizeMatMul", *inputs, domain=_CONTRIB))

    def norm(self, rows: str, name: str) -> str:
        """Layer normalisation over the last axis with torch's default epsilon."""
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return str(self.op("LayerNormalization", rows, scale, bias, axis=-1, epsilon=1e-5))

    def gelu(self, rows: str) -> str:
        return str(self.op("Gelu", rows))

    def reshape(self, value: str, *shape: int) -> str:
        return str(self.op("Reshape", value, self.constant(shape)))

    def transpose(self, value: str, *order: int) -> str:
        return str(self.op("Transpose", value, perm=order))

    def feed_forward(self, rows: str, norm: str, up: str, down: str) -> str:
        """rows + down(gelu(up(norm(rows)))), the pre-normalised form of the tower."""
        wide = self.gelu(self.linear(self.norm(rows, norm), up))
        return str(self.op("Add", rows, self.linear(wide, down)))


def _model(graph: Graph, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> onnx.ModelProto:
    proto = helper.make_graph(graph.nodes, name, inputs, outputs, list(graph.initializers.values()))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_CONTRIB, 1)]
    return helper.make_model(proto, opset_imports=opsets, ir_version=9, producer_name="florentune")


def _floats(name: str, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _integers(name: str, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.INT64, list(shape))


# --- the tower -------------------------------------------------------------------------------------------------------


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
    pixels = _floats("pixel_values", "batch", 3, *image_size)
    out = _floats("image_features", "batch", height * width + 1, vision["projection_dim"])
    return _model(graph, "vision_encoder", [pixels], [out])


def _embed_patches(
    graph: Graph, image: str, vision: Mapping[str, Any], stage: int, size: tuple[int, int]
) -> tuple[str, tuple[int, int]]:
    name, is_first_norm = f"model.vision_tower.convs.{stage}", vision["patch_prenorm"][stage]
    patch, stride, padding = (vision[f"patch_{key}"][stage] for key in ("size", "stride", "padding"))
    if is_first_norm:
        image = _normalised(graph, image, f"{name}.norm")
    image = graph.op(
        "Conv",
        image,
        graph.weight(f"{name}.conv.weight"),
        graph.weight(f"{name}.conv.bias"),
        strides=[stride] * 2,
        pads=[padding] * 4,
        kernel_shape=[patch] * 2,
    )
    if not is_first_norm:
        image = _normalised(graph, image, f"{name}.norm")
    height, width = ((side + 2 * padding - patch) // stride + 1 for side in size)
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
    channels = vision["embed_dim"][stage]
    rows = _mixed(graph, image, f"{name}.conv1", channels)
    attended = _window_attention(graph, graph.norm(rows, f"{name}.norm1"), f"{name}.window_attn", vision, stage, size)
    image = _image(graph, graph.op("Add", rows, attended), size, channels)
    rows = _mixed(graph, image, f"{name}.conv2", channels)
    rows = graph.feed_forward(rows, f"{name}.norm2", f"{name}.ffn.fc1", f"{name}.ffn.fc2")
    return _image(graph, rows, size, channels)


def _channel_block(
    graph: Graph, image: str, name: str, vision: Mapping[str, Any], stage: int, size: tuple[int, int]
) -> str:
    channels, groups = vision["embed_dim"][stage], vision["num_groups"][stage]
    rows = _mixed(graph, image, f"{name}.conv1", channels)
    attended = _channel_attention(
        graph, graph.norm(rows, f"{name}.norm1"), f"{name}.channel_attn", groups, channels, size
    )
    image = _image(graph, graph.op("Add", rows, attended), size, channels)
    rows = _mixed(graph, image, f"{name}.conv2", channels)
    rows = graph.feed_forward(rows, f"{name}.norm2", f"{name}.ffn.fc1", f"{name}.ffn.fc2")
    return _image(graph, rows, size, channels)


def _window_attention(
    graph: Graph, rows: str, name: str, vision: Mapping[str, Any], stage: int, size: tuple[int, int]
) -> str:
    channels, heads, side = vision["embed_dim"][stage], vision["num_heads"][stage], vision["window_size"]
    depth, (height, width) = channels // heads, size
    down, across = -(-height // side), -(-width // side)
    is_padded = (down * side, across * side) != size
    if is_padded:
        pads = graph.constant([0, 0, 0, 0, 0, down * side - height, across * side - width, 0])
        rows = graph.op("Pad", graph.reshape(rows, -1, height, width, channels), pads)
        rows = graph.reshape(rows, -1, channels)
    qkv = graph.reshape(graph.linear(rows, f"{name}.qkv"), -1, side, across, side, 3, heads, depth)
    # (batch * down, y, across, x, 3, heads, depth) to 3 x (windows, heads, y * x, depth)
    parts = graph.op("Split", graph.transpose(qkv, 4, 0, 2, 5, 1, 3, 6), axis=0, num_outputs=3, outputs=3)
    query, key, value = (graph.reshape(part, -1, heads, side * side, depth) for part in parts)
    mixed = _attention(graph, query, graph.transpose(key, 0, 1, 3, 2), value, depth**-0.5)
    mixed = graph.transpose(graph.reshape(mixed, -1, across, heads, side, side, depth), 0, 3, 1, 4, 2, 5)
    if is_padded:
        mixed = graph.reshape(mixed, -1, down * side, across * side, channels)
        mixed = graph.op("Slice", mixed, *(graph.constant(at) for at in ([0, 0], [height, width], [1, 2])))
    return graph.linear(graph.reshape(mixed, -1, channels), f"{name}.proj")


def _channel_attention(graph: Graph, rows: str, name: str, groups: int, channels: int, size: tuple[int, int]) -> str:
    tokens, depth = size[0] * size[1], channels // groups
    qkv = graph.reshape(graph.linear(rows, f"{name}.qkv"), -1, tokens, 3, groups, depth)
    parts = graph.op("Split", graph.transpose(qkv, 2, 0, 3, 1, 4), axis=0, num_outputs=3, outputs=3)
    query, key, value = (graph.reshape(part, -1, groups, tokens, depth) for part in parts)
    # Channels attend to channels, so the product runs over the tokens; (q k^T) v = (v^T (q k^T)^T)^T.
    scores = graph.op("MatMul", graph.transpose(query, 0, 1, 3, 2), key)
    scale = graph.constant(tokens**-0.5, np.float32)
    shares = graph.op("Softmax", graph.op("Mul", scores, scale), axis=-1)
    mixed = graph.op("MatMul", value, graph.transpose(shares, 0, 1, 3, 2))
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
    tokens = graph.op("Add", tokens, graph.weight(f"{name}.places", places.reshape(1, -1, channels)))
    mean = graph.op("ReduceMean", tokens, graph.constant([1]), keepdims=1)
    tokens = graph.reshape(graph.op("Concat", mean, tokens, axis=1), -1, channels)
    projected = graph.norm(graph.linear(tokens, f"{name}.image_projection", bias=False), f"{name}.image_proj_norm")
    return graph.reshape(projected, -1, height * width + 1, vision["projection_dim"])


def _attention(graph: Graph, query: str, key: str, value: str, scale: float, mask: str = "") -> str:
    """softmax(query key * scale + mask) value; key comes transposed."""
    scores = graph.op("MatMul", graph.op("Mul", query, graph.constant(scale, np.float32)), key)
    if mask:
        scores = graph.op("Add", scores, mask)
    return str(graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value))


# --- the language model ----------------------------------------------------------------------------------------------


def embed_tokens(weights: Weights, config: Mapping[str, Any], precision: str = "fp32") -> onnx.ModelProto:
    """input_ids (batch, length) to inputs_embeds (batch, length, d_model)."""
    graph, text = Graph(weights, precision), config["text_config"]
    # The rows are widened after the look-up, so the table stays small in memory too.
    table = _table(weights, text).astype(np.float32 if precision == "fp32" else np.float16)
    graph.initializers["table"] = numpy_helper.from_array(table, "table")
    rows = graph.op("Gather", "table", "input_ids")
    graph.rename(graph.op("Cast", rows, to=TensorProto.FLOAT), "inputs_embeds")
    out = _floats("inputs_embeds", "batch", "length", text["d_model"])
    return _model(graph, "embed_tokens", [_integers("input_ids", "batch", "length")], [out])


def _table(weights: Weights, text: Mapping[str, Any]) -> NDArray[np.float32]:
    table = weights["model.language_model.shared.weight"]
    return table * np.float32(text["d_model"] ** 0.5) if text.get("scale_embedding") else table


def encoder_model(weights: Weights, config: Mapping[str, Any], precision: str = "fp32") -> onnx.ModelProto:
    """inputs_embeds (batch, length, d_model) and attention_mask (batch, length) to last_hidden_state."""
    graph, text = Graph(weights, precision), config["text_config"]
    width, heads, name = text["d_model"], text["encoder_attention_heads"], "model.language_model.encoder"
    mask = _padding_mask(graph, "attention_mask")
    length = graph.op("Shape", "inputs_embeds", start=1, end=2)
    places = graph.op("Slice", _places(graph, name), graph.constant([0]), length, graph.constant([0]))
    rows = graph.reshape(graph.op("Add", "inputs_embeds", places), -1, width)
    rows = graph.norm(rows, f"{name}.layernorm_embedding")
    split = graph.op("Concat", graph.constant([-1]), length, graph.constant([3, heads, width // heads]), axis=0)
    for index in range(text["encoder_layers"]):
        layer = f"{name}.layers.{index}"
        attention = f"{layer}.self_attn"
        joined = graph.linear(rows, *(f"{attention}.{part}_proj" for part in "qkv"))
        qkv = graph.transpose(graph.op("Reshape", joined, split), 2, 0, 3, 1, 4)
        parts = graph.op("Split", qkv, axis=0, num_outputs=3, outputs=3)
        query, key, value = (graph.op("Squeeze", part, graph.constant([0])) for part in parts)
        mixed = _attention(graph, query, graph.transpose(key, 0, 1, 3, 2), value, (width // heads) ** -0.5, mask)
        mixed = graph.reshape(graph.transpose(mixed, 0, 2, 1, 3), -1, width)
        rows = _post_normed(graph, rows, graph.linear(mixed, f"{attention}.out_proj"), f"{layer}.self_attn_layer_norm")
        rows = _post_feed_forward(graph, rows, layer)
    out = graph.op("Reshape", rows, graph.op("Shape", "inputs_embeds"))
    graph.rename(out, "last_hidden_state")
    inputs = [_integers("attention_mask", "batch", "length"), _floats("inputs_embeds", "batch", "length", width)]
    return _model(graph, "encoder_model", inputs, [_floats("last_hidden_state", "batch", "length", width)])


def _places(graph: Graph, name: str) -> str:
    """Learned positions; BART's table begins with two rows that are never used."""
    return graph.weight(f"{name}.places", graph.weights[f"{name}.embed_positions.weight"][2:])


def _padding_mask(graph: Graph, mask: str) -> str:
    """(batch, length) of 1 and 0 to (batch, 1, 1, length) of 0 and the lowest float."""
    away = graph.op("Sub", graph.constant(1.0, np.float32), graph.op("Cast", mask, to=TensorProto.FLOAT))
    lowered = graph.op("Mul", away, graph.constant(_LOWEST, np.float32))
    return str(graph.op("Unsqueeze", lowered, graph.constant([1, 2])))


def _post_normed(graph: Graph, rows: str, change: str, norm: str) -> str:
    return graph.norm(graph.op("Add", rows, change), norm)


def _post_feed_forward(graph: Graph, rows: str, layer: str) -> str:
    change = graph.linear(graph.gelu(graph.linear(rows, f"{layer}.fc1")), f"{layer}.fc2")
    return _post_normed(graph, rows, change, f"{layer}.final_layer_norm")


def decoder_model_merged(weights: Weights, config: Mapping[str, Any], precision: str = "fp32") -> onnx.ModelProto:
    """One step of the decoder with its caches, as transformers.js calls it.

    Inputs: encoder_attention_mask (batch, source), encoder_hidden_states (batch, source, d_model), inputs_embeds
    (batch, length, d_model), past_key_values.N.{decoder,encoder}.{key,value} (batch, heads, past, depth) and
    use_cache_branch (1,). Outputs: logits (batch, length, vocabulary) and present.N.*. Without use_cache_branch the
    caches are not read and present.N.encoder.* are computed; with it those outputs are empty, and the caller goes on
    using the ones it has.
    """
    graph, text = Graph(weights, precision), config["text_config"]
    heads, width, layers = text["decoder_attention_heads"], text["d_model"], text["decoder_layers"]
    inputs = [
        _integers("encoder_attention_mask", "batch", "source"),
        _floats("encoder_hidden_states", "batch", "source", width),
        _floats("inputs_embeds", "batch", "length", width),
    ]
    caches = [
        f"{index}.{side}.{part}"
        for index in range(layers)
        for side in ("decoder", "encoder")
        for part in ("key", "value")
    ]
    lengths = {"decoder": "past", "encoder": "source_past"}
    for cache in caches:
        inputs.append(_floats(f"past_key_values.{cache}", "batch", heads, lengths[cache.split(".")[1]], width // heads))
    inputs.append(helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1]))
    names = ["logits", *(f"present.{cache}" for cache in caches)]
    branches = {
        "then_branch": _decoder_branch(Graph(weights, precision, graph), text, names, is_first=False),
        "else_branch": _decoder_branch(Graph(weights, precision, graph), text, names, is_first=True),
    }
    graph.nodes.append(helper.make_node("If", ["use_cache_branch"], names, **branches))
    outputs = [_floats("logits", "batch", "length", text["vocab_size"])]
    outputs += [_floats(name, f"{name}.0", heads, f"{name}.2", width // heads) for name in names[1:]]
    return _model(graph, "decoder_model_merged", inputs, outputs)


def _decoder_branch(graph: Graph, text: Mapping[str, Any], names: list[str], *, is_first: bool) -> onnx.GraphProto:
    heads, width, name = text["decoder_attention_heads"], text["d_model"], "model.language_model.decoder"
    depth = width // heads
    length = graph.op("Shape", "inputs_embeds", start=1, end=2)
    past = graph.constant([0]) if is_first else graph.op("Shape", "past_key_values.0.decoder.key", start=2, end=3)
    end = graph.op("Add", past, length)
    places = graph.op("Slice", _places(graph, name), past, end, graph.constant([0]))
    rows = graph.norm(graph.reshape(graph.op("Add", "inputs_embeds", places), -1, width), f"{name}.layernorm_embedding")
    causal, padding = _causal_mask(graph, past, end), _padding_mask(graph, "encoder_attention_mask")
    split = graph.op("Concat", graph.constant([-1]), length, graph.constant([heads, depth]), axis=0)
    results: dict[str, str] = {}

    def per_head(joined: str) -> str:
        return graph.transpose(graph.op("Reshape", joined, split), 0, 2, 1, 3)

    for index in range(text["decoder_layers"]):
        layer = f"{name}.layers.{index}"
        own, cross = f"{layer}.self_attn", f"{layer}.encoder_attn"
        query, key, value = (
            per_head(part)
            for part in graph.op(
                "Split",
                graph.linear(rows, *(f"{own}.{part}_proj" for part in "qkv")),
                axis=-1,
                num_outputs=3,
                outputs=3,
            )
        )
        if not is_first:
            key = graph.op("Concat", f"past_key_values.{index}.decoder.key", key, axis=2)
            value = graph.op("Concat", f"past_key_values.{index}.decoder.value", value, axis=2)
        results[f"present.{index}.decoder.key"], results[f"present.{index}.decoder.value"] = key, value
        mixed = _attention(graph, query, graph.transpose(key, 0, 1, 3, 2), value, depth**-0.5, causal)
        mixed = graph.linear(graph.reshape(graph.transpose(mixed, 0, 2, 1, 3), -1, width), f"{own}.out_proj")
        rows = _post_normed(graph, rows, mixed, f"{layer}.self_attn_layer_norm")
        key, value = _cross_cache(graph, cross, index, heads, depth, results, is_first=is_first)
        query = per_head(graph.linear(rows, f"{cross}.q_proj"))
        mixed = _attention(graph, query, graph.transpose(key, 0, 1, 3, 2), value, depth**-0.5, padding)
        mixed = graph.linear(graph.reshape(graph.transpose(mixed, 0, 2, 1, 3), -1, width), f"{cross}.out_proj")
        rows = _post_normed(graph, rows, mixed, f"{layer}.encoder_attn_layer_norm")
        rows = _post_feed_forward(graph, rows, layer)
    shape = graph.op("Concat", graph.constant([-1]), length, graph.constant([text["vocab_size"]]), axis=0)
    results["logits"] = graph.op("Reshape", graph.linear(rows, "lm_head", bias=False), shape)
    outputs = []
    for output in names:
        inner = f"{'first' if is_first else 'next'}.{output}"
        graph.rename(results[output], inner)
        outputs.append(helper.make_tensor_value_info(inner, TensorProto.FLOAT, None))
    return helper.make_graph(graph.nodes, "first" if is_first else "next", [], outputs)


def _cross_cache(
    graph: Graph, name: str, index: int, heads: int, depth: int, results: dict[str, str], *, is_first: bool
) -> tuple[str, str]:
    """Keys and values of the encoder's states: computed in the first step, read from the cache in the others."""
    caches = []
    for part in ("key", "value"):
        output = f"present.{index}.encoder.{part}"
        if is_first:
            states = graph.reshape("encoder_hidden_states", -1, heads * depth)
            joined = graph.linear(states, f"{name}.{part[0]}_proj")
            source = graph.op("Shape", "encoder_hidden_states", start=1, end=2)
            shape = graph.op("Concat", graph.constant([-1]), source, graph.constant([heads, depth]), axis=0)
            results[output] = graph.transpose(graph.op("Reshape", joined, shape), 0, 2, 1, 3)
            caches.append(results[output])
        else:
            results[output] = graph.constant(np.zeros((0, heads, 1, depth)), np.float32)
            caches.append(f"past_key_values.{index}.encoder.{part}")
    return caches[0], caches[1]


def _causal_mask(graph: Graph, past: str, end: str) -> str:
    """(length, past + length): 0 where a token may look, the lowest float where it would look ahead."""
    first, one = graph.constant(0), graph.constant(1)
    last = graph.op("Squeeze", end)
    columns = graph.op("Range", first, last, one)
    lines = graph.op("Unsqueeze", graph.op("Range", graph.op("Squeeze", past), last, one), graph.constant([1]))
    return str(
        graph.op(
            "Where",
            graph.op("LessOrEqual", columns, lines),
            graph.constant(0.0, np.float32),
            graph.constant(_LOWEST, np.float32),
        )
    )
