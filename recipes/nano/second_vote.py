"""A model's vote on pseudo-labels: joins pages it agrees with, leaves out boxes it sees less in. Rewrites pages.jsonl.

    python recipes/nano/second_vote.py --pages DIR --model CHECKPOINT

A page that the teacher was unsure of is kept where the model finds the boxes that the captions gave, all of them and no
others (IoU 0.75). A kept page is left out where a sure box of the model fills less than 70 % of a box that holds it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pseudo_label import Found, covered
from train import matches

from florentune import load_detector

AGREE, SURE, HELD, FILLED = 0.75, 0.6, 0.9, 0.7


def sees_less(truth: list[tuple[str, np.ndarray]], found: list[Found]) -> bool:
    """Whether a sure box of the model is a small part of a label's box."""
    return any(
        score >= SURE
        and covered(inner, outer) > HELD
        and (inner[2:] - inner[:2]).prod() < FILLED * (outer[2:] - outer[:2]).prod()
        for _, outer in truth
        for _, score, inner in found
    )


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
        truth = [(kind, np.array(box)) for kind, box in record["objects"]]
        found = [(region.label, region.score or 0.0, np.array(region.box) * scale) for region in page.regions]
        agreed = matches(truth, [(label, box) for label, _, box in found], AGREE)
        if record["drop"] and " at " in record["drop"] and agreed:
            record["drop"], joined = None, joined + 1
        elif not record["drop"] and sees_less(truth, found):
            record["drop"], left_out = "the model sees less in a box", left_out + 1
    listing.write_text("".join(json.dumps(record) + "\n" for record in records))
    print(f"{joined} pages joined, {left_out} left out")


if __name__ == "__main__":
    main()
