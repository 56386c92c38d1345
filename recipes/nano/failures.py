"""The worst pages of an evaluation as a Markdown table: text and numbers, no pictures.

florentune evaluate DATA --json scored.json
python recipes/nano/failures.py DATA scored.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from florentune.formats import read
from florentune.regions import Box, Page, Region, iou

LEVEL = 0.7
MOST = 12


def problems(truth: Page, found: list[Region]) -> list[str]:
    """What is wrong with a page, one phrase a box; empty when every box is right at LEVEL and none is extra."""
    left, phrases = list(found), []
    for region in truth.regions:
        near = max(left, key=lambda other: iou(region.box, other.box), default=None)
        overlap = iou(region.box, near.box) if near else 0.0
        if near is None or overlap < 0.1:
            phrases.append(f"{region.label} missed")
            continue
        left.remove(near)
        if near.label != region.label:
            phrases.append(f"{region.label} called {near.label} (IoU {overlap:.2f})")
        elif overlap < LEVEL:
            phrases.append(f"{region.label} at IoU {overlap:.2f}")
    return phrases + [f"{region.label} invented (score {region.score:.2f})" for region in left]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("scored", type=Path)
    options = parser.parse_args()
    scored = json.loads(options.scored.read_text())
    limits = scored["thresholds"]
    found = {
        Path(page["image"]).name: [
            Region(region["label"], Box(*region["bbox"]), region["score"])
            for region in page["regions"]
            if region["score"] >= limits.get(region["label"], 0.5)
        ]
        for page in scored["predictions"]
    }
    rows = [(page, problems(page, found.get(Path(page.image).name, []))) for page in read(options.data).pages]
    wrong = sorted(((page, why) for page, why in rows if why), key=lambda row: -len(row[1]))
    print(f"{len(wrong)} of {len(rows)} pages are not right at IoU {LEVEL}; the worst {min(MOST, len(wrong))}:\n")
    print("| page | boxes there | what is wrong |\n|---|---|---|")
    for page, why in wrong[:MOST]:
        there = ", ".join(region.label for region in page.regions) or "none"
        print(f"| {Path(page.image).stem} | {there} | {'; '.join(why)} |")


if __name__ == "__main__":
    main()
