"""The object users hold: images in, Pages out, on any engine.

detector = load_detector("nano")
for page in detector.detect(["page-1.png", "page-2.png"]):
    for region in page.regions:
        print(region.label, region.box, region.score)
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .engines import Engine
from .engines.decode import FreeWalk, Walk, decode
from .errors import FlorentuneError, GenerationError, ImageError, InputError, MissingExtraError
from .grammar import Found, RegionGrammar, RegionWalk
from .images import open_image, to_rgb
from .locations import OD_TASK, bins_to_box
from .model.checkpoint import Checkpoint, open_checkpoint
from .model.preprocess import Preprocessor
from .model.tasks import TASKS, post_process, task_of
from .regions import Box, Page, Region, iou
from .scores import DEFAULT_THRESHOLD, Scale

ImageLike = Image.Image | Path | str | tuple[str, Image.Image | Path | str]

DUPLICATE_IOU = 0.7
"""Two boxes that overlap more than this are one object, whatever their labels; the better scored one stays."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What became of one image: a page, or the error that took its place.

    `text` is what the model wrote, special tokens included; `answer` the reference's dictionary for the task, such as
    `{"<OD>": {"bboxes": [[x1, y1, x2, y2], ...], "labels": [...]}}` in float pixels of the original image.
    """

    image: str
    page: Page | None = None
    text: str = ""
    answer: Mapping[str, Any] | None = None
    error: FlorentuneError | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An image ready for the model: pixels (3, height, width) resized and normalised; or the error of opening it."""

    name: str
    width: int = 0
    height: int = 0
    pixels: NDArray[np.float32] | None = None
    error: FlorentuneError | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """What every batch of one call is asked (see `Detector.predict`); `prompt`: the task's token ids."""

    task: str
    prompt: Sequence[int]
    conf: float | None
    free: bool
    beams: int
    every_label: bool


class Detector:
    """A checkpoint on an engine. Thread-safe: calls from several threads take turns, batch by batch.

    `labels` are the names it was trained on (None: any text), `thresholds` the least score each label needs unless
    the caller says otherwise, `name` what to call the model in records. `sub_bin` places corners by the mean of the
    location's distribution round the best bin, to a hundredth of a pixel, instead of by the bin's centre.
    """

    def __init__(self, checkpoint: Checkpoint, engine: Engine, *, sub_bin: bool = True) -> None:
        calibration = checkpoint.calibration or {}
        self.checkpoint, self.engine = checkpoint, engine
        self.name = checkpoint.path.name
        self.labels = checkpoint.labels
        self.thresholds: dict[str, float] = dict(calibration.get("thresholds", {}))
        self.scale = Scale(float(calibration.get("temperature", 1.0)), float(calibration.get("shift", 0.0)))
        self.sub_bin = sub_bin
        text = checkpoint.config["text_config"]
        self._start, self._end = int(text["bos_token_id"]), int(text["eos_token_id"])
        self._preprocessor = Preprocessor(checkpoint)
        self._tokenizer = self._preprocessor.tokenizer
        self._grammars: dict[tuple[str, ...] | None, RegionGrammar] = {}
        self._turn = threading.Lock()

    def detect(
        self, images: Iterable[ImageLike], *, batch: int = 8, conf: float | None = None, task: str = OD_TASK
    ) -> Iterator[Page]:
        """Pages in the order of the images, lazily, `batch` images at a time.

        An image is a PIL image, a path, or a pair (name, either); the name becomes `Page.image`. The next batch is
        opened and resized in threads while the model runs, so at most two batches are in memory. `conf` is the least
        score kept for every label; None means the checkpoint's thresholds (DEFAULT_THRESHOLD where it has
        none). Raises the first image's or the first answer's error; `predict` goes on instead.
        """
        for prediction in self.predict(images, batch=batch, conf=conf, task=task):
            if prediction.error is not None:
                raise prediction.error
            if prediction.page is not None:
                yield prediction.page

    def predict(
        self,
        images: Iterable[ImageLike],
        *,
        batch: int = 8,
        conf: float | None = None,
        task: str = OD_TASK,
        free: bool = False,
        beams: int = 1,
        every_label: bool = False,
    ) -> Iterator[Prediction]:
        """One Prediction for each image, in order; a broken image or answer is recorded and the rest goes on.

        `free` decodes without the grammar and reads the text as the reference does (no scores, no filter); tasks that
        do not answer in boxes are always decoded so. `beams` > 1 is transformers' beam search (torch engine, free).
        `every_label` adds each box under the other labels the model held possible, with their own lower scores: average
        precision ranks all of them, while a reader wants one label a box.
        """
        if batch < 1:
            raise InputError(f"batch is {batch}, but a batch holds at least one image")
        asked = self._asked(task, conf=conf, free=free, beams=beams, every_label=every_label)
        groups = _grouped(images, batch)
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="images") as pool:
            ahead: deque[list[Future[Opened]]] = deque()
            for group in itertools.chain(groups, [None]):
                if group is not None:
                    ahead.append([pool.submit(self.open, name, image) for name, image in group])
                if ahead and (group is None or len(ahead) > 1):
                    inputs = [future.result() for future in ahead.popleft()]
                    yield from self._run(inputs, asked)

    def run(self, opened: Sequence[Opened], *, conf: float | None = None, task: str = OD_TASK) -> list[Prediction]:
        """`predict` for what `open` has opened, as one batch."""
        return list(self._run(opened, self._asked(task, conf=conf)))

    def warm_up(self) -> None:
        """Run one blank page, so that the first real one does not pay for allocations."""
        blank = Image.new("RGB", (self._preprocessor.width, self._preprocessor.height), "white")
        for _ in self.predict([blank], batch=1):
            pass

    def open(self, name: str, source: Image.Image | Path | str) -> Opened:
        """Decode and resize one image, in any thread; for callers that gather their own batches for `run`."""
        try:
            image = _rgb(source) if isinstance(source, Image.Image) else open_image(source)
            return Opened(name, image.width, image.height, self._preprocessor.pixels(image))
        except FlorentuneError as error:
            return Opened(name, error=error)
        except (OSError, ValueError) as error:  # a PIL image that is decoded only here
            return Opened(name, error=ImageError(f"{name}: cannot be decoded ({error})", reason="corrupt"))

    def _asked(
        self, task: str, *, conf: float | None, free: bool = False, beams: int = 1, every_label: bool = False
    ) -> _Asked:
        token = task_of(task)
        has_grammar = token is not None and TASKS[token].answer in ("regions", "proposals", "phrases")
        free = free or beams > 1 or not has_grammar
        return _Asked(task, self._preprocessor.prompt_ids(task), conf, free, beams, every_label)

    def _run(self, inputs: Sequence[Opened], asked: _Asked) -> Iterator[Prediction]:
        arrays = [item.pixels for item in inputs if item.pixels is not None]
        answers: Iterator[Prediction] = iter(())
        good = [item for item in inputs if item.pixels is not None]
        if arrays:
            decode_all = self._free if asked.free else self._constrained
            with self._turn:
                answers = iter(decode_all(good, np.stack(arrays), asked))
        for item in inputs:
            yield next(answers) if item.error is None else Prediction(item.name, error=item.error)

    def _constrained(self, inputs: list[Opened], pixels: NDArray[np.float32], asked: _Asked) -> list[Prediction]:
        grammar = self._grammar(asked.task)
        walks = [grammar.walk(self._limit(asked.task)) for _ in inputs]
        failures = self._decode(pixels, asked, walks, grammar.tokens)
        return [
            _failed(item, failure) if failure else self._prediction(item, walk, asked)
            for item, walk, failure in zip(inputs, walks, failures, strict=True)
        ]

    def _prediction(self, item: Opened, walk: RegionWalk, asked: _Asked) -> Prediction:
        regions = _without_duplicates(self._confident([self._region(found, item) for found in walk.found], asked.conf))
        if asked.every_label:
            places = {region.box for region in regions}
            second = self._confident([self._region(found, item) for found in walk.runners_up], asked.conf)
            regions += [region for region in second if region.box in places]
        page = Page(item.name, item.width, item.height, tuple(regions))
        answer = {
            "bboxes": [list(region.box) for region in page.regions],
            "labels": [region.label for region in page.regions],
        }
        return Prediction(item.name, page, self._text(walk.ids), {task_of(asked.task) or asked.task: answer})

    def _region(self, found: Found, item: Opened) -> Region:
        box = bins_to_box(found.bins, item.width, item.height)
        if self.sub_bin:
            moved = Box(*(round(value, 2) for value in bins_to_box(found.expected, item.width, item.height)))
            box = moved if moved.x1 < moved.x2 and moved.y1 < moved.y2 else box
        return Region(found.label, box, float(self.scale.of(found.score)))

    def _confident(self, regions: list[Region], conf: float | None) -> list[Region]:
        def least(label: str) -> float:
            return conf if conf is not None else self.thresholds.get(label, DEFAULT_THRESHOLD)

        return [region for region in regions if (region.score or 0.0) >= least(region.label)]

    def _free(self, inputs: list[Opened], pixels: NDArray[np.float32], asked: _Asked) -> list[Prediction]:
        if asked.beams > 1:
            rows = self._beams(pixels, asked)
            failures: list[GenerationError | None] = [None] * len(rows)
        else:
            walks = [FreeWalk(self._start, self._end, self._limit(asked.task)) for _ in inputs]
            failures = self._decode(pixels, asked, walks, None)
            rows = [walk.ids for walk in walks]
        return [
            _failed(item, failure) if failure else self._read(item, ids, asked.task)
            for item, ids, failure in zip(inputs, rows, failures, strict=True)
        ]

    def _read(self, item: Opened, ids: list[int], task: str) -> Prediction:
        text = self._text(ids)
        answer = post_process(text, task, (item.width, item.height))
        value = next(iter(answer.values()))
        is_boxes = isinstance(value, dict) and value.keys() == {"bboxes", "labels"}
        boxes = zip(value["bboxes"], value["labels"], strict=True) if is_boxes else ()
        regions = tuple(Region(label, Box(*box)) for box, label in boxes)
        return Prediction(item.name, Page(item.name, item.width, item.height, regions), text, answer)

    def _beams(self, pixels: NDArray[np.float32], asked: _Asked) -> list[list[int]]:
        """Beam search with the reference's generation settings; without the decoder's start token and the padding."""
        if not hasattr(self.engine, "generate"):
            raise InputError("beam search needs the torch engine: --engine torch, or beams=1")
        rows: list[list[int]] = self.engine.generate(
            pixels,
            asked.prompt,
            num_beams=asked.beams,
            early_stopping=True,
            no_repeat_ngram_size=3,
            forced_bos_token_id=self._start,
            forced_eos_token_id=self._end,
            max_new_tokens=self._limit(asked.task),
            do_sample=False,
        )
        return [_until(row[1:], self._end) for row in rows]

    def _decode(
        self, pixels: NDArray[np.float32], asked: _Asked, walks: Sequence[Walk], tokens: NDArray[np.int64] | None
    ) -> list[GenerationError | None]:
        return decode(self.engine.start(pixels, asked.prompt, tokens), walks, self.engine.start_id)

    def _limit(self, task: str) -> int:
        """The checkpoint's bound holds for the task it was trained on; other answers may fill the decoder."""
        longest = self.engine.max_positions - 1
        return min(self.checkpoint.max_new_tokens, longest) if task == OD_TASK else longest

    def _grammar(self, task: str) -> RegionGrammar:
        """The closed set the checkpoint was trained on for <OD>; any text, or no labels, for the other tasks."""
        token = task_of(task) or OD_TASK
        labels = () if TASKS[token].answer == "proposals" else self.labels if token == OD_TASK else None
        if labels not in self._grammars:
            self._grammars[labels] = RegionGrammar(self._tokenizer, labels)
        return self._grammars[labels]

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode([self.engine.start_id, *ids], skip_special_tokens=False))


def load_detector(
    model: str | Path = "nano",
    *,
    engine: str = "auto",
    dtype: str | None = None,
    threads: int | None = None,
    device: str = "auto",
    base: str | None = None,
    sub_bin: bool = True,
) -> Detector:
    """A detector from "nano" (ships with the package), a checkpoint folder of any layout, or a hub id.

    `engine` is "torch", "onnx" or "auto": ONNX Runtime where the checkpoint has an `onnx` folder and no GPU is asked
    for, else torch. `dtype` is the precision: "fp32", "int8" or "fp16" of the exported graphs (None: the first of these
    that is there), "fp32", "bf16" or "fp16" of torch (None: bf16 on CUDA, else fp32). `threads` limits the threads of
    one model run; `device` ("auto", "cpu", "cuda", "cuda:1") is for torch; `base` is the model a bare or adapter folder
    was trained from. Raises InputError for an engine or a precision that does not exist, CheckpointError for a folder
    that cannot be used, MissingExtraError when torch is needed and not installed.
    """
    if engine not in ("auto", "torch", "onnx"):
        raise InputError(f"engine is {engine!r}, but the engines are auto, torch and onnx")
    checkpoint = open_checkpoint(model, base=base)
    if engine == "onnx" or (engine == "auto" and checkpoint.onnx is not None and not device.startswith("cuda")):
        from .engines.onnx_engine import OnnxEngine

        return Detector(checkpoint, OnnxEngine.open(checkpoint, dtype=dtype, threads=threads), sub_bin=sub_bin)
    try:
        from .engines.torch_engine import TorchEngine
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "train") from error
    opened = TorchEngine.open(checkpoint, device=device, dtype=dtype, threads=threads)
    return Detector(checkpoint, opened, sub_bin=sub_bin)


def crop(image: Image.Image, box: Box) -> Image.Image:
    """The part of an image inside a box in its pixels, at least one pixel wide and high."""
    inside = box.clipped(image.width, image.height)
    left, top = min(int(inside.x1), image.width - 1), min(int(inside.y1), image.height - 1)
    return image.crop((left, top, max(round(inside.x2), left + 1), max(round(inside.y2), top + 1)))


def to_supervision(page: Page, labels: Sequence[str] = ()) -> Any:
    """A page as supervision.Detections: xyxy, confidence, class_id and data["class_name"].

    `class_id` is the place in `labels` (such as `Detector.labels`), or among the page's own labels, sorted.

    Raises MissingExtraError when the package supervision is not installed.
    """
    try:
        import supervision
    except ModuleNotFoundError as error:
        raise MissingExtraError("supervision", "supervision") from error
    if not page.regions:
        return supervision.Detections.empty()
    names = list(labels) or sorted({region.label for region in page.regions})
    return supervision.Detections(
        xyxy=np.array([region.box for region in page.regions], dtype=np.float32),
        confidence=np.array([region.score or 0.0 for region in page.regions], dtype=np.float32),
        class_id=np.array([names.index(region.label) for region in page.regions]),
        data={"class_name": np.array([region.label for region in page.regions])},
    )


def _grouped(images: Iterable[ImageLike], size: int) -> Iterator[list[tuple[str, Image.Image | Path | str]]]:
    named = (_named(image, index) for index, image in enumerate(images))
    while group := list(itertools.islice(named, size)):
        yield group


def _named(image: ImageLike, index: int) -> tuple[str, Image.Image | Path | str]:
    if isinstance(image, tuple):
        return image
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "") or f"image-{index}"), image
    return str(image), image


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else to_rgb(image)


def _failed(item: Opened, failure: GenerationError) -> Prediction:
    return Prediction(item.name, error=GenerationError(f"{item.name}: {failure}"))


def _without_duplicates(regions: list[Region]) -> list[Region]:
    """Drop what overlaps a better scored region beyond DUPLICATE_IOU; the order stays."""
    kept: list[Region] = []
    for region in sorted(regions, key=lambda region: -(region.score or 0.0)):
        if all(iou(region.box, other.box) <= DUPLICATE_IOU for other in kept):
            kept.append(region)
    return [region for region in regions if any(region is other for other in kept)]


def _until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end) + 1] if end in ids else ids
