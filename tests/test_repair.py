"""Every defect a saved checkpoint is known to have, built as a folder, repaired, and repaired again for nothing."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from florentune.cli import build_app
from florentune.errors import CheckpointError
from florentune.model.checkpoint import open_checkpoint
from florentune.model.repair import repair
from tiny_model import tiny_checkpoint

torch = pytest.importorskip("torch")
florence = pytest.importorskip("florentune.model.florence")
conversion = pytest.importorskip("florentune.model.conversion")

CODE = ("configuration_florence2.py", "modeling_florence2.py", "processing_florence2.py")
LOCAL = {
    "AutoConfig": "configuration_florence2.Florence2Config",
    "AutoModelForCausalLM": "modeling_florence2.Florence2ForConditionalGeneration",
}
HUB = "microsoft/Florence-2-large-ft--"
# What saving Microsoft's configuration through transformers leaves in vision_config.
NOISE = {"return_dict": True, "top_k": 50, "num_beams": 1, "id2label": {"0": "LABEL_0"}, "_name_or_path": ""}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A native folder and a Microsoft folder with code, the same model."""
    top = tmp_path_factory.mktemp("models")
    native = tiny_checkpoint(top / "native")
    code = top / "code"
    code.mkdir()
    for name in CODE:
        (code / name).write_text("raise SystemExit('this code must never run')\n")
    source = shutil.copytree(native, top / "source")
    for name in CODE:
        shutil.copy(code / name, source)
    conversion.convert_checkpoint(open_checkpoint(source), top / "microsoft", to="microsoft")
    return {"native": native, "microsoft": top / "microsoft", "code": code}


def edit(folder, name, change):
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))


def reweigh(folder, change):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def auto_map(folder, **entries):
    edit(folder, "config.json", lambda config: config.update(auto_map=entries))


def without_code(folder):
    for name in CODE:
        (folder / name).unlink()


def only_on_the_hub(folder):
    without_code(folder)
    auto_map(folder, **{key: HUB + value for key, value in LOCAL.items()})


def llamafactory(folder):
    auto_map(
        folder,
        AutoConfig=LOCAL["AutoConfig"],
        AutoModel=LOCAL["AutoModelForCausalLM"],
        AutoModelForCausalLM=HUB + LOCAL["AutoModelForCausalLM"],
    )


def auto_model_too(folder):
    auto_map(folder, **LOCAL, AutoModel=LOCAL["AutoModelForCausalLM"])


def no_vision_type(folder):
    edit(folder, "config.json", lambda config: config["vision_config"].update(NOISE, model_type=""))


def language_type(folder):
    edit(folder, "config.json", lambda config: config["text_config"].update(model_type="florence2_language"))


def processor_on_the_hub(folder):
    entry = {"AutoProcessor": HUB + "processing_florence2.Florence2Processor"}
    edit(folder, "preprocessor_config.json", lambda config: config.update(auto_map=entry))


def native_tower_names(folder):
    from florentune.model.config import native_config

    def change(config):
        config["vision_config"] = native_config(config)["vision_config"]

    edit(folder, "config.json", change)


def microsoft_config_on_native(folder):
    from florentune.model.config import microsoft_config, native_config

    def change(config):
        native = native_config(config)
        config["vision_config"] = microsoft_config(native, {})["vision_config"]
        config["text_config"]["model_type"] = "florence2_language"
        config["auto_map"] = dict(LOCAL)

    edit(folder, "config.json", change)


def processor_by_hand(folder):
    (folder / "processor_config.json").unlink()
    (folder / "generation_config.json").unlink()
    edit(folder, "tokenizer_config.json", lambda config: config.pop("model_specific_special_tokens"))


def processor_without_parsers(folder):
    def change(config):
        config["post_processor_config"] = None
        del config["image_processor"]["image_seq_length"]

    edit(folder, "processor_config.json", change)


def no_image_token(folder):
    """A native model rebuilt by hand on Microsoft's vocabulary: no <image> anywhere."""

    def change(tokenizer):
        tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] != "<image>"]

    def shorter(config):
        config["text_config"]["vocab_size"] -= 1
        del config["image_token_id"]

    edit(folder, "tokenizer.json", change)
    edit(folder, "config.json", shorter)
    reweigh(
        folder,
        lambda weights: weights.update(
            {"model.language_model.shared.weight": weights["model.language_model.shared.weight"][:-1].clone()}
        ),
    )
    processor_by_hand(folder)


def no_head(folder):
    reweigh(folder, lambda weights: weights.pop("language_model.lm_head.weight"))


def other_head(folder):
    def change(weights):
        weights["lm_head.weight"] = weights["model.language_model.shared.weight"] * 2

    reweigh(folder, change)


def claims_a_head(folder):
    edit(folder, "config.json", lambda config: config.update(tie_word_embeddings=False))


def seed(folder):
    """What the demo's author found, and what they did not see, all at once."""
    for break_it in (llamafactory, no_vision_type, language_type, processor_on_the_hub, no_head):
        break_it(folder)


CASES = {
    "a: code on the hub only": ("microsoft", only_on_the_hub, ["config.json: auto_map", "remote code"]),
    "b: half local, half hub": ("microsoft", llamafactory, ["config.json: auto_map"]),
    "c: AutoModel too": ("microsoft", auto_model_too, ["config.json: auto_map"]),
    "d: code not copied": ("microsoft", without_code, ["remote code"]),
    "e: no tower type": ("microsoft", no_vision_type, ["model_type is ''", "5 generic fields"]),
    "f: florence2_language": ("microsoft", language_type, ["florence2_language"]),
    "g: processor on the hub": ("microsoft", processor_on_the_hub, ["preprocessor_config.json: auto_map"]),
    "h: native tower in Microsoft's": ("microsoft", native_tower_names, ["davit", "translated"]),
    "i: Microsoft's config on native": ("native", microsoft_config_on_native, ["auto_map", "translated", "'bart'"]),
    "j: processor by hand": ("native", processor_by_hand, ["processor_config", "model_specific", "generation_config"]),
    "j: no parsers": ("native", processor_without_parsers, ["post_processor_config", "image_seq_length"]),
    "j: no image token": ("native", no_image_token, ["tokenizer.json", "no row for <image>", "model_specific"]),
    "k: no head": ("microsoft", no_head, ["lm_head is missing"]),
    "k: another head": ("native", other_head, ["tie_word_embeddings must be false"]),
    "k: a head that is not there": ("native", claims_a_head, ["tie_word_embeddings must be true"]),
    "the demo's checkpoint": (
        "microsoft",
        seed,
        ["config.json: auto_map", "model_type is ''", "florence2_language", "preprocessor_config.json", "lm_head"],
    ),
}


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def answer(folder):
    """Greedy tokens of a fixed input, by the model as florentune reads it."""
    checkpoint = open_checkpoint(folder)
    model = florence.load_model(checkpoint)
    ids = torch.tensor([[checkpoint.config["image_token_id"]] * 17 + [0, 300, 301, 302, 2]])
    pixels = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    return model.generate(input_ids=ids, pixel_values=pixels, max_new_tokens=6, num_beams=1).tolist()


@pytest.fixture
def broken(request, models, tmp_path):
    layout, break_it, expected = CASES[request.param]
    folder = shutil.copytree(models[layout], tmp_path / "model")
    assert repair(folder, check=True).problems == []
    break_it(folder)
    return folder, expected, models["code"]


@pytest.mark.parametrize("broken", CASES, indirect=True)
def test_check_lists_the_defects_and_changes_nothing(broken):
    folder, expected, _ = broken
    before = files(folder)
    found = repair(folder, check=True)
    assert all(any(part in problem for problem in found.problems) for part in expected), found.problems
    assert files(folder) == before
    result = CliRunner().invoke(build_app(), ["repair", str(folder), "--check"])
    assert result.exit_code == 1
    assert all(problem in result.output for problem in found.problems)
    assert files(folder) == before


@pytest.mark.parametrize("broken", CASES, indirect=True)
def test_repair_mends_once_keeps_the_originals_and_is_done(broken, models):
    folder, _, code = broken
    before = files(folder)
    found = repair(folder, code=code)
    assert found.problems
    assert found.advice == []
    after = files(folder)
    kept = {path: content for path, content in after.items() if path.parts[0] == "repair-backup"}
    for path, content in kept.items():
        assert before[path.relative_to("repair-backup")] == content
    changed = {path for path in before if after[path] != before[path]}
    assert changed == {path.relative_to("repair-backup") for path in kept}
    assert repair(folder, code=code).problems == []
    assert repair(folder, check=True).problems == []
    assert files(folder) == after
    if not any("differs from the embedding" in problem for problem in found.problems):
        assert answer(folder) == answer(models["native"])


@pytest.mark.parametrize("break_it", [only_on_the_hub, without_code])
def test_without_the_code_the_rest_is_mended_and_the_way_is_told(models, tmp_path, break_it):
    folder = shutil.copytree(models["microsoft"], tmp_path / "model")
    break_it(folder)
    language_type(folder)
    found = repair(folder)
    assert "hf download microsoft/Florence-2-large configuration_florence2.py" in found.advice[0]
    config = json.loads((folder / "config.json").read_text())
    assert {value.partition("--")[0] for value in config["auto_map"].values()} in (
        {"microsoft/Florence-2-large"},
        {"microsoft/Florence-2-large-ft"},
    )
    assert "model_type" not in config["text_config"]
    after = files(folder)
    again = CliRunner().invoke(build_app(), ["repair", str(folder), "--json"])
    assert again.exit_code == 1
    assert json.loads(again.stdout)["problems"] == [
        "remote code: is not in the folder, so it loads only where the hub can be reached"
    ]
    assert files(folder) == after
    for name in CODE:
        shutil.copy(models["code"] / name, folder)
    assert repair(folder).advice == []
    assert json.loads((folder / "config.json").read_text())["auto_map"] == LOCAL


def test_the_mended_head_is_the_embedding(models, tmp_path):
    from safetensors.torch import load_file

    folder = shutil.copytree(models["microsoft"], tmp_path / "model")
    original = load_file(folder / "model.safetensors")
    no_head(folder)
    repair(folder)
    mended = load_file(folder / "model.safetensors")
    assert mended.keys() == original.keys()
    assert all(torch.equal(mended[name], original[name]) for name in original)


def test_a_different_head_is_used_after_the_repair(models, tmp_path):
    from transformers import Florence2ForConditionalGeneration

    folder = shutil.copytree(models["native"], tmp_path / "model")
    other_head(folder)
    repair(folder)
    model = Florence2ForConditionalGeneration.from_pretrained(folder)
    assert torch.equal(model.lm_head.weight, 2 * model.get_input_embeddings().weight)


def test_a_repaired_native_folder_loads_in_stock_transformers(models, tmp_path):
    from transformers import Florence2ForConditionalGeneration, Florence2Processor

    folder = shutil.copytree(models["native"], tmp_path / "model")
    microsoft_config_on_native(folder)
    no_image_token(folder)
    repair(folder)
    processor = Florence2Processor.from_pretrained(folder)
    model = Florence2ForConditionalGeneration.from_pretrained(folder)
    assert processor.image_token_id == model.config.image_token_id == model.config.text_config.vocab_size - 1
    parsed = processor.post_process_generation(
        "</s><s>table<loc_1><loc_2><loc_3><loc_4></s>", task="<OD>", image_size=(1000, 1000)
    )
    assert parsed["<OD>"]["labels"] == ["table"]


def test_a_second_backup_does_not_replace_the_first(models, tmp_path):
    folder = shutil.copytree(models["native"], tmp_path / "model")
    claims_a_head(folder)
    assert repair(folder).backup == folder / "repair-backup"
    first = (folder / "repair-backup/config.json").read_bytes()
    claims_a_head(folder)
    assert repair(folder).backup == folder / "repair-backup-2"
    assert (folder / "repair-backup/config.json").read_bytes() == first


def test_what_stock_transformers_saves_needs_no_repair(models, tmp_path):
    from transformers import Florence2ForConditionalGeneration, Florence2Processor

    Florence2ForConditionalGeneration.from_pretrained(models["native"]).save_pretrained(tmp_path / "m")
    Florence2Processor.from_pretrained(models["native"]).save_pretrained(tmp_path / "m")
    assert repair(tmp_path / "m", check=True).problems == []
    assert open_checkpoint(tmp_path / "m").config == open_checkpoint(models["native"]).config


def test_the_two_files_of_transformers_4_need_no_repair(models, tmp_path):
    folder = shutil.copytree(models["native"], tmp_path / "model")
    processor = json.loads((folder / "processor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(processor.pop("image_processor")))
    (folder / "processor_config.json").write_text(json.dumps(processor))
    assert repair(folder, check=True).problems == []
    assert open_checkpoint(folder).image_tokens == 17


@pytest.mark.parametrize("gone", ["config.json", "model.safetensors", "tokenizer.json"])
def test_what_cannot_be_mended_is_an_error_that_says_what_is_needed(models, tmp_path, gone):
    folder = shutil.copytree(models["native"], tmp_path / "model")
    (folder / gone).unlink()
    with pytest.raises(CheckpointError, match=gone.split(".")[0] if gone != "model.safetensors" else "no safetensors"):
        repair(folder)


def test_no_folder_is_an_error():
    with pytest.raises(CheckpointError, match="no such"):
        repair(Path("nowhere"))
