"""Make the package's nano out of a run's weights: half precision safetensors, ONNX graphs, calibration.

    python recipes/nano/ship.py --run RUN --real DIR --out src/florentune/nano

Calibration and thresholds are fitted to the pages of the papers that the run held out, never to evaluation pages.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from data import OBJECTS
from PIL import Image
from safetensors import safe_open
from tokenizers import Tokenizer
from train import watched_pages

from florentune.engines.export import export_onnx
from florentune.formats import write
from florentune.formats.dataset import DataSet
from florentune.model.florence import build_model, save_checkpoint
from florentune.model.sizes import size_config
from florentune.regions import Box, Page, Region

HERE = Path(__file__).parent


def averaged_weights(run: Path) -> dict[str, torch.Tensor]:
    """The moving average of a finished run, or of one that is still going on."""
    final = run / "weights.safetensors"
    path, prefix = (final, "") if final.exists() else (run / "state.safetensors", "ema.")
    with safe_open(path, "pt") as file:
        return {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118


def write_watched(real: Path, out: Path) -> Path:
    """The held-out pages as a COCO data set with their images."""
    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
    pages = []
    for name, record in watched_pages(real):
        shutil.copy(real / name, images / name)
        with Image.open(images / name) as image:
            width, height = image.size
        scale = height / record["height"]
        regions = [
            Region(kind, Box(*(v * scale for v in box)).clipped(width, height)) for kind, box in record["objects"]
        ]
        pages.append(Page(name, width, height, tuple(regions)))
    write(DataSet(pages=pages, labels=OBJECTS, images=None, issues=[]), out / "annotations.json", format="coco")
    return out / "annotations.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--side", type=int, default=size_config("nano")["image_size"])
    parser.add_argument("--dtype", nargs="*", default=["int8"])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = build_model("nano")
    model.load_state_dict(averaged_weights(options.run), strict=False)
    model.tie_weights()
    card = (HERE / "card.md").read_text() if (HERE / "card.md").exists() else None
    save_checkpoint(
        model.half(),
        options.out,
        tokenizer=Tokenizer.from_file(str(HERE / "tokenizer.json")),
        image_size=(options.side, options.side),
        labels=OBJECTS,
        max_new_tokens=48,
        card=card,
    )
    for dtype in options.dtype:
        done = export_onnx(options.out, options.out, dtype)
        print(f"{dtype}: cosine {done.cosine:.5f}, {done.bytes / 1e6:.1f} MB")
    print(f"calibrate: florentune evaluate {write_watched(options.real, options.run / 'watched')} --calibrate")


if __name__ == "__main__":
    main()
