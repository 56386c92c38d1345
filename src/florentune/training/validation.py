"""How good the model is now: the loss, and what the detector that ships finds on the validation pages."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..detector import Detector
from ..engines.torch_engine import TorchEngine
from ..errors import InputError, MissingExtraError
from ..evaluation import Scale, align, calibrate, evaluate
from ..evaluation.calibration import kept, rescored
from ..formats import DataSet
from ..model.checkpoint import Checkpoint
from ..regions import Page
from .datasets import Sample

SUCCESS_IOU = 0.7
_PICTURES = 3
_UNDEFINED = -1e300  # finite, because JSON has no infinity


@dataclass(frozen=True, slots=True)
class Validation:
    """The figures of one validation; `calibration` is what calibration.json will hold.

    `predictions` are the pages as found, with calibrated scores and every box; both are missing where only the loss
    was computed.
    """

    metrics: dict[str, float | None]
    calibration: dict[str, Any] | None = None
    predictions: list[Page] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def value(self, best_by: str) -> float:
        """The measure that chooses the best model, larger is better; a huge negative one where it is not defined."""
        found = self.metrics["val_loss" if best_by == "loss" else best_by]
        if found is None or not math.isfinite(found):
            return _UNDEFINED
        return -found if best_by == "loss" else found


class Stopped(Exception):
    """A signal asked the run to stop while it was validating."""


class Validator:
    """Runs the shipping detector over the validation pages, on the weights in memory."""

    def __init__(
        self, samples: Sequence[Sample], checkpoint: Checkpoint, labels: Sequence[str], max_new_tokens: int
    ) -> None:
        self._samples = samples
        self._checkpoint = dataclasses.replace(
            checkpoint, labels=tuple(labels), max_new_tokens=max_new_tokens, calibration=None
        )
        self._labels = tuple(labels)
        names = _unique_names(samples)
        self.truth = [dataclasses.replace(sample.page, image=name) for sample, name in zip(samples, names, strict=True)]
        self._coco = importlib.util.find_spec("faster_coco_eval") is not None

    def run(self, model: Any, batch: int, advance: Callable[[int], None]) -> Validation:
        """Detect, calibrate and score. `advance` is called with the number of pages done and may raise Stopped."""
        detector = Detector(self._checkpoint, TorchEngine(model))
        found: list[Page] = []
        problems: list[str] = []
        for guess in detector.predict(self._images(problems), batch=batch, conf=0.0, every_label=True):
            truth = self.truth[len(found)]
            page = guess.page or Page(truth.image, truth.width, truth.height)
            found.append(_rescaled(page, truth.width, truth.height))
            problems += [str(guess.error)] if guess.error else []
            advance(len(found))
        aligned, _ = align(self.truth, found, self._labels)
        calibration = calibrate(self.truth, aligned, self._labels)
        scale = Scale(calibration["temperature"], calibration["shift"])
        scored = [rescored(page, scale) for page in aligned]
        result = evaluate(
            self.truth,
            scored,
            self._labels,
            thresholds=calibration["thresholds"],
            coco=self._coco,
            intervals=False,
        )
        metrics = {
            "page_success": result.page_success[SUCCESS_IOU],
            "map": result.map,
            "ap50": result.ap50,
            "false_alarm_rate": result.false_alarm_rate,
        }
        return Validation(metrics, calibration, scored, problems)

    def draw(self, predictions: Sequence[Page], thresholds: Mapping[str, float], folder: Path) -> None:
        """Pictures of the first validation pages that have boxes, with truth and kept predictions."""
        from ..report.plots import draw

        folder.mkdir(parents=True, exist_ok=True)
        with_boxes = [index for index, page in enumerate(self.truth) if page.regions]
        for index in (with_boxes or list(range(len(self.truth))))[:_PICTURES]:
            truth, guess = self.truth[index], predictions[index]
            picture = draw(
                dataclasses.replace(guess, regions=tuple(kept(guess, thresholds))),
                self._samples[index].open(),
                labels=self._labels,
                truth=truth,
            )
            picture.save(folder / f"{Path(truth.image).stem}.png")

    def report(self, predictions: Sequence[Page], thresholds: Mapping[str, float], folder: Path, title: str) -> Path:
        """The HTML report of `florentune evaluate` on the validation pages; the path of its index.html."""
        from ..report.html import write_report

        result = evaluate(self.truth, predictions, self._labels, thresholds=thresholds, coco=self._coco)
        return write_report(folder, result, DataSet(self.truth, self._labels), predictions, title=title, images=self)

    def open(self, name: str) -> Image.Image:
        """The image of the validation page of that name. Raises ImageError."""
        index = next(index for index, page in enumerate(self.truth) if page.image == name)
        return self._samples[index].open()

    def _images(self, problems: list[str]) -> Iterator[tuple[str, Image.Image]]:
        """The pages' images, a blank one for a file that has become unreadable."""
        for sample, page in zip(self._samples, self.truth, strict=True):
            try:
                yield page.image, sample.open()
            except (InputError, OSError) as error:
                problems.append(str(error))
                yield page.image, Image.new("RGB", (page.width, page.height), "white")


def require_metric(best_by: str) -> None:
    """Raise MissingExtraError when the measure needs a package that is not installed."""
    if best_by == "map" and importlib.util.find_spec("faster_coco_eval") is None:
        raise MissingExtraError("faster-coco-eval", "report")


def _unique_names(samples: Sequence[Sample]) -> list[str]:
    """The image names, with the data set's name in front where two data sets share one."""
    counts = Counter(sample.page.image for sample in samples)
    names = [s.page.image if counts[s.page.image] == 1 else f"{s.source}/{s.page.image}" for s in samples]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise InputError(f"validation: page {twice} occurs more than once")
    return names


def _rescaled(page: Page, width: int, height: int) -> Page:
    """A page in the pixels of the truth, whose image may have another resolution."""
    from .batches import scaled

    if (page.width, page.height) == (width, height):
        return page
    moved = [
        dataclasses.replace(region, box=other.box)
        for region, other in zip(
            page.regions, scaled(page.regions, width / page.width, height / page.height), strict=True
        )
    ]
    return Page(page.image, width, height, tuple(moved), page.extra)
