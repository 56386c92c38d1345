"""`florentune extract` with a real, tiny, untrained model: files, exit codes, JSON lines."""

import json
import subprocess
import sys

import pytest

from extraction_pdfs import write_pdf
from tiny_model import tiny_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny"))


def extract(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "florentune", "extract", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=200)


@pytest.mark.slow
def test_a_folder_from_start_to_end(tmp_path, model):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(2):
        write_pdf(source / f"{number}.pdf", [[(72, 100, 10, f"Table {number}: Toy.")]])
    good = extract(source, "--out", out, "--model", model, "--workers", 1, "--dpi", 72, "--json")
    assert good.returncode == 0, good.stderr
    *documents, summary = map(json.loads, good.stdout.splitlines())
    assert sorted(d["source"] for d in documents) == [str(source / "0.pdf"), str(source / "1.pdf")]
    assert (summary["event"], summary["documents"], summary["status"]) == ("summary", 2, {"ok": 2})
    assert len((out / "documents.jsonl").read_text().splitlines()) == 2
    records = [json.loads(path.read_text()) for path in out.glob("??/*/document.json")]
    assert {record["model"] for record in records} == {"tiny"}

    (source / "broken.pdf").write_text("<html>404")
    bad = extract("-", "--out", out, "--model", model, "--workers", 1, "--dpi", 72, stdin=f"{source}/broken.pdf\n")
    assert bad.returncode == 1
    assert "an HTML page, not a PDF" in bad.stderr
    assert "3 documents" in bad.stdout
    assert f"listed in {out}/figures." in bad.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "at least one PDF"),
        (["nothing/*.pdf"], "no file matches"),
        (["a.pdf", "--shard", "5"], "I/N"),
        (["a.pdf", "--dpi", "7"], "greater than or equal to 36"),
        (["a.pdf", "--retry", "all"], "failed:REASON"),
        (["a.pdf", "--model", "no/such/folder"], "no/such/folder"),
        (["a.pdf", "--out", "s3://bucket/out"], "needs a file system"),
        (["--finalize"], "no run was planned"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(florentune, tmp_path, arguments, said):
    code, _, errors = florentune("extract", "--out", tmp_path / "out", *arguments)
    assert code == 2, errors
    assert said in errors
    assert "Traceback" not in errors


def test_the_help_names_every_exit_and_example(florentune):
    code, shown, _ = florentune("extract", "--help")
    assert code == 0
    assert "--shard 3/64" in shown
