"""What docs/server.md shows works: its clients are run as they stand there, its deployment files are checked."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra [server]")
from server_fakes import Running, pdf, png

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def server():
    with Running() as running:
        yield running


@pytest.fixture
def run(server, tmp_path):
    """Run the examples of a language, in a folder with the files they name, and return what they print."""

    def run_examples(language, *command):
        if shutil.which(command[0]) is None:
            pytest.skip(f"there is no {command[0]} on this machine")
        text = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
        blocks = re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)
        code = "\n".join(block for block in blocks if re.search(r"http://127\.0\.0\.1:8000[/\"]", block))
        for address in ("http://127.0.0.1:8000", "https://boxes.example.org"):
            code = code.replace(address, f"http://127.0.0.1:{server.client.port}")
        (tmp_path / "page.png").write_bytes(png())
        (tmp_path / "paper.pdf").write_bytes(pdf(2))
        example = tmp_path / f"example.{command[1]}"
        example.write_text(code, encoding="utf-8")
        done = subprocess.run(
            [command[0], *command[2:], str(example)],
            cwd=tmp_path,
            env={**os.environ, "FLORENTUNE_TOKEN": "0123456789abcdef"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_examples


def test_curl(run, tmp_path):
    printed = run("sh", "sh", "sh", "-e")
    assert printed.count('"regions":[{"label":"table"') == 1
    assert printed.count('"schema":"florentune.document/1"') + printed.count('"schema": "florentune.document/1"') == 2
    assert len(zipfile.ZipFile(tmp_path / "paper.zip").namelist()) >= 3


def test_python(run):
    lines = run("python", sys.executable, "py").splitlines()
    assert [line.split(" ", 2)[:2] for line in lines] == [["1", "table"], ["2", "table"]]


def test_javascript(run):
    assert run("js", "node", "mjs").split()[0] == "table"


def test_the_containerfile_is_linted():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("there is no hadolint on this machine")
    done = subprocess.run([hadolint, str(DEPLOY / "Containerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_containerfile_copies_what_there_is():
    """What the build backend needs is copied, and every copied path is in the checkout."""
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    copied = [name for line in re.findall(r"^COPY (.*)$", text, re.M) for name in line.split()[:-1]]
    assert copied == ["pyproject.toml", "README.md", "LICENSE", "src"]
    assert all((ROOT / name).exists() for name in copied)


def test_the_unit_is_valid(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze on this machine")
    unit = tmp_path / "florentune.service"
    text = (DEPLOY / "florentune.service").read_text(encoding="utf-8")
    program = tmp_path / "program"
    program.symlink_to(sys.executable)
    unit.write_text(text.replace("/opt/florentune/bin/florentune", str(program)), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
