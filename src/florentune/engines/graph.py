"""ONNX graphs written node by node from the weights of a Florence-2.

By hand and not traced, because the arrangement is where the time is: tokens stay rows of one matrix (so every linear
layer is one Gemm with its bias), the residual of a depthwise convolution is part of its kernel, windows are attended to
by one operator that never holds their scores, elsewhere ONNX Runtime reads heads with a stride and copies nothing,
cross attention's keys and values are computed once, and in 8 bits a convolution is an integer product too.
`graph_tower` and `graph_language` hold the four graphs, with the inputs and outputs transformers.js expects.
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
_LEAST_INT8 = 4096
"""Smaller weights, such as depthwise kernels, stay in half precision: 8 bits would cost more than they save."""


class Graph:
    """Nodes in the making. A branch of an If shares the weights and constants of its root."""

    def __init__(self, weights: Weights, precision: str, root: Graph | None = None) -> None:
        self.weights, self.precision = weights, precision
        self.root = root or self
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.widened: dict[str, onnx.NodeProto] = {}
        self.small_rows: dict[str, list[str]] = {}
        self.count = 0

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Append a node and give the name of its output, or a list of names."""
        self.root.count += 1
        name = f"{kind}_{self.root.count}"
        names = [name] if outputs == 1 else [f"{name}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return name if outputs == 1 else names

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
        """A weight as float32, stored in fewer bits where the precision says so.

        The nodes that widen it read constants only, so ONNX Runtime computes them once, when the graph is loaded.
        """
        array = np.ascontiguousarray(self.weights[name] if array is None else array)
        if self.precision == "fp32":
            return self._stored(_short(name), array)
        if self.precision == "fp16" or array.ndim < 2 or array.size < _LEAST_INT8:
            return self._widened(_short(name), array.astype(np.float16))
        return self._scaled(_short(name), array)

    def linear(self, rows: str, *names: str, bias: bool = True) -> str:
        """rows (n, in) times one or several layers side by side: (n, sum of their outputs)."""
        matrix = np.concatenate([self.weights[f"{name}.weight"] for name in names])
        offset = np.concatenate([self.weights[f"{name}.bias"] for name in names]) if bias else None
        return self._product(rows, _joined(names), matrix, offset)

    def thirds(self, rows: str, name: str) -> list[str]:
        """rows (n, in) times one layer in three parts, such as query, key and value: three of (n, out / 3)."""
        parts = zip(np.split(self.weights[f"{name}.weight"], 3), np.split(self.weights[f"{name}.bias"], 3), strict=True)
        return [self._product(rows, f"{name}.{index}", *part) for index, part in enumerate(parts)]

    def _product(self, rows: str, key: str, matrix: NDArray[np.float32], offset: NDArray[np.float32] | None) -> str:
        """rows (n, in) times a matrix (out, in), plus an offset (out,)."""
        offsets = [] if offset is None else [self.weight(f"{key}.bias", offset)]
        if self.precision != "int8":
            return str(self.op("Gemm", rows, self.weight(f"{key}.weight", matrix.T), *offsets))
        return self._integer_product(self._quantised_rows(rows), key, matrix, offsets)

    def _integer_product(self, rows: list[str], key: str, matrix: NDArray[np.float32], offsets: list[str]) -> str:
        """Rows in 8 bits, with their scale and zero point, times a matrix (out, in), as float32."""
        small, scale = quantised(matrix, axis=0)
        stored = self._stored(f"{_short(key)}.int8", small.T)
        factors = self._widened(f"{_short(key)}.scale", scale.ravel())
        row, row_scale, row_zero = rows
        # The empty name stands for the zero points of the matrix: it is symmetric.
        inputs = [row, stored, row_scale, factors, row_zero, "", *offsets]
        return str(self.op("MatMulIntegerToFloat", *inputs, domain=_CONTRIB))

    def integer_patches(self, image: str, name: str, size: tuple[int, int], stride: int, padding: int) -> str:
        """A convolution of an image (batch, height, width, in) in 8 bits: rows (batch * height * width, out).

        The numbers under each place of the kernel are a slice of the padded image; side by side they are the rows of
        one integer product. `size` is the height and width of the result.
        """
        kernel = self.weights[f"{name}.weight"]
        outputs, channels, *sides = kernel.shape
        small, scale, zero = self._quantised_rows(image)
        padded = self.op("Pad", small, self.constant([0, padding, padding, 0] * 2), zero)
        axes, steps = self.constant([1, 2]), self.constant([stride, stride])
        places = []
        for place in np.ndindex(*sides):
            ends = [start + stride * (side - 1) + 1 for start, side in zip(place, size, strict=True)]
            places.append(self.op("Slice", padded, self.constant(place), self.constant(ends), axes, steps))
        rows = self.reshape(self.op("Concat", *places, axis=-1), -1, len(places) * channels)
        matrix = kernel.transpose(0, 2, 3, 1).reshape(outputs, -1)
        return self._integer_product([rows, scale, zero], name, matrix, [self.weight(f"{name}.bias")])

    def _quantised_rows(self, rows: str) -> list[str]:
        """Rows in 8 bits as they come, their scale and zero point, shared by all layers that read these rows."""
        if rows not in self.small_rows:
            self.small_rows[rows] = self.op("DynamicQuantizeLinear", rows, outputs=3)
        return self.small_rows[rows]

    def _stored(self, name: str, array: NDArray[Any]) -> str:
        self.root.initializers.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _widened(self, name: str, array: NDArray[Any]) -> str:
        """Numbers of fewer bits as float32."""
        if name not in self.root.widened:
            stored = self._stored(f"{name}.{array.dtype}", array)
            self.root.widened[name] = helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT)
        return name

    def _scaled(self, name: str, array: NDArray[np.float32]) -> str:
        """A weight kept in 8 bits with one scale for each index of its first axis."""
        if name not in self.root.widened:
            small, scale = quantised(array, axis=0)
            factors = [self._widened(f"{name}.small", small), self._widened(f"{name}.scale", scale)]
            self.root.widened[name] = helper.make_node("Mul", factors, [name])
        return name

    def look_up(self, name: str, table: NDArray[Any], ids: str) -> str:
        """The rows of a table (rows, width) at ids, as they are stored."""
        return str(self.op("Gather", self._stored(name, table), ids))

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


def quantised(array: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Symmetric 8 bits and one scale for each index of an axis, so shaped that their product is near the array."""
    others = tuple(other for other in range(array.ndim) if other != axis)
    scale = (np.abs(array).max(axis=others, keepdims=True) / 127).astype(np.float16)
    scale = np.maximum(scale, np.finfo(np.float16).smallest_subnormal)
    small = np.clip(np.rint(array / scale.astype(np.float32)), -127, 127)
    return small.astype(np.int8), scale


def _short(name: str) -> str:
    """Without what all names begin with: names are a part of the file's size."""
    return name.removeprefix("model.").removeprefix("language_model.").removeprefix("vision_tower.")


def _joined(names: Sequence[str]) -> str:
    """`a.q_proj`, `a.k_proj`, `a.v_proj` as `a.q_proj+k_proj+v_proj`."""
    return "+".join([names[0], *(name.rpartition(".")[2] for name in names[1:])])


def model(graph: Graph, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> onnx.ModelProto:
    nodes = [*graph.widened.values(), *graph.nodes]
    proto = helper.make_graph(nodes, name, inputs, outputs, list(graph.initializers.values()))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_CONTRIB, 1)]
    return helper.make_model(proto, opset_imports=opsets, ir_version=9, producer_name="florentune")


def floats(name: str, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def integers(name: str, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.INT64, list(shape))


def heads_attention(graph: Graph, query: str, key: str, value: str, heads: int) -> str:
    """Attention within each row of (rows, tokens, channels), by heads of adjacent channels, without keeping scores."""
    return str(graph.op("MultiHeadAttention", query, key, value, num_heads=heads, domain=_CONTRIB))


def attention(graph: Graph, query: str, key: str, value: str, scale: float, mask: str = "") -> str:
    """softmax(query key * scale + mask) value; key comes transposed."""
    scores = graph.op("MatMul", graph.op("Mul", query, graph.constant(scale, np.float32)), key)
    if mask:
        scores = graph.op("Add", scores, mask)
    return str(graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value))


def heads_first(graph: Graph, value: str) -> str:
    """(tokens, batch, heads, depth) to (batch, heads, tokens, depth): ONNX Runtime makes it a stride of the product."""
    return graph.transpose(value, 1, 2, 0, 3)


def keys_first(graph: Graph, value: str) -> str:
    """(tokens, batch, heads, depth) to (batch, heads, depth, tokens)."""
    return graph.transpose(heads_first(graph, value), 0, 1, 3, 2)
