"""Hostile model folders, opened in a child process that watches itself: no code of theirs runs, none is obeyed."""

import os
import shutil
import sys

import pytest

from florentune.model.weights import WEIGHTS
from test_checkpoint import LIES, edit
from tiny_model import tiny_checkpoint
from watched import opened_by_a_child

CODE = ("configuration_florence2.py", "modeling_florence2.py", "processing_florence2.py", "setup.py", "__init__.py")
PICKLE = b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch pwned1\x85R."


def replace(name, content):
    def change(folder):
        (folder / name).write_bytes(content)

    return change


def edited(name, **changes):
    return lambda folder: edit(folder, name, **changes)


def only(name):
    def change(folder):
        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(PICKLE)

    return change


def link(name, target):
    def change(folder):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return change


def with_code(folder):
    for name in CODE:
        (folder / name).write_text("import os; os.system('touch pwned')\n")
    edit(
        folder,
        "config.json",
        auto_map={"AutoConfig": "configuration_florence2.Florence2Config", "AutoModel": "modeling_florence2.X"},
        trust_remote_code=True,
        custom_pipelines={"x": {"impl": "modeling_florence2.X"}},
        text_config___attn_implementation="evil/kernel",
        quantization_config={"quant_method": "modeling_florence2"},
    )
    edit(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["setup.X", None]}, trust_remote_code=True)
    edit(folder, "processor_config.json", auto_map={"AutoProcessor": "processing_florence2.X"})


def adapter_as_pickle(folder):
    edit(folder, "adapter_config.json", peft_type="LORA", base_model_name_or_path="..")
    (folder / "adapter_model.bin").write_bytes(PICKLE)


OPENED = {"code and trust_remote_code": with_code, "pickles beside weights": replace("pytorch_model.bin", PICKLE)}
REFUSED = {
    **{f"only {name}": only(name) for name in ("pytorch_model.bin", "model.pt", "model.pkl", "model.ckpt", "a.joblib")},
    **{f"weights: {case}": replace(WEIGHTS, content) for case, (content, _) in LIES.items()},
    "a pickle named safetensors": replace(WEIGHTS, PICKLE),
    "vocabulary of 1e11": edited("config.json", text_config__vocab_size=10**11),
    "a million layers": edited("config.json", text_config__decoder_layers=10**6),
    "negative width": edited("config.json", text_config__d_model=-32),
    "NaN": replace("config.json", b'{"model_type": "florence2", "text_config": {"dropout": NaN}, "vision_config": {}}'),
    "deep config": replace("config.json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "deep tokenizer": replace("tokenizer.json", b"[" * 100_000 + b"]" * 100_000),
    "another architecture": edited("config.json", model_type="bert"),
    "config is a link": link("config.json", "/etc/passwd"),
    "tokenizer is a link": link("tokenizer.json", "/etc/passwd"),
    "weights are a device": link(WEIGHTS, "/dev/zero"),
    "index leaves the folder": edited(
        "model.safetensors.index.json", weight_map={"lm_head.weight": "../../etc/passwd.safetensors"}
    ),
    "base is the parent": adapter_as_pickle,
}


@pytest.fixture(scope="module")
def verdict(tmp_path_factory):
    top = tmp_path_factory.mktemp("hostile")
    sound = tiny_checkpoint(tmp_path_factory.mktemp("models") / "sound")
    cases = {**OPENED, **REFUSED}
    for index, change in enumerate(cases.values()):
        change(shutil.copytree(sound, top / str(index)))
    names = [str(index) for index in range(len(cases))]
    answer = opened_by_a_child(
        top,
        names,
        prepare="import florentune.model.checkpoint, florentune.model.processor",
        call="florentune.model.checkpoint.open_checkpoint",
    )
    answer["found"] = dict(zip(cases, answer["found"].values(), strict=True))
    answer["left"] = [path.name for path in top.rglob("pwned*")]
    return answer


def test_nothing_of_theirs_ran_was_imported_or_written(verdict):
    assert verdict["seen"] == []
    assert verdict["left"] == []


def test_no_folder_cost_much_memory(verdict):
    assert verdict["kilobytes"] < 300_000


@pytest.mark.parametrize("case", OPENED)
def test_code_and_pickles_beside_good_files_change_nothing(verdict, case):
    assert verdict["found"][case] == "opened"


@pytest.mark.parametrize("case", REFUSED)
def test_the_others_are_refused_with_exit_code_2(verdict, case):
    assert verdict["found"][case].startswith("2 ")


def test_loading_the_weights_runs_none_of_the_code_either(tmp_path):
    florence = pytest.importorskip("florentune.model.florence")
    folder = tiny_checkpoint(tmp_path / "model")
    with_code(folder)
    before = os.listdir(folder)
    model = florence.load_model(folder)
    assert type(model).__module__ == "transformers.models.florence2.modeling_florence2"
    assert model.config._attn_implementation in ("sdpa", "eager")
    assert os.listdir(folder) == before
    assert not any(name in sys.modules for name in ("configuration_florence2", "modeling_florence2"))
