"""The command line as a whole: light help, suggestions, exit codes, no traceback."""

import json
import subprocess
import sys

import pytest

from florentune import __version__
from florentune.cli import COMMANDS
from florentune.training.config import KEYS

HEAVY = ["torch", "transformers", "accelerate", "matplotlib", "onnxruntime", "typst", "fastapi", "PIL", "numpy"]


def run(*words, blocked=()):
    code = f"import sys\nfor name in {list(blocked)}: sys.modules[name] = None\n"
    code += f"sys.argv = ['florentune', *{list(words)!r}]\nfrom florentune.cli import main\nmain()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command):
    done = run(*([command] if command else []), "--help", blocked=HEAVY)
    assert done.returncode == 0, done.stderr
    assert "Usage: florentune" in done.stdout


def test_every_command_is_listed_with_what_it_does():
    listed = run("--help").stdout.split("Commands:")[1]
    for command in COMMANDS:
        assert f"\n  {command} " in listed
    assert "..." not in listed, "a first sentence is too long for 80 columns"


def test_the_version_is_that_of_the_package():
    assert run("--version", blocked=HEAVY).stdout == f"florentune {__version__}\n"


def test_an_unknown_command_is_met_with_a_suggestion():
    done = run("pedict")
    assert done.returncode == 2
    assert "predict" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "flag", "meant"), [("predict", "--modle", "--model"), ("synth", "--page", "--pages")]
)
def test_an_unknown_flag_is_met_with_a_suggestion(command, flag, meant):
    done = run(command, "x", flag, "3")
    assert done.returncode == 2
    assert meant in done.stderr


def test_the_list_of_keys_fits_80_columns():
    lines = run("train", "--keys").stdout.splitlines()
    assert {line.split()[0] for line in lines if not line.startswith(" ")} == set(KEYS)
    assert max(map(len, lines)) <= 80


def test_doctor_speaks_json(florentune):
    found = json.loads(florentune("doctor", "--json")[1])
    assert set(found) >= {"florentune", "python", "device", "packages", "extras"}


def test_an_error_of_ours_is_one_message_and_its_exit_code(tmp_path):
    done = run("check", str(tmp_path / "nothing.json"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "nothing.json" in done.stderr
    assert "Traceback" not in done.stderr
