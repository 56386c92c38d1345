"""What other extractors give for the same papers: tables, figures, captions, crops, cells.

    python benchmarks/peers/run.py --shared ../shared --work /tmp/p --only pdfplumber,camelot,pymupdf_rules,img2table
    python benchmarks/extractors.py --shared ../shared --work /tmp/p

The first command asks the others, each in an environment of its own; this one runs `florentune extract` on those PDFs
and counts, against the human boxes of TF-ID, what each found (one to one, IoU of 0.5, class right) and what it found
beyond that. Only pages whose PDF is in --shared count. A Markdown table is printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tfid_pages import source_of

from florentune.evaluation.matching import pair_up
from florentune.formats import read
from florentune.regions import Box, Page, Region

RETURNS = {
    "florentune": "caption with kind and number, PNG and PDF crop, CSV, words with boxes",
    "pymupdf_rules": "cells of tables; the boxes of embedded images and of clusters of drawings",
    "pdfplumber": "cells of tables; the boxes of embedded images",
    "camelot": "cells of tables",
    "img2table": "cells of tables (their text needs an OCR package)",
}
LEAST_IOU = 0.5


def ours(pdfs: list[Path], pages: list[Page], work: Path, model: str) -> tuple[list[Page], Counter[str]]:
    """What `florentune extract` found, in pixels of the annotated pages, and how many have captions, crops, cells."""
    out = work / "florentune"
    command = [sys.executable, "-m", "florentune", "extract", *map(str, pdfs), "--out", str(out), "--model", model]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    records = [json.loads(path.read_text()) for path in out.glob("??/*/document.json")]
    by_source = {Path(record["source"]).stem: record for record in records}
    found, counts = [], Counter[str]()
    for page in pages:
        document, index = source_of(page.image, "tfid")
        entries = [entry for entry in by_source[document]["figures"] if entry["page"] == index]
        found.append(Page(page.image, page.width, page.height, tuple(region(entry, page) for entry in entries)))
        for entry in entries:
            given = {name: entry.get(name) for name in ("caption", "crop", "csv")}
            counts.update(name for name, value in given.items() if value)
    return found, counts


def region(entry: dict[str, Any], page: Page) -> Region:
    width, height = entry["page_size"]
    x, y = page.width / width, page.height / height
    x1, y1, x2, y2 = entry["bbox"]
    return Region(entry["kind"], Box(x1 * x, y1 * y, x2 * x, y2 * y), entry["score"])


def theirs(answers: Path, pages: list[Page]) -> list[Page]:
    """What a peer answered for these pages."""
    rows = {row["image"]: row for row in json.loads(answers.read_text())["predictions"]}
    return [
        Page(
            page.image,
            page.width,
            page.height,
            tuple(Region(r["label"], Box(*r["bbox"]), r["score"]) for r in rows[page.image]["regions"]),
        )
        for page in pages
    ]


def counted(truth: list[Page], found: list[Page]) -> Counter[str]:
    """How many of each class there are, were found, and are extra."""
    counts = Counter[str]()
    for page, guess in zip(truth, found, strict=True):
        for label in ("table", "figure"):
            true = [item for item in page.regions if item.label == label]
            given = [item for item in guess.regions if item.label == label]
            hits = len(pair_up(true, given, (), LEAST_IOU).correct)
            counts.update({f"{label}s": len(true), f"{label}s found": hits, f"{label}s extra": len(given) - hits})
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="the --work of benchmarks/peers/run.py")
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    folder = options.shared / "data" / "tfid" / "pdfs"
    pages = [
        page
        for page in read(options.work / "tfid").pages
        if (folder / f"{source_of(page.image, 'tfid')[0]}.pdf").is_file()
    ]
    pdfs = sorted({folder / f"{source_of(page.image, 'tfid')[0]}.pdf" for page in pages})
    found, given = ours(pdfs, pages, options.work, options.model)
    rows = {"florentune": counted(pages, found)}
    for name in RETURNS:
        answers = sorted((options.work / "answers").glob(f"tfid*-{name}.json"))
        if answers:
            rows[name] = counted(pages, theirs(answers[0], pages))
    total = rows["florentune"]
    print(f"{len(pdfs)} papers, {len(pages)} pages, {total['tables']} tables, {total['figures']} figures\n")
    print(
        "| extractor | tables found | extra | figures found | extra | what comes with them |\n|---|---|---|---|---|---|"
    )
    for name, counts in rows.items():
        cells = [counts[f"{label}s {what}"] for label in ("table", "figure") for what in ("found", "extra")]
        print(f"| {name} | {' | '.join(map(str, cells))} | {RETURNS[name]} |")
    print(f"\nOf florentune's {sum(len(page.regions) for page in found)} boxes: {dict(given)}")


if __name__ == "__main__":
    main()
