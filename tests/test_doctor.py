"""`florentune doctor`: what is missing is named with the command that brings it; completion for three shells."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from florentune.cli import doctor
from florentune.errors import CheckpointError

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
METADATA = list(PROJECT["dependencies"])
METADATA += [f"{line}; extra == '{extra}'" for extra in doctor.EXTRAS for line in EXTRAS[extra]]


@pytest.fixture
def installed(monkeypatch):
    """The metadata of pyproject.toml, and versions of packages that the test chooses."""
    versions = {re.split(r"[\[<>=; ]", line)[0]: "9999" for line in METADATA}
    monkeypatch.setattr(doctor, "requires", lambda name: METADATA)
    monkeypatch.setattr(doctor, "_try_nano", lambda: None)
    monkeypatch.setattr(doctor, "_device", lambda: "CPU")

    def version(package):
        if package not in versions:
            raise PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(doctor, "version", version)
    return versions


@pytest.fixture
def told(installed, capsys, monkeypatch):
    def run(*arguments):
        from florentune.cli import main

        monkeypatch.setattr("sys.argv", ["florentune", "doctor", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, capsys.readouterr().out

    return run


def test_every_extra_is_explained_and_no_other():
    assert set(doctor.EXTRAS) == set(EXTRAS) - {"dev", "docs"}


def test_everything_there_is_exit_0(told):
    code, out = told()
    assert code == 0
    assert "nano runs" in out
    assert all(f"[{extra}] ready" in out for extra in doctor.EXTRAS)


def test_it_fits_80_columns(told, installed):
    assert max(map(len, told()[1].splitlines())) <= 80
    for line in EXTRAS["train"]:
        del installed[re.split(r"[\[<>=; ]", line)[0]]
    assert max(map(len, told()[1].splitlines())) <= 80


def test_a_missing_package_of_an_extra_is_named_with_the_command_that_brings_it(told, installed):
    del installed["peft"]
    code, out = told()
    assert code == 0
    assert "[train] to fine-tune" in out
    assert "peft is missing" in out
    assert "pip install 'florentune[train]'" in out


def test_a_version_that_is_too_old_is_named(told, installed):
    installed["transformers"] = "5.2.0"
    assert "transformers is 5.2.0, but >=5.13 is needed" in told()[1]


def test_a_broken_base_install_is_exit_1_with_the_remedy(told, installed):
    del installed["onnxruntime"]
    code, out = told()
    assert code == 1
    assert "PROBLEM: onnxruntime is missing: pip install --force-reinstall florentune" in out


def test_a_model_that_does_not_run_is_exit_1_with_the_reason(told, monkeypatch):
    monkeypatch.setattr(doctor, "_try_nano", lambda: "ImportError: libgomp.so.1 is not here")
    code, out = told("--json")
    assert code == 1
    assert json.loads(out)["problems"] == ["nano does not run: ImportError: libgomp.so.1 is not here"]


def test_nano_is_really_run(monkeypatch):
    assert doctor._try_nano() is None

    def broken(*arguments, **options):
        raise CheckpointError("no graphs")

    monkeypatch.setattr("florentune.detector.load_detector", broken)
    assert "no graphs" in doctor._try_nano()


BASH = (
    'eval "$SCRIPT"; COMP_WORDS=(florentune ex) COMP_CWORD=1; _florentune_completion florentune; echo ${COMPREPLY[@]}'
)
SHELLS = {
    "bash": BASH,
    "zsh": 'compdef() { echo "$1 completes $2"; }; eval "$SCRIPT"',
    "fish": "eval $SCRIPT; complete -C 'florentune ex'",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_works_in_the_shell_itself(tmp_path, shell):
    """The script the command prints is run by the shell; bash and fish complete a word with it, zsh registers it."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} on this machine")
    folder = tmp_path / "bin"
    folder.mkdir()
    start = f'#!/bin/sh\nexec "{sys.executable}" -c \'import sys; sys.argv[0] = "florentune"; '
    (folder / "florentune").write_text(start + 'from florentune.cli import main; main()\' "$@"\n')
    (folder / "florentune").chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tmp_path), "TERM": "dumb"}
    script = subprocess.run(
        [folder / "florentune"],
        env={**environment, "_FLORENTUNE_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert "florentune" in script
    done = subprocess.run(
        [shell, "-c", SHELLS[shell]],
        env={**environment, "SCRIPT": script},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert {"extract", "export"} <= set(done.stdout.split()) or "completes florentune" in done.stdout, done.stderr
