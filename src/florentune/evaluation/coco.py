"""COCO average precision through faster-coco-eval (extra `report`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingExtraError
from ..regions import Page, Region
from .matching import as_coco_sees, score_of

SIZES = ("small", "medium", "large")
MAX_DETECTIONS = [1, 10, 100]


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """COCO's numbers in 0..1; None where there is no truth to find.

    `ap` is the mean over IoU 0.50:0.95, `by_size` that mean for boxes under 32², under 96² and above, in pixels.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    by_size: dict[str, float | None]


class CocoScores:
    """COCOeval over aligned pages: `overall` and `per_label`.

    `truth[i]` and `predictions[i]` are the same page; predictions may be at any score. Raises MissingExtraError.
    """

    def __init__(self, truth: Sequence[Page], predictions: Sequence[Page], labels: Sequence[str]) -> None:
        names = tuple(labels)
        precision = _precision(_as_coco(truth, names, predicted=False), _as_coco(predictions, names, predicted=True))
        self.overall = _read(precision)
        self.per_label = {label: _read(precision[:, :, [index]]) for index, label in enumerate(names)}


def _precision(truth: Any, predictions: Any) -> NDArray[np.float64]:
    """COCOeval's precision: IoU x recall x label x area x detections."""
    from faster_coco_eval import COCOeval_faster

    evaluator = COCOeval_faster(truth, predictions, "bbox", print_function=_quiet)
    evaluator.params.maxDets = MAX_DETECTIONS
    evaluator.evaluate()
    evaluator.accumulate()
    precision: NDArray[np.float64] = evaluator.eval["precision"]
    return precision


def _as_coco(pages: Sequence[Page], labels: tuple[str, ...], *, predicted: bool) -> Any:
    """Pages as the COCO object faster-coco-eval works on; image ids are the positions of the pages."""
    try:
        from faster_coco_eval import COCO
    except ImportError:
        raise MissingExtraError("faster-coco-eval", "report") from None
    ids = {label: index + 1 for index, label in enumerate(labels)}
    annotations: list[dict[str, Any]] = []
    for image_id, page in enumerate(pages):
        there, crowd = (page.regions, ()) if predicted else as_coco_sees(page)
        for region, is_crowd in [*((r, 0) for r in there), *((r, 1) for r in crowd)]:
            if region.label in ids:
                annotations.append(_annotation(region, ids[region.label], image_id, is_crowd, predicted))
                annotations[-1]["id"] = len(annotations)
    return COCO(
        {
            "images": [{"id": index, "width": page.width, "height": page.height} for index, page in enumerate(pages)],
            "annotations": annotations,
            "categories": [{"id": index, "name": label} for label, index in ids.items()],
        }
    )


def _annotation(region: Region, category: int, image_id: int, is_crowd: int, predicted: bool) -> dict[str, Any]:
    box = region.box
    found: dict[str, Any] = {
        "image_id": image_id,
        "category_id": category,
        "bbox": [box.x1, box.y1, box.width, box.height],
        "area": box.width * box.height,
        "iscrowd": is_crowd,
    }
    if predicted:
        found["score"] = score_of(region)
    return found


def _read(precision: NDArray[np.float64]) -> AveragePrecision:
    everything = precision[..., 0, -1]
    return AveragePrecision(
        ap=_mean(everything),
        ap50=_mean(everything[0]),
        ap75=_mean(everything[5]),
        by_size={name: _mean(precision[..., index + 1, -1]) for index, name in enumerate(SIZES)},
    )


def _mean(precision: NDArray[np.float64]) -> float | None:
    """COCO's mean: cells of -1 (no truth) are left out; None when nothing is left."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _quiet(*_: object) -> None:
    """COCOeval's report on stdout, which nobody asked for here."""
