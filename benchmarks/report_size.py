"""Write the report of a large made-up set; with --open also open it in Chromium and say how it feels. Prints JSON.

    python benchmarks/report_size.py --out /tmp/report --pages 5000 --open

`load_ms` is until the first pages are drawn, `filter_ms` from choosing an error to the pages that have it, `sort_ms`
from choosing a column of the table of documents, `heap_mb` the memory of its script.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from evaluation_size import LABELS, make
from PIL import Image

from florentune.evaluation import evaluate
from florentune.formats import DataSet
from florentune.report.html import write_report


class OnePicture:
    """Images for pages that were never drawn: the same grey page for each of them."""

    def __init__(self) -> None:
        self._page = Image.linear_gradient("L").resize((850, 1100)).convert("RGB")

    def open(self, name: str) -> Image.Image:
        return self._page.copy()


def opened(path: Path) -> dict[str, Any]:
    """How long the report takes in Chromium, in milliseconds."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": 1280, "height": 900})
        found = {"load_ms": timed(lambda: (tab.goto(path.as_uri()), tab.wait_for_selector(".card")))}
        found["filter_ms"] = timed(lambda: tab.select_option("#f-kind", "missed"))
        found["sort_ms"] = timed(lambda: tab.get_by_role("button", name="pages", exact=True).click())
        found["heap_mb"] = round(tab.evaluate("performance.memory.usedJSHeapSize") / 1e6, 1)
        found["cards"] = tab.locator(".card").count()
        chromium.close()
    return found


def timed(action: Any) -> int:
    start = time.perf_counter()
    action()
    return round(1000 * (time.perf_counter() - start))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pages", type=int, default=5000)
    parser.add_argument("--open", action="store_true", help="open it in Chromium and measure")
    options = parser.parse_args()
    truth, predictions = make(options.pages)
    result = evaluate(truth, predictions, LABELS, coco=False, intervals=False)
    start = time.process_time()
    path = write_report(
        options.out, result, DataSet(truth, LABELS), predictions, title="a large set", images=OnePicture()
    )
    found = {"pages": result.pages, "cpu_seconds": round(time.process_time() - start, 1)}
    found |= {"html_mb": round(path.stat().st_size / 1e6, 2), **(opened(path) if options.open else {})}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
