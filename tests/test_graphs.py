"""ONNX graphs of strangers: refused by their bytes, before ONNX Runtime opens them and without reading other files."""

import contextlib
import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from florentune.engines.onnx_engine import OnnxEngine, graph_files
from florentune.errors import CheckpointError
from florentune.model.checkpoint import open_checkpoint
from florentune.model.graphs import OPERATORS, check_graphs, measured
from test_checkpoint import edit
from watched import opened_by_a_child

onnx = pytest.importorskip("onnx")
from google.protobuf.message import DecodeError  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

NANO = open_checkpoint("nano")
GRAPH = "onnx/vision_encoder_quantized.onnx"
OPEN = """
import florentune.engines.onnx_engine as engine
from florentune.model.checkpoint import open_checkpoint

def refuse_to_open(*arguments, **options):
    raise SystemExit("ONNX Runtime was asked to open a graph")

engine.ort.InferenceSession = refuse_to_open

def load(folder):
    engine.OnnxEngine.open(open_checkpoint(folder))
"""


def tensor(value, name="w", **fields):
    found = numpy_helper.from_array(np.asarray(value), name)
    for field, content in fields.items():
        setattr(found, field, content)
    return found


def external(location, **more):
    found = TensorProto(name="w", dims=[4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        found.external_data.add(key=key, value=value)
    return found


def node(kind, inputs=("x",), **attributes):
    return helper.make_node(kind, list(inputs), ["y"], **attributes)


def inner(nodes, tensors=()):
    return helper.make_graph(nodes, "inside", [], [floats("y")], list(tensors))


def floats(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape or ["n"])


def model(nodes, tensors=(), **more):
    graph = helper.make_graph(nodes, "g", [floats("x")], [floats("y")], list(tensors))
    return helper.make_model(graph, **more)


def ifs(depth):
    branch = inner([node("Identity")])
    for _ in range(depth):
        branch = inner([node("If", ["x"], then_branch=branch, else_branch=branch)])
    return branch.node[0]


def function():
    opset = helper.make_opsetid("", 20)
    body = helper.make_function("own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [opset])
    return model([node("Twice", domain="own")], functions=[body], opset_imports=[opset, helper.make_opsetid("own", 1)])


def trained():
    found = model([node("Identity")])
    found.training_info.add().algorithm.CopyFrom(inner([node("Identity")]))
    return found


def sparse():
    found = model([node("Identity")])
    found.graph.sparse_initializer.add().values.CopyFrom(tensor(np.ones(4, np.float32)))
    return found


def lying(*shape):
    found = tensor(np.ones(4, np.float32))
    del found.dims[:]
    found.dims.extend(shape)
    return found


def huge(folder):
    """600 million zeros in a sparse file: 2.4 GB to read, no room to speak of on the disk."""
    size = 2_400_000_000
    head = TensorProto(name="w", dims=[size // 4], data_type=TensorProto.FLOAT).SerializeToString()
    head += b"\x4a" + varint(size)
    head = b"\x2a" + varint(len(head) + size) + head
    head = b"\x3a" + varint(len(head) + size) + head
    (folder / GRAPH).unlink()
    with open(folder / GRAPH, "wb") as stream:
        stream.write(head)
        stream.truncate(len(head) + size)


def varint(number):
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def nested(depth):
    """A message in a message in a message ..., as the graph."""
    heads, size = [], 0
    for _ in range(depth):
        heads.append(b"\x0a" + varint(size))
        size += len(heads[-1])
    return b"\x3a" + varint(size) + b"".join(reversed(heads))


MANY = [node("Identity")] * 50_000
ONE = np.int64(10**12)
HOSTILE = {
    "external data above": model([node("Add", ["x", "w"])], [external("../../secret.bin")]),
    "external data by absolute path": model([node("Add", ["x", "w"])], [external("/etc/passwd")]),
    "external data in the folder": model([node("Add", ["x", "w"])], [external("weights.bin", length="16")]),
    "external data without saying so": model([node("Add", ["x", "w"])], [external("s", data_location="0")]),
    "external data in a branch": model(
        [node("If", then_branch=inner([node("Add", ["x", "w"])], [external("../secret.bin")]), else_branch=inner([]))]
    ),
    "external data in an attribute": model([node("Cast", v=external("../secret.bin"))]),
    "another domain": model([node("Evil", domain="evil.ops")]),
    "another domain, imported only": model([node("Identity")], opset_imports=[helper.make_opsetid("evil", 1)]),
    "Python operators": model([node("PythonOp", domain="com.microsoft")]),
    "a function": function(),
    "training steps": trained(),
    "a loop": model([node("Loop", ["x", "", "x"], body=inner([node("Identity")]))]),
    "a scan": model([node("Scan", num_scan_inputs=1, body=inner([node("Identity")]))]),
    "graphs in graphs": model([ifs(2)]),
    "graphs thirty deep": model([ifs(14)]),
    "a graph on another operator": model([node("Identity", body=inner([node("Identity")]))]),
    "a shape that lies": model([node("Add", ["x", "w"])], [lying(10**6, 10**6)]),
    "a negative shape": model([node("Add", ["x", "w"])], [lying(-1, -4)]),
    "more dimensions than any": model([node("Add", ["x", "w"])], [lying(*[1] * 60, 4)]),
    "data outside of raw_data": model([node("Identity")], [helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2])]),
    "strings": model([node("Identity")], [helper.make_tensor("w", TensorProto.STRING, [1], [b"x"])]),
    "sparse tensors": sparse(),
    "fill 400 GB": model([node("ConstantOfShape", ["w"])], [tensor(np.array([10**11]))]),
    "expand to 400 GB": model([node("Expand", ["x", "w"])], [tensor(np.array([10**11]))]),
    "count to 1e12": model(
        [node("Range", ["a", "w", "b"])], [tensor(v, n) for v, n in ((0, "a"), (ONE, "w"), (1, "b"))]
    ),
    "constants that multiply": model(
        [node("Mul", ["a", "b"])], [tensor(np.ones((1000, 1), np.float32), "a"), tensor(np.ones(1000, np.float32), "b")]
    ),
    "constants of constants": model(
        [helper.make_node("Identity", ["w"], ["v"]), node("Concat", ["v"] * 500, axis=0)], [tensor(np.ones(4))]
    ),
    "a hundred thousand parts": model(MANY),
    "a name of a megabyte": model([node("Identity", ["x" * 10**6])]),
    "two graphs merged": model([node("Identity")]).SerializeToString() * 2,
    "nothing": b"",
    "a pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch pwned1\x85R.",
    "cut off": model([node("Identity")], [tensor(np.ones(400, np.float32))]).SerializeToString()[:-80],
    "nested a hundred thousand deep": nested(100_000),
    "numbers without an end": b"\x3a" + b"\xff" * 4000,
    "a group without an end": b"\x3b" * 4000,
}


def a_link(target):
    def change(folder):
        (folder / GRAPH).unlink()
        (folder / GRAPH).symlink_to(target)

    return change


def a_folder(folder):
    (folder / GRAPH).unlink()
    (folder / GRAPH).mkdir()


def a_pipe(folder):
    (folder / GRAPH).unlink()
    os.mkfifo(folder / GRAPH)


def all_elsewhere(folder):
    shutil.move(folder / "onnx", folder.parent / f"{folder.name}-graphs")
    (folder / "onnx").symlink_to(folder.parent / f"{folder.name}-graphs")


def edited(**changes):
    def change(folder):
        text = (folder / "config.json").read_bytes()
        (folder / "config.json").unlink()
        (folder / "config.json").write_bytes(text)
        edit(folder, "config.json", **changes)

    return change


FOLDERS = {
    "a link to a secret": a_link("../../secret.bin"),
    "a link to a device": a_link("/dev/zero"),
    "a folder": a_folder,
    "a pipe": a_pipe,
    "all graphs elsewhere": all_elsewhere,
    "600 million numbers": huge,
    "vocabulary of 1e11": edited(text_config__vocab_size=10**11),
    "a million layers": edited(text_config__decoder_layers=10**6),
}


def put(content):
    def change(folder):
        (folder / GRAPH).unlink()
        (folder / GRAPH).write_bytes(content if isinstance(content, bytes) else content.SerializeToString())

    return change


CASES = {**{case: put(content) for case, content in HOSTILE.items()}, **FOLDERS}


@pytest.fixture(scope="module")
def verdict(tmp_path_factory):
    top = tmp_path_factory.mktemp("graphs")
    (top / "secret.bin").write_bytes(b"secret" * 100)
    # A copy, of which the cases are hard links: none of them may be written to, only replaced.
    sound = shutil.copytree(NANO.path, top / "sound", ignore=shutil.ignore_patterns("model.safetensors"))
    for file in sound.rglob("*.*"):
        file.chmod(0o444)
    for index, change in enumerate(CASES.values()):
        change(shutil.copytree(sound, top / str(index), copy_function=os.link))
    names = [str(index) for index in range(len(CASES))]
    answer = opened_by_a_child(top, names, prepare=OPEN, call="load")
    answer["found"] = dict(zip(CASES, answer["found"].values(), strict=True))
    return answer


def test_no_other_file_was_read_nothing_ran_and_little_memory_was_used(verdict):
    assert verdict["seen"] == []
    assert verdict["kilobytes"] < 300_000


@pytest.mark.parametrize("case", CASES)
def test_hostile_graphs_are_refused_with_exit_code_2(verdict, case):
    assert verdict["found"][case].startswith("2 ")


def test_the_message_names_the_file_what_is_wrong_and_the_remedy(verdict):
    message = verdict["found"]["external data above"]
    assert GRAPH in message
    assert "another file" in message
    assert "florentune export" in message


def test_the_graphs_of_the_package_pass_and_are_measured_exactly():
    files = list(graph_files(NANO.onnx, "int8").values())
    check_graphs(files, NANO.config)
    for file in files:
        tensors = onnx.load(file).graph.initializer
        assert measured(file) == sum(int(np.prod(tensor.dims, dtype=np.int64)) for tensor in tensors)
    with pytest.raises(CheckpointError, match=r"far more than config\.json asks for"):
        check_graphs(files * 3, NANO.config)


def test_a_snapshot_of_the_hub_whose_files_are_links_into_blobs_opens(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    for file in sorted(NANO.path.rglob("*.*")):
        if file.suffix in (".json", ".onnx"):
            name = file.relative_to(NANO.path)
            shutil.copy(file, blobs / file.name)
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / name).symlink_to(os.path.relpath(blobs / file.name, (snapshot / name).parent))
    assert OnnxEngine.open(open_checkpoint(snapshot), threads=1).name == "onnx int8"


SMALL = model([node("Add", ["x", "w"])], [tensor(np.ones(4, np.float32))]).SerializeToString()


@given(
    flips=st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1), cut=st.integers(0, 9)
)
def test_any_bytes_are_judged_and_what_passes_reads_nothing_else(tmp_path_factory, flips, cut):
    content = bytearray(SMALL)
    for place, value in flips:
        content[place] = value
    file = tmp_path_factory.getbasetemp() / "flipped.onnx"
    file.write_bytes(content[: len(content) - cut])
    with contextlib.suppress(CheckpointError, DecodeError):
        check_graphs([file], NANO.config)
        graph = onnx.load_model_from_string(file.read_bytes()).graph
        assert not any(one.external_data or one.data_location for one in graph.initializer)
        assert {(one.domain, one.op_type) for one in graph.node} <= {("", name) for name in OPERATORS}
