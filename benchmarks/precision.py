"""What an engine's precision costs and what sub-bin corners gain in accuracy, on pages with human boxes.

    python benchmarks/tfid_pages.py --shared ../shared --out tfid
    python benchmarks/precision.py tfid/annotations.json [--model nano] [--json]

The same checkpoint is exported in every precision and run by every engine over the same pages; every box counts,
whatever its score.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from florentune import evaluate, load_detector, read
from florentune.engines.export import export_onnx
from florentune.formats import DataSet

WAYS = (
    ("torch", "fp32", True),
    ("torch", "bf16", True),
    ("onnx", "fp32", True),
    ("onnx", "fp16", True),
    ("onnx", "int8", True),
    ("torch", "fp32", False),
    ("onnx", "int8", False),
)
"""Engine, precision, and whether corners are placed within bins."""


def measured(model: str, truth: DataSet, images: Path) -> Iterator[dict[str, Any]]:
    """One row for each of WAYS: engine, dtype, sub_bin, map, ap75 and page_success (at IoU .7), in fractions."""
    pages = [(page.image, images / page.image) for page in truth.pages]
    with tempfile.TemporaryDirectory() as place:
        for engine, dtype, sub_bin in WAYS:
            folder = Path(place) / dtype if engine == "onnx" else model
            if isinstance(folder, Path) and not folder.exists():
                export_onnx(model, folder, dtype)
            detector = load_detector(folder, engine=engine, dtype=dtype, sub_bin=sub_bin)
            found = evaluate(
                truth.pages,
                list(detector.detect(pages, conf=0.0)),
                truth.labels,
                thresholds=detector.thresholds,
                intervals=False,
            )
            yield {
                "engine": engine,
                "dtype": dtype,
                "sub_bin": sub_bin,
                "map": found.map,
                "ap75": found.ap75,
                "page_success": found.page_success[0.7],
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument(
        "--images", type=Path, help="where the images are; `images` beside the annotations if not given"
    )
    parser.add_argument("--model", default="nano")
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")
    options = parser.parse_args()
    images = options.images or options.annotations.parent / "images"
    truth = read(options.annotations, images=images)
    if not options.json:
        print(f"{'':<24}{'mAP':>8}{'AP75':>8}{'page success .7':>17}")
    for row in measured(options.model, truth, images):
        if options.json:
            print(json.dumps(row), flush=True)
            continue
        name = f"{row['engine']} {row['dtype']}{'' if row['sub_bin'] else ', bin centres'}"
        print(f"{name:<24}{row['map']:>8.4f}{row['ap75']:>8.4f}{row['page_success']:>17.4f}", flush=True)


if __name__ == "__main__":
    main()
