"""95 % intervals by resampling documents, because the pages of one document are not independent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .coco import CocoScores
from .matching import Floats
from .results import Interval, PageResult

REPLICATES = 1000
_SEED = 20240501
_CELLS = 2_000_000  # pages x labels x replicates that COCO precision is resampled for: all 1000 of a small set


def replicated(pages: Sequence[PageResult], coco: CocoScores | None) -> dict[str, Floats]:
    """Every number over the replicates, NaN where a replicate has none; {} with fewer than two documents.

    Each replicate draws as many documents as there are, with replacement. Replicate k draws the same documents in every
    call on the same pages, so two predictors can be compared pair by pair.
    """
    names, group = np.unique([page.document for page in pages], return_inverse=True)
    if len(names) < 2:
        return {}
    tops, bottoms = _ratios(pages)
    found = {}
    samples = list(_samples(len(names), REPLICATES))
    for name in tops:
        top = np.bincount(group, weights=tops[name])
        bottom = np.bincount(group, weights=bottoms[name])
        found[name] = _divided(np.array([[top[s].sum(), bottom[s].sum()] for s in samples]))
    if coco is not None:
        found.update(_replicated_coco(coco, group, samples))
    return found


def interval(values: Floats) -> Interval | None:
    """The central 95 % of the values that are numbers; None when there is none."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(float(low), float(high))


def _samples(documents: int, replicates: int) -> Iterator[NDArray[np.intp]]:
    random = np.random.default_rng(_SEED)
    for _ in range(replicates):
        yield random.integers(0, documents, documents, dtype=np.intp)


def _ratios(pages: Sequence[PageResult]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Numerators and denominators, page by page, of the numbers that are a sum over pages divided by another."""
    ones = [1.0] * len(pages)
    empty = [float(page.truth == 0) for page in pages]
    correct = [float(len(page.correct)) for page in pages]
    tops = {f"page_success_{iou}": [float(page.success[iou]) for page in pages] for iou in pages[0].success}
    bottoms = dict.fromkeys(tops, ones)
    tops |= {"precision": correct, "recall": correct, "f1": [2 * value for value in correct]}
    bottoms |= {
        "precision": [float(page.predicted) for page in pages],
        "recall": [float(page.truth) for page in pages],
        "f1": [float(page.predicted + page.truth) for page in pages],
        "false_alarm_rate": empty,
    }
    tops["false_alarm_rate"] = [float(page.truth == 0 and page.predicted > 0) for page in pages]
    return tops, bottoms


def _replicated_coco(coco: CocoScores, group: NDArray[np.intp], samples: list[NDArray[np.intp]]) -> dict[str, Floats]:
    """mAP and AP50 of as many replicates as a minute allows."""
    count = min(max(_CELLS // (len(group) * max(len(coco.labels), 1)), 30), len(samples))
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    rows = coco.resampled([np.concatenate([members[index] for index in sample]) for sample in samples[:count]])
    values = np.array(rows, dtype=float)  # None becomes NaN
    return {"map": values[:, 0], "ap50": values[:, 1]}


def _divided(sums: Floats) -> Floats:
    top, bottom = sums[:, 0], sums[:, 1]
    result: Floats = np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)
    return result
