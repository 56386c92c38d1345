"""What the inputs of a run stand for: archives that are odd, URLs of fsspec, parts of a corpus."""

import gzip
import io
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extraction_pdfs import write_pdf
from florentune.errors import InputError, MissingExtraError, PdfError
from florentune.extraction.inputs import collect, opened


@pytest.fixture
def pdfs(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "c"):
        write_pdf(folder / f"{name}.pdf", [[(20, 20, 9, f"This is {name}")]])
    return folder


def archive(path: Path, folder: Path, mode: str = "w", copies: int = 1) -> Path:
    with tarfile.open(path, mode) as tar:
        for number in range(copies):
            for file in sorted(folder.iterdir(), reverse=True):
                tar.add(file, f"{number}/{file.name}")
    return path


def contents(name: str) -> dict[str, bytes]:
    """source -> bytes of every document an input stands for, read as workers read them."""
    found = {}
    for job in collect([name]).jobs:
        with opened(job) as path:
            found[job.source] = path.read_bytes()
    return found


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w"), ("tgz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz")])
def test_members_of_archives_are_read_in_their_order(pdfs, tmp_path, suffix, mode):
    name = str(archive(tmp_path / f"x.{suffix}", pdfs, mode, copies=2))
    assert [job.member for job in collect([name]).jobs] == [f"{i}/{n}.pdf" for i in range(2) for n in "cba"]
    expected = {f"{name}!{i}/{file.name}": file.read_bytes() for i in range(2) for file in pdfs.iterdir()}
    assert contents(name) == expected


def test_an_archive_that_breaks_off_keeps_its_good_members(pdfs, tmp_path):
    path = archive(tmp_path / "x.tar", pdfs)
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1].offset
    path.write_bytes(path.read_bytes()[: last + 100])
    jobs = collect([str(path)]).jobs
    assert {job.member for job in jobs} == {None, "0/c.pdf", "0/b.pdf"}
    (bad,) = (job for job in jobs if job.member is None)
    with pytest.raises(PdfError, match="breaks off") as error, opened(bad):
        pass
    assert (bad.source, error.value.reason) == (str(path), "unreadable")


def test_what_is_no_archive_is_one_document_that_cannot_be_read(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(b"no tar"))
    (job,) = collect([str(tmp_path / "x.tar.gz")]).jobs
    with pytest.raises(PdfError, match="breaks off or is damaged"), opened(job):
        pass


def test_a_member_that_is_cut_off_inside(pdfs, tmp_path):
    path = archive(tmp_path / "x.tar", pdfs)
    jobs = collect([str(path)]).jobs
    path.write_bytes(path.read_bytes()[: jobs[-1].start + 50])
    with pytest.raises(PdfError) as error, opened(jobs[-1]):
        pass
    assert error.value.reason == "unreadable"
    with opened(jobs[0]) as good:
        assert good.read_bytes() == (pdfs / "c.pdf").read_bytes()


def test_a_list_on_standard_input_may_name_anything(pdfs, tmp_path):
    path = archive(tmp_path / "x.tar", pdfs)
    lines = io.StringIO(f"{pdfs}\r\n\n{path}\n{tmp_path}/in/[ab].pdf\nnowhere.pdf\n")
    sources = [job.source for job in collect(["-"], lines).jobs]
    assert Counter(Path(source.partition("!")[0]).suffix for source in sources) == {".pdf": 4, ".tar": 3}
    assert "nowhere.pdf" in sources


def test_urls_of_files_folders_and_globs(pdfs, tmp_path):
    (pdfs / "notes.txt").write_text("no PDF")
    expected = {f"file://{file}": file.read_bytes() for file in pdfs.glob("*.pdf")}
    assert contents(f"file://{pdfs}") == expected
    assert contents(f"file://{pdfs}/*.pdf") == expected
    assert contents(f"file://{pdfs}/a.pdf") == {f"file://{pdfs}/a.pdf": (pdfs / "a.pdf").read_bytes()}
    assert contents(f"file://{pdfs}/notes.txt") == {f"file://{pdfs}/notes.txt": b"no PDF"}  # named, so wanted
    assert collect([f"file://{pdfs}"]).ignored == 1


def test_urls_of_a_store_in_memory():
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.pipe("/papers/x/one.pdf", b"one")
    store.pipe("/papers/two words.pdf", b"two")
    try:
        assert contents("memory://papers") == {
            "memory:///papers/x/one.pdf": b"one",
            "memory:///papers/two words.pdf": b"two",
        }
        (before,) = collect(["memory://papers/x/one.pdf"]).jobs
        store.pipe("/papers/x/one.pdf", b"one, second edition")
        (after,) = collect(["memory://papers/x/one.pdf"]).jobs
        assert (before.source, before.id != after.id) == (after.source, True)
    finally:
        store.rm("/papers", recursive=True)


def test_members_of_a_zip(pdfs, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for path in pdfs.iterdir():
            file.write(path, f"sub/{path.name}")
    url = f"zip://::file://{tmp_path}/x.zip"
    expected = {f"zip://sub/{p.name}::file://{tmp_path}/x.zip": p.read_bytes() for p in pdfs.iterdir()}
    assert contents(url) == expected


def test_urls_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="Protocol not known: nowhere"):
        collect(["nowhere://bucket/a.pdf"])
    with pytest.raises(InputError, match="there is no file"):
        collect([f"file://{tmp_path}/*.pdf"])
    (job,) = collect([f"file://{tmp_path}/missing.pdf"]).jobs
    with pytest.raises(PdfError, match="no such file") as error, opened(job):
        pass
    assert error.value.reason == "missing"


def test_without_fsspec_a_url_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtraError, match=r"florentune\[fsspec\]"):
        collect(["s3://bucket/a.pdf"])


def test_more_than_a_gibibyte_is_refused_while_it_is_copied(pdfs, tmp_path, monkeypatch):
    monkeypatch.setattr("florentune.extraction.inputs._MAX_BYTES", 100)
    (job,) = collect([f"file://{pdfs}/a.pdf"]).jobs
    with pytest.raises(PdfError) as error, opened(job):
        pass
    assert error.value.reason == "too_large"


@given(st.lists(st.text("abcxyz0é ", min_size=1), unique=True, min_size=1, max_size=40), st.integers(1, 7))
def test_every_document_is_in_exactly_one_shard(names, count):
    paths = [f"/nowhere/{name}.pdf" for name in names]
    parts = [collect(paths, shard=(index, count)).jobs for index in range(count)]
    assert Counter(job.source for part in parts for job in part) == Counter(paths)


def test_an_empty_shard_is_no_mistake(pdfs):
    parts = [collect([str(pdfs / "a.pdf")], shard=(index, 2)).jobs for index in range(2)]
    assert sorted(map(len, parts)) == [0, 1]
