"""Generated papers: the same bytes for one seed, and boxes that fit the ink of real rendered pages."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from florentune.errors import InputError, MissingExtraError
from florentune.synth import LABELS, LAYOUT_LABELS, Settings, synthesize, typeset
from florentune.synth.blocks import contents, list_in_columns
from florentune.synth.boxes import MARGIN, crossed, grown, ink_of, spans, tight
from florentune.synth.draft import PRELUDE, Draft
from florentune.synth.floats import Floats
from florentune.synth.paper import Writer
from florentune.synth.reports import statistics_table
from florentune.synth.styles import STYLES
from florentune.synth.tables import STYLES as TABLE_STYLES
from florentune.synth.tables import table
from florentune.synth.text_tables import MAKERS, prompt_box, text_table

pytest.importorskip("typst", reason="generated papers need the synth extra")
DPI = 72.0


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module", params=[24, pytest.param(200, marks=pytest.mark.slow)])
def made(tmp_path_factory, request) -> Path:
    out = tmp_path_factory.mktemp("synth") / "papers"
    synthesize(out, Settings(pages=request.param, seed=7, dpi=DPI))
    return out


def load(folder: Path, name: str) -> tuple[dict, dict[str, list[tuple[str, list[int]]]]]:
    """A COCO file, and its (label, [x, y, w, h]) by file name."""
    coco = json.loads((folder / name).read_text())
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    labels = {category["id"]: category["name"] for category in coco["categories"]}
    boxes: dict[str, list[tuple[str, list[int]]]] = {name: [] for name in names.values()}
    for annotation in coco["annotations"]:
        boxes[names[annotation["image_id"]]].append((labels[annotation["category_id"]], annotation["bbox"]))
    return coco, boxes


def test_one_seed_gives_the_same_bytes_whatever_the_workers(tmp_path):
    settings = Settings(pages=7, seed=3, dpi=50, pdf=True)
    synthesize(tmp_path / "one", settings)
    synthesize(tmp_path / "two", settings, workers=2)
    synthesize(tmp_path / "other", Settings(pages=1, seed=4, dpi=50, pdf=True))
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    other, same = files_of(tmp_path / "other"), files_of(tmp_path / "one")
    assert [name for name in other if name.endswith(".png") and other[name] == same.get(name)] == []
    assert any(name.startswith("pdfs") for name in files_of(tmp_path / "one"))


def test_the_coco_files_are_whole_and_fit_the_images(made):
    for name, labels in (("annotations.json", LABELS), ("layout.json", LAYOUT_LABELS)):
        coco, boxes = load(made, name)
        assert [category["name"] for category in coco["categories"]] == list(labels)
        assert [category["id"] for category in coco["categories"]] == list(range(1, len(labels) + 1))
        assert len({annotation["id"] for annotation in coco["annotations"]}) == len(coco["annotations"])
        assert len(coco["images"]) == len(boxes) == len(list((made / "images").iterdir())) in (24, 200)
        for image in coco["images"]:
            with Image.open(made / "images" / image["file_name"]) as opened:
                assert opened.size == (image["width"], image["height"])
            for _, (x, y, w, h) in boxes[image["file_name"]]:
                assert x >= 0
                assert y >= 0
                assert w > 0
                assert h > 0
                assert x + w <= image["width"]
                assert y + h <= image["height"]


def test_boxes_hold_ink_up_to_the_margin_and_none_crosses_their_border(made):
    margin, checked = round(MARGIN * DPI / 72), 0
    for name, boxes in load(made, "annotations.json")[1].items():
        with Image.open(made / "images" / name) as opened:
            ink = ink_of(opened.convert("RGB"))
        for _, (x, y, w, h) in boxes:
            part = ink[y : y + h, x : x + w]
            rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
            for blank in (rows[0], h - 1 - rows[-1], columns[0], w - 1 - columns[-1]):
                assert blank <= margin, f"{name} {x, y, w, h}"
            crossing = [
                edge
                for edge, inner, outer in (
                    ("top", rows[0], ink[max(y - 1, 0), x : x + w]),
                    ("bottom", h - 1 - rows[-1], ink[min(y + h, ink.shape[0] - 1), x : x + w]),
                    ("left", columns[0], ink[y : y + h, max(x - 1, 0)]),
                    ("right", w - 1 - columns[-1], ink[y : y + h, min(x + w, ink.shape[1] - 1)]),
                )
                if inner == 0 and outer.any()
            ]
            assert not crossing, f"{name} {x, y, w, h}: ink crosses {crossing}"
            checked += 1
    assert checked > 15


def test_no_object_overlaps_its_caption_or_another_object(made):
    captions = json.loads((made / "captions.json").read_text())
    assert len(captions) > 15
    for record in captions:
        assert record["kind"] in LABELS
        if record["number"]:
            assert record["text"].lower().startswith(("fig", "tab"))
            assert record["text"].lower().startswith("tab") == (record["kind"] == "table")
            assert record["number"] in record["text"].split()[1]
        else:  # a report's title
            assert record["kind"] == "table"
            assert not record["text"].lower().startswith(("fig", "tab"))
        assert overlap(record["box"], record["object_box"]) == 0, record
    for name, boxes in load(made, "annotations.json")[1].items():
        for k, (_, first) in enumerate(boxes):
            for _, second in boxes[:k]:
                assert overlap(first, second) == 0, name


def overlap(first: list[int], second: list[int]) -> int:
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0)


def test_text_and_floats_do_not_overlap(made):
    for name, boxes in load(made, "layout.json")[1].items():
        objects = [box for label, box in boxes if label in LABELS]
        texts = [box for label, box in boxes if label in ("text", "equation", "heading", "caption", "reference")]
        for thing in objects:
            for text in texts:
                assert overlap(thing, text) <= 0.02 * text[2] * text[3], (name, thing, text)


def test_every_part_of_a_page_has_a_region(made):
    """Ink outside all regions is a few rules, numbers in margins and logos; a lost column of text would be more."""
    lost = total = 0
    for name, boxes in load(made, "layout.json")[1].items():
        with Image.open(made / "images" / name) as opened:
            ink = ink_of(opened.convert("RGB")).copy()
        total += int(ink.sum())
        for _, (x, y, w, h) in boxes:
            ink[max(y - 2, 0) : y + h + 2, max(x - 2, 0) : x + w + 2] = False
        lost += int(ink.sum())
    assert lost <= 0.01 * total


def test_both_classes_and_empty_pages_are_there(made):
    boxes = load(made, "annotations.json")[1]
    labels = [label for found in boxes.values() for label, _ in found]
    assert 0.2 <= sum(not found for found in boxes.values()) / len(boxes) <= 0.6
    assert 0.25 <= labels.count("table") / len(labels) <= 0.75


def test_with_captions_the_box_holds_both(tmp_path):
    synthesize(tmp_path / "o", Settings(pages=10, seed=5, dpi=DPI, captions=True))
    records = json.loads((tmp_path / "o" / "captions.json").read_text())
    assert records
    for record in records:
        _, _, w, h = record["box"]
        assert overlap(record["box"], record["object_box"]) == w * h, record


def test_the_pdf_has_the_captions_as_text(tmp_path):
    import pypdfium2 as pdfium

    synthesize(tmp_path / "o", Settings(pages=8, seed=5, dpi=DPI, pdf=True))
    record = json.loads((tmp_path / "o" / "captions.json").read_text())[0]
    paper, page = record["image"].removesuffix(".png").rsplit("_", 1)
    document = pdfium.PdfDocument(tmp_path / "o" / "pdfs" / f"{paper}.pdf")
    text = document[int(page)].get_textpage().get_text_bounded()
    document.close()
    assert " ".join(record["text"].split()[:2]).rstrip(":.|") in " ".join(text.split())


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_every_style_can_be_set(style):
    paper = Writer(Random(f"style {style.name}"), style).write(2)
    pdf, markers = typeset.typeset(paper)
    assert typeset.page_count(pdf) >= 1
    assert {marker.get("i", marker.get("l")) for marker in markers} <= set(paper.marks)


def typeset_alone(draft: Draft, markup: str) -> tuple[int, list[dict]]:
    """The pages that some markup takes on an empty page of the draft's style, and its markers."""
    width, height = draft.style.size
    margins = dict(zip(("left", "top", "right", "bottom"), draft.style.margins, strict=True))
    margin = ", ".join(f"{side}: {value}pt" for side, value in margins.items())
    draft.paper.source = f"{PRELUDE}#set page(width: {width}pt, height: {height}pt, margin: ({margin}))\n{markup}"
    pdf, markers = typeset.typeset(draft.paper)
    return typeset.page_count(pdf), markers


def test_every_kind_of_table_can_be_set():
    draft, tables = Draft(Random(1), STYLES[0]), []
    for make in sorted(set(MAKERS), key=lambda make: make.__name__):
        columns, head, rows, _ = make(draft.prose, 300, 900)
        cells = [*(f"[{name}]" for name in head), *(cell for row in rows for cell in row)]
        tables.append(f"#table(columns: {columns}, {', '.join(cells)})")
    tables += [f"#{text_table(draft.prose, width=300, height=200)}" for _ in range(12)]
    tables += [f"#{statistics_table(draft.prose, width=300, height=200)[0]}" for _ in range(24)]
    tables += [
        f"#{table(draft.prose, width=300, style=style)}" for style in sorted(set(TABLE_STYLES)) for _ in range(3)
    ]
    pages, _ = typeset_alone(draft, "\n".join(tables))
    assert pages > 5


@pytest.mark.parametrize("name", ["neurips", "acl", "landscape"])
def test_a_table_that_goes_on_is_a_table_on_each_page_with_one_caption(name):
    draft = Draft(Random(2), next(style for style in STYLES if style.name == name))
    floats = Floats(draft)
    floats.untitled_share = 0.0
    _, markers = typeset_alone(draft, floats.continued()[0])
    found = {(draft.paper.marks[marker["i"]].label, marker["p"]["page"]) for marker in markers}
    assert {key for key in found if key[0] in ("table", "caption")} == {("caption", 1), ("table", 1), ("table", 2)}


def test_parts_under_one_caption_are_one_table():
    draft = Draft(Random(3), STYLES[0])
    code = Floats(draft).parts(300)
    assert code.count("table(columns") >= 2
    thing, key = draft.mark("table", code)
    _, markers = typeset_alone(draft, f"#{thing}")
    assert [marker["i"] for marker in markers] == [key, key]


@pytest.mark.parametrize("make", [contents, list_in_columns, prompt_box], ids=lambda make: make.__name__)
def test_near_misses_have_no_caption_and_no_mark(make):
    draft = Draft(Random(4), STYLES[0])
    for _ in range(6):
        code = make(draft.prose)
        assert "mark(" not in code
        assert typeset_alone(draft, f"#{code}")[1] == []


def test_spans_pair_corners_and_gather_lines():
    def spot(key: str, name: str, page: int, x: float, y: float) -> dict:
        return {key: name, "p": {"page": page, "x": f"{x}pt", "y": f"{y}pt"}}

    markers = [spot("i", "a", 1, 10, 20), spot("i", "a", 1, 50, 60)]
    markers += [spot("l", "b", 2, 10, 100), spot("l", "b", 2, 10, 112), spot("l", "b", 2, 200, 30)]
    found = spans(markers, [(10, 190), (200, 380)], 10)
    assert [(key, page) for key, page, _ in found] == [("a", 0), ("b", 1), ("b", 1)]
    assert tuple(found[0][2]) == (10, 20, 50, 60)
    assert [(round(box.y1), round(box.y2)) for _, _, box in found[1:]] == [(92, 115), (22, 33)]
    assert [box.x1 for _, _, box in found[1:]] == [10, 200]


def test_a_box_grows_to_its_margin_and_stops_at_foreign_ink():
    from florentune.regions import Box

    ink = np.zeros((100, 100), bool)
    ink[40:60, 30:50] = True
    ink[63, :] = True
    found = tight(ink, Box(28, 38, 52, 61), 1)
    assert found == Box(30, 40, 50, 60)
    assert grown(ink, found, 5) == Box(25, 35, 55, 63)
    assert tight(ink, Box(0, 0, 10, 10), 1) is None
    assert not crossed(ink, Box(25, 35, 55, 63))
    assert crossed(ink, Box(35, 35, 55, 63))


@pytest.mark.parametrize(
    ("settings", "workers", "says"),
    [
        (Settings(pages=0), 1, "--pages 0"),
        (Settings(pages=-3), 1, "--pages -3"),
        (Settings(pages=1, dpi=3), 1, "--dpi 3"),
        (Settings(pages=1), 0, "--workers 0"),
    ],
)
def test_bad_settings_are_named(tmp_path, settings, workers, says):
    with pytest.raises(InputError, match=says):
        synthesize(tmp_path / "o", settings, workers=workers)
    assert not (tmp_path / "o").exists()


def test_a_folder_in_use_and_a_file_in_the_way_are_refused(tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        synthesize(tmp_path, Settings(pages=1))
    with pytest.raises(InputError, match="cannot be written"):
        synthesize(tmp_path / "kept.txt", Settings(pages=1))
    with pytest.raises(InputError, match="cannot be written"):
        synthesize(tmp_path / "kept.txt" / "below", Settings(pages=1))
    assert files_of(tmp_path) == {"kept.txt": b"mine"}


@pytest.mark.parametrize("package", ["typst", "matplotlib"])
def test_a_missing_package_says_what_to_install(tmp_path, monkeypatch, package):
    found = typeset.importlib.util.find_spec
    monkeypatch.setattr(typeset.importlib.util, "find_spec", lambda name: None if name == package else found(name))
    typeset.fonts.cache_clear()
    with pytest.raises(MissingExtraError, match=r"florentune\[synth\]"):
        synthesize(tmp_path / "o", Settings(pages=1))
    assert not (tmp_path / "o").exists()


def test_the_command_writes_and_reports(tmp_path, florentune):
    out = tmp_path / "out"
    code, printed, _ = florentune("synth", out, "--pages", 2, "--seed", 1, "--dpi", 40, "--json")
    assert code == 0
    assert json.loads(printed)["pages"] == 2
    assert sorted(path.name for path in out.iterdir()) == ["annotations.json", "captions.json", "images", "layout.json"]
    code, _, errors = florentune("synth", out, "--pages", 2)
    assert code == 2
    assert "not empty" in errors


@pytest.mark.parametrize("pages", ["0", "-1", "many"])
def test_the_command_refuses_a_bad_number(tmp_path, florentune, pages):
    code, _, errors = florentune("synth", tmp_path / "out", "--pages", pages)
    assert code == 2
    assert "--pages" in errors
    assert not (tmp_path / "out").exists()
