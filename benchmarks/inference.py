"""A page from PNG to boxes: florentune beside stock transformers, the same model, pages and machine, interleaved.

    python benchmarks/inference.py [--model nano] [--pages 20] [--threads 2]

The peer is what the demo does: Florence2Processor, `generate` with three beams (and once greedily), post_process in
single precision. Pages are generated ones rendered at 200 dpi. Medians; CPU time counts all threads.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from florentune import load_detector
from florentune.model.checkpoint import open_checkpoint
from florentune.synth import Settings, synthesize


def transformers_peer(folder: Path, beams: int) -> Callable[[Path], object]:
    """PNG to dictionary with nothing but transformers."""
    from transformers import Florence2ForConditionalGeneration, Florence2Processor

    processor = Florence2Processor.from_pretrained(folder)
    model = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(path: Path) -> object:
        image = Image.open(path).convert("RGB")
        inputs = processor(text="<OD>", images=image, return_tensors="pt")
        with torch.no_grad():
            ids = model.generate(**inputs, max_new_tokens=48, num_beams=beams, do_sample=False)
        text = processor.batch_decode(ids, skip_special_tokens=False)[0]
        return processor.post_process_generation(text=text, task="<OD>", image_size=image.size)

    return answer


def ours(model: str, engine: str, threads: int) -> Callable[[Path], object]:
    """PNG to Page with a detector."""
    detector = load_detector(model, engine=engine, threads=threads)
    return lambda path: next(detector.detect([path]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = open_checkpoint(options.model).path
    ways = {
        "florentune, ONNX": ours(options.model, "onnx", options.threads),
        "florentune, torch": ours(options.model, "torch", options.threads),
        "transformers, greedy": transformers_peer(folder, 1),
        "transformers, 3 beams": transformers_peer(folder, 3),
    }
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as place:
        synthesize(Path(place) / "set", Settings(pages=options.pages, seed=5, dpi=200))
        pages = sorted((Path(place) / "set" / "images").glob("*.png"))
        for way in ways.values():
            way(pages[0])
        for page in pages:
            for name, way in ways.items():
                began, used = time.perf_counter(), time.process_time()
                way(page)
                wall[name].append(time.perf_counter() - began)
                cpu[name].append(time.process_time() - used)
    base = statistics.median(wall["florentune, ONNX"])
    print(f"{len(pages)} pages at 200 dpi, {options.threads} threads, model {options.model}\n")
    print(f"{'':<24}{'wall ms':>10}{'CPU ms':>10}{'times ours':>12}")
    for name in ways:
        middle = statistics.median(wall[name])
        print(f"{name:<24}{1000 * middle:>10.0f}{1000 * statistics.median(cpu[name]):>10.0f}{middle / base:>12.2f}")


if __name__ == "__main__":
    main()
