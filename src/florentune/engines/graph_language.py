"""The language model as ONNX graphs: the embedding, the encoder, and the decoder with its caches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from .graph import Graph, Weights, attention, floats, heads_first, integers, keys_first, model, quantised

_LOWEST = float(np.finfo(np.float32).min)


def embed_tokens(weights: Weights, config: Mapping[str, Any], precision: str = "fp32") -> onnx.ModelProto:
    """input_ids (batch, length) to inputs_embeds (batch, length, d_model)."""
    graph, text = Graph(weights, precision), config["text_config"]
    # The rows are widened after the look-up, so the table stays small in memory too.
    table = _table(weights, text)
    if precision == "int8":
        small, scale = quantised(table, axis=0)
        rows = graph.op("Cast", graph.look_up("table", small, "input_ids"), to=TensorProto.FLOAT)
        factor = graph.op("Cast", graph.look_up("scale", scale, "input_ids"), to=TensorProto.FLOAT)
        embedded = graph.op("Mul", rows, factor)
    else:
        stored = table.astype(np.float32 if precision == "fp32" else np.float16)
        embedded = graph.op("Cast", graph.look_up("table", stored, "input_ids"), to=TensorProto.FLOAT)
    graph.rename(embedded, "inputs_embeds")
    out = floats("inputs_embeds", "batch", "length", text["d_model"])
    return model(graph, "embed_tokens", [integers("input_ids", "batch", "length")], [out])


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
    places = graph.op("Unsqueeze", places, graph.constant([1]))
    # Rows are (length, batch), so that heads_first and keys_first can be strides.
    rows = graph.reshape(graph.op("Add", graph.transpose("inputs_embeds", 1, 0, 2), places), -1, width)
    rows = graph.norm(rows, f"{name}.layernorm_embedding")
    split = graph.op("Concat", length, graph.constant([-1, heads, width // heads]), axis=0)
    for index in range(text["encoder_layers"]):
        layer = f"{name}.layers.{index}"
        own = f"{layer}.self_attn"
        query, key, value = (graph.op("Reshape", graph.linear(rows, f"{own}.{part}_proj"), split) for part in "qkv")
        query, key, value = heads_first(graph, query), keys_first(graph, key), heads_first(graph, value)
        mixed = attention(graph, query, key, value, (width // heads) ** -0.5, mask)
        mixed = graph.reshape(graph.transpose(mixed, 2, 0, 1, 3), -1, width)
        rows = _post_normed(graph, rows, graph.linear(mixed, f"{own}.out_proj"), f"{layer}.self_attn_layer_norm")
        rows = _post_feed_forward(graph, rows, layer)
    states = graph.op("Reshape", rows, graph.op("Concat", length, graph.constant([-1, width]), axis=0))
    out = graph.transpose(states, 1, 0, 2)
    graph.rename(out, "last_hidden_state")
    inputs = [integers("attention_mask", "batch", "length"), floats("inputs_embeds", "batch", "length", width)]
    return model(graph, "encoder_model", inputs, [floats("last_hidden_state", "batch", "length", width)])


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
        integers("encoder_attention_mask", "batch", "source"),
        floats("encoder_hidden_states", "batch", "source", width),
        floats("inputs_embeds", "batch", "length", width),
    ]
    caches = [
        f"{index}.{side}.{part}"
        for index in range(layers)
        for side in ("decoder", "encoder")
        for part in ("key", "value")
    ]
    lengths = {"decoder": "past", "encoder": "source_past"}
    for cache in caches:
        inputs.append(floats(f"past_key_values.{cache}", "batch", heads, lengths[cache.split(".")[1]], width // heads))
    inputs.append(helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1]))
    names = ["logits", *(f"present.{cache}" for cache in caches)]
    branches = {
        "then_branch": _decoder_branch(Graph(weights, precision, graph), text, names, is_first=False),
        "else_branch": _decoder_branch(Graph(weights, precision, graph), text, names, is_first=True),
    }
    graph.nodes.append(helper.make_node("If", ["use_cache_branch"], names, **branches))
    outputs = [floats("logits", "batch", "length", text["vocab_size"])]
    outputs += [floats(name, f"{name}.0", heads, f"{name}.2", width // heads) for name in names[1:]]
    return model(graph, "decoder_model_merged", inputs, outputs)


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
        mixed = attention(graph, query, graph.transpose(key, 0, 1, 3, 2), value, depth**-0.5, causal)
        mixed = graph.linear(graph.reshape(graph.transpose(mixed, 0, 2, 1, 3), -1, width), f"{own}.out_proj")
        rows = _post_normed(graph, rows, mixed, f"{layer}.self_attn_layer_norm")
        key, value = _cross_cache(graph, cross, index, heads, depth, results, is_first=is_first)
        query = per_head(graph.linear(rows, f"{cross}.q_proj"))
        mixed = attention(graph, query, graph.transpose(key, 0, 1, 3, 2), value, depth**-0.5, padding)
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
