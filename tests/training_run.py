"""Small data sets and runs for the training tests: pages of 200 x 260 pixels and the tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tiny_model import tiny_checkpoint

LABELS = ("table", "figure")
WIDTH, HEIGHT = 200, 260


def make_pages(folder: Path, count: int = 8, seed: int = 0) -> Path:
    """A COCO file and its images: page i has i % 3 boxes, filled black for tables and red for figures."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index in range(count):
        page = Image.new("RGB", (WIDTH, HEIGHT), "white")
        for row in range(index % 3):
            x, y = int(rng.integers(5, 90)), int(rng.integers(5, 60)) + 120 * row
            width, height = int(rng.integers(40, 100)), int(rng.integers(30, 60))
            category = int(rng.integers(1, 3))
            ImageDraw.Draw(page).rectangle((x, y, x + width, y + height), fill="black" if category == 1 else "red")
            bbox = [x, y, width, height]
            annotations.append(
                {"id": len(annotations), "image_id": index, "category_id": category, "bbox": bbox, "iscrowd": 0}
            )
        name = f"paper{index // 2}_{index % 2}.png"
        page.save(folder / "images" / name)
        images.append({"id": index, "file_name": name, "width": WIDTH, "height": HEIGHT})
    categories = [{"id": 1, "name": "table"}, {"id": 2, "name": "figure"}]
    file = folder / "coco.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def make_workplace(folder: Path, pages: int = 8) -> Path:
    """A folder with `coco.json`, `images/` and the model `tiny/`."""
    make_pages(folder, pages)
    tiny_checkpoint(folder / "tiny")
    return folder


def settings(place: Path, output: Path, **changes: object) -> dict[str, object]:
    """A configuration of a short run over the pages in `place`."""
    return {
        "model_name_or_path": str(place / "tiny"),
        "dataset": str(place / "coco.json"),
        "images": str(place / "images"),
        "output_dir": str(output),
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_steps": 1000,
        "plot_loss": False,
        "report_to": "none",
        "use_cpu": True,
        **changes,
    }


def words(values: dict[str, object]) -> list[str]:
    """The configuration as `key=value` arguments."""
    return [f"{key}={json.dumps(value) if isinstance(value, bool) else value}" for key, value in values.items()]


def start(place: Path, output: Path, *, launcher: tuple[str, ...] = (), **changes: object) -> subprocess.Popen[str]:
    """The run as a process of its own, with one thread."""
    empty = place / "empty.yaml"
    empty.touch()
    command = [sys.executable, *launcher, "-m", "florentune", "train", str(empty)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(
        [*command, *words(settings(place, output, **changes))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def losses(output: Path) -> dict[int, object]:
    """The logged training loss of each step."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "learning_rate" in line}


def weights(folder: Path) -> bytes:
    """The bytes of a checkpoint's weights."""
    return (folder / "model.safetensors").read_bytes()
