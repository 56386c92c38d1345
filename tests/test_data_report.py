"""The page of a data set: whole, offline, escaped, the odd pages first."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from florentune.cli import build_app
from florentune.formats import DataSet, ImageFolder
from florentune.formats.check import check_parts
from florentune.regions import Box, Page, Region
from florentune.report.data import write_data_report

EVIL = "</script><b>&\"'"


class Tags(HTMLParser):
    """Counts tags and collects what a browser would load."""

    def __init__(self):
        super().__init__()
        self.loaded, self.cards, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.loaded += [values[key] for key in ("src", "href") if key in values]
        if values.get("class") == "card":
            self.cards.append(values)


@pytest.fixture
def dataset(tmp_path):
    """Ten pages: one blank box, one missing image, the rest fine; a label that is not to be trusted."""
    folder = tmp_path / "images"
    folder.mkdir()
    pages = []
    for index in range(10):
        pixels = np.full((100, 200), 255, np.uint8)
        pixels[20:80, 20:90] = np.random.default_rng(index).integers(0, 2, (60, 70)) * 255
        Image.fromarray(pixels).save(folder / f"p{index}.png")
        box = Box(110, 10, 190, 90) if index == 7 else Box(10, 10, 100, 90)
        label = EVIL if index == 3 else "table"
        pages.append(Page(f"p{index}.png", 200, 100, () if index == 5 else (Region(label, box),)))
    (folder / "p9.png").unlink()
    return DataSet(pages, ("table", "figure"), ImageFolder(folder), source="data.json")


def report(dataset, folder, **options):
    parts = {f"train {EVIL}": dataset}
    html = write_data_report(folder, parts, check_parts(parts), **options).read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(html)
    return html, tags


def test_the_file_is_complete_offline_and_escaped(dataset, tmp_path):
    html, tags = report(dataset, tmp_path / "report")
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]
    assert all(link.startswith(("data:", "#")) for link in tags.loaded)
    assert "{{" not in html
    assert EVIL not in html
    assert "10 pages, 1 of them without boxes; 9 boxes. Findings: errors 1, warnings 1, notes 1." in html
    assert "blank box: 1" in html


def test_odd_pages_come_first_and_the_number_of_pictures_is_bound(dataset, tmp_path):
    _, tags = report(dataset, tmp_path)
    assert len(tags.cards) == 9
    assert [card["data-odd"] for card in tags.cards[:2]] == ["1", "0"]
    html, tags = report(dataset, tmp_path, max_pictures=4)
    assert len(tags.cards) == 3  # The page without an image takes a place but has no picture.
    assert re.findall(r"<div class=name>(.*?)</div>", html) == ["p7.png", "p0.png", "p4.png"]


def test_a_data_set_without_images_has_the_rest(dataset, tmp_path):
    dataset.images = None
    html, tags = report(dataset, tmp_path)
    assert tags.cards == []
    assert html.count("class=map") == 4


def test_the_command_writes_it(dataset, tmp_path):
    lines = [json.dumps(page.as_dict()) for page in dataset.pages if page.image != "p3.png"]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    arguments = [
        "check",
        str(tmp_path / "data.jsonl"),
        "--images",
        str(tmp_path / "images"),
        "--report",
        str(tmp_path / "r"),
    ]
    done = CliRunner().invoke(build_app(), arguments)
    assert done.exit_code == 1
    assert f"report: {tmp_path / 'r/index.html'}" in done.stdout
    assert (tmp_path / "r/index.html").stat().st_size > 10_000


def test_a_browser_filters_the_pages(dataset, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    html, _ = report(dataset, tmp_path)
    choose = "<script>odd.value='1'; filter(); document.title = document.getElementById('count').textContent</script>"
    (tmp_path / "chosen.html").write_text(html.replace("</body>", choose + "</body>"), encoding="utf-8")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{tmp_path}/chosen.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "<title>1 pages</title>" in done.stdout
