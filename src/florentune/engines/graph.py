"""ONNX graphs written node by node from the weights of a Florence-2.

By hand and not traced, because the arrangement is where the time is: tokens stay rows of one matrix (so every linear
layer is one Gemm with its bias), the residual of a depthwise convolution is part of its kernel, window partition and
head split are one transpose, cross attention's keys and values are computed once. `graph_tower` and `graph_language`
hold the four graphs, with the inputs and outputs transformers.js expects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Weights = Mapping[str, NDArray[np.float32]]

OPSET = 20
_CONTRIB = "com.microsoft"


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
        if self.precision == "fp32" or array.ndim < 2:
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


def model(graph: Graph, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> onnx.ModelProto:
    proto = helper.make_graph(graph.nodes, name, inputs, outputs, list(graph.initializers.values()))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_CONTRIB, 1)]
    return helper.make_model(proto, opset_imports=opsets, ir_version=9, producer_name="florentune")


def floats(name: str, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def integers(name: str, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.INT64, list(shape))


def attention(graph: Graph, query: str, key: str, value: str, scale: float, mask: str = "") -> str:
    """softmax(query key * scale + mask) value; key comes transposed."""
    scores = graph.op("MatMul", graph.op("Mul", query, graph.constant(scale, np.float32)), key)
    if mask:
        scores = graph.op("Add", scores, mask)
    return str(graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value))
