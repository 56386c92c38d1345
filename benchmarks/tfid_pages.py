"""Build the measured page sets as COCO folders, outside this work tree, from a folder of PDFs and human boxes.

    python benchmarks/tfid_pages.py --shared ../shared --out /tmp/tfid
    python benchmarks/tfid_pages.py --shared ../shared --out /tmp/icdar --set icdar2013

`OUT/images/*.png` and `OUT/annotations.json`: 97 pages of TF-ID (tables and figures; for validation only), or the 109
pages of ICDAR 2013 (tables; figures are not labelled there). This module is the one home of two rules:

- pages are rendered at 200 dpi by PDFium, at the size the annotations state;
- TF-ID leaves about 10 pixels between ink and box at that size, ICDAR 2013 leaves none: its boxes grow by 10 pixels.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pypdfium2
from PIL import Image

DPI = 200
ICDAR_MARGIN = 10.0
SETS = {"tfid": re.compile(r"arxiv_(\d+)_(\d+)_(\d+)\.png"), "icdar2013": re.compile(r"icdar2013_(.+)_(\d+)\.png")}


def source_of(file_name: str, name: str) -> tuple[str, int]:
    """The PDF (without its suffix) and the zero-based page that an image of a set shows."""
    match = SETS[name].fullmatch(file_name)
    if match is None:
        raise ValueError(f"{file_name}: not a page name of the set {name}")
    *document, page = match.groups()
    return ".".join(document), int(page)


def padded(bbox: list[float], width: int, height: int, margin: float) -> list[float]:
    """A COCO bbox (x, y, width, height) grown by `margin` pixels on every side, inside the image."""
    x, y, w, h = bbox
    left, top = max(x - margin, 0.0), max(y - margin, 0.0)
    right, bottom = min(x + w + margin, float(width)), min(y + h + margin, float(height))
    return [round(value, 2) for value in (left, top, right - left, bottom - top)]


def annotations_of(folder: Path, name: str) -> dict[str, Any]:
    """The COCO dictionary of a set, with the box margin of TF-ID and without category that no page uses."""
    coco = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    if name == "icdar2013":
        sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
        for annotation in coco["annotations"]:
            box = padded(annotation["bbox"], *sizes[annotation["image_id"]], ICDAR_MARGIN)
            annotation.update(bbox=box, area=round(box[2] * box[3], 2))
    used = {annotation["category_id"] for annotation in coco["annotations"]}
    coco["categories"] = [category for category in coco["categories"] if category["id"] in used]
    return coco


def render(pdf: Path, page: int, size: tuple[int, int]) -> Image.Image:
    """One page at 200 dpi in RGB; raises ValueError when it is not of the annotated size (one pixel of rounding)."""
    document = pypdfium2.PdfDocument(pdf)
    try:
        image = document[page].render(scale=DPI / 72).to_pil().convert("RGB")
    finally:
        document.close()
    if max(abs(image.width - size[0]), abs(image.height - size[1])) > 1:
        raise ValueError(f"{pdf.name} page {page} renders at {image.size}, the boxes were drawn at {size}")
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def build(shared: Path, out: Path, name: str) -> int:
    """Write `out`/images and `out`/annotations.json of a set; returns the number of pages."""
    folder = shared / "data" / name
    coco = annotations_of(folder, name)
    (out / "images").mkdir(parents=True, exist_ok=True)
    for entry in coco["images"]:
        target = out / "images" / entry["file_name"]
        original = folder / "images" / entry["file_name"]
        if original.is_file():
            shutil.copyfile(original, target)
            continue
        pdf, page = source_of(entry["file_name"], name)
        render(folder / "pdfs" / f"{pdf}.pdf", page, (entry["width"], entry["height"])).save(target, compress_level=1)
    (out / "annotations.json").write_text(json.dumps(coco, indent=1) + "\n", encoding="utf-8")
    return len(coco["images"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shared", type=Path, required=True, help="the folder that holds data/tfid and data/icdar2013")
    parser.add_argument("--out", type=Path, required=True, help="where the data set is written, outside a work tree")
    parser.add_argument("--set", choices=sorted(SETS), default="tfid", dest="name")
    options = parser.parse_args()
    if not (options.shared / "data" / options.name).is_dir():
        sys.exit(f"error: {options.shared / 'data' / options.name}: no such folder")
    print(f"{build(options.shared, options.out, options.name)} pages in {options.out}")


if __name__ == "__main__":
    main()
