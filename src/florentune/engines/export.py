"""A checkpoint as ONNX graphs, written, then verified against torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import CheckpointError, InputError
from ..files import write_json, written_whole
from ..model.checkpoint import Checkpoint, open_checkpoint
from ..model.florence import load_model, save_checkpoint
from ..model.preprocess import Preprocessor
from ..model.processor import image_settings, write_processor
from ..model.tasks import TASKS
from ..model.weights import WEIGHTS
from . import graph_language
from .graph import Weights
from .graph_tower import vision_encoder
from .onnx_engine import GRAPHS, SUFFIXES, OnnxEngine, graph_files
from .torch_engine import TorchEngine

_PARSERS = {
    "text": "pure_text",
    "quads": "ocr",
    "regions": "description_with_bboxes",
    "proposals": "bboxes",
    "phrases": "phrase_grounding",
    "polygons": "polygons",
    "regions or polygons": "description_with_bboxes_or_polygons",
}

LEAST_COSINE = {"fp32": 0.99999, "fp16": 0.9999, "int8": 0.98}
"""How alike the first step's logits must be to torch's for an export to count as good."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The files written and how near they are to torch on a test image.

    `cosine` is the cosine similarity of the logits, `largest` the largest difference of one logit.
    """

    files: tuple[Path, ...]
    cosine: float
    largest: float

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


def export_onnx(checkpoint: Checkpoint | str | Path, out: Path, dtype: str = "fp32") -> Exported:
    """Write the four graphs of a checkpoint to `out`/onnx and verify them against torch.

    `dtype` is "fp32", "fp16" (weights stored in half precision, computed in single) or "int8" (matrices in 8 bits,
    other weights in half precision, activations quantised as they come). When `out` is another folder than the
    checkpoint's, configuration and tokenizer are written beside the graphs, so that the folder is a detector for the
    onnx engine on its own. Raises CheckpointError, and leaves no graphs behind, when the result is too far from torch.
    """
    if dtype not in SUFFIXES:
        raise InputError(f"dtype is {dtype!r}, but the precisions are {', '.join(SUFFIXES)}")
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = open_checkpoint(checkpoint)
    model = load_model(checkpoint)
    if out.resolve() != checkpoint.path.resolve():
        _write_companions(checkpoint, model, out)
    files = graph_files(out / "onnx", dtype)
    weights = {name: tensor.float().numpy() for name, tensor in model.state_dict().items()}
    for name in GRAPHS:
        with written_whole(files[name], "wb") as stream:
            stream.write(_build(name, weights, checkpoint, dtype).SerializeToString())
    try:
        cosine, largest = _compare(checkpoint, TorchEngine(model), out, dtype)
    except BaseException:
        _remove(files)
        raise
    if not cosine >= LEAST_COSINE[dtype]:
        _remove(files)
        raise CheckpointError(
            f"{checkpoint.path}: as {dtype} its logits are too far from torch's (cosine {cosine:.5f}, at least "
            f"{LEAST_COSINE[dtype]} is needed); export it as fp32"
        )
    return Exported(tuple(files.values()), cosine, largest)


def _build(name: str, weights: Weights, checkpoint: Checkpoint, dtype: str) -> Any:
    if name == "vision_encoder":
        return vision_encoder(weights, checkpoint.config, checkpoint.image_size, dtype)
    return getattr(graph_language, name)(weights, checkpoint.config, dtype)


def _remove(files: Mapping[str, Path]) -> None:
    for file in files.values():
        file.unlink(missing_ok=True)


def _write_companions(checkpoint: Checkpoint, model: Any, out: Path) -> None:
    """Everything of a native checkpoint but its weights, and what a browser reads beside it."""
    tokenizer, image_size = checkpoint.tokenizer(), checkpoint.image_size
    save_checkpoint(
        model,
        out,
        tokenizer=tokenizer,
        image_size=image_size,
        labels=checkpoint.labels,
        max_new_tokens=checkpoint.max_new_tokens,
        calibration=checkpoint.calibration,
        generation=checkpoint.generation,
    )
    (out / WEIGHTS).unlink()
    write_processor(
        out,
        tokenizer,
        image_size=image_size,
        image_tokens=checkpoint.image_tokens,
        max_positions=checkpoint.config["text_config"]["max_position_embeddings"],
        mean=checkpoint.image_mean,
        std=checkpoint.image_std,
    )
    settings = image_settings(image_size, checkpoint.image_tokens, checkpoint.image_mean, checkpoint.image_std)
    write_json(out / "preprocessor_config.json", {**settings, **_browser_tasks()})


def _browser_tasks() -> dict[str, Any]:
    """The tables transformers.js looks for in preprocessor_config.json: prompts and parsers of the tasks."""
    plain = {token: task.prompt for token, task in TASKS.items() if "{}" not in task.prompt}
    filled = {token: task.prompt.replace("{}", "{input}") for token, task in TASKS.items() if "{}" in task.prompt}
    return {
        "processor_class": "Florence2Processor",
        "tasks_answer_post_processing_type": {token: _PARSERS[task.answer] for token, task in TASKS.items()},
        "task_prompts_without_inputs": plain,
        "task_prompts_with_input": filled,
    }


def _compare(checkpoint: Checkpoint, reference: TorchEngine, out: Path, dtype: str) -> tuple[float, float]:
    """Cosine and largest difference of the logits of two steps on a page-like test image, two rows at once."""
    engine = OnnxEngine(out / "onnx", checkpoint.config, dtype=dtype)
    preprocessor = Preprocessor(checkpoint)
    prompt = preprocessor.prompt_ids("<OD>")
    generator = np.random.default_rng(0)
    pixels = generator.normal(size=(2, 3, *checkpoint.image_size)).astype(np.float32)
    first, second = (_logits(one, pixels, prompt) for one in (reference, engine))
    cosine = float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))
    return cosine, float(np.abs(first - second).max())


@torch.inference_mode()
def _logits(engine: TorchEngine | OnnxEngine, pixels: NDArray[np.float32], prompt: list[int]) -> NDArray[np.float64]:
    decoding = engine.start(pixels, prompt)
    start, end = prompt[0], prompt[-1]
    steps = [decoding.step(np.array([[engine.start_id, start]] * 2)), decoding.step(np.array([[prompt[1]], [end]]))]
    return np.concatenate(steps).astype(np.float64)
