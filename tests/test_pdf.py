"""PDFium in a child: what is read, and that nothing a file holds reaches the parent."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from extraction_pdfs import write_pdf
from florentune.errors import PdfError
from florentune.pdf import PageFailure, PdfReader, RenderedPage, render_pages
from florentune.regions import Box


@pytest.fixture(scope="module")
def reader():
    with PdfReader() as reader:
        yield reader


def ink(page: RenderedPage, box: Box) -> float:
    """The share of dark pixels in a box of the image."""
    x1, y1, x2, y2 = (round(value) for value in page.to_pixels(box))
    return float((np.asarray(page.image.convert("L"))[y1:y2, x1:x2] < 128).mean())


def test_words_lie_on_their_ink(tmp_path, reader):
    path = write_pdf(tmp_path / "a.pdf", [[(72, 100, 20, "Hello figure"), (300, 500, 30, "W")]])
    (page,) = reader.pages(path, 144)
    assert [word.text for word in page.words] == ["Hello", "figure", "W"]
    assert page.image.size == (1224, 1584)
    assert page.scale == 2
    for word in page.words:
        assert ink(page, word.box) > 0.15
        assert word.origin[1] == pytest.approx(100 if word.size == 20 else 500, abs=0.1)
    inside = sum(ink(page, word.box) * word.box.area for word in page.words)
    assert inside == pytest.approx(ink(page, Box(0, 0, 612, 792)) * 612 * 792, rel=0.05)


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_words_of_rotated_pages_lie_on_their_ink(tmp_path, reader, rotate):
    path = write_pdf(tmp_path / "a.pdf", [[(72, 100, 20, "Hello"), (300, 500, 30, "W")]], (500, 700), rotate)
    (page,) = reader.pages(path, 72)
    assert page.image.size == ((500, 700) if rotate % 180 == 0 else (700, 500))
    assert page.rotation == rotate
    for word in page.words:
        assert word.angle == rotate
        assert ink(page, word.box) > 0.15


def test_pixels_and_points_are_inverse(tmp_path, reader):
    (page,) = reader.pages(write_pdf(tmp_path / "a.pdf", [[(9, 9, 9, "a")]], (333.3, 111.1)), 123)
    box = Box(1.5, 2.5, 30, 40)
    assert page.to_points(page.to_pixels(box)) == pytest.approx(box)


def test_a_large_page_is_rendered_smaller(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", [[(9, 9, 9, "a")]], (5000, 5000))
    with PdfReader(max_pixels=10_000) as reader:
        (page,) = reader.pages(path, 300)
    assert page.image.size == (100, 100)
    assert page.words[0].box.x1 == pytest.approx(9, abs=1)


@pytest.mark.parametrize(
    ("size", "reason"), [((0.01, 0.01), "page_size"), ((20000, 20000), "page_size"), ((10, 9000), "page_aspect")]
)
def test_pages_of_impossible_size_fail_alone(tmp_path, reader, size, reason):
    (page,) = reader.pages(write_pdf(tmp_path / "a.pdf", [[]], size))
    assert isinstance(page, PageFailure)
    assert page.reason == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><p>404", "not_pdf"),
        (b"\x1f\x8b\x08 gzip", "not_pdf"),
        (b"%PDF-1.4\n", "damaged"),
    ],
)
def test_files_that_are_no_pdf_have_a_reason(tmp_path, reader, data, reason):
    path = tmp_path / "a.pdf"
    path.write_bytes(data)
    with pytest.raises(PdfError) as error:
        reader.open(path)
    assert error.value.reason == reason


def test_missing_files_folders_and_pipes_are_not_opened(tmp_path, reader):
    os.mkfifo(tmp_path / "pipe.pdf")
    for name, reason in [("no.pdf", "missing"), ("", "not_file"), ("pipe.pdf", "not_file")]:
        with pytest.raises(PdfError) as error:
            reader.open(tmp_path / name)
        assert error.value.reason == reason


def test_names_that_are_not_utf8_are_read(tmp_path, reader):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.pdf"))
    assert reader.open(write_pdf(path, [[]])) == 1


def test_a_killed_child_is_replaced_and_the_document_goes_on(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", [[(9, 9, 9, f"page{i}")] for i in range(3)])
    with PdfReader() as reader:
        assert reader.open(path) == 3
        os.kill(reader._process.pid, signal.SIGKILL)
        with pytest.raises(PdfError) as error:
            reader.page(path, 0)
        assert error.value.reason == "crash"
        assert reader.page(path, 1).words[0].text == "page1"
        assert reader.respawns == 1


def test_a_long_document_is_opened_anew_in_between(tmp_path, monkeypatch):
    """PDFium keeps what it reads of a document until it is closed."""
    monkeypatch.setattr("florentune.pdf.reader._PAGES_PER_OPEN", 2)
    path, opened = write_pdf(tmp_path / "a.pdf", [[(9, 9, 9, f"page{i}")] for i in range(5)]), []
    with PdfReader() as reader:
        reopen = reader._reopen
        monkeypatch.setattr(reader, "_reopen", lambda path: opened.append(path) or reopen(path))
        assert [page.words[0].text for page in reader.pages(path, 72)] == [f"page{i}" for i in range(5)]
        assert (len(opened), reader.respawns) == (3, 0)


def test_the_memory_of_the_parent_is_not_held_against_a_crashed_child(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", [[(9, 9, 9, "a")]])
    large = bytearray(b"x" * (250 << 20))
    with PdfReader(memory=400 << 20) as reader:
        assert reader.open(path) == 1
        os.kill(reader._process.pid, signal.SIGKILL)
        with pytest.raises(PdfError) as error:
            reader.page(path, 0)
    assert len(large)
    assert error.value.reason == "crash"


def test_a_stopped_child_is_a_timeout(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", [[(9, 9, 9, "a")]] * 5)
    with PdfReader(deadline=0.1) as reader:
        pages = reader.pages(path)
        next(pages)
        os.kill(reader._process.pid, signal.SIGSTOP)
        failures = [page for page in pages if isinstance(page, PageFailure)]
    assert [(failure.index, failure.reason) for failure in failures] == [(1, "timeout")]


def test_a_busy_machine_costs_no_page(tmp_path):
    """Deadlines are CPU time: a child that has to wait three times as long for its turn is waited for."""
    path = write_pdf(tmp_path / "a.pdf", [[(9, 9, 9, "a")]])
    with PdfReader(deadline=0.2) as reader:
        reader.open(path)
        child = reader._process.pid
        os.kill(child, signal.SIGSTOP)
        threading.Timer(0.6, os.kill, (child, signal.SIGCONT)).start()
        assert reader.page(path, 0).words[0].text == "a"


def test_a_page_that_takes_too_much_cpu_time_is_a_timeout_and_the_rest_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("florentune.pdf.reader._ON_THE_CLOCK", 600)  # else a very busy machine meets that first
    words = [(9 + i % 500, 9 + i % 700, 9, "word" * 20) for i in range(8000)]
    good = [(9, 9, 9, "a")]
    path = write_pdf(tmp_path / "a.pdf", [words, good, good, words, good, good])
    with PdfReader(deadline=0.2) as reader:
        found = [getattr(page, "reason", "") for page in reader.pages(path)]
    assert found == ["timeout", "", "", "timeout", "gave_up"]


def test_render_pages_raises_or_lists_what_fails(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", [[]], (0.1, 0.1))
    with pytest.raises(PdfError, match="page 1"):
        list(render_pages(path))
    failures = []
    assert list(render_pages(path, failures=failures)) == []
    assert [failure.reason for failure in failures] == ["page_size"]


def test_a_clip_shows_only_its_box(tmp_path, reader):
    path = write_pdf(tmp_path / "a.pdf", [[(72, 100, 20, "inside"), (72, 600, 20, "outside")]], rotate=90)
    (page,) = reader.pages(path)
    (inside,) = (word for word in page.words if word.text == "inside")
    clip = tmp_path / "clip.pdf"
    clip.write_bytes(reader.clip(path, 0, inside.box))
    (shown,) = reader.pages(clip)
    assert (shown.width_pt, shown.height_pt) == pytest.approx((inside.box.width, inside.box.height), abs=0.1)
    assert [word.text for word in shown.words] == ["inside"]


def test_the_same_clip_is_the_same_bytes(tmp_path, reader):
    path = write_pdf(tmp_path / "a.pdf", [[(72, 100, 20, "inside")]])
    reader.open(path)
    first = reader.clip(path, 0, Box(60, 60, 200, 120))
    time.sleep(1.1)  # PDFium writes the second it was made in
    assert reader.clip(path, 0, Box(60, 60, 200, 120)) == first


def test_passwords_are_tried_in_turn(shared):
    path = shared / "bad_inputs" / "pdfs" / "pypdf_encrypted-file.pdf"
    with PdfReader() as reader, pytest.raises(PdfError, match="password is needed") as error:
        reader.open(path)
    assert error.value.reason == "password"
    with PdfReader(passwords=["wrong", "test"]) as reader:
        assert reader.open(path) > 0


BOMBS = {
    "synth_flate_flate_bomb_2GB.pdf": "memory",
    "synth_form_billion_laughs.pdf": "memory",
    "synth_mediabox_tiny.pdf": "page_size",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_one_failed_page(shared, name):
    with PdfReader() as reader:
        pages = list(reader.pages(shared / "bad_inputs" / "pdfs" / name))
    assert [page.reason for page in pages] in ([BOMBS[name]], ["timeout"])  # a slow machine meets the deadline first


def test_text_that_jumps_back_on_its_line_is_no_one_word(tmp_path, reader):
    """PDFium sets no blank there: a cell drawn after one on its right would be glued to it."""
    path = write_pdf(tmp_path / "a.pdf", [[(400, 100, 10, "x" * 40)]])
    cells = b"[(58.1) 32000 (MC) -8000 (66.9)] TJ"
    path.write_bytes(path.read_bytes().replace(b"(" + b"x" * 40 + b") Tj", cells.ljust(45)))
    (page,) = reader.pages(path, 72)
    assert [(word.text, round(word.box.x1)) for word in page.words] == [("58.1", 400), ("MC", 100), ("66.9", 195)]
