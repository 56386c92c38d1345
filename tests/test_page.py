"""The page driven in a browser: send a paper, look, select, filter, correct, download."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra [server]")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
from server_fakes import Running, pdf, png  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    with Running() as running:
        yield running


@pytest.fixture
def page(browser, server):
    """An open page; a message on the console or a request to another host fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    faults = []
    home = f"http://127.0.0.1:{server.client.port}/"
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((home, "blob:")) else faults.append(r.url))
    page.goto(home)
    yield page
    context.close()
    assert not [fault for fault in faults if "Failed to load resource" not in fault]


def drop(page, name="paper.pdf", content=None, kind="application/pdf"):
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content or pdf(2)})


def download(page, button):
    with page.expect_download() as waiting:
        page.click(button)
    return waiting.value.suggested_filename, waiting.value.path().read_bytes()


def boxes(page, count):
    found = page.locator("button.box")
    playwright.expect(found).to_have_count(count, timeout=60_000)
    return found


def opened(page, pages=2):
    drop(page, content=pdf(pages))
    boxes(page, pages)
    page.wait_for_selector("#work", state="hidden")


def test_a_paper_is_shown_with_its_boxes_where_they_are(page):
    opened(page)
    assert page.locator("#list li").count() == 2
    frame, sheet = boxes(page, 2).nth(0).bounding_box(), page.locator(".sheet").nth(0).bounding_box()
    shown = [
        (frame["x"] - sheet["x"]) / sheet["width"] * 600,
        (frame["y"] - sheet["y"]) / sheet["height"] * 800,
        frame["width"] / sheet["width"] * 600,
        frame["height"] / sheet["height"] * 800,
    ]
    assert np.allclose(shown, [100, 100, 401, 201], atol=2)


def test_the_slider_filters_at_once(page):
    opened(page)
    page.locator("#threshold").fill("0.95")
    boxes(page, 0)
    assert page.locator("#nothing").is_visible()
    page.locator("#threshold").fill("0.6")
    boxes(page, 2)


def test_a_box_is_selected_moved_and_removed_by_keyboard(page):
    opened(page)
    box = boxes(page, 2).nth(0)
    box.focus()
    page.keyboard.press("Enter")
    assert box.get_attribute("aria-pressed") == "true"
    before = box.bounding_box()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    after = box.bounding_box()
    assert after["x"] > before["x"]
    assert after["height"] > before["height"]
    page.keyboard.press("Delete")
    boxes(page, 1)


def test_every_change_can_be_undone(page):
    opened(page, 1)
    box = boxes(page, 1).nth(0)
    box.click()
    before = box.bounding_box()
    page.keyboard.press("ArrowRight")
    page.select_option("#label", "figure")
    box.focus()
    page.keyboard.press("Delete")
    boxes(page, 0)
    page.click("#undo")
    assert boxes(page, 1).nth(0).get_attribute("aria-label").startswith("figure")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert page.locator("button.box").bounding_box() == before
    assert page.locator("#undo").is_disabled()
    _, content = download(page, "#get-json")
    (region,) = json.loads(content)["pages"][0]["regions"]
    assert (region["label"], region["corrected"], region["score"]) == ("table", False, 0.9)


def test_the_thresholds_of_the_model_can_be_had_back(page):
    opened(page, 1)
    page.locator("#threshold").fill("0.95")
    boxes(page, 0)
    page.click("#own")
    boxes(page, 1)
    assert page.locator("#own").is_hidden()


def test_the_list_jumps_to_the_page_and_one_crop_is_downloaded(page):
    opened(page, 2)
    assert page.locator("#summary").inner_text() == "paper.pdf, 2 pages: 2 tables"
    page.locator("#list button").nth(1).focus()
    page.keyboard.press("Enter")
    playwright.expect(boxes(page, 2).nth(1)).to_be_in_viewport()
    thumb = "[...document.querySelector('#list canvas').getContext('2d').getImageData(132, 108, 1, 1).data]"
    page.wait_for_function(f"{thumb}.join() === '0,0,0,255'")
    name, content = download(page, "#crop")
    with Image.open(io.BytesIO(content)) as crop:
        assert (name, crop.width) == ("paper-table-p2.png", pytest.approx(401 * 200 / 72, abs=3))


def test_a_dragged_corner_ends_up_in_coco(page):
    opened(page)
    box = boxes(page, 2).nth(0)
    box.click()
    corner, sheet = box.locator(".corner[data-x='2'][data-y='2']").bounding_box(), page.locator(".sheet").nth(0)
    scale = 1667 / sheet.bounding_box()["width"]
    x, y = corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 50, y - 30, steps=3)
    page.mouse.up()
    name, content = download(page, "#get-coco")
    coco = json.loads(content)
    assert name == "paper-coco.json"
    assert [image["file_name"] for image in coco["images"]] == ["paper-page-1.png", "paper-page-2.png"]
    moved, kept = coco["annotations"]
    assert moved["bbox"][:2] == kept["bbox"][:2]
    assert kept["bbox"][2] - moved["bbox"][2] == pytest.approx(50 * scale, abs=3)
    assert kept["bbox"][3] - moved["bbox"][3] == pytest.approx(30 * scale, abs=3)


def test_the_training_data_is_read_by_our_own_reader(page, tmp_path):
    from florentune.formats import read

    opened(page)
    _, content = download(page, "#get-data")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    data = read(tmp_path / "annotations.json", images=tmp_path / "images")
    assert [len(page.regions) for page in data.pages] == [1, 1]
    assert data.images.open(data.pages[0].image).size == (data.pages[0].width, data.pages[0].height)


def test_crops_hold_what_is_inside_the_boxes(page):
    opened(page)
    _, content = download(page, "#get-crops")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert len(archive.namelist()) == 2
        with Image.open(io.BytesIO(archive.read(archive.namelist()[0]))) as crop:
            assert np.asarray(crop.convert("L")).mean() < 20


def test_a_box_drawn_by_hand_is_exported(page):
    opened(page, 1)
    page.click("#add")
    sheet = page.locator(".sheet").nth(0).bounding_box()
    page.mouse.move(sheet["x"] + 50, sheet["y"] + 450)
    page.mouse.down()
    page.mouse.move(sheet["x"] + 150, sheet["y"] + 520, steps=3)
    page.mouse.up()
    boxes(page, 2)
    page.select_option("#label", "figure")
    _, content = download(page, "#get-json")
    regions = json.loads(content)["pages"][0]["regions"]
    assert [(r["label"], r["corrected"], r["score"]) for r in regions] == [
        ("table", False, 0.9),
        ("figure", True, None),
    ]


def test_a_broken_file_gives_a_clear_message(page):
    drop(page, content=b"%PDF-1.4 and nothing more")
    page.wait_for_selector("#error:not([hidden])")
    assert page.locator("#error").inner_text().startswith("paper.pdf: the PDF is damaged")
    assert page.locator("#error").get_attribute("role") == "alert"


def test_a_pasted_screenshot_is_taken(page):
    page.evaluate(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
        }""",
        list(png()),
    )
    boxes(page, 1)


def test_a_dropped_file_is_taken(page):
    page.evaluate(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "scan.png", { type: "image/png" }));
            const where = document.getElementById("drop");
            for (const name of ["dragover", "drop"])
                where.dispatchEvent(new DragEvent(name, { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        list(png()),
    )
    boxes(page, 1)
    playwright.expect(page.locator("#summary")).to_have_text("scan.png, 1 page: 1 table")


def test_a_name_that_is_markup_is_text(page):
    drop(page, name="<img src=x onerror=alert(1)>.pdf", content=b"%PDF-broken")
    page.wait_for_selector("#error:not([hidden])")
    assert page.locator("#error img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_has_contrast(page, scheme):
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme=scheme)
    opened(page, 1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert min(page.evaluate(CONTRASTS)) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(page, scheme, width):
    """At the start, with a result and a selected box, and with a message; nothing of any weight."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)

    def violations():
        response = axe.run(page).response
        assert len(response["passes"]) > 10
        found = response["violations"]
        return [(one["impact"], one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found]

    assert violations() == []
    opened(page, 2)
    boxes(page, 2).nth(0).click()
    assert violations() == []
    drop(page, content=b"%PDF-1.4 and nothing more")
    page.wait_for_selector("#error:not([hidden])")
    assert violations() == []


def test_everything_interactive_has_a_name(page):
    opened(page, 1)
    boxes(page, 1).nth(0).click()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, img, progress, [role=group], section")].filter(
            (e) => !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.alt ||
                e.textContent.trim() || e.labels?.length)).map((e) => e.outerHTML)"""
    )
    assert nameless == []
    names = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(names) == len(set(names))


# WCAG 2 contrast of the visible texts with the nearest background behind them
CONTRASTS = """() => {
  const part = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const color = rgb(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("h1, h2, p, label, output, b, li span, figcaption, button:not(:disabled)")]
    .filter((e) => e.offsetParent && e.textContent.trim() && !e.classList.contains("box"))
    .map((e) => [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((a, b) => b - a))
    .map(([high, low]) => (high + 0.05) / (low + 0.05));
}"""
