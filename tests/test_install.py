"""The package as users get it: sdist and wheel built, installed into empty environments, and used there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

from florentune.cli.doctor import EXTRAS

ROOT = Path(__file__).parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
pytestmark = pytest.mark.slow


def run(*command, ok=(0,), **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, check=False, **options
    )
    assert done.returncode in ok, f"{command}: {done.stdout[-1000:]}{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(sdist, wheel); the wheel is made from the sdist, so that nothing it needs can be missing there."""
    top = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "venv", top / "tools")
    tool = top / "tools/bin/python"
    run(tool, "-m", "pip", "install", "--quiet", "build")
    run(tool, "-m", "build", "--outdir", top / "dist", ROOT)
    (sdist,), (wheel,) = (top / "dist").glob("*.tar.gz"), (top / "dist").glob("*.whl")
    return sdist, wheel


class Environment:
    """An empty environment with the wheel and one extra in it."""

    def __init__(self, folder, wheel, extra="", python=sys.executable):
        run(python, "-m", "venv", folder)
        self.bin = folder / "bin"
        named = f"florentune[{extra}] @ {wheel.as_uri()}" if extra else wheel
        run(self.bin / "python", "-m", "pip", "install", "--quiet", named)
        run(self.bin / "python", "-m", "pip", "check")

    def __call__(self, *words, ok=(0,), cwd=None):
        return run(self.bin / "florentune", *words, ok=ok, cwd=cwd)

    def python(self, code, cwd=None):
        return run(self.bin / "python", "-c", code, cwd=cwd).stdout.strip()


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    """A folder with one page image and one PDF, drawn by Pillow."""
    from PIL import Image, ImageDraw

    folder = tmp_path_factory.mktemp("papers")
    page = Image.new("RGB", (850, 1100), "white")
    draw = ImageDraw.Draw(page)
    for row in range(9):
        draw.line((150, 300 + 40 * row, 700, 300 + 40 * row), fill="black", width=2)
        draw.text((160, 312 + 40 * row), f"method {row}      {row}.31      {row}.77      {row}.99", fill="black")
    page.save(folder / "page.png")
    page.save(folder / "paper.pdf")
    return folder


@pytest.fixture(scope="module")
def base(built, tmp_path_factory):
    return Environment(tmp_path_factory.mktemp("base") / "venv", built[1])


def use(florentune, papers, out):
    """predict and extract with nano, from the command line."""
    florentune("predict", papers / "page.png", "--out", out / "boxes", "--conf", "0.01")
    florentune("extract", papers / "paper.pdf", "--out", out / "found")
    assert (out / "boxes").is_dir()
    assert any((out / "found").rglob("*.json"))
    assert "nano runs" in florentune("doctor").stdout


def test_the_wheel_holds_the_package_and_nothing_else(built):
    names = zipfile.ZipFile(built[1]).namelist()
    listed = run("git", "ls-files", "src/florentune", cwd=ROOT).stdout.split()
    package = {name for name in names if name.startswith("florentune/")}
    assert package == {name.removeprefix("src/") for name in listed}
    assert all(name.startswith(("florentune/", "florentune-")) for name in names)
    assert {"florentune/py.typed", "florentune/nano/model.safetensors", "florentune/nano/config.json"} <= package
    assert sum("nano/onnx/" in name for name in package) == 4


def test_the_sdist_holds_what_tests_and_docs_need_and_no_junk(built):
    with tarfile.open(built[0]) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    for needed in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md", "tests/conftest.py"):
        assert needed in names
    junk = ("__pycache__", ".pyc", ".venv", "runs/", "/.git/", ".log")
    assert not [name for name in names if any(part in name for part in junk)]


def test_the_base_install_predicts_and_extracts_without_torch(base, papers, tmp_path):
    installed = {
        row["name"].lower()
        for row in json.loads(run(base.bin / "python", "-m", "pip", "list", "--format", "json").stdout)
    }
    assert not installed & {"torch", "transformers", "matplotlib", "scipy", "pandas", "onnx", "opencv-python"}
    use(base, papers, tmp_path)


NEED = {
    "train": ["train", "run.yaml"],
    "report": ["evaluate", "truth.json", "--images", ".", "--report", "report"],
    "synth": ["synth", "pages", "--pages", "1"],
    "server": ["serve"],
    "ray": ["extract", "paper.pdf", "--out", "found", "--ray", "local"],
    "fsspec": ["extract", "s3://bucket/paper.pdf", "--out", "found"],
}
TRUTH = {
    "images": [{"id": 1, "file_name": "page.png", "width": 850, "height": 1100}],
    "categories": [{"id": 1, "name": "table"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [150, 300, 550, 320], "area": 176000, "iscrowd": 0}
    ],
}


def workplace(papers, folder):
    """A page, a paper, the truth about the page, and the configuration of a run."""
    shutil.copytree(papers, folder, dirs_exist_ok=True)
    (folder / "run.yaml").write_text("model_name_or_path: nano\ndataset: truth.json\nimages: .\noutput_dir: out\n")
    (folder / "truth.json").write_text(json.dumps(TRUTH))


@pytest.mark.parametrize("extra", NEED)
def test_without_the_extra_the_base_install_says_what_to_install(base, papers, tmp_path, extra):
    workplace(papers, tmp_path)
    if extra == "fsspec":  # tokenizers brings it along today
        run(base.bin / "python", "-m", "pip", "uninstall", "--quiet", "--yes", "fsspec")
    done = base(*NEED[extra], ok=(3,), cwd=tmp_path)
    assert f"pip install 'florentune[{extra}]'" in done.stderr


def try_train(florentune, folder):
    florentune("train", "run.yaml", "max_steps=1", "use_cpu=true", cwd=folder)
    florentune("export", "out/last", "graphs", "--to", "onnx", cwd=folder)
    found = florentune("predict", "page.png", "--model", "graphs", "--json", cwd=folder)
    assert json.loads(found.stdout)["status"] == "ok"
    assert "'table'" in florentune.python(
        "from florentune import load_detector; print(load_detector('out/last').labels)", folder
    )


def try_synth(florentune, folder):
    florentune("synth", "pages", "--pages", "1", cwd=folder)
    assert any((folder / "pages/images").glob("*.png"))


def try_report(florentune, folder):
    florentune("evaluate", "truth.json", "--images", ".", "--json", "found.json", "--report", "report", cwd=folder)
    assert json.loads((folder / "found.json").read_text())["map"] is not None
    assert (folder / "report/index.html").is_file()


def try_server(florentune, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    top = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([florentune.bin / "florentune", "serve", "--port", str(port)], cwd=folder)
    try:
        wait_for(f"{top}/readyz", server)
        image = (folder / "page.png").read_bytes()
        with urllib.request.urlopen(urllib.request.Request(f"{top}/v1/detect", data=image)) as answer:
            assert json.load(answer)
    finally:
        server.terminate()
        assert server.wait(timeout=60) == 0


def wait_for(address, server):
    for _ in range(600):
        assert server.poll() is None, "the server ended"
        try:
            return urllib.request.urlopen(address)
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{address} is not there after two minutes")


def try_ray(florentune, folder):
    florentune("extract", "paper.pdf", "--out", "found", "--ray", "local", "--workers", "1", cwd=folder)
    assert len((folder / "found/documents.jsonl").read_text().splitlines()) == 1


def try_parquet(florentune, folder):
    florentune("extract", "paper.pdf", "--out", "found", cwd=folder)
    assert (folder / "found/figures.parquet").read_bytes()[:4] == b"PAR1"


def try_fsspec(florentune, folder):
    florentune("extract", (folder / "paper.pdf").as_uri(), "--out", "found", cwd=folder)
    assert json.loads((folder / "found/documents.jsonl").read_text())["status"] == "ok"


SUPERVISION = """
from florentune import Box, Page, Region
from florentune.detector import to_supervision
found = to_supervision(Page("a", 10, 10, (Region("table", Box(1, 2, 3, 4), 0.5),)))
import supervision
assert isinstance(found, supervision.Detections) and len(found) == 1
assert found.with_nms(0.5).confidence.tolist() == [0.5]
assert found["class_name"].tolist() == ["table"]
"""


def try_supervision(florentune, folder):
    florentune.python(SUPERVISION, folder)


TRY = {
    "train": try_train, "synth": try_synth, "report": try_report, "server": try_server, "ray": try_ray,
    "parquet": try_parquet, "fsspec": try_fsspec, "supervision": try_supervision,
}  # fmt: skip


def test_every_extra_is_tried():
    assert set(TRY) == set(EXTRAS)


@pytest.mark.parametrize("extra", TRY)
def test_an_extra_alone_is_enough_for_what_it_is_for(built, papers, tmp_path, extra):
    workplace(papers, tmp_path)
    florentune = Environment(tmp_path / "venv", built[1], extra)
    TRY[extra](florentune, tmp_path)
    assert f"[{extra}] ready" in florentune("doctor").stdout
    shutil.rmtree(tmp_path / "venv")


def interpreter(version):
    """The Python of this version on the path or among pyenv's; None when there is none that runs."""
    managed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for python in (shutil.which(f"python{version}"), *sorted(managed.glob(f"{version}.*/bin/python"))):
        if (
            python
            and not subprocess.run([python, "-c", "import venv, ssl"], capture_output=True, check=False).returncode
        ):
            return python
    return None


@pytest.mark.parametrize("version", PYTHONS)
def test_it_installs_and_runs_on(built, papers, tmp_path, version):
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} on this machine")
    florentune = Environment(tmp_path / "venv", built[1], python=python)
    assert florentune.python("import sys; print(sys.version)").startswith(version)
    use(florentune, papers, tmp_path)
