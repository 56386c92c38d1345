"""`florentune export` and `florentune repair` as commands: exit codes, messages, what is written."""

import json

import pytest

from florentune.model.checkpoint import open_checkpoint
from tiny_model import tiny_checkpoint

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "native")


@pytest.fixture
def run(capsys, monkeypatch):
    """The command line in this process, through main(), where errors become messages and exit codes."""
    from florentune.cli import main

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["florentune", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_to_microsoft_and_back(native, tmp_path, run):
    code, out, err = run("export", native, tmp_path / "ms", "--to", "microsoft", "--dtype", "fp16")
    assert code == 0
    assert f"wrote {tmp_path / 'ms'}" in out
    assert "--revision" in err
    assert json.loads((tmp_path / "ms/config.json").read_text())["torch_dtype"] == "float16"
    assert run("export", tmp_path / "ms", tmp_path / "native", "--to", "native")[0] == 0
    assert open_checkpoint(tmp_path / "native").config == open_checkpoint(native).config
    assert json.loads((tmp_path / "native/config.json").read_text())["dtype"] == "float16"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["export", "nowhere", "out", "--to", "native"], "no such model folder"),
        (["export", "NATIVE", "out", "--to", "native", "--dtype", "int8"], "int8"),
        (["export", "NATIVE", "out", "--to", "tensorflow"], "tensorflow"),
        (["export", "NATIVE", "out"], "--to"),
        (["repair", "nowhere"], "no such"),
        (["import-weights", "nowhere.bin", "out"], "no such file"),
    ],
)
def test_wrong_use_is_exit_2_with_one_message(native, tmp_path, run, monkeypatch, arguments, word):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*(str(native) if argument == "NATIVE" else argument for argument in arguments))
    assert code == 2
    assert word in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_left_alone(native, tmp_path, run):
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = run("export", native, tmp_path, "--to", "native")
    assert code == 2
    assert "no model" in err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_sound_folder_needs_no_repair(native, run):
    code, out, _ = run("repair", native, "--check")
    assert (code, out.strip()) == (0, "nothing to repair")
