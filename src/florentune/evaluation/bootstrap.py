"""95 % intervals by resampling documents, because the pages of one document are not independent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .coco import MAX_DETECTIONS
from .matching import COCO_IOUS, EXCUSED, RIGHT, Floats, Indices, Judged
from .results import Interval, PageResult

REPLICATES = 1000
_SEED = 20240501
_WEIGHED = 40_000_000  # predictions x replicates that average precision is resampled for: all 1000 of most sets
_FEWEST = 200
_RECALLS = np.linspace(0.0, 1.0, 101)

Weights = NDArray[np.int32]


def replicated(pages: Sequence[PageResult], judged: Judged | None) -> dict[str, Floats]:
    """Every number over the replicates, NaN where a replicate has none; {} with fewer than two documents.

    Each replicate draws as many documents as there are, with replacement. Replicate k draws the same documents in every
    call on the same pages, so two predictors can be compared pair by pair. `judged` are the predictions at every score;
    without them there is no average precision.
    """
    names, group = np.unique([page.document for page in pages], return_inverse=True)
    if len(names) < 2:
        return {}
    tops, bottoms = _ratios(pages)
    sums = np.array([np.bincount(group, weights=values) for values in (*tops.values(), *bottoms.values())])
    totals = np.array([sums @ drawn for drawn in _draws(len(names))])
    found = dict(zip(tops, _divided(*np.split(totals.T, 2)), strict=True))
    if judged is not None:
        found.update(_average_precision(judged, group, len(names)))
    return found


def interval(values: Floats) -> Interval | None:
    """The central 95 % of the values that are numbers; None when there is none."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(float(low), float(high))


class Ranking:
    """The predictions of one label, best first, whose average precision is wanted for many weightings of the pages.

    The same numbers as COCOeval's over pages that are repeated, without matching or sorting anything again.
    """

    def __init__(self, judged: Judged, label: int) -> None:
        mine = np.flatnonzero(judged.labels == label)
        pages = judged.pages[mine]
        mine = mine[np.arange(len(mine)) - np.searchsorted(pages, pages) < MAX_DETECTIONS[-1]]
        mine = mine[np.argsort(-judged.scores[mine], kind="stable")]
        verdicts = judged.verdicts[:, mine]
        self._pages = judged.pages[mine]
        self._right = (verdicts == RIGHT).astype(np.int32)
        counted = verdicts != EXCUSED
        self._counted = np.int32(1) if counted.all() else counted.astype(np.int32)
        self._truth = judged.truth[:, label]

    def average_precision(self, weights: Weights) -> Floats | None:
        """At each of `COCO_IOUS`, with page i counted `weights[i]` times; None where no page with truth counts."""
        there = int(weights @ self._truth)
        if not there:
            return None
        count = len(self._pages)
        if not count:
            return np.zeros(len(COCO_IOUS))
        weight = weights[self._pages]
        right = np.cumsum(weight * self._right, axis=1, dtype=np.int32)
        seen = np.cumsum(weight * self._counted, axis=-1, dtype=np.int32)
        precision = np.append(right / np.maximum(seen, 1), 0.0)
        # All IoUs in one go: rows one after the other, lifted so that the numbers rise from row to row.
        lift = np.arange(len(COCO_IOUS), dtype=np.int32)[:, None] * np.int32(right[:, -1].max() + 1)
        wanted = np.minimum(_reaching(there), right[:, -1:] + 1)
        starts = np.searchsorted((right + lift).ravel(), (wanted + lift).ravel()).reshape(wanted.shape)
        best = np.maximum.reduceat(precision, starts.ravel()).reshape(starts.shape)
        best[wanted > right[:, -1:]] = 0.0
        envelope = np.maximum.accumulate(best[:, ::-1], axis=1)
        mean: Floats = envelope.mean(axis=1)
        return mean


def _reaching(there: int) -> Indices:
    """The least number of right predictions, of `there` boxes, with which each of COCO's 101 recalls is reached."""
    counts = np.ceil(_RECALLS * there).astype(np.intp)
    counts -= (counts > 0) & ((counts - 1) / there >= _RECALLS)
    return counts + (counts / there < _RECALLS)


def _draws(documents: int) -> Iterator[Weights]:
    """How often each document is drawn, replicate by replicate."""
    random = np.random.default_rng(_SEED)
    for _ in range(REPLICATES):
        drawn = random.integers(0, documents, documents, dtype=np.intp)
        yield np.bincount(drawn, minlength=documents).astype(np.int32)


def _ratios(pages: Sequence[PageResult]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Numerators and denominators, page by page, of the numbers that are a sum over pages divided by another."""
    ones = [1.0] * len(pages)
    empty = [float(page.truth == 0) for page in pages]
    correct = [float(len(page.correct)) for page in pages]
    predicted = [float(page.predicted) for page in pages]
    truth = [float(page.truth) for page in pages]
    tops = {f"page_success_{iou}": [float(page.success[iou]) for page in pages] for iou in pages[0].success}
    bottoms = dict.fromkeys(tops, ones)
    tops |= {"precision": correct, "recall": correct, "f1": [2 * value for value in correct]}
    bottoms |= {"precision": predicted, "recall": truth, "f1": [a + b for a, b in zip(predicted, truth, strict=True)]}
    tops["false_alarm_rate"] = [float(page.truth == 0 and page.predicted > 0) for page in pages]
    bottoms["false_alarm_rate"] = empty
    return tops, bottoms


def _average_precision(judged: Judged, group: Indices, documents: int) -> dict[str, Floats]:
    """mAP and AP50 of the replicates, of fewer of them for very large sets."""
    rankings = [Ranking(judged, label) for label in range(judged.truth.shape[1])]
    count = max(_WEIGHED // max(len(judged.scores), 1), _FEWEST)
    rows = []
    for drawn, _ in zip(_draws(documents), range(count), strict=False):
        found = [ranking.average_precision(drawn[group]) for ranking in rankings]
        rows.append(np.mean([each for each in found if each is not None] or [np.full(len(COCO_IOUS), np.nan)], axis=0))
    values = np.array(rows)
    return {"map": values.mean(axis=1), "ap50": values[:, 0]}


def _divided(tops: Floats, bottoms: Floats) -> Floats:
    result: Floats = np.divide(tops, bottoms, out=np.full(tops.shape, np.nan), where=bottoms > 0)
    return result
