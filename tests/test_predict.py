"""`florentune predict` on real files: one result for each page, whatever the file is."""

import json
import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from florentune.cli import build_app
from florentune.cli.predict import find_inputs
from florentune.detector import load_detector
from florentune.engines.export import export_onnx
from florentune.errors import InputError
from florentune.formats import read
from test_detector import pages
from test_engines import lively


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = lively(tmp_path_factory.mktemp("predict") / "tiny", 9)
    export_onnx(folder, folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Two pages, one of them in a folder inside."""
    (tmp_path / "in" / "more").mkdir(parents=True)
    first, second = pages(2)
    first.save(tmp_path / "in" / "page.png")
    second.save(tmp_path / "in" / "more" / "page.jpg")
    return tmp_path / "in"


def run(*arguments, code=0):
    result = CliRunner().invoke(build_app(), ["predict", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_an_image_gives_the_raw_answer_and_the_references_dictionary(model, folder):
    name, raw, answer = run(folder / "page.png", "-m", model, "--conf", 0).stdout.splitlines()
    assert name == str(folder / "page.png")
    assert raw.startswith("</s><s>")
    assert raw.endswith("</s>")
    found = literal_eval(answer)["<OD>"]
    assert len(found["bboxes"]) == len(found["labels"]) > 0
    assert all(isinstance(value, float) for box in found["bboxes"] for value in box)


def test_json_has_one_object_for_each_page(model, folder):
    (folder / "bad.png").write_bytes(b"nothing")
    result = run(folder, folder / "gone.png", "-m", model, "--json", "--conf", 0, code=1)
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(record["status"], record.get("reason")) for record in records] == [
        ("failed", "format"),
        ("ok", None),
        ("ok", None),
        ("failed", "missing"),
    ]
    good = records[1]
    assert (good["width"], good["height"], good["model"]) == (120, 160, "tiny")
    assert {"label", "bbox", "score"} == set(good["regions"][0])
    assert "2 of 4 pages failed" in result.stderr


def test_one_bad_page_has_its_own_exit_code(model, folder):
    (folder / "bad.png").write_bytes(b"nothing")
    result = run(folder / "bad.png", "-m", model, code=2)
    assert result.stdout == ""
    assert "bad.png" in result.stderr


def test_drawn_pages_and_crops(model, folder, tmp_path):
    out = tmp_path / "out"
    printed = run(folder, "-m", model, "--conf", 0, "--out", out, "--crops", "--format", "regions").stdout
    drawn = Image.open(out / "page.png")
    assert drawn.size == (120, 160)
    assert drawn.convert("RGB").tobytes() != Image.open(folder / "page.png").convert("RGB").tobytes()
    assert (out / "page-2.png").exists(), "the other page.jpg is not lost"
    crops = sorted(file.name for file in out.glob("page*.*.*.png"))
    assert len(crops) == len(printed.splitlines()) > 0
    _, label, score, box = printed.splitlines()[0].split("\t")
    assert label in ("table", "figure")
    assert 0 <= float(score) <= 1
    assert len(box.split()) == 4


def test_pdf_pages_are_named_by_number(model, shared, tmp_path):
    pdf = next((shared / "data/tfid/pdfs").glob("*.pdf"))
    result = run(pdf, "-m", model, "--json", "--conf", 0, "--dpi", 40, "--batch", 8)
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert records[0]["image"] == f"{pdf}#page=1"
    assert all(record["status"] == "ok" for record in records)
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    result = run(tmp_path / "broken.pdf", "-m", model, "--json", code=2)
    assert json.loads(result.stdout)["status"] == "failed"


@pytest.mark.parametrize(("command", "code"), [("predict", 2), ("label", 1)])
def test_an_encrypted_pdf_wants_its_password(model, shared, tmp_path, command, code):
    pdf = shared / "bad_inputs/pdfs/pypdf_encrypted-file.pdf"
    words = [command, pdf, "-m", model, "--dpi", 40, "--out", tmp_path / "boxes.json"]
    missing = CliRunner().invoke(build_app(), [*map(str, words)])
    assert f"{pdf}: it is encrypted: a password is needed" in missing.output
    assert missing.exit_code == code
    assert CliRunner().invoke(build_app(), [*map(str, words), "--password", "test"]).exit_code == 0


def test_every_odd_image_ends_in_one_record(model, shared):
    files = sorted(file for file in (shared / "bad_inputs/images").iterdir() if file.is_file())
    result = CliRunner().invoke(build_app(), ["predict", *map(str, files), "-m", str(model), "--json"])
    assert result.exit_code == 1
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["image"] for record in records] == [str(file) for file in files]
    assert {record["status"] for record in records} == {"ok", "failed"}
    assert all(record["reason"] and record["message"] for record in records if record["status"] == "failed")


def test_inputs_that_hold_nothing_are_named(model, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        find_inputs([str(tmp_path / "empty")])
    with pytest.raises(InputError, match="pattern"):
        find_inputs([str(tmp_path / "*.png")])
    assert find_inputs([str(folder / "**" / "*.jpg")]) == [folder / "more" / "page.jpg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--beams", "3"], "--free"), (["--crops"], "--out"), (["--engine", "cuda"], "engine is 'cuda'")],
)
def test_options_that_contradict_each_other(model, folder, arguments, message):
    result = CliRunner().invoke(build_app(), ["predict", str(folder / "page.png"), "-m", str(model), *arguments])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_free_and_other_tasks(model, folder):
    page = folder / "page.png"
    free = run(page, "-m", model, "--free", "--beams", 3, "--engine", "torch").stdout
    assert free.splitlines()[1].startswith("</s><s>")
    caption = run(page, "-m", model, "--task", "<CAPTION>", "--json").stdout
    assert isinstance(json.loads(caption)["answer"], str)


def test_label_writes_a_coco_file_that_reads_back(model, folder, tmp_path):
    (folder / "bad.png").write_bytes(b"nothing")
    out = tmp_path / "boxes.json"
    result = CliRunner().invoke(build_app(), ["label", str(folder), "--out", str(out), "-m", str(model), "--conf", "0"])
    assert result.exit_code == 1
    assert "bad.png" in result.stderr
    found = read(out, images=folder)
    assert sorted(page.image for page in found.pages) == ["more/page.jpg", "page.png"]
    assert found.labels == ("table", "figure")
    predicted = {page.image: page.regions for page in load_detector(model).detect(named(folder), conf=0.0)}
    for page in found.pages:
        assert [region.label for region in page.regions] == [region.label for region in predicted[page.image]]
        for region, expected in zip(page.regions, predicted[page.image], strict=True):
            assert region.box == pytest.approx(expected.box, abs=1e-3)


def named(folder):
    return [("page.png", folder / "page.png"), ("more/page.jpg", folder / "more" / "page.jpg")]


def test_the_program_ends_with_the_right_code(model, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "florentune", "predict", "x.png", "--model", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_the_python_of_the_documentation_runs(model, folder, tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parent.parent / "docs" / "inference.md").read_text()
    blocks = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    assert len(blocks) >= 3
    monkeypatch.chdir(tmp_path)
    Image.open(folder / "page.png").save("page.png")
    scope = {}
    for block in blocks:
        exec(block.replace('"nano"', repr(str(model))), scope)
    assert "missing.png: no such" in capsys.readouterr().out
    assert read(tmp_path / "boxes.json").pages[0].image == "page.png"
    assert Image.open("drawn.png").size == (120, 160)
