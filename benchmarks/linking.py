"""How many captions of generated papers end up at the right box with the right text.

    .venv/bin/florentune synth /tmp/papers --pages 300 --seed 7 --pdf
    .venv/bin/python benchmarks/linking.py /tmp/papers [--list]

The detector is replaced by the true boxes, so this measures captions and linking alone. A caption is linked when the
document has an entry of its kind and number whose box is the true one (IoU >= 0.9); its text is right when it is the
true text apart from blanks, hyphens at line ends and the font's ligatures. Titles of reports that say no "Table 1" are
no captions for florentune; they are counted apart.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from florentune.extraction.document import Options, process_document
from florentune.pdf import PdfReader
from florentune.regions import Box, Page, Region, iou


class Oracle:
    """A detector that knows the boxes of a paper: image pixels of the data set, scaled to whatever it is shown."""

    name = "oracle"

    def __init__(self, boxes: dict[int, list[Region]], sizes: dict[int, tuple[int, int]]) -> None:
        self.boxes, self.sizes = boxes, sizes

    def detect(self, images: Iterable[tuple[str, Image.Image]], *, batch: int = 8) -> Iterator[Page]:
        for name, image in images:
            index = int(name.removeprefix("page-")) - 1
            width, height = self.sizes.get(index, image.size)
            x, y = image.width / width, image.height / height
            moved = [
                Region(r.label, Box(r.box.x1 * x, r.box.y1 * y, r.box.x2 * x, r.box.y2 * y), 1.0)
                for r in self.boxes.get(index, [])
            ]
            yield Page(name, image.width, image.height, tuple(moved))


def plain(text: str) -> str:
    """The text without blanks, hyphens and the differences between glyphs that Unicode calls compatible."""
    return "".join(sign for sign in unicodedata.normalize("NFKC", text) if sign.isalnum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("papers", type=Path)
    parser.add_argument("--list", action="store_true", help="print what is wrong")
    options = parser.parse_args()
    truth: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in json.loads((options.papers / "captions.json").read_text()):
        paper, index = Path(entry["image"]).stem.rsplit("_", 1)
        truth[paper].append({**entry, "page": int(index)})
    coco = json.loads((options.papers / "annotations.json").read_text())
    sizes: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
    for image in coco["images"]:
        paper, index = Path(image["file_name"]).stem.rsplit("_", 1)
        sizes[paper][int(index)] = image["width"], image["height"]
    total: Counter[str] = Counter()
    with PdfReader() as reader, tempfile.TemporaryDirectory() as folder:
        for pdf in sorted((options.papers / "pdfs").glob("*.pdf")):
            boxes: dict[int, list[Region]] = defaultdict(list)
            for entry in truth[pdf.stem]:
                x, y, width, height = entry["object_box"]
                boxes[entry["page"]].append(Region(entry["kind"], Box(x, y, x + width, y + height)))
            oracle = Oracle(boxes, sizes[pdf.stem])
            record = process_document(pdf, folder, oracle, options=Options(dpi=72, crops=False), reader=reader)
            total.update(_score(record, truth[pdf.stem], sizes[pdf.stem], options.list))
    print(json.dumps({**total, "linked_share": round(total["linked"] / total["captions"], 4)}))


def _score(
    record: dict[str, Any], truth: list[dict[str, Any]], sizes: dict[int, tuple[int, int]], verbose: bool
) -> Counter[str]:
    labelled = [entry for entry in truth if entry["number"]]
    counts: Counter[str] = Counter(papers=1, captions=len(labelled), titles_without_label=len(truth) - len(labelled))
    for entry in labelled:
        x, y, width, height = entry["object_box"]
        true = Box(x, y, x + width, y + height)
        found = [f for f in record["figures"] if f["page"] == entry["page"] and f["kind"] == entry["kind"]]
        hits = [f for f in found if f["number"] == entry["number"] and iou(_pixels(f, sizes), true) >= 0.9]
        counts["linked"] += bool(hits)
        exact = bool(hits) and plain(hits[0]["caption"]) == plain(entry["text"])
        counts["text"] += exact
        if verbose and not exact:
            print(
                record["source"], entry, [(f["number"], f["caption"], f["bbox"]) for f in hits or found], "", sep="\n"
            )
    return counts


def _pixels(figure: dict[str, Any], sizes: dict[int, tuple[int, int]]) -> Box:
    x, y = (pixels / points for pixels, points in zip(sizes[figure["page"]], figure["page_size"], strict=True))
    x1, y1, x2, y2 = figure["bbox"]
    return Box(x1 * x, y1 * y, x2 * x, y2 * y)


if __name__ == "__main__":
    main()
