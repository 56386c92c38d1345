"""Opening folders of every layout, and refusing folders that lie, before anything of them is loaded."""

import json
import os
import shutil
import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florentune.errors import CheckpointError
from florentune.model.checkpoint import open_checkpoint
from florentune.model.processor import ADDED_TOKENS, IMAGE_TOKEN, complete_tokenizer, feature_map, read_tokenizer
from florentune.model.weights import WEIGHTS, read_headers
from tiny_model import tiny_checkpoint, tiny_tokenizer


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "native")


@pytest.fixture
def copy(native, tmp_path):
    return shutil.copytree(native, tmp_path / "model")


def edit(folder, name, **changes):
    path = folder / name
    value = json.loads(path.read_text()) if path.exists() else {}
    for key, item in changes.items():
        *parents, last = key.split("__")
        inner = value
        for parent in parents:
            inner = inner[parent]
        inner[last] = item
    path.write_text(json.dumps(value))


def test_what_was_written_is_read(native):
    found = open_checkpoint(native)
    assert (found.layout, found.names, found.labels) == ("native", "native", ("table", "figure"))
    assert (found.image_size, found.image_tokens, found.max_new_tokens) == ((64, 64), 17, 44)
    assert found.calibration is None
    assert found.onnx is None
    tokenizer = found.tokenizer()
    assert found.config["image_token_id"] == tokenizer.token_to_id(IMAGE_TOKEN) == tokenizer.get_vocab_size() - 1
    assert found.config["text_config"]["vocab_size"] == tokenizer.get_vocab_size()


def test_opening_needs_no_torch(native):
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'safetensors', 'huggingface_hub', 'peft'): sys.modules[name] = None\n"
        "from florentune.model.checkpoint import open_checkpoint\n"
        f"assert open_checkpoint({str(native)!r}).labels == ('table', 'figure')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_calibration_and_labels_are_read_and_checked(copy):
    calibration = {"temperature": 1.5, "thresholds": {"table": 0.4}, "ece": 0.02, "pages": 90}
    edit(copy, "calibration.json", **calibration)
    (copy / "onnx").mkdir()
    found = open_checkpoint(copy)
    assert found.calibration == calibration
    assert found.onnx == copy / "onnx"


@pytest.mark.parametrize(
    ("file", "changes", "word"),
    [
        ("calibration.json", {"temperature": 0}, "temperature"),
        ("calibration.json", {"shift": "up"}, "shift"),
        ("calibration.json", {"thresholds": {"table": 7}}, "thresholds"),
        ("calibration.json", {"thresholds": {"tabel": 0.5}}, "tabel"),
        ("labels.json", {"labels": "table"}, "labels"),
        ("labels.json", {"labels": ["a<b"]}, "a<b"),
        ("labels.json", {"max_new_tokens": -1}, "max_new_tokens"),
        ("processor_config.json", {"image_processor__size": {"height": 10**9, "width": 64}}, "size"),
        ("processor_config.json", {"image_processor__image_std": [0, 0, 0]}, "image_std"),
        ("processor_config.json", {"image_processor__size": {"height": 4096, "width": 4096}}, "feature map"),
        ("processor_config.json", {"image_processor": 3}, "image_processor"),
        ("config.json", {"image_token_id": 5}, "image_token_id"),
        ("config.json", {"text_config__vocab_size": 1500}, "shared.weight"),
        ("config.json", {"text_config__vocab_size": 10**11}, "vocab_size"),
        ("config.json", {"text_config__encoder_layers": 10**6}, "encoder_layers"),
        ("config.json", {"text_config__encoder_layers": 3}, "missing"),
        ("config.json", {"text_config__encoder_layers": 1}, "unknown"),
        ("config.json", {"vision_config__embed_dim": [16, 64]}, "not fit"),
        ("generation_config.json", {"num_beams": 10**9}, "num_beams"),
        ("tokenizer.json", {"model": {"type": "WordLevel", "vocab": {}}}, "BPE"),
        ("tokenizer.json", {"model__vocab": {"a": 0}}, "tokenizer"),
    ],
)
def test_a_wrong_field_is_named(copy, file, changes, word):
    edit(copy, file, **changes)
    with pytest.raises(CheckpointError, match=word) as caught:
        open_checkpoint(copy)
    assert str(copy) in str(caught.value)


def test_the_tokenizer_of_another_model_is_refused(copy):
    tiny_tokenizer(("table", "figure", "something else altogether")).save(str(copy / "tokenizer.json"))
    edit(copy, "config.json", image_token_id=0)
    with pytest.raises(CheckpointError, match="token"):
        open_checkpoint(copy)


@pytest.mark.parametrize("depth", [1_000, 100_000])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "labels.json", "processor_config.json"])
def test_deep_json_is_an_error_and_not_a_crash(copy, file, depth):
    (copy / file).write_text('{"model":' * depth + "1" + "}" * depth)
    with pytest.raises(CheckpointError, match=file):
        open_checkpoint(copy)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "model.pth", "model.pkl", "model.ckpt"])
def test_a_folder_of_pickles_is_refused_with_the_way_out(copy, name):
    (copy / WEIGHTS).unlink()
    (copy / name).write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(CheckpointError, match="import-weights"):
        open_checkpoint(copy)


def test_a_trainers_leftovers_beside_good_weights_are_not_opened(copy):
    os.mkfifo(copy / "training_args.bin")  # opening it would wait for ever
    assert open_checkpoint(copy).layout == "native"


def header(entries, data=b""):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
LIES = {
    "a zip": (b"PK\x03\x04" + bytes(60), "zip"),
    "a pickle": (b"\x80\x02}q\x00X" + bytes(60), "pickle"),
    "empty": (b"", "whole"),
    "text": (b"hello world, this is not a tensor", "whole"),
    "an LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "lfs"),
    "header beyond the file": (struct.pack("<Q", 10**6) + b"{}", "whole"),
    "header of 2**60 bytes": (struct.pack("<Q", 2**60) + b"{}", "whole"),
    "header is a list": (header([1]), "object"),
    "header is deep": (struct.pack("<Q", 200_000) + b"[" * 200_000, "JSON"),
    "data cut off": (header({"a": {**F32, "data_offsets": [0, 4]}}, b"12"), "exactly"),
    "bytes nobody names": (header({"a": F32}, bytes(99)), "exactly"),
    "overlap": (header({"a": F32, "b": F32}, bytes(4)), "exactly"),
    "offsets turned round": (header({"a": {**F32, "data_offsets": [4, 0]}}, bytes(4)), "cannot have"),
    "shape that lies": (header({"a": {**F32, "shape": [10**12]}}, bytes(4)), "cannot have"),
    "negative shape": (header({"a": {**F32, "shape": [-1]}}, bytes(4)), "impossible"),
    "not a tensor": (header({"a": 3}, bytes(4)), "not one of a tensor"),
    "object dtype": (header({"a": {**F32, "dtype": "O"}}, bytes(4)), "type"),
    "other weights": (header({"encoder.weight": F32}, bytes(4)), "none of Florence-2's names"),
}


@pytest.mark.parametrize("case", LIES)
def test_weights_that_lie_are_refused(copy, case):
    content, word = LIES[case]
    (copy / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match=word):
        open_checkpoint(copy)


@given(st.binary(max_size=200), st.booleans())
@settings(max_examples=200)
def test_any_bytes_as_weights_are_an_error_of_ours(tmp_path_factory, content, framed):
    file = tmp_path_factory.getbasetemp() / "random.safetensors"
    file.write_bytes(struct.pack("<Q", len(content)) + content if framed else content)
    try:
        found = read_headers((file,))
    except CheckpointError:
        return
    assert sum(tensor.end - tensor.start for tensor in found.values()) <= len(content)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS, "labels.json"])
def test_links_out_of_the_folder_are_refused(copy, tmp_path, name):
    outside = shutil.move(copy / name, tmp_path / "outside")
    (copy / name).symlink_to(outside)
    with pytest.raises(CheckpointError, match="leads out"):
        open_checkpoint(copy)


def test_links_inside_a_hub_cache_are_followed(native, tmp_path):
    snapshot, blobs = tmp_path / "models--a--b/snapshots/abc", tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in native.iterdir():
        shutil.copy(file, blobs / file.name)
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert open_checkpoint(snapshot).labels == ("table", "figure")


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_devices_and_pipes_are_refused(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(CheckpointError, match="regular file"):
        open_checkpoint(copy)


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "model.bin", "gone.safetensors"])
def test_an_index_names_only_safetensors_in_the_folder(copy, shard):
    (copy / WEIGHTS).rename(copy / "model-00001-of-00001.safetensors")
    edit(copy, "model.safetensors.index.json", weight_map={"lm_head.weight": shard})
    with pytest.raises(CheckpointError, match=r"index\.json"):
        open_checkpoint(copy)


def test_shards_are_read_through_their_index(copy):
    (copy / WEIGHTS).rename(copy / "model-00001-of-00001.safetensors")
    names = read_headers((copy / "model-00001-of-00001.safetensors",))
    edit(copy, "model.safetensors.index.json", weight_map=dict.fromkeys(names, "model-00001-of-00001.safetensors"))
    assert open_checkpoint(copy).weights == (copy / "model-00001-of-00001.safetensors",)


def test_a_huge_file_of_zeros_costs_nothing(copy):
    with open(copy / "tokenizer.json", "wb") as stream:
        stream.truncate(10**12)
    with pytest.raises(CheckpointError, match="more than"):
        open_checkpoint(copy)


@pytest.mark.parametrize("source", ["nowhere/at/all", "nothing", "no such id"])
def test_a_missing_folder_is_one_clear_error(source):
    with pytest.raises(CheckpointError, match="no such model folder"):
        open_checkpoint(source)


def test_a_file_is_not_a_folder(native):
    with pytest.raises(CheckpointError, match="name the model folder"):
        open_checkpoint(native / WEIGHTS)


def test_bare_weights_need_a_base(native, tmp_path):
    shutil.copy(native / WEIGHTS, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match="--base"):
        open_checkpoint(tmp_path)
    found = open_checkpoint(tmp_path, base=native)
    assert (found.layout, found.labels, found.files) == ("bare", None, native)
    assert found.config == open_checkpoint(native).config


def test_bare_weights_of_another_size_are_refused(native, tmp_path):
    other = tiny_checkpoint(tmp_path / "other", labels=("a", "b", "c"))
    (tmp_path / "bare").mkdir()
    shutil.copy(other / WEIGHTS, tmp_path / "bare")
    with pytest.raises(CheckpointError, match="not fit"):
        open_checkpoint(tmp_path / "bare", base=native)


def test_an_adapter_cannot_be_its_own_base(tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(header({"a": F32}, bytes(4)))
    edit(tmp_path, "adapter_config.json", peft_type="LORA", base_model_name_or_path=str(tmp_path))
    with pytest.raises(CheckpointError, match="cannot be a base"):
        open_checkpoint(tmp_path)


def test_the_published_tokenizer_gets_the_published_ids(shared):
    tokenizer = read_tokenizer(shared / "data/florence2_large_files")
    ids = {"<od>": 50265, "<loc_0>": 50269, "<loc_999>": 51268, "<cap>": 51269, "<and>": 51288, IMAGE_TOKEN: 51289}
    assert {token: tokenizer.token_to_id(token) for token in ids} == ids
    assert tokenizer.get_vocab_size() == 51290
    prompt = tokenizer.encode("Locate the objects with category name in the image.")
    assert prompt.ids == [0, 574, 22486, 5, 8720, 19, 4120, 766, 11, 5, 2274, 4, 2]
    assert tokenizer.encode("table<loc_5>figure", add_special_tokens=False).ids == [14595, 50274, 23972]


def test_a_tokenizer_is_completed_once():
    tokenizer = tiny_tokenizer()
    before = tokenizer.to_str()
    assert complete_tokenizer(tokenizer).to_str() == before
    assert len(ADDED_TOKENS) == 1024


def test_vocab_and_merges_give_the_same_tokenizer(native, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.model.save(str(tmp_path))
    other = read_tokenizer(tmp_path)
    for text in ("Locate the objects with category name in the image.", "table<loc_5><loc_999>", "figuré"):
        assert other.encode(text).ids == tokenizer.encode(text).ids
    assert other.decode(tokenizer.encode("table figure").ids) == "table figure"


@given(st.integers(16, 1600), st.integers(16, 1600))
@settings(max_examples=20, deadline=None)
def test_the_feature_map_is_what_the_convolutions_give(height, width):
    import torch

    vision = {"patch_size": [7, 3, 3, 3], "patch_stride": [4, 2, 2, 2], "patch_padding": [3, 1, 1, 1]}
    image = torch.zeros(1, 1, height, width, device="meta")
    for size, stride, padding in zip(*vision.values(), strict=True):
        image = torch.nn.Conv2d(1, 1, size, stride, padding, device="meta")(image)
    assert feature_map(vision, height, width) == tuple(image.shape[2:])
