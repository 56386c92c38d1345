"""Evaluate a large made-up set and print seconds, peak memory and a few numbers as JSON.

python benchmarks/evaluation_size.py --pages 50000
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time

from florentune.evaluation import evaluate
from florentune.regions import Box, Page, Region

LABELS = ("table", "figure")


def make(pages: int, seed: int = 0) -> tuple[list[Page], list[Page]]:
    """Pages with four boxes each on average, ten pages a document, and predictions that miss one box in ten."""
    chance = random.Random(seed)
    truth, predictions = [], []
    for index in range(pages):
        name = f"doc{index // 10}_{index % 10}.png"
        boxes, found = [], []
        for row in range(chance.randrange(9)):
            box = Box(100, 20 + 240 * row, 100 + chance.uniform(300, 1400), 200 + 240 * row)
            label = chance.choice(LABELS)
            boxes.append(Region(label, box))
            if chance.random() < 0.9:
                moved = Box(box.x1 + chance.gauss(0, 5), box.y1 + chance.gauss(0, 5), box.x2, box.y2)
                found.append(Region(label, moved, chance.betavariate(5, 2)))
        truth.append(Page(name, 1700, 2200, tuple(boxes)))
        predictions.append(Page(name, 1700, 2200, tuple(found)))
    return truth, predictions


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pages", type=int, default=50_000)
    truth, predictions = make(parser.parse_args().pages)
    start, start_cpu = time.perf_counter(), time.process_time()
    result = evaluate(truth, predictions, LABELS)
    found = {
        "pages": result.pages,
        "boxes": result.truth,
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - start_cpu, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "map": result.map,
        "recall": result.recall,
        "interval": [result.intervals["map"].low, result.intervals["map"].high],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
