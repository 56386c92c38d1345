"""Files of ONNX graphs, judged by their bytes before ONNX Runtime opens them.

ONNX Runtime reads whatever a graph names: files beside it, operators of other libraries, loops, constants that it
unfolds to any size while it loads. The graphs `florentune export` writes have none of that, so only what they are made
of is let through. The protobuf is walked where it lies (format: https://protobuf.dev/programming-guides/encoding,
field numbers: onnx.proto of ONNX); the weights in it are measured, not read.
"""

from __future__ import annotations

import math
import mmap
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .layouts import Shape, native_shapes

_NAMES = """
Add Cast Concat Conv Gather Gelu Gemm Identity If LayerNormalization LessOrEqual MatMul Mul Pad Range ReduceMean Reshape
Shape Slice Softmax Split Squeeze Sub Transpose Unsqueeze Where DynamicQuantizeLinear
com.microsoft:MatMulIntegerToFloat com.microsoft:DynamicQuantizeMatMul com.microsoft:MultiHeadAttention
"""
OPERATORS = frozenset(_NAMES.split())
"""The operators of the graphs `florentune export` writes; those of a domain other than ONNX's own with its name."""

_OWN = ("", "ai.onnx")
_DOMAINS = (*_OWN, "com.microsoft")
_BYTES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 16: 2}
"""Bytes an element by TensorProto.DataType: float, uint8, int8, int32, int64, bool, float16, double, bfloat16."""

_MOST_FIELDS = 200_000
_LONGEST_NAME = 2000
_SPARE = 1_000_000
"""Elements allowed beyond twice the model's: positions, masks and scales."""

Span = tuple[int, int]
Shapes = MutableMapping[str, Shape]


def check_graphs(files: Iterable[Path], config: Mapping[str, Any]) -> None:
    """Refuse graphs that are not such as `florentune export` writes for a model of this configuration.

    Raises CheckpointError for data kept in other files, operators, domains and functions of others, subgraphs of
    anything but one level of If, tensors whose bytes are not what their shape says, constants that unfold to more than
    they take in the file, and graphs that hold far more numbers than the configuration has weights.
    """
    most = 2 * sum(math.prod(shape) for shape in native_shapes(dict(config)).values()) + _SPARE
    held = 0
    for file in files:
        held += measured(file)
        if held > most:
            raise CheckpointError(f"{file}: the graphs hold over {most:,} numbers, far more than config.json asks for")


def measured(file: Path) -> int:
    """How many numbers the tensors of a graph hold, when it is such as it should be."""
    with open(file, "rb") as stream:
        try:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise CheckpointError(f"{file}: is empty; write it again with florentune export --to onnx") from None
        with data:
            judge = _Judge(data)
            try:
                judge.model()
            except _RefusedError as refusal:
                raise CheckpointError(f"{file}: {refusal}; write it with florentune export --to onnx") from None
            return judge.elements


class _RefusedError(Exception):
    """What is wrong with a graph, without the file's name."""


class _Judge:
    """Walks the messages of one file; spans are [start, end) in bytes of the file."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.elements = 0
        self._fields = 0

    def model(self) -> None:
        """ModelProto: graph 7, opset_import 8, training_info 20, functions 25."""
        graphs = []
        for number, value in self._messages((0, len(self.data)), {7, 8, 20, 25}):
            if number in (20, 25):
                raise _RefusedError("it defines functions or training steps of its own")
            if number == 8:
                self._check_domain(self._texts(value, 1))
            else:
                graphs.append(value)
        if len(graphs) != 1:
            raise _RefusedError("it is not an ONNX model of one graph")
        self._graph(graphs[0], {}, depth=0)

    def _graph(self, span: Span, outer: Shapes, depth: int) -> None:
        """GraphProto: node 1, initializer 5, sparse_initializer 15. Constants of `outer` are known inside too."""
        found = list(self._messages(span, {1, 5, 15}))
        constants: Shapes = ChainMap({}, outer)
        for number, value in found:
            if number == 15:
                raise _RefusedError("it holds sparse tensors")
            if number == 5:
                name, shape = self._tensor(value)
                constants[name] = shape
        for number, value in found:
            if number == 1:
                self._node(value, constants, depth)

    def _node(self, span: Span, constants: Shapes, depth: int) -> None:
        """NodeProto: input 1, output 2, op_type 4, attribute 5, domain 7."""
        found: dict[int, list[Span]] = {number: [] for number in (1, 2, 4, 5, 7)}
        for number, value in self._messages(span, set(found)):
            found[number].append(value)
        inputs, outputs, kinds, domains = ([self._text(at) for at in found[number]] for number in (1, 2, 4, 7))
        self._check_domain(domains)
        domain = "" if not domains or domains[-1] in _OWN else f"{domains[-1]}:"
        operator = f"{domain}{kinds[0]}" if len(kinds) == 1 else "none"
        if operator not in OPERATORS:
            raise _RefusedError(f"it uses the operator {operator[:80]!r}")
        for attribute in found[5]:
            self._attribute(attribute, operator, constants, depth)
        shapes = [constants.get(name) for name in inputs if name]
        if all(shape is not None for shape in shapes):
            constants.update(dict.fromkeys(outputs, _folded(operator, [shape or () for shape in shapes])))

    def _attribute(self, span: Span, operator: str, constants: Shapes, depth: int) -> None:
        """AttributeProto: tensors 5, 10, 11, 22, 23 are refused, graph 6 is judged."""
        branches = []
        for number, value in self._messages(span, {5, 6, 10, 11, 22, 23}):
            if number != 6:
                raise _RefusedError(f"its {operator} holds tensors or several graphs")
            branches.append(value)
        if branches and (operator != "If" or depth or len(branches) > 1):
            raise _RefusedError(f"its {operator} holds graphs in graphs")
        for branch in branches:
            self._graph(branch, constants, depth + 1)

    def _tensor(self, span: Span) -> tuple[str, Shape]:
        """TensorProto: dims 1, data_type 2, name 8, raw_data 9; anything but these and doc_string 12 is refused."""
        dims: list[int] = []
        kinds: list[int] = []
        names: list[Span] = []
        raw: list[Span] = []
        for number, value in self._all(span):
            if number == 1:
                dims += [value] if isinstance(value, int) else self._varints(value)
            elif number == 2 and isinstance(value, int):
                kinds.append(value)
            elif number in (8, 9) and not isinstance(value, int):
                (names if number == 8 else raw).append(value)
            elif number in (13, 14):
                raise _RefusedError("it keeps a tensor's data in another file")
            elif number != 12:
                raise _RefusedError(f"it holds a tensor with the field {number}")
        if len(names) != 1 or len(kinds) != 1 or len(raw) > 1 or kinds[0] not in _BYTES:
            raise _RefusedError("it holds a tensor without one name, one known type and one block of data")
        name, count, size = self._text(names[0]), math.prod(dims), sum(end - start for start, end in raw)
        if len(dims) > 8 or size != count * _BYTES[kinds[0]]:
            raise _RefusedError(f"its tensor {name[:80]!r} has {size:,} bytes, but not so its shape {tuple(dims[:8])}")
        self.elements += count
        return name, tuple(dims)

    def _check_domain(self, domains: Iterable[str]) -> None:
        for domain in domains:
            if domain not in _DOMAINS:
                raise _RefusedError(f"it uses operators of the domain {domain[:80]!r}")

    def _texts(self, span: Span, field: int) -> list[str]:
        return [self._text(value) for _, value in self._messages(span, {field})]

    def _text(self, span: Span) -> str:
        start, end = span
        if end - start > _LONGEST_NAME:
            raise _RefusedError("it holds a name of impossible length")
        return self.data[start:end].decode("utf-8", "replace")

    def _messages(self, span: Span, numbers: set[int]) -> Iterator[tuple[int, Span]]:
        """The length-delimited fields of these numbers; one of them with another wire type is refused."""
        for number, value in self._all(span):
            if number in numbers:
                if isinstance(value, int):
                    raise _RefusedError("it is not an ONNX model")
                yield number, value

    def _all(self, span: Span) -> Iterator[tuple[int, int | Span]]:
        """Every field of a message: its number, and its whole number or its span."""
        at, end = span
        while at < end:
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise _RefusedError(f"it has more than {_MOST_FIELDS:,} parts")
            key, at = self._varint(at, end)
            number, wire = key >> 3, key & 7
            if number and wire == 0:
                value, at = self._varint(at, end)
                yield number, value
                continue
            if number and wire == 2:
                length, at = self._varint(at, end)
            elif number and wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise _RefusedError("it is not an ONNX model")
            if at + length > end:
                raise _RefusedError("it is cut off or not an ONNX model")
            yield number, (at, at + length)
            at += length

    def _varints(self, span: Span) -> list[int]:
        at, end = span
        found = []
        while at < end:
            value, at = self._varint(at, end)
            found.append(value)
            if len(found) > 8:
                raise _RefusedError("it holds a tensor of more than 8 dimensions")
        return found

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for index in range(at, min(at + 10, end)):
            byte = self.data[index]
            value |= (byte & 127) << 7 * (index - at)
            if byte < 128:
                return value, index + 1
        raise _RefusedError("it is cut off or not an ONNX model")


def _folded(operator: str, shapes: list[Shape]) -> Shape:
    """The shape of a node that reads constants only, which ONNX Runtime computes while it loads the graph."""
    if operator in ("Cast", "Identity") and len(shapes) == 1:
        return shapes[0]
    if operator == "Squeeze" and shapes and math.prod(shapes[0]) == 1:
        return ()
    if operator == "Mul" and len(shapes) == 2:
        rank = max(map(len, shapes))
        first, second = ((1,) * (rank - len(shape)) + shape for shape in shapes)
        wide = tuple(max(pair) for pair in zip(first, second, strict=True))
        if math.prod(wide) <= max(map(math.prod, (first, second))):
            return wide
    raise _RefusedError(f"its {operator} unfolds constants to more than they take in the file")
