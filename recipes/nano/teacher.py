"""The teacher: PP-DocLayout-S (Apache-2.0 weights, ONNX) as a plain function from a page image to layout boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

# The label order of PP-DocLayout's 23 classes, as its model card lists them.
LABELS = (
    *("paragraph_title", "image", "text", "number", "abstract", "content", "figure_title", "formula"),
    *("table", "table_title", "reference", "doc_title", "footnote", "header", "algorithm", "footer"),
    *("seal", "chart_title", "chart", "formula_number", "header_image", "footer_image", "aside_text"),
)
SIDE = 480
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


class Teacher:
    """Layout detection with the ONNX file of PP-DocLayout-S."""

    def __init__(self, onnx_file: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(onnx_file), options, providers=["CPUExecutionProvider"])

    def __call__(self, page: Image.Image, floor: float = 0.1) -> list[tuple[str, float, np.ndarray]]:
        """(label, score, xyxy in pixels of `page`) of every box scoring at least `floor`."""
        small = np.asarray(page.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32) / 255
        pixels = ((small - MEAN) / STD).transpose(2, 0, 1)[None]
        scale = np.array([[SIDE / page.height, SIDE / page.width]], np.float32)
        boxes, _ = self.session.run(None, {"image": pixels, "scale_factor": scale})
        return [(LABELS[int(row[0])], float(row[1]), row[2:].copy()) for row in boxes if row[1] >= floor]
