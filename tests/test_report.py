"""The HTML report, clicked through in a real browser where there is one, and the table on the terminal."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from florentune.evaluation import Problem, compare, evaluate
from florentune.formats import DataSet, ImageFolder
from florentune.regions import Box, Page, Region
from florentune.report import html
from florentune.report.html import write_report
from florentune.report.table import difference_lines, problem_lines, summary_lines

A, B = Box(40, 40, 240, 140), Box(60, 200, 260, 330)
SIZE = (300, 400)


def page(name, *regions):
    return Page(name, *SIZE, tuple(Region(*region) for region in regions))


TRUTH = [
    page("doc1_0.png", ("table", A), ("figure", B)),
    page("doc1_1.png"),
    page("doc2_0.png", ("table", A)),
    page("doc2_1.png", ("table", A), ("figure", B)),
    page("doc3_0.png", ("figure", B)),
]
PREDICTIONS = [
    page("doc1_0.png", ("table", A, 0.9), ("figure", B, 0.8)),
    page("doc1_1.png", ("table", B, 0.95)),
    page("doc2_0.png", ("figure", A, 0.7)),
    page("doc2_1.png", ("table", A, 0.85), ("figure", B, 0.3)),
    page("doc3_0.png", ("figure", Box(60, 200, 260, 275), 0.6)),
]
LABELS = ("table", "figure")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    (root / "images").mkdir()
    for item in TRUTH:
        Image.new("RGB", SIZE, "white").save(root / "images" / item.image)
    data = DataSet(TRUTH, LABELS, ImageFolder(root / "images"))
    problem = Problem("unknown_image", "<b>x</b>.png", "no such image")
    result = evaluate(TRUTH, PREDICTIONS, LABELS, problems=[problem])
    return write_report(root / "out", result, data, PREDICTIONS, title="<script>alert(1)</script>")


def embedded(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_worst_page_first_with_its_picture(report):
    pages = embedded(report)["pages"]
    assert [p["kinds"] for p in pages][-1] == ["right"]
    assert {p["image"]: p["kinds"] for p in pages} == {
        "doc1_0.png": ["right"],
        "doc1_1.png": ["invented"],
        "doc2_0.png": ["confused"],
        "doc2_1.png": ["missed"],
        "doc3_0.png": ["loose"],
    }
    with Image.open(report.parent / pages[0]["picture"]) as picture:
        assert picture.size == SIZE
    below = next(p for p in pages if p["image"] == "doc2_1.png")["found"]
    assert [entry[5:] for entry in below] == [["right", 0.85], ["below", 0.3]]


def test_nothing_is_loaded_from_elsewhere_and_text_is_escaped(report):
    text = report.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "<script>alert" not in text
    assert "<b>x</b>" not in text
    assert "{{" not in text


def test_pictures_are_limited(tmp_path):
    (tmp_path / "images").mkdir()
    for item in TRUTH:
        Image.new("RGB", SIZE, "white").save(tmp_path / "images" / item.image)
    data = DataSet(TRUTH, LABELS, ImageFolder(tmp_path / "images"))
    result = evaluate(TRUTH, PREDICTIONS, LABELS, coco=False)
    path = write_report(tmp_path / "out", result, data, PREDICTIONS, title="x", max_pictures=2)
    assert [p["picture"] for p in embedded(path)["pages"]] == ["pages/0000.jpg", "pages/0001.jpg", None, None, None]
    assert len(list((tmp_path / "out" / "pages").iterdir())) == 2
    assert "All 5 pages, the worst first. The first 2 have a picture" in path.read_text(encoding="utf-8")


def test_the_gallery_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(html, "MAX_PAGES", 3)
    result = evaluate(TRUTH, PREDICTIONS, LABELS, coco=False)
    path = write_report(tmp_path, result, DataSet(TRUTH, LABELS, None), PREDICTIONS, title="x")
    assert [p["picture"] for p in embedded(path)["pages"]] == [None] * 3
    assert "The 3 worst of 5 pages.<" in path.read_text(encoding="utf-8").replace(" Truth is", "<")


@pytest.fixture
def tab(browser, report):
    found = browser.new_page(viewport={"width": 1280, "height": 900})
    errors = []
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.goto(report.as_uri())
    yield found
    found.close()
    assert errors == []


def cards(tab):
    return tab.locator(".card .name").all_text_contents()  # a card out of sight has no inner text


def test_filters(tab):
    assert len(cards(tab)) == 5
    tab.select_option("#f-kind", "missed")
    assert cards(tab) == ["doc2_1.png"]
    tab.select_option("#f-kind", "wrong")
    assert len(cards(tab)) == 4
    tab.select_option("#f-label", label="figure")
    assert sorted(cards(tab)) == ["doc2_0.png", "doc2_1.png", "doc3_0.png"]
    tab.select_option("#f-kind", "")
    tab.select_option("#f-label", "")
    tab.select_option("#f-document", "doc1")
    assert sorted(cards(tab)) == ["doc1_0.png", "doc1_1.png"]
    tab.fill("#f-score", "0.93")
    tab.wait_for_function("document.querySelectorAll('.card').length === 1")
    assert cards(tab) == ["doc1_1.png"]
    assert tab.inner_text("#count") == "1 of 5 pages"


def test_keyboard_opens_turns_switches_and_closes(tab):
    first = tab.locator(".card", has_text="doc2_0.png")
    first.focus()
    tab.keyboard.press("Enter")
    assert tab.locator("#viewer").is_visible()
    name = tab.inner_text("#v-name")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#v-name") != name
    tab.keyboard.press("ArrowLeft")
    assert tab.inner_text("#v-name") == name
    assert tab.locator("#v-sheet .there").first.is_visible()
    tab.keyboard.press("t")
    assert not tab.locator("#v-sheet .there").first.is_visible()
    while not tab.inner_text("#v-name").startswith("doc2_1.png"):
        tab.keyboard.press("ArrowRight")
    assert not tab.locator("#v-sheet rect.below").is_visible()
    tab.keyboard.press("b")
    assert tab.locator("#v-sheet rect.below").is_visible()
    tab.keyboard.press("Escape")
    assert not tab.locator("#viewer").is_visible()
    assert tab.evaluate("document.activeElement.className") == "card"


def test_documents_sort(tab):
    rows = tab.locator("table.documents tbody tr th")
    tab.get_by_role("button", name="pages", exact=True).click()
    assert rows.all_inner_texts()[0] == "doc3"
    tab.get_by_role("button", name="pages", exact=True).click()
    assert rows.all_inner_texts()[-1] == "doc3"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_fits_and_can_be_read(browser, report, width, scheme):
    tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab.goto(report.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    ink, paper = tab.evaluate(
        "(() => { const s = getComputedStyle(document.body);"
        " return [s.color, s.backgroundColor].map(c => c.match(/\\d+/g).slice(0, 3).map(Number)) })()"
    )
    bright = sum(paper) > 3 * 128
    assert bright == (scheme == "light")
    assert abs(sum(ink) - sum(paper)) > 3 * 150
    tab.close()


def test_prints_without_controls(tab):
    tab.emulate_media(media="print")
    assert not tab.locator(".filters").is_visible()
    assert tab.locator(".card").first.is_visible()


def test_pages_appear_as_one_scrolls(browser, tmp_path):
    many = [page(f"d{i}_0.png", ("table", A)) for i in range(300)]
    result = evaluate(many, [], LABELS, coco=False, intervals=False)
    path = write_report(tmp_path, result, DataSet(many, LABELS, None), [], title="many")
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.goto(path.as_uri())
    few = tab.locator(".card").count()
    assert 0 < few < 150
    tab.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    tab.wait_for_function(f"document.querySelectorAll('.card').length > {few}")
    tab.close()


@pytest.mark.slow
def test_5_000_pages_stay_usable(browser, tmp_path):
    """Every page is in the gallery; what is drawn at once, and what a choice leaves drawn, stays small."""
    script = Path(__file__).parent.parent / "benchmarks" / "report_size.py"
    found = json.loads(
        subprocess.run([sys.executable, str(script), "--out", str(tmp_path)], check=True, capture_output=True).stdout
    )
    assert found["pages"] == 5000
    assert found["html_mb"] < 10
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.goto((tmp_path / "index.html").as_uri())
    assert tab.inner_text("#count") == "5000 of 5000 pages"
    assert 0 < tab.locator(".card").count() < 100
    assert tab.locator(".documents-rows").bounding_box()["height"] <= 900
    tab.select_option("#f-kind", "missed")
    chosen = int(tab.inner_text("#count").split()[0])
    assert 0 < chosen < 5000
    assert 0 < tab.locator(".card").count() < 100
    tab.locator(".card").first.click()
    tab.keyboard.press("ArrowLeft")
    assert f"({chosen} of {chosen})" in tab.inner_text("#v-name")
    tab.close()


# --- the table ----------------------------------------------------------------------------------------------------


def test_table_fits_80_columns():
    result = evaluate(TRUTH, PREDICTIONS, LABELS)
    lines = summary_lines(result)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "5 pages of 3 documents, 1 of them empty; 6 boxes there" in text
    assert re.search(r"page success, IoU 0\.7 +0\.200 +0\.000 - 0\.500", text)
    assert re.search(r"false alarm rate +1\.000 .*1 of 1 empty pages", text)


def test_table_of_many_labels():
    labels = tuple(f"a rather long label {i}" for i in range(12))
    truth = [page("a_0.png", (labels[0], A)), page("b_0.png", (labels[1], A))]
    guesses = [page("a_0.png", (labels[3], A, 0.9)), page("b_0.png")]
    lines = summary_lines(evaluate(truth, guesses, labels))
    assert max(map(len, lines)) <= 80
    assert f"      1  {labels[0]} -> {labels[3]}" in lines
    assert f"      1  {labels[1]} -> missed" in lines


def test_difference_and_problem_lines():
    result = evaluate(TRUTH, PREDICTIONS, LABELS)
    perfect = [page(p.image, *((r.label, r.box, 0.9) for r in p.regions)) for p in TRUTH]
    rows = compare(TRUTH, (PREDICTIONS, result), (perfect, evaluate(TRUTH, perfect, LABELS)))
    lines = difference_lines(rows, "a.json", "b.json")
    assert max(map(len, lines)) <= 80
    assert any(re.match(r"page success, IoU 0.7 +0.200 +1.000 +\+0.800 .* clear", line) for line in lines)
    problems = [Problem("unknown_image", f"{i}.png", "no such image") for i in range(5)]
    assert problem_lines(problems)[0] == "5 x unknown_image"
    assert problem_lines(problems)[-1] == "    and 2 more"
