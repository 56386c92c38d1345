"""What moving the edges of boxes to blank paper does for crops, against human boxes.

    python benchmarks/tfid_pages.py --shared ../shared --out tfid
    python benchmarks/edges.py tfid

For every box of the model that means a human box (IoU of at least 0.5, same class), before and after: the mean IoU, how
many boxes reach an IoU of 0.9 and of 0.95, and how many lose more than 0.2 % of the ink inside the human box.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from florentune.detector import load_detector
from florentune.extraction.edges import whole
from florentune.formats import read
from florentune.regions import Box, iou

SCALE = 200 / 72


def loses_ink(image: Image.Image, truth: Box, found: Box) -> bool:
    """Whether a crop to `found` lacks more than 0.2 % of the ink in `truth`."""
    ink = np.zeros((image.height, image.width), dtype=bool)
    x1, y1, x2, y2 = (round(value) for value in truth)
    ink[y1:y2, x1:x2] = np.asarray(image.convert("L").crop((x1, y1, x2, y2))) < 200
    total = int(ink.sum())
    x1, y1, x2, y2 = (round(value) for value in found)
    ink[max(y1, 0) : y2, max(x1, 0) : x2] = False
    return int(ink.sum()) > 0.002 * total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    pages, rows = read(options.data).pages, []
    detector = load_detector(options.model, threads=1)
    images = ((page.image, options.data / "images" / page.image) for page in pages)
    for page, answer in zip(pages, detector.detect(images), strict=True):
        image = Image.open(options.data / "images" / page.image).convert("RGB") if answer.regions else None
        for region in answer.regions:
            same = [item.box for item in page.regions if item.label == region.label]
            truth = max(same, key=lambda box: iou(box, region.box), default=None)
            if image is None or truth is None or iou(truth, region.box) < 0.5:
                continue
            for stage, box in (("before", region.box), ("after", whole(region.box, image, SCALE))):
                rows.append((stage, iou(truth, box), loses_ink(image, truth, box)))
    for stage in ("before", "after"):
        ious = np.array([row[1] for row in rows if row[0] == stage])
        lost = sum(row[2] for row in rows if row[0] == stage)
        counts = {f"iou_{least}": int((ious >= least).sum()) for least in (0.9, 0.95)}
        print(json.dumps({stage: {"boxes": len(ious), "mean_iou": round(ious.mean(), 3), **counts, "lose_ink": lost}}))


if __name__ == "__main__":
    main()
