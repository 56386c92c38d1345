"""Forty pages of new classes: fine-tune nano, and the same network from random weights, on the same steps.

    python benchmarks/fine_tuning.py --work DIR [--shared ../shared] [--epochs 30] [--json FILE]

Two tasks: equations, algorithms and captions of generated papers, and (with --shared) the tables of ICDAR 2013. Each
trains on 40 pages and is measured on pages of other documents. Both starts see the same pages in the same order with
the same settings; the wall time of every run is in the table.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from florentune.model.checkpoint import open_checkpoint
from florentune.model.florence import build_model, save_checkpoint

HERE = Path(__file__).parent
PAGES = 40
NEW_CLASSES = ("equation", "algorithm", "caption")
DOCUMENT = {"generated": r"^(paper_\d+)_", "icdar2013": r"^icdar2013_(.+)_\d+\."}


def florentune(*words: object, may_find: bool = False) -> None:
    """Run a florentune command; its output is shown only where it fails. Exit code 1 is a finding for `may_find`."""
    command = [sys.executable, "-m", "florentune", *map(str, words)]
    done = subprocess.run(command, text=True, capture_output=True)
    if done.returncode > may_find or "error:" in done.stderr:
        sys.exit(f"florentune {' '.join(map(str, words))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def split(coco: dict[str, Any], document: str, held: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first 40 pages that have boxes, and `held` pages (with boxes or not) of the documents that are left."""
    name = {image["id"]: re.match(document, image["file_name"]) for image in coco["images"]}
    boxed = {annotation["image_id"] for annotation in coco["annotations"]}
    first = [image for image in coco["images"] if image["id"] in boxed][:PAGES]
    seen = {match[1] for image in first if (match := name[image["id"]])}
    rest = [image for image in coco["images"] if (match := name[image["id"]]) and match[1] not in seen][:held]
    parts = []
    for images in (first, rest):
        ids = {image["id"] for image in images}
        kept = [annotation for annotation in coco["annotations"] if annotation["image_id"] in ids]
        parts.append({**coco, "images": images, "annotations": kept})
    return parts[0], parts[1]


def with_classes(coco: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The data set with those categories only."""
    categories = [category for category in coco["categories"] if category["name"] in names]
    ids = {category["id"] for category in categories}
    kept = [annotation for annotation in coco["annotations"] if annotation["category_id"] in ids]
    return {**coco, "categories": categories, "annotations": kept}


def prepared(task: str, work: Path, shared: Path | None, held: int) -> Path:
    """A folder with train.json, held.json and images; the one of an earlier run is used again."""
    folder = work / task
    if (folder / "held.json").exists():
        return folder
    if task == "generated":
        florentune("synth", folder, "--pages", 6 * PAGES, "--seed", 4242)
        coco = with_classes(json.loads((folder / "layout.json").read_text()), NEW_CLASSES)
    else:
        made = [sys.executable, HERE / "tfid_pages.py", "--shared", shared, "--out", folder, "--set", "icdar2013"]
        subprocess.run(list(map(str, made)), check=True, stdout=subprocess.DEVNULL)
        coco = json.loads((folder / "annotations.json").read_text())
    for name, part in zip(("train", "held"), split(coco, DOCUMENT[task], held), strict=True):
        (folder / f"{name}.json").write_text(json.dumps(part))
    return folder


def random_start(folder: Path) -> Path:
    """nano's network, tokenizer and image size with random weights, as a checkpoint."""
    nano = open_checkpoint("nano")
    save_checkpoint(
        build_model("nano"),
        folder,
        tokenizer=nano.tokenizer(),
        image_size=nano.image_size,
        labels=None,
        max_new_tokens=64,
    )
    return folder


def settings(folder: Path, start: str | Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The run's configuration: the same for both starts."""
    return {
        "model_name_or_path": str(start),
        "dataset": str(folder / "train.json"),
        "images": str(folder / "images"),
        "output_dir": str(out),
        "overwrite_output_dir": True,
        "num_train_epochs": options.epochs,
        "learning_rate": options.rate,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
        "per_device_train_batch_size": 8,
        "augment": True,
        "bf16": True,
        "eval_strategy": "no",
        "save_steps": 100000,
    }


def measured(folder: Path, start: str | Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train from a start and evaluate: minutes, AP50 of each class, mAP."""
    clock = time.perf_counter()
    config = out.with_suffix(".json")
    config.write_text(json.dumps(settings(folder, start, out, options), indent=2))
    florentune("train", config)
    minutes = (time.perf_counter() - clock) / 60
    scored = out / "scored.json"
    florentune(
        "evaluate",
        folder / "held.json",
        "--images",
        folder / "images",
        "--model",
        out / "last",
        "--json",
        scored,
        may_find=True,
    )
    result = json.loads(scored.read_text())
    result = result.get("evaluation", result)
    return {
        "minutes": round(minutes, 1),
        "map": result["map"],
        "ap50": result["ap50"],
        "per_label": result["per_label"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shared", type=Path, help="folder with data/icdar2013; without it only generated papers")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--held", type=int, default=60, help="pages to measure on")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for task in ("generated", *(("icdar2013",) if options.shared else ())):
        folder = prepared(task, options.work, options.shared, options.held)
        for start in ("nano", random_start(options.work / "random")):
            name = "nano" if start == "nano" else "random weights"
            row = {"task": task, "start": name, **measured(folder, start, options.work / f"{task}_{name[:4]}", options)}
            rows.append(row)
            print(f"{task:10} from {name:15} {row['minutes']:5.1f} min  AP50 {row['ap50']:.3f}  mAP {row['map']:.3f}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
