"""Both engines on a tiny model: the same tokens, and those of transformers."""

import warnings

import numpy as np
import pytest
import torch

from florentune.engines.decode import FreeWalk, decode
from florentune.engines.export import export_onnx
from florentune.engines.onnx_engine import OnnxEngine
from florentune.engines.torch_engine import TorchEngine
from florentune.errors import CheckpointError, InputError
from florentune.grammar import RegionGrammar
from florentune.model.checkpoint import open_checkpoint
from florentune.model.florence import load_model
from florentune.model.preprocess import Preprocessor
from tiny_model import tiny_checkpoint


def lively(folder, seed, **options):
    """A tiny checkpoint with weights so large that answers depend on the image, and an end that is not always first."""
    from safetensors.torch import load_file, save_file

    tiny_checkpoint(folder, seed=seed, **options)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in sorted(weights.items()):
        if tensor.ndim >= 2:
            weights[name] = torch.randn(tensor.shape, generator=generator) * (0.15 if "conv" in name else 0.3)
            if "decoder.layers" in name and ("encoder_attn" in name or "fc" in name):
                weights[name] *= 3
    weights["model.language_model.shared.weight"][2] *= 0.3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return open_checkpoint(lively(tmp_path_factory.mktemp("engines") / "tiny", 9))


@pytest.fixture(scope="module")
def onnx(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "fp32"
    export_onnx(checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A checkpoint with ordinary random weights, and its exports in every precision."""
    folder = tmp_path_factory.mktemp("precisions")
    tiny_checkpoint(folder / "torch")
    return {"torch": folder / "torch"} | {
        dtype: export_onnx(folder / "torch", folder / dtype, dtype) and folder / dtype
        for dtype in ("fp32", "fp16", "int8")
    }


def images(checkpoint, count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 3, *checkpoint.image_size)).astype(np.float32)


def answers(engine, checkpoint, pixels, labels, limit=44):
    grammar = RegionGrammar(checkpoint.tokenizer(), labels)
    walks = [grammar.walk(limit) for _ in pixels]
    prompt = Preprocessor(checkpoint).prompt_ids("<OD>")
    assert decode(engine.start(pixels, prompt, grammar.tokens), walks, engine.start_id) == [None] * len(walks)
    return walks


@pytest.mark.parametrize("labels", [("table", "figure"), None, ()], ids=["closed", "open", "none"])
def test_onnx_fp32_writes_the_tokens_torch_writes(checkpoint, onnx, labels):
    pixels = images(checkpoint, 12, seed=1)
    torch_walks = answers(TorchEngine(load_model(checkpoint)), checkpoint, pixels, labels)
    onnx_walks = answers(OnnxEngine.open(open_checkpoint(onnx)), checkpoint, pixels, labels)
    assert [walk.ids for walk in onnx_walks] == [walk.ids for walk in torch_walks]
    assert len({tuple(walk.ids) for walk in torch_walks}) > 3, "answers must depend on the image to prove anything"
    for ours, theirs in zip(onnx_walks, torch_walks, strict=True):
        assert [found.score for found in ours.found] == pytest.approx([found.score for found in theirs.found], rel=1e-3)


@pytest.mark.slow  # quick, but a new release of transformers may fail it
def test_torch_decoding_uses_nothing_that_transformers_is_about_to_remove(checkpoint):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        answers(TorchEngine(load_model(checkpoint)), checkpoint, images(checkpoint, 2), None)


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_a_page_comes_out_the_same_alone_and_in_a_batch(checkpoint, onnx, kind):
    engine = TorchEngine(load_model(checkpoint)) if kind == "torch" else OnnxEngine.open(open_checkpoint(onnx))
    pixels = images(checkpoint, 7, seed=1)
    together = [walk.ids for walk in answers(engine, checkpoint, pixels, ("table", "figure"))]
    alone = [answers(engine, checkpoint, pixels[index : index + 1], ("table", "figure"))[0].ids for index in range(7)]
    assert together == alone
    assert len({len(ids) for ids in together}) > 1, "rows must end at different steps to prove anything"


@pytest.mark.parametrize("beams", [1, 3])
def test_free_decoding_is_transformers_generate(checkpoint, beams):
    """Against stock transformers called with input ids and pixels, the reference's settings given."""
    model = load_model(checkpoint)
    engine, prompt = TorchEngine(model), Preprocessor(checkpoint).prompt_ids("<OD>")
    pixels = images(checkpoint, 3, seed=2)
    settings = {
        "num_beams": beams,
        "early_stopping": beams > 1,
        "no_repeat_ngram_size": 3,
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 2,
        "max_new_tokens": 40,
        "do_sample": False,
    }
    ids = torch.tensor([[checkpoint.config["image_token_id"]] * checkpoint.image_tokens + prompt] * 3)
    expected = model.generate(input_ids=ids, pixel_values=torch.from_numpy(pixels), **settings).tolist()
    assert engine.generate(pixels, prompt, **settings) == expected
    if beams == 1:
        walks = [FreeWalk(0, 2, 40) for _ in pixels]
        decode(engine.start(pixels, prompt), walks, engine.start_id)
        assert [walk.ids for walk in walks] == [[token for token in row[1:] if token != 1] for row in expected]


def test_only_the_wanted_logits_are_computed(checkpoint, onnx):
    wanted = np.array([2, 7, 300], dtype=np.int64)
    pixels, prompt = images(checkpoint, 2), Preprocessor(checkpoint).prompt_ids("<OD>")
    for engine in (TorchEngine(load_model(checkpoint)), OnnxEngine.open(open_checkpoint(onnx))):
        tokens = np.array([[engine.start_id, 0]] * 2)
        some, every = engine.start(pixels, prompt, wanted).step(tokens), engine.start(pixels, prompt).step(tokens)
        assert every.shape == (2, engine.vocabulary)
        np.testing.assert_allclose(some, every[:, wanted], atol=1e-5)


def test_several_tokens_in_one_step_are_the_same_as_one_by_one(checkpoint, onnx):
    pixels, prompt = images(checkpoint, 1), Preprocessor(checkpoint).prompt_ids("<OD>")
    for engine in (TorchEngine(load_model(checkpoint)), OnnxEngine.open(open_checkpoint(onnx))):
        single, several = engine.start(pixels, prompt), engine.start(pixels, prompt)
        several.step(np.array([[2, 0]]))
        for token in (2, 0, 9, 8):
            last = single.step(np.array([[token]]))
        np.testing.assert_allclose(several.step(np.array([[9, 8, 7]])), single.step(np.array([[7]])), atol=1e-4)
        assert last.shape == (1, engine.vocabulary)


@pytest.mark.parametrize("size", [(64, 64), (80, 48), (72, 104)], ids=str)
def test_export_of_sizes_that_do_and_do_not_fit_the_windows(tmp_path, size):
    folder = lively(tmp_path / "model", 5, image_size=size)
    exported = export_onnx(folder, tmp_path / "out")
    assert exported.cosine > 0.99999
    assert exported.largest < 1e-2


@pytest.mark.parametrize(("side", "stride", "padding"), [(3, 2, 1), (3, 1, 1), (2, 2, 0), (7, 4, 3)])
@pytest.mark.parametrize("size", [(12, 12), (13, 8)], ids=str)
def test_a_convolution_in_8_bits_is_near_torchs_for_every_image_of_a_batch(side, stride, padding, size):
    import onnxruntime

    from florentune.engines.graph import Graph, floats, model

    generator = np.random.default_rng(side)
    weights = {"c.weight": generator.normal(size=(5, 4, side, side)), "c.bias": generator.normal(size=5)}
    graph = Graph({name: weight.astype(np.float32) for name, weight in weights.items()}, "int8")
    image = generator.normal(size=(2, *size, 4)).astype(np.float32)
    kernel, bias = (torch.from_numpy(weight) for weight in graph.weights.values())
    expected = torch.conv2d(torch.from_numpy(image).permute(0, 3, 1, 2), kernel, bias, stride, padding)
    graph.rename(graph.integer_patches("image", "c", expected.shape[2:], stride, padding), "rows")
    proto = model(graph, "patches", [floats("image", "batch", *size, 4)], [floats("rows", "rows", 5)])
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": image})[0]
    wanted = expected.permute(0, 2, 3, 1).reshape(-1, 5).numpy()
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


def test_an_export_is_a_detector_of_its_own(small):
    opened, source = open_checkpoint(small["int8"]), open_checkpoint(small["torch"])
    assert not (small["int8"] / "model.safetensors").exists()
    assert opened.labels == source.labels
    assert opened.image_size == source.image_size
    assert sorted(file.name for file in opened.onnx.iterdir()) == [
        "decoder_model_merged_quantized.onnx",
        "embed_tokens_quantized.onnx",
        "encoder_model_quantized.onnx",
        "vision_encoder_quantized.onnx",
    ]


def test_export_beside_the_weights_keeps_them(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model")
    before = (folder / "model.safetensors").read_bytes()
    export_onnx(folder, folder, "fp16")
    assert (folder / "model.safetensors").read_bytes() == before
    assert OnnxEngine.open(open_checkpoint(folder)).name == "onnx fp16"


def test_smaller_precisions_are_near_and_smaller(small):
    checkpoint = open_checkpoint(small["torch"])
    prompt, pixels = Preprocessor(checkpoint).prompt_ids("<OD>"), images(checkpoint, 4)
    reference = TorchEngine(load_model(checkpoint)).start(pixels, prompt).step(np.array([[2, 0]] * 4))
    sizes = {}
    for dtype, least in (("fp32", 0.999999), ("fp16", 0.9999), ("int8", 0.98)):
        found = OnnxEngine.open(open_checkpoint(small[dtype])).start(pixels, prompt).step(np.array([[2, 0]] * 4))
        cosine = (found * reference).sum() / np.sqrt((found**2).sum() * (reference**2).sum())
        assert cosine > least, dtype
        sizes[dtype] = sum(file.stat().st_size for file in (small[dtype] / "onnx").iterdir())
    assert sizes["fp16"] < 0.65 * sizes["fp32"]
    assert sizes["int8"] < 0.65 * sizes["fp32"]


def test_every_large_weight_of_int8_graphs_is_stored_in_one_byte(small):
    import onnx

    sizes = {}
    for file in (small["int8"] / "onnx").iterdir():
        for tensor in onnx.load(file).graph.initializer:
            sizes[f"{file.name}: {tensor.name}"] = np.prod(tensor.dims), tensor.data_type
    large = {name: kind for name, (size, kind) in sizes.items() if size >= 4096}
    assert len(large) > 5
    assert set(large.values()) == {onnx.TensorProto.INT8}, large


def test_the_number_of_threads_is_honoured(onnx):
    engine = OnnxEngine.open(open_checkpoint(onnx), threads=3)
    given = [session.get_session_options().intra_op_num_threads for session in engine._sessions.values()]
    assert given == [3] * 4


def test_the_number_of_torchs_threads_is_honoured(checkpoint):
    before = torch.get_num_threads()
    try:
        TorchEngine.open(checkpoint, device="cpu", threads=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_damaged_or_missing_graph_is_named(tmp_path, onnx):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(onnx, folder)
    file = folder / "onnx" / "encoder_model.onnx"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"encoder_model\.onnx"):
        OnnxEngine.open(open_checkpoint(folder))
    file.unlink()
    with pytest.raises(CheckpointError, match=r"encoder_model\.onnx"):
        OnnxEngine.open(open_checkpoint(folder))
    with pytest.raises(InputError, match="bf16"):
        export_onnx(folder, tmp_path / "x", "bf16")


def test_damaged_weights_give_errors_and_no_graphs(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tiny_checkpoint(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("image_projection.weight"))
    weights[name][:] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="too far"):
        export_onnx(folder, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.onnx"))
