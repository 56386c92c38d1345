"""Slow: the engines and precisions of nano beside each other, on generated and on real pages."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from florentune import load_detector
from florentune.engines.export import export_onnx
from florentune.synth import Settings, synthesize
from test_engines import lively

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.mark.timeout(3600)
def test_fp32_graphs_write_the_tokens_of_torch_on_200_generated_pages(tmp_path):
    synthesize(tmp_path / "set", Settings(pages=200, seed=424242, dpi=60))
    pages = sorted((tmp_path / "set" / "images").glob("*.png"))
    export_onnx("nano", tmp_path / "fp32", "fp32")
    by_torch = load_detector("nano", engine="torch", dtype="fp32").predict(pages)
    by_onnx = load_detector(tmp_path / "fp32", engine="onnx", dtype="fp32").predict(pages)
    texts = [(one.text, two.text) for one, two in zip(by_torch, by_onnx, strict=True)]
    assert len(texts) == 200
    assert len({first for first, _ in texts}) > 50, "answers must differ from page to page to prove anything"
    assert [pair for pair in texts if pair[0] != pair[1]] == []


@pytest.mark.timeout(3600)
def test_smaller_precisions_lose_at_most_half_a_point_on_real_pages(shared, tmp_path):
    def run(script, *arguments):
        command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    run("tfid_pages.py", "--shared", shared, "--out", tmp_path)
    rows = [json.loads(line) for line in run("precision.py", tmp_path / "annotations.json", "--json").splitlines()]
    usual = {(row["engine"], row["dtype"]): row["map"] for row in rows if row["sub_bin"]}
    assert usual.keys() == {("torch", "fp32"), ("torch", "bf16"), ("onnx", "fp32"), ("onnx", "fp16"), ("onnx", "int8")}
    assert min(usual.values()) >= usual["torch", "fp32"] - 0.005, usual


@pytest.mark.timeout(3600)
def test_int8_takes_at_most_three_fifths_of_the_memory_of_transformers_at_base_size(tmp_path):
    program = [sys.executable, str(ROOT / "benchmarks" / "inference.py"), "--size", "base", "--pages", "1"]
    command = [*program, "--only", "int8", "greedy", "--work", str(tmp_path)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    ours, theirs = (
        next(int(line.split()[-2]) for line in lines if line.startswith(name))
        for name in ("florentune, ONNX int8", "transformers, greedy")
    )
    assert ours <= 0.6 * theirs, (ours, theirs)


@pytest.mark.timeout(1800)
def test_ten_thousand_answers_of_random_weights_are_sound(tmp_path):
    """Twenty models, 500 images each: every box inside its image, every label known, nothing twice."""
    from PIL import Image

    count = 0
    for seed in range(20):
        detector = load_detector(lively(tmp_path / str(seed), seed), engine="torch")
        generator = np.random.default_rng(seed)
        images = (Image.fromarray(generator.integers(0, 256, (40, 30, 3), dtype=np.uint8)) for _ in range(500))
        for page in detector.detect(images, batch=100, conf=0.0):
            assert len({(region.label, region.box) for region in page.regions}) == len(page.regions)
            for label, box in ((region.label, region.box) for region in page.regions):
                assert label in ("table", "figure")
                assert 0 <= box.x1 < box.x2 <= page.width
                assert 0 <= box.y1 < box.y2 <= page.height
            count += 1
    assert count == 10_000
