"""Training configurations: LLaMA-Factory's file as it is, our own, and every way to get one wrong."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from florentune.cli import build_app
from florentune.errors import ConfigError
from florentune.training import load_config
from florentune.training.config import KEYS
from florentune.training.foreign_keys import NO_EFFECT, RENAMED, UNSUPPORTED

EXAMPLES = Path(__file__).parent.parent / "examples"
DEMO = "TF-ID-arxiv-papers_example"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with the demo's dataset_info.json beside entries of other kinds, and one COCO file."""
    monkeypatch.chdir(tmp_path)
    columns, tags = (
        {"messages": "messages", "images": "images"},
        {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    )
    info = {
        "identity": {"file_name": "identity.json"},
        "alpaca_en": {"hf_hub_url": "llamafactory/alpaca_en"},
        DEMO: {"file_name": f"{DEMO}.json", "formatting": "sharegpt", "columns": columns, "tags": tags},
    }
    (tmp_path / "data" / "pages" / "images").mkdir(parents=True)
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(info))
    (tmp_path / "data" / f"{DEMO}.json").write_text("[]")
    (tmp_path / "data" / "pages" / "annotations.json").write_text("{}")
    return tmp_path


def problems(*overrides, file=None, dataset="data/pages/annotations.json"):
    """The lines of the error a configuration gives."""
    given = [f"dataset={dataset}"] if dataset else []
    with pytest.raises(ConfigError) as caught:
        load_config(file, [*given, *overrides])
    return [line.removeprefix("  - ") for line in str(caught.value).splitlines()[1:]]


def test_the_recipe_of_llamafactory_is_read_as_it_is(place):
    config = load_config(EXAMPLES / "florence2_full_sft.yaml")
    assert config.model_name_or_path == "microsoft/Florence-2-large-ft"
    assert config.dataset == (DEMO,)
    assert str(config.output_dir) == "saves/florence2-large/full/sft"
    assert (config.finetuning_type, config.freeze_vision_tower, config.bf16) == ("full", False, True)
    assert (config.learning_rate, config.num_train_epochs, config.warmup_ratio) == (5e-6, 5.0, 0.1)
    assert (config.per_device_train_batch_size, config.val_size, config.max_samples) == (4, 0.01, 3000)
    assert (config.eval_strategy, config.eval_steps, config.save_steps) == ("steps", 500, 500)
    explained = {note.split(":")[0] for note in config.notes}
    assert explained == {"deepspeed", "overwrite_cache", "preprocessing_num_workers", "image_resolution"}


def test_ten_lines_of_our_own_are_enough(place):
    file = EXAMPLES / "tables_and_figures.yaml"
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    config = load_config(file)
    assert len(lines) <= 10
    assert (config.model_name_or_path, config.augment, config.best_by) == ("nano", True, "page_success")
    assert config.notes == ()


def test_every_example_is_a_configuration(place):
    for file in EXAMPLES.glob("*.yaml"):
        assert load_config(file).dataset


def test_all_problems_come_at_once_with_suggestions(place):
    found = problems(
        "learning_rat=1",
        "lr=3",
        "bf16=maybe",
        "val_size=-1",
        "lr_scheduler_type=cosin",
        "early_stopping=3",
        "num_train_epochs=many",
        "novalue",
        dataset="TF-ID-arxiv-papers_exampl",
    )
    text = "\n".join(found)
    assert len(found) == 9
    assert "learning_rat: unknown key; did you mean 'learning_rate'?" in found
    assert "lr: unknown key; did you mean 'learning_rate'?" in found
    assert "bf16: 'maybe' is not true or false" in found
    assert "val_size: -1.0 must be at least 0" in found
    assert "did you mean 'cosine'?" in text
    assert "early_stopping: needs validation pages" in text
    assert "num_train_epochs: 'many' is not a number" in found
    assert "'novalue': an override is written key=value" in found
    assert f"did you mean '{DEMO}'?" in text


def test_overrides_win_and_are_read_as_yaml(place):
    file = place / "run.yaml"
    file.write_text("dataset: data/pages/annotations.json\nlearning_rate: 1.0e-3\nbf16: true\n")
    config = load_config(file, ["learning_rate=5e-6", "bf16=false", f"dataset={DEMO},data/pages/annotations.json"])
    assert config.learning_rate == 5e-6, "YAML reads 5e-6 as text; it is a number all the same"
    assert config.bf16 is False
    assert config.dataset == (DEMO, "data/pages/annotations.json")
    assert config.output_dir == Path("runs/run")


def test_values_that_mean_something_else(place):
    given = {"dataset": DEMO, "resume_from_checkpoint": True, "disable_gradient_checkpointing": False, "max_steps": -1}
    config = load_config(None, {**given, "report_to": "none"})
    assert config.resume_from_checkpoint == "auto"
    assert config.gradient_checkpointing is True
    assert config.max_steps is None
    assert config.report_to == ()
    assert load_config(None, {"dataset": DEMO, "resume_from_checkpoint": False}).resume_from_checkpoint is None


def test_what_this_loop_does_not_do_is_refused_only_when_it_is_asked_for(place):
    quiet = load_config(None, {"dataset": DEMO, "packing": False, "quantization_bit": None, "stage": "sft"})
    assert quiet.notes == ()
    assert problems("packing=true") == ["packing: True: an answer belongs to one page, so answers are not packed"]
    assert problems("stage=dpo") == ["stage: dpo: only supervised fine-tuning (sft) exists for Florence-2"]


def test_lora_leaves_the_tower_alone_unless_it_is_asked_for(place):
    def frozen(**given):
        return load_config(None, {"dataset": DEMO, **given}).freeze_vision_tower

    assert not frozen()
    assert frozen(finetuning_type="lora")
    assert not frozen(finetuning_type="lora", freeze_vision_tower=False)


def test_lora_keys_without_lora_are_explained(place):
    config = load_config(None, {"dataset": DEMO, "lora_rank": 4})
    assert config.notes == ("lora_rank: no effect: finetuning_type is full",)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["val_size=0.1", f"eval_dataset={DEMO}"], "val_size and eval_dataset"),
        (["interleave_probs=0.5,0.5"], "interleave_probs"),
        (["group_by=("], "group_by: '(' is not a regular expression"),
        (["val_size=2.5"], "val_size: a count must be a whole number"),
        (["val_size=1"], "val_size: 1 would be all pages"),
        (["report_to=tensorbord"], "report_to: 'tensorbord' is not one of none, auto, tensorboard"),
        (["report_to=dvclive"], "report_to: dvclive is not installed; pip install dvclive"),
        (["images=nowhere"], "images: nowhere: no such file or folder"),
        (["best_by=map"], "best_by: needs validation pages"),
        (["learning_rate=.nan"], "learning_rate: nan must be at least 0"),
        (["max_steps=1.5"], "max_steps: 1.5 is not a whole number"),
    ],
)
def test_contradictions_are_named(place, overrides, message):
    assert any(line.startswith(message) for line in problems(*overrides))


def test_a_data_set_that_is_not_there(place):
    (place / "data" / f"{DEMO}.json").unlink()
    assert "no such file" in problems(dataset=DEMO)[0]
    assert problems(dataset=None) == ["dataset: name a data set of dataset_info.json or an annotation file"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "given twice"),
        ("- 1\n", "not a list"),
        ("a: [1\n", "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_files_that_are_no_configuration(place, text, message):
    file = place / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(file)


def test_a_missing_file_is_named(place):
    with pytest.raises(ConfigError, match=r"nothing\.yaml: no such file"):
        load_config(place / "nothing.yaml")


def test_every_key_is_documented_once():
    names = [set(KEYS), set(NO_EFFECT), set(UNSUPPORTED), set(RENAMED)]
    assert sum(map(len, names)) == len(set().union(*names)), "a key has one fate"
    assert set(RENAMED.values()) <= set(KEYS)
    assert all(item.metadata["help"] for item in KEYS.values())
    page = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    assert [key for key in KEYS if f"`{key}`" not in page] == []


def test_what_is_written_to_the_run_is_a_configuration_again(place):
    import yaml

    config = load_config(None, {"dataset": DEMO, "val_size": 0.2, "lora_target": "q_proj,v_proj"})
    file = place / "again.yaml"
    file.write_text(yaml.safe_dump(config.as_dict()))
    again = load_config(file)
    assert again.as_dict() == config.as_dict()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*KEYS, *UNSUPPORTED, *NO_EFFECT]) | st.text(max_size=10), json_values))
def test_any_values_give_a_configuration_or_one_error(values):
    try:
        config = load_config(None, values)
    except ConfigError:
        return
    assert set(config.as_dict()) == set(KEYS)


def test_the_command_needs_no_file(place):
    done = CliRunner().invoke(build_app(), ["train", f"dataset={DEMO}", "learning_rat=1", "--dry-run"])
    assert isinstance(done.exception, ConfigError)
    assert "learning_rat: unknown key; did you mean 'learning_rate'?" in str(done.exception)
    assert "dataset" not in str(done.exception)


def test_a_bare_no_is_the_choice_and_not_false(place):
    assert load_config(None, [f"dataset={DEMO}", "eval_strategy=no"]).eval_strategy == "no"
