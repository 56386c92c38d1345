"""A model's vote on pseudo-labels: joins pages it agrees with, leaves out boxes it sees less in. Rewrites pages.jsonl.

    python recipes/nano/second_vote.py --pages DIR --model CHECKPOINT

A page that the teacher was unsure of is kept where the model finds the boxes that the captions gave, all of them and no
others (IoU 0.75). A kept page is left out where a sure box of the model fills less than 70 % of a box that holds it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image

from florentune import load_detector
from florentune.regions import Box, Region, iou

AGREE, SURE, HELD, FILLED = 0.75, 0.6, 0.9, 0.7


def agrees(truth: list[Any], found: list[Region]) -> bool:
    """Whether boxes pair one to one by label."""
    left = list(found)
    for kind, box in truth:
        match = next((r for r in left if r.label == kind and iou(r.box, Box(*box)) >= AGREE), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def sees_less(truth: list[Any], found: list[Region]) -> bool:
    """Whether a sure box of the model is a small part of a label's box."""
    for _, outer in truth:
        for region in found:
            inner = region.box
            width = max(min(outer[2], inner.x2) - max(outer[0], inner.x1), 0)
            height = max(min(outer[3], inner.y2) - max(outer[1], inner.y1), 0)
            area, room = inner.area, (outer[2] - outer[0]) * (outer[3] - outer[1])
            if region.score >= SURE and width * height > HELD * area and area < FILLED * room:
                return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, required=True)
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    listing = options.pages / "pages.jsonl"
    records = [json.loads(line) for line in listing.read_text().splitlines()]
    asked = [record for record in records if "objects" in record and (record["objects"] or record["drop"])]
    images = [options.pages / record["image"] for record in asked]
    joined = left_out = 0
    for record, image, page in zip(asked, images, load_detector(options.model).detect(images), strict=True):
        with Image.open(image) as opened:
            scale = record["height"] / opened.height
        found = [Region(r.label, Box(*(v * scale for v in r.box)), r.score) for r in page.regions]
        if record["drop"] and " at " in record["drop"] and agrees(record["objects"], found):
            record["drop"], joined = None, joined + 1
        elif not record["drop"] and sees_less(record["objects"], found):
            record["drop"], left_out = "the model sees less in a box", left_out + 1
    listing.write_text("".join(json.dumps(record) + "\n" for record in records))
    print(f"{joined} pages joined, {left_out} left out")


if __name__ == "__main__":
    main()
