"""Saving and loading models: what florentune writes is what stock transformers loads, and the other way round."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from florentune.errors import CheckpointError, DiskFullError
from florentune.model.checkpoint import open_checkpoint
from florentune.model.processor import complete_tokenizer, read_tokenizer
from tiny_model import tiny_checkpoint, tiny_config, tiny_tokenizer

torch = pytest.importorskip("torch")
florence = pytest.importorskip("florentune.model.florence")
conversion = pytest.importorskip("florentune.model.conversion")

STOCK = """
import json, sys
sys.modules["florentune"] = None
from PIL import Image
from transformers import Florence2ForConditionalGeneration, Florence2Processor
image = Image.new("RGB", (90, 60), "white")
image.paste((10, 90, 200), (20, 20, 50, 40))
for folder in sys.argv[1:]:
    processor = Florence2Processor.from_pretrained(folder)
    model, info = Florence2ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    inputs = processor(text="<OD>", images=image, return_tensors="pt").to(model.dtype)
    answer = model.generate(**inputs)
    text = processor.batch_decode(answer, skip_special_tokens=False)[0]
    generation = model.generation_config
    print(json.dumps({
        "wrong": [list(value) for value in info.values()],
        "input_ids": inputs["input_ids"][0].tolist(),
        "pixels": list(inputs["pixel_values"].shape),
        "answer": answer[0].tolist(),
        "parsed": processor.post_process_generation(text, task="<OD>", image_size=(90, 60)),
        "text": processor.post_process_generation(text, task="<CAPTION>", image_size=(90, 60)),
        "forced": [generation.forced_bos_token_id, generation.forced_eos_token_id, generation.no_repeat_ngram_size],
        "tokens": len(processor.tokenizer),
    }))
"""


def stock(*folders):
    """What stock transformers makes of folders, in a process of its own, offline and without this package."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, "-W", "ignore", "-c", STOCK, *map(str, folders)]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def logits(model, image_tokens=17, size=(64, 64)):
    image = model.config.image_token_id
    ids = torch.tensor([[image] * image_tokens + [0, 300, 301, 302, 2]])
    pixels = torch.linspace(-1, 1, 3 * size[0] * size[1]).reshape(1, 3, *size).to(model.dtype)
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=pixels, decoder_input_ids=torch.tensor([[2, 0, 5, 6]])).logits


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "native")


def test_stock_transformers_loads_what_we_write(native, tmp_path):
    wide = tiny_checkpoint(tmp_path / "wide", image_size=(96, 64))
    conversion.convert_checkpoint(open_checkpoint(native), tmp_path / "ms", to="microsoft")
    back, short = tmp_path / "back", tmp_path / "short"
    conversion.convert_checkpoint(open_checkpoint(tmp_path / "ms"), back, to="native", dtype="bf16")
    tokenizer = tiny_tokenizer()
    model = florence.build_model(tiny_config(tokenizer.get_vocab_size() - 1))
    florence.save_checkpoint(model, short, tokenizer=tokenizer, image_size=(64, 64), labels=["table"], max_new_tokens=9)
    folders = {native: 17, wide: 25, back: 17, short: 17}
    for folder, found in zip(folders, stock(*folders), strict=True):
        checkpoint = open_checkpoint(folder)
        assert found["wrong"] == [[], [], [], []]
        assert found["pixels"][2:] == list(checkpoint.image_size)
        tokens = found["input_ids"].count(checkpoint.config["image_token_id"])
        assert tokens == checkpoint.image_tokens == folders[folder]
        prompt = checkpoint.tokenizer().encode("Locate the objects with category name in the image.").ids
        assert found["input_ids"][tokens:] == prompt
        assert found["answer"][:2] == [2, 0]  # the reference begins every answer so: forced_bos_token_id is in force
        assert found["forced"] == [0, 2, 0]
        assert len(found["answer"]) <= checkpoint.max_new_tokens + 1
        assert set(found["parsed"]["<OD>"]) == {"bboxes", "labels"}
        assert isinstance(found["text"]["<CAPTION>"], str)
        assert found["tokens"] == checkpoint.config["text_config"]["vocab_size"]


def test_the_same_model_answers_the_same_here_and_in_stock_transformers(native):
    from transformers import Florence2ForConditionalGeneration

    ours = florence.load_model(open_checkpoint(native))
    theirs = Florence2ForConditionalGeneration.from_pretrained(native).eval()
    assert torch.equal(logits(ours), logits(theirs))
    assert ours.generation_config.to_dict() == theirs.generation_config.to_dict()


def test_weights_are_written_exactly_and_once(native, tmp_path):
    model = florence.load_model(open_checkpoint(native))
    assert model.lm_head.weight is model.model.language_model.shared.weight
    florence.save_checkpoint(
        model, tmp_path / "again", tokenizer=tiny_tokenizer(), image_size=(64, 64), labels=None, max_new_tokens=40
    )
    for name in ("model.safetensors", "tokenizer.json", "processor_config.json", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (native / name).read_bytes(), name
    assert open_checkpoint(tmp_path / "again").labels is None


def test_an_untied_head_stays_untied(native, tmp_path):
    model = florence.load_model(open_checkpoint(native))
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 1.5)
    model.config.tie_word_embeddings = False
    florence.save_checkpoint(
        model, tmp_path / "m", tokenizer=tiny_tokenizer(), image_size=(64, 64), labels=["table"], max_new_tokens=9
    )
    checkpoint = open_checkpoint(tmp_path / "m")
    assert checkpoint.config["tie_word_embeddings"] is False
    assert torch.equal(logits(florence.load_model(checkpoint)), logits(model))
    from transformers import Florence2ForConditionalGeneration

    assert torch.equal(logits(Florence2ForConditionalGeneration.from_pretrained(tmp_path / "m").eval()), logits(model))


def test_an_untied_head_is_not_lost_where_the_config_claims_it_is_tied(native, tmp_path):
    model = florence.load_model(open_checkpoint(native))
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 1.5)
    model.config.tie_word_embeddings = True  # what a trainer that only looks at the config would leave
    florence.save_checkpoint(
        model, tmp_path / "m", tokenizer=tiny_tokenizer(), image_size=(64, 64), labels=["table"], max_new_tokens=9
    )
    assert torch.equal(logits(florence.load_model(tmp_path / "m")), logits(model))


def test_a_model_without_a_row_for_the_image_token_gets_one(tmp_path):
    tokenizer = tiny_tokenizer()
    rows = tokenizer.get_vocab_size()
    model = florence.build_model(tiny_config(rows - 1)).eval()
    florence.save_checkpoint(
        model, tmp_path / "m", tokenizer=tokenizer, image_size=(64, 64), labels=["table"], max_new_tokens=9
    )
    loaded = florence.load_model(tmp_path / "m")
    before = model.lm_head.weight
    assert torch.equal(loaded.lm_head.weight[:-1], before)
    assert torch.equal(loaded.lm_head.weight[-1], before[3])


def test_dtype_and_device_are_as_asked(native):
    model = florence.load_model(native, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    assert not model.training


def test_a_folder_is_replaced_whole_or_not_at_all(native, tmp_path, monkeypatch):
    folder = shutil.copytree(native, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = florence.load_model(folder)

    def broken(*_args, **_kwargs):
        raise RuntimeError("stopped half-way")

    monkeypatch.setattr(florence, "write_processor", broken)
    with pytest.raises(RuntimeError):
        florence.save_checkpoint(
            model, folder, tokenizer=tiny_tokenizer(), image_size=(64, 64), labels=["x"], max_new_tokens=9
        )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    monkeypatch.undo()
    florence.save_checkpoint(
        model, folder, tokenizer=tiny_tokenizer(), image_size=(64, 64), labels=["x"], max_new_tokens=9
    )
    assert open_checkpoint(folder).labels == ("x",)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_of_something_else_is_never_replaced(native, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="no model"):
        florence.save_checkpoint(
            florence.load_model(native),
            tmp_path,
            tokenizer=tiny_tokenizer(),
            image_size=(64, 64),
            labels=None,
            max_new_tokens=9,
        )
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_full_disk_is_named_before_anything_is_written(native, tmp_path, monkeypatch):
    model = florence.load_model(native)
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((real.f_bsize, 1, 10, 10, 10, *tuple(real)[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: full)
    with pytest.raises(DiskFullError, match="bytes are needed"):
        florence.save_checkpoint(
            model, tmp_path / "m", tokenizer=tiny_tokenizer(), image_size=(64, 64), labels=None, max_new_tokens=9
        )
    assert list(tmp_path.iterdir()) == []


def test_microsofts_layout_and_back_is_the_same_model(native, tmp_path):
    checkpoint = open_checkpoint(native)
    conversion.convert_checkpoint(checkpoint, tmp_path / "ms", to="microsoft")
    theirs = open_checkpoint(tmp_path / "ms")
    assert (theirs.layout, theirs.labels, theirs.image_size) == ("microsoft", ("table", "figure"), (64, 64))
    assert theirs.config == checkpoint.config
    image = checkpoint.config["image_token_id"]
    assert torch.equal(
        logits(florence.load_model(theirs))[..., :image], logits(florence.load_model(native))[..., :image]
    )
    conversion.convert_checkpoint(theirs, tmp_path / "back", to="native", dtype="bf16")
    assert open_checkpoint(tmp_path / "back").config == checkpoint.config
    assert florence.load_model(tmp_path / "back", dtype=torch.bfloat16).dtype == torch.bfloat16


def test_the_microsoft_layout_is_what_remote_code_wants(native, tmp_path):
    from safetensors import safe_open

    advice = conversion.convert_checkpoint(open_checkpoint(native), tmp_path / "ms", to="microsoft")
    config = json.loads((tmp_path / "ms/config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModelForCausalLM"}
    assert config["vision_config"]["model_type"] == "davit"
    assert "model_type" not in config["text_config"]
    with safe_open(tmp_path / "ms/model.safetensors", framework="pt") as weights:
        names = set(weights.keys())
        assert weights.get_slice("image_projection").get_shape() == [32, 32]
        head, embedding = (weights.get_tensor(f"language_model.{name}.weight") for name in ("lm_head", "model.shared"))
        assert head.shape[0] == config["vocab_size"] == config["text_config"]["vocab_size"]
        assert torch.equal(head, embedding)
    assert not any(name.startswith(("model.", "lm_head")) for name in names)
    assert "--revision 39ddb416a9819d9fa1bacad7b7899099ae4b0a59" in advice[0]


def test_code_that_is_there_is_kept_and_named_locally(native, tmp_path):
    source = shutil.copytree(native, tmp_path / "source")
    names = ("configuration_florence2.py", "modeling_florence2.py", "processing_florence2.py")
    for name in names:
        (source / name).write_text("raise SystemExit('never run')")
    assert conversion.convert_checkpoint(open_checkpoint(source), tmp_path / "ms", to="microsoft") == []
    config = json.loads((tmp_path / "ms/config.json").read_text())
    assert config["auto_map"]["AutoConfig"] == "configuration_florence2.Florence2Config"
    assert all((tmp_path / "ms" / name).is_file() for name in names)


def test_microsofts_code_cannot_express_everything(tmp_path):
    folder = tiny_checkpoint(tmp_path / "wide", image_size=(96, 64))
    with pytest.raises(CheckpointError, match="square"):
        conversion.convert_checkpoint(open_checkpoint(folder), tmp_path / "ms", to="microsoft")


def test_a_bare_folder_of_either_layout_is_loaded_with_its_base(native, tmp_path):
    from safetensors.torch import load_file, save_file

    conversion.convert_checkpoint(open_checkpoint(native), tmp_path / "ms", to="microsoft")
    weights = load_file(tmp_path / "ms/model.safetensors")
    # accelerate drops all but one of the names that share memory, whichever comes first
    weights["language_model.model.encoder.embed_tokens.weight"] = weights.pop("language_model.model.shared.weight")
    del weights["language_model.lm_head.weight"]
    (tmp_path / "bare").mkdir()
    save_file(weights, tmp_path / "bare/model.safetensors")
    found = open_checkpoint(tmp_path / "bare", base=tmp_path / "ms")
    assert (found.layout, found.names) == ("bare", "microsoft")
    image = found.config["image_token_id"]
    expected = logits(florence.load_model(native))[..., :image]
    assert torch.equal(logits(florence.load_model(found))[..., :image], expected)


def test_an_onnx_only_folder_says_which_engine_it_is_for(native, tmp_path):
    folder = shutil.copytree(native, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "onnx").mkdir()
    with pytest.raises(CheckpointError, match="onnx engine"):
        florence.load_model(folder)


def test_a_size_that_does_not_exist_is_named():
    with pytest.raises(CheckpointError, match="nano, base, large"):
        florence.build_model("huge")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "count"), [("base", 231_414_016), ("large", 770_173_952)])
def test_models_of_the_real_sizes_load_run_and_save(shared, tmp_path, name, count):
    model = florence.build_model(name, dtype=torch.bfloat16)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    tokenizer = complete_tokenizer(read_tokenizer(shared / "data/florence2_large_files"))
    save = {"tokenizer": tokenizer, "image_size": (768, 768), "labels": ["table", "figure"], "max_new_tokens": 6}
    florence.save_checkpoint(model, tmp_path / "native", **save)
    del model
    checkpoint = open_checkpoint(tmp_path / "native")
    assert (checkpoint.image_tokens, checkpoint.config["image_token_id"]) == (577, 51289)
    (found,) = stock(tmp_path / "native")
    assert found["wrong"] == [[], [], [], []]
    assert len(found["input_ids"]) == 590
    assert logits(florence.load_model(checkpoint), 577, (768, 768)).isfinite().all()  # float32 is faster on most CPUs
    loaded = florence.load_model(checkpoint, dtype=torch.bfloat16)
    conversion.convert_checkpoint(checkpoint, tmp_path / "ms", to="microsoft")
    again = florence.load_model(open_checkpoint(tmp_path / "ms"), dtype=torch.bfloat16).state_dict()
    for key, tensor in loaded.state_dict().items():
        rows = 51289 if tensor.shape[0] == 51290 else None
        assert torch.equal(again[key][:rows], tensor[:rows]), key
