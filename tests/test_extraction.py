"""One document: linking, crops, tables, the record."""

import csv
import itertools
import json
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from extraction_pdfs import Given, write_pdf
from florentune.detector import load_detector
from florentune.errors import DiskFullError, GenerationError
from florentune.extraction import Options, process_document
from florentune.extraction.captions import Caption
from florentune.extraction.document import SCHEMA
from florentune.extraction.edges import snug
from florentune.extraction.linking import Detected, assignment, cut, link
from florentune.extraction.tables import read_table
from florentune.pdf import PdfReader, RenderedPage
from florentune.regions import Box
from tiny_model import tiny_checkpoint

PAGE = (612.0, 792.0)


def caption(kind, number, box, angle=0):
    return Caption(kind, number, f"{kind} {number}", f"{kind} {number}: text", 0, Box(*box), angle, 3)


def found(boxes, captions, size=PAGE):
    """[(caption number, [part boxes])], captions without a box."""
    detected = [Detected(label, Box(*box), 0.9) for label, box in boxes]
    items, unused = link(detected, captions, size)
    return [(item.caption and item.caption.number, len(item.parts)) for item in items], [c.number for c in unused]


def test_captions_above_tables_and_below_figures():
    boxes = [("table", (100, 120, 500, 200)), ("figure", (100, 300, 500, 400))]
    captions = [caption("table", "1", (100, 100, 500, 112)), caption("figure", "1", (100, 408, 500, 420))]
    assert found(boxes, captions) == ([("1", 1), ("1", 1)], [])


def test_stacked_tables_take_the_captions_on_the_same_side():
    boxes = [("table", (100, 120, 500, 200)), ("table", (100, 230, 500, 300))]
    above = [caption("table", "1", (100, 104, 500, 114)), caption("table", "2", (100, 214, 500, 224))]
    below = [caption("table", "1", (100, 206, 500, 216)), caption("table", "2", (100, 306, 500, 316))]
    assert found(boxes, above)[0] == [("1", 1), ("2", 1)]
    assert found(boxes, below)[0] == [("1", 1), ("2", 1)]


def test_two_columns_and_a_caption_beside():
    boxes = [("figure", (60, 100, 290, 200)), ("figure", (320, 100, 550, 200)), ("figure", (60, 400, 300, 500))]
    captions = [
        caption("figure", "2", (320, 206, 550, 216)),
        caption("figure", "1", (60, 206, 290, 216)),
        caption("figure", "3", (310, 410, 550, 480)),
    ]
    assert found(boxes, captions) == ([("1", 1), ("3", 1), ("2", 1)], [])  # the left column is read first


def test_a_short_caption_at_the_margin_belongs_to_the_box_in_the_middle():
    boxes = [("table", (250, 100, 370, 400)), ("table", (240, 440, 380, 600))]
    captions = [caption("table", "1", (60, 408, 150, 418)), caption("table", "2", (60, 608, 150, 618))]
    assert found(boxes, captions) == ([("1", 1), ("2", 1)], [])


def test_a_caption_of_the_other_column_belongs_to_none():
    boxes = [("figure", (320, 100, 550, 200))]
    assert found(boxes, [caption("figure", "1", (60, 206, 150, 216))]) == ([(None, 1)], ["1"])
    assert found(boxes, [caption("figure", "1", (60, 206, 290, 216))]) == ([(None, 1)], ["1"])


def test_panels_stay_together_under_their_caption():
    corners = [(60 + 125 * i, 100 + 110 * j) for i in range(4) for j in range(2)]
    boxes = [("figure", (x, y, x + 115, y + 100)) for x, y in corners]
    assert found(boxes, [caption("figure", "1", (60, 320, 550, 340))]) == ([("1", 8)], [])


def test_a_caption_between_two_figures_keeps_them_apart():
    boxes = [("figure", (60, 100, 290, 180)), ("figure", (60, 205, 290, 300))]
    items, _ = found(boxes, [caption("figure", "1", (60, 186, 290, 198))])
    assert sorted(parts for _, parts in items) == [1, 1]


def pieces(box, *captions):
    """The boxes that captions leave of a box."""
    return [tuple(item.box) for item in cut([Detected("table", Box(*box), 0.9)], captions, PAGE, lambda piece: piece)]


def test_a_caption_that_reaches_into_a_box_is_cut_off():
    assert pieces((60, 100, 300, 200), caption("table", "1", (70, 95, 290, 105))) == [(60, 106, 300, 200)]
    assert pieces((60, 100, 300, 200), caption("table", "1", (70, 190, 290, 200))) == [(60, 100, 300, 189)]
    assert pieces((200, 100, 400, 700), caption("table", "1", (390, 150, 405, 600), angle=270)) == [
        (200, 100, 389, 700)
    ]


def test_a_box_with_a_caption_across_it_is_two_objects():
    first, second = caption("figure", "1", (70, 190, 290, 200)), caption("figure", "2", (70, 310, 290, 320))
    assert pieces((60, 100, 300, 308), first, second) == [(60, 100, 300, 189), (60, 201, 300, 308)]


def test_captions_beside_and_captions_that_fill_the_box_cut_nothing():
    box = (60, 100, 300, 200)
    assert pieces(box, caption("table", "1", (250, 140, 500, 150))) == [box]
    assert pieces(box, caption("table", "1", (60, 110, 300, 195))) == [box]
    assert pieces(box, caption("table", "1", (60, 205, 300, 215))) == [box]


def test_a_box_that_was_cut_ends_a_margin_from_its_ink():
    page = np.full((200, 300, 3), 255, np.uint8)
    page[50:100, 80:120] = 0
    assert snug(Box(10, 20, 290, 190), Image.fromarray(page), 1.0) == pytest.approx((76.4, 46.4, 123.6, 103.6))
    assert snug(Box(78, 20, 290, 101), Image.fromarray(page), 1.0) == pytest.approx((78, 46.4, 123.6, 101))
    assert snug(Box(10, 110, 290, 190), Image.fromarray(page), 1.0) == (10, 110, 290, 190)


def test_a_caption_between_goes_to_the_nearer_ink(tmp_path):
    """What the detector takes for one table is a table, its caption below it and something farther away."""
    lines = [(80, 100 + 12 * i, 9, "a row of a table") for i in range(5)] + [(80, 168, 9, "Table 1: Below it.")]
    lines += [(80, 260 + 12 * i, 9, "and the text of another") for i in range(5)]
    path = write_pdf(tmp_path / "a.pdf", [lines])
    detector = Given({0: [("table", Box(70, 85, 300, 320))]}, dpi=200)
    table, other = process_document(path, tmp_path / "out", detector)["figures"]
    assert (table["number"], other["number"]) == ("1", None)
    assert table["bbox"][3] < 160
    assert other["bbox"][1] == pytest.approx(260 - 6.5 - 3.6, abs=1)


def test_what_has_no_partner_is_reported():
    boxes = [("figure", (60, 100, 290, 180)), ("formula", (60, 300, 290, 320))]
    items, unused = found(boxes, [caption("table", "7", (60, 700, 290, 710))])
    assert items == [(None, 1), (None, 1)]
    assert unused == ["7"]


def test_the_caption_decides_the_kind():
    (item,), _ = link(
        [Detected("figure", Box(60, 100, 290, 180), 0.9)], [caption("table", "1", (60, 88, 290, 96))], PAGE
    )
    assert item.kind == "table"


def test_a_sideways_table_and_its_sideways_caption():
    boxes = [("table", (200, 100, 400, 700)), ("figure", (450, 100, 580, 300))]
    assert found(boxes, [caption("table", "1", (180, 200, 192, 600), angle=270)])[0][0] == ("1", 1)


costs = st.integers(1, 5).flatmap(
    lambda rows: st.integers(rows, 6).flatmap(
        lambda columns: st.lists(
            st.lists(st.integers(0, 50), min_size=columns, max_size=columns), min_size=rows, max_size=rows
        )
    )
)


@given(costs)
def test_the_assignment_is_the_cheapest_of_all(matrix):
    chosen = assignment(np.array(matrix, dtype=float))
    assert len(set(chosen)) == len(chosen)
    rows, columns = len(matrix), len(matrix[0])
    best = min(
        sum(matrix[row][column] for row, column in enumerate(order))
        for order in itertools.permutations(range(columns), rows)
    )
    assert sum(matrix[row][column] for row, column in enumerate(chosen)) == best


@pytest.fixture
def paper(tmp_path):
    """Two pages: a table with a caption above; a figure without one, and a caption without a figure."""
    rows = [["Model", "Size", "Accuracy"], ["nano", "12", "0.91"], ["base", "230", "0.95"], ["large", "770", "0.97"]]
    lines = [(100, 100, 10, "Table 1: The models and their")]
    lines += [(100 + 90 * c, 130 + 14 * r, 9, text) for r, row in enumerate(rows) for c, text in enumerate(row)]
    path = write_pdf(tmp_path / "paper.pdf", [lines, [(100, 700, 10, "Figure 2: Missing.")]])
    detector = Given({0: [("table", Box(90, 115, 400, 180))], 1: [("figure", Box(90, 100, 300, 300))]}, dpi=144)
    return path, detector


def test_a_document_and_its_files(tmp_path, paper):
    path, detector = paper
    out = tmp_path / "out"
    record = process_document(path, out, detector, options=Options(dpi=144, clips=True))
    assert json.loads((out / "document.json").read_text()) == record
    assert (record["schema"], record["status"], record["pages"], record["pages_done"]) == (SCHEMA, "ok", 2, 2)
    table, figure = record["figures"]
    assert (table["id"], table["kind"], table["number"], table["label"]) == ("table-1", "table", "1", "Table 1")
    assert table["caption"] == "Table 1: The models and their"
    assert table["bbox"] == [90, 115, 400, 180]
    assert table["bbox_pixels"] == [180, 230, 800, 360]
    assert (figure["id"], figure["caption"]) == ("figure-p2-1", None)
    assert [c["label"] for c in record["captions_without_box"]] == ["Figure 2"]
    with Image.open(out / table["crop"]) as crop, Image.open(out / table["crop_with_caption"]) as whole:
        assert crop.size == (620, 130)
        assert whole.height > crop.height
    with PdfReader() as reader:
        (clip,) = reader.pages(out / table["clip"])
        assert (clip.width_pt, clip.height_pt) == pytest.approx((310, 65), abs=0.1)
    rows = list(csv.reader((out / table["csv"]).open()))
    assert rows[0] == ["Model", "Size", "Accuracy"]
    assert rows[3] == ["large", "770", "0.97"]
    words = list(csv.DictReader((out / table["words"]).open()))
    assert [word["text"] for word in words][:3] == ["Model", "Size", "Accuracy"]
    assert all(90 <= float(word["x1"]) < float(word["x2"]) <= 400 for word in words)
    first = json.loads((out / "figures.json").read_text())[0]
    assert (first["name"], first["figType"], first["page"]) == ("1", "Table", 0)
    assert first["regionBoundary"] == {"x1": 90, "y1": 115, "x2": 400, "y2": 180}


def test_the_detector_that_ships_fits(tmp_path, paper):
    model = tiny_checkpoint(tmp_path / "tiny")
    record = process_document(paper[0], tmp_path / "out", load_detector(model), options=Options(dpi=72))
    assert (record["status"], record["model"], record["pages_done"]) == ("ok", "tiny", 2)
    labels = {part["label"] for entry in record["figures"] for part in entry["parts"]}
    assert labels <= {"table", "figure"}


def test_the_same_document_gives_the_same_bytes_and_leaves_nothing_stale(tmp_path, paper):
    path, detector = paper
    out = tmp_path / "out"

    def contents():
        return {file.name: file.read_bytes() for file in out.iterdir()}

    process_document(path, out, detector, options=Options(dpi=144))
    first = contents()
    process_document(path, out, detector, options=Options(dpi=144, clips=True))
    assert "table-1.pdf" in contents()
    process_document(path, out, detector, options=Options(dpi=144))
    assert contents() == first


def test_pages_without_text_say_so(tmp_path):
    path = write_pdf(tmp_path / "scan.pdf", [[]])
    record = process_document(path, tmp_path / "out", Given({0: [("table", Box(90, 115, 400, 180))]}, dpi=200))
    assert record["pages_without_text"] == [0]
    (table,) = record["figures"]
    assert (table["text_layer"], table["caption"], table["csv"]) == (False, None, None)
    assert table["table"]["problem"] == "the page has no text layer"


def test_an_image_is_a_document_of_one_page(tmp_path):
    Image.new("RGB", (850, 1100), "white").save(tmp_path / "page.png")
    record = process_document(tmp_path / "page.png", tmp_path / "out", Given({0: [("figure", Box(10, 10, 99, 99))]}))
    assert (record["status"], record["pages"], len(record["figures"])) == ("ok", 1, 1)


@pytest.mark.parametrize(
    ("name", "data", "status", "reason"),
    [
        ("a.pdf", b"", "failed", "empty"),
        ("b.pdf", b"hello", "failed", "not_pdf"),
        ("c.png", b"hello", "failed", "format"),
        ("d.pdf", None, "failed", "missing"),
        ("", None, "skipped", "not_file"),
    ],
)
def test_whatever_cannot_be_read_is_one_record(tmp_path, name, data, status, reason):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    record = process_document(tmp_path / name, tmp_path / "out", Given())
    assert (record["status"], record["reason"]) == (status, reason)
    assert record["message"]
    assert json.loads((tmp_path / "out" / "document.json").read_text()) == record


class FailsOnOddPages(Given):
    def detect(self, images, *, batch=8):
        for name, image in images:
            if int(name.removeprefix("page-")) % 2:
                raise GenerationError(f"{name}: only NaN")
            yield from super().detect([(name, image)])


def test_a_page_the_detector_fails_on_does_not_take_the_others_along(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", [[(20, 20, 9, f"page {i}")] for i in range(7)])
    record = process_document(path, tmp_path / "out", FailsOnOddPages(), options=Options(dpi=72))
    assert (record["status"], record["reason"], record["pages_done"]) == ("partial", "detector", 3)
    assert [failure["index"] for failure in record["page_failures"]] == [0, 2, 4, 6]


def test_a_full_disk_is_no_matter_of_the_document(tmp_path, paper, monkeypatch):
    def full(*arguments, **options):
        raise DiskFullError("full")

    monkeypatch.setattr("florentune.extraction.document.written_whole", full)
    with pytest.raises(DiskFullError):
        process_document(paper[0], tmp_path / "out", paper[1])


def test_numbers_that_are_no_file_names(tmp_path):
    lines = [(100, 100, 10, "Figure A.2-1: One"), (100, 400, 10, "Figure A.2-1: Another of that number")]
    path = write_pdf(tmp_path / "a.pdf", [lines])
    boxes = {0: [("figure", Box(90, 110, 400, 200)), ("figure", Box(90, 410, 400, 500))]}
    record = process_document(path, tmp_path / "out", Given(boxes, dpi=200))
    assert [entry["id"] for entry in record["figures"]] == ["figure-A-2-1", "figure-A-2-1-p1-2"]


def test_tables_that_are_no_grid_say_so(tmp_path):
    generator = random.Random(0)
    words = ["lorem", "ipsum", "dolor", "sit", "amet", "consectetur"]
    prose = [(100, 100 + 12 * i, 10, " ".join(generator.choices(words, k=9))) for i in range(8)]
    path = write_pdf(tmp_path / "a.pdf", [prose])
    with PdfReader() as reader:
        (page,) = reader.pages(path)
        assert isinstance(page, RenderedPage)
        table = read_table(page, Box(90, 80, 600, 220))
    assert table.rows == ()
    assert "line up" in table.problem


def test_headings_over_several_columns_are_counted(tmp_path):
    lines = [(150, 100, 9, "Accuracy"), (140, 114, 9, "dev"), (180, 114, 9, "test")]
    for i in range(6):
        lines += [
            (60, 128 + 14 * i, 9, f"model{i}"),
            (140, 128 + 14 * i, 9, f"{i}.1"),
            (180, 128 + 14 * i, 9, f"{i}.2"),
        ]
    path = write_pdf(tmp_path / "a.pdf", [lines])
    with PdfReader() as reader:
        reader.open(path)
        table = read_table(reader.text(path, 0), Box(50, 85, 300, 230))
    assert (table.spanning, table.left_out) == (1, 0)
    assert table.rows[1:3] == (("", "dev", "test"), ("model0", "0.1", "0.2"))


def test_a_heading_over_several_columns_is_one_cell_and_turned_words_are_counted(tmp_path):
    lines = [(120, 86, 9, "Results on the test set")]
    for i in range(6):
        lines += [(60 + 70 * column, 100 + 14 * i, 9, f"{column}.{i}") for column in range(4)]
    path = write_pdf(tmp_path / "a.pdf", [lines])
    with PdfReader() as reader:
        reader.open(path)
        page = reader.text(path, 0)
        turned = replace(page.words[0], text="sideways", angle=270)
        table = read_table(replace(page, words=(*page.words, turned)), Box(50, 70, 400, 200))
    assert table.rows[0] == ("", "Results on the test set", "", "")
    assert table.rows[1] == ("0.0", "1.0", "2.0", "3.0")
    assert (table.spanning, table.left_out) == (1, 1)


def test_memory_does_not_grow_with_the_pages(tmp_path):
    """Page images that outlive their turn would be held by the detector's argument list or by the draft."""
    import gc
    import weakref

    alive: list[weakref.ref] = []
    most = 0

    class Watching(Given):
        def detect(self, images, *, batch=8):
            nonlocal most
            images = list(images)
            alive.extend(weakref.ref(image) for _, image in images)
            gc.collect()
            most = max(most, sum(ref() is not None for ref in alive))
            yield from super().detect(images)

    path = write_pdf(tmp_path / "long.pdf", [[(20, 20, 9, f"page {i}")] for i in range(40)])
    gc.freeze()  # what was there before need not be looked through ten times
    try:
        record = process_document(path, tmp_path / "out", Watching(), options=Options(dpi=36, batch=4))
    finally:
        gc.unfreeze()
    assert record["pages_done"] == 40
    assert most <= 8


@pytest.mark.slow
def test_every_bad_input_ends_in_one_record(shared, tmp_path):
    files = [p for kind in ("pdfs", "images") for p in sorted((shared / "bad_inputs" / kind).iterdir())]
    with PdfReader() as reader:
        for number, path in enumerate(files):
            record = process_document(path, tmp_path / str(number), Given(), reader=reader, options=Options(dpi=72))
            assert record["status"] in {"ok", "partial", "failed", "skipped"}, path
            assert (record["status"] == "ok") == (record["reason"] == ""), path
            assert json.loads((tmp_path / str(number) / "document.json").read_text()) == record
