"""Do the scores mean what they say? Reliability of scores, and the two numbers a checkpoint stores to mend them.

A calibrated score is sigmoid(logit(score) / temperature): monotonic, so no ranking and no average precision changes
(temperature scaling, Guo et al. 2017). ECE is the mean gap between score and precision over equal-width bins, weighted
by the number of predictions in a bin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..regions import Page, Region
from .matching import Flags, Floats, crowd_regions, greedy_matches, pair_up, score_of

BINS = 10
IOU = 0.5
THRESHOLD_IOU = 0.7
_EDGE = 1e-6
_LOG_TEMPERATURE = math.log(20.0)


@dataclass(frozen=True, slots=True)
class Scored:
    """Every prediction of a data set as arrays of shape (n,): score, label index and whether it is right."""

    scores: Floats
    labels: np.ndarray[Any, np.dtype[np.intp]]
    correct: Flags


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions with a score in [low, high): how many, their mean score, and the share that is right."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def scored(truth: Sequence[Page], predictions: Sequence[Page], labels: Sequence[str], iou: float = IOU) -> Scored:
    """All predictions of aligned pages, each judged greedily at `iou`; labels not in `labels` are left out."""
    index = {label: position for position, label in enumerate(labels)}
    rows: list[tuple[float, int, bool]] = []
    for page, guess in zip(truth, predictions, strict=True):
        known = [region for region in guess.regions if region.label in index]
        verdicts = greedy_matches(page.regions, known, crowd_regions(page), iou) if known else []
        rows += [
            (score_of(region), index[region.label], right)
            for region, right in zip(known, verdicts, strict=True)
            if right is not None
        ]
    return Scored(
        np.array([row[0] for row in rows], dtype=float),
        np.array([row[1] for row in rows], dtype=np.intp),
        np.array([row[2] for row in rows], dtype=bool),
    )


def reliability(scores: Floats, correct: Flags, bins: int = BINS) -> tuple[float | None, list[Bin]]:
    """ECE (None without predictions) and the bins of the reliability diagram, equal in width over 0..1."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    found = []
    gap = 0.0
    for index in range(bins):
        inside = place == index
        count = int(inside.sum())
        confidence = float(scores[inside].mean()) if count else None
        accuracy = float(correct[inside].mean()) if count else None
        if confidence is not None and accuracy is not None:
            gap += count * abs(accuracy - confidence)
        found.append(Bin(index / bins, (index + 1) / bins, count, confidence, accuracy))
    return (gap / len(scores) if len(scores) else None), found


def with_temperature(scores: Floats, temperature: float) -> Floats:
    """sigmoid(logit(score) / temperature); scores are kept 1e-6 away from 0 and 1."""
    kept = np.clip(scores, _EDGE, 1 - _EDGE)
    calibrated: Floats = 1 / (1 + np.exp(-np.log(kept / (1 - kept)) / temperature))
    return calibrated


def fit_temperature(scores: Floats, correct: Flags) -> float:
    """The temperature (0.05..20) under which `scores` best predict `correct`, by log likelihood; golden section.

    1.0 when there are fewer than ten predictions, or all are right or all wrong: nothing can be learnt from those.
    """
    if len(scores) < 10 or correct.all() or not correct.any():
        return 1.0

    def loss(log_temperature: float) -> float:
        kept = with_temperature(scores, math.exp(log_temperature))
        likelihood = np.where(correct, kept, 1 - kept)
        return float(-np.log(np.maximum(likelihood, 1e-12)).mean())

    low, high, ratio = -_LOG_TEMPERATURE, _LOG_TEMPERATURE, (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return math.exp((low + high) / 2)


def choose_thresholds(
    truth: Sequence[Page], predictions: Sequence[Page], labels: Sequence[str], iou: float = THRESHOLD_IOU
) -> dict[str, float]:
    """For every label the score from which its boxes are kept: the one most pages are right with at `iou`.

    A page is right for a label when its boxes of that label match one to one. Of equally good thresholds the middle of
    the widest run is taken, so that a slightly different score changes nothing. 0.5 for a label nobody predicted.
    """
    return {label: _threshold(truth, predictions, label, iou) for label in labels}


def calibrate(
    truth: Sequence[Page], predictions: Sequence[Page], labels: Sequence[str], *, temperature: float = 1.0
) -> dict[str, Any]:
    """What a checkpoint's calibration.json holds: {"temperature", "thresholds", "ece", "pages"}.

    `truth` and `predictions` are aligned pages, predictions at every score. `temperature` is the one already in those
    scores (1 for raw scores): temperatures multiply. `ece` is measured on the calibrated scores of these same pages.
    """
    found = scored(truth, predictions, labels)
    step = fit_temperature(found.scores, found.correct)
    ece, _ = reliability(with_temperature(found.scores, step), found.correct)
    rescaled = [rescored(page, step) for page in predictions]
    return {
        "temperature": round(temperature * step, 4),
        "thresholds": choose_thresholds(truth, rescaled, labels),
        "ece": None if ece is None else round(ece, 4),
        "pages": len(truth),
    }


def rescored(page: Page, temperature: float) -> Page:
    """The page with every score divided by `temperature` on its logit."""
    scores = with_temperature(np.array([score_of(region) for region in page.regions]), temperature)
    regions = tuple(
        Region(region.label, region.box, float(score)) for region, score in zip(page.regions, scores, strict=True)
    )
    return Page(page.image, page.width, page.height, regions, page.extra)


def kept(page: Page, thresholds: Mapping[str, float]) -> list[Region]:
    """The predictions of a page whose score reaches the threshold of their label (0.5 for a label without one)."""
    return [region for region in page.regions if score_of(region) >= thresholds.get(region.label, 0.5)]


def _threshold(truth: Sequence[Page], predictions: Sequence[Page], label: str, iou: float) -> float:
    """The middle of the widest best interval of thresholds, counting +-1 where a page turns right or wrong."""
    changes: dict[float, int] = {0.0: 0, 1.0: 0}
    for page, guess in zip(truth, predictions, strict=True):
        boxes = [region for region in page.regions if region.label == label]
        found = sorted((r for r in guess.regions if r.label == label), key=score_of, reverse=True)
        crowd = [region for region in crowd_regions(page) if region.label == label]
        for low, high in _right_intervals(boxes, found, crowd, iou):
            changes[low] = changes.get(low, 0) + 1
            changes[high] = changes.get(high, 0) - 1
    edges = sorted(edge for edge, change in changes.items() if change or edge in (0.0, 1.0))
    right = np.cumsum([changes[edge] for edge in edges])[:-1]
    best = [(high - low, low, high) for low, high, n in zip(edges, edges[1:], right, strict=False) if n == right.max()]
    if right.max() == 0 or len(edges) == 2:
        return 0.5
    _, low, high = max(best)
    return round((low + high) / 2, 4)


def _right_intervals(
    truth: list[Region], found: list[Region], crowd: list[Region], iou: float
) -> list[tuple[float, float]]:
    """The intervals (low, high] of thresholds at which a page is right: one for each number of boxes kept."""
    edges = [1.0, *(score_of(region) for region in found), 0.0]
    intervals = []
    for count in range(len(found) + 1):
        low, high = edges[count + 1], edges[count]
        if low >= high or (not crowd and count != len(truth)):
            continue
        pairing = pair_up(truth, found[:count], crowd, iou)
        if not (pairing.missed or pairing.invented or pairing.confused):
            intervals.append((low, high))
    return intervals
