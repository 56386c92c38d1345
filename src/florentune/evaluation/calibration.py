"""Do the scores mean what they say? Reliability of scores, and the numbers a checkpoint stores to mend them.

ECE is the mean gap between score and precision over equal-width bins, weighted by the number of predictions in a bin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..regions import Box, Page, Region
from ..scores import DEFAULT_THRESHOLD, Scale
from .matching import EXCUSED, RIGHT, Flags, Floats, Indices, Judged, crowd_regions, judge_all, pair_up, score_of

BINS = 10
IOU = 0.5
THRESHOLD_IOU = 0.7
_EDGE = 1e-6
_PRIOR = 1.0
_HOTTEST = 20.0


@dataclass(frozen=True, slots=True)
class Scored:
    """Every prediction that counts as arrays of shape (n,): score, label index and whether it is right."""

    scores: Floats
    labels: Indices
    correct: Flags


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions with a score in [low, high): how many, their mean score, and the share that is right."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def scored(judged: Judged) -> Scored:
    """The predictions that count at IoU 0.5 (`IOU`); those on crowd boxes do not."""
    verdicts = judged.verdicts[0]
    kept = verdicts != EXCUSED
    return Scored(judged.scores[kept], judged.labels[kept], verdicts[kept] == RIGHT)


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


def fit_scale(scores: Floats, correct: Flags) -> Scale:
    """The scale under which `scores` best predict `correct`: logistic regression on the logit, by Newton's method.

    A normal prior round "no change" (temperature 1, shift 0) with the weight of about one prediction keeps it finite
    when all predictions are right or all wrong; scores are kept 1e-6 away from 0 and 1. No change for fewer than ten
    predictions.
    """
    if len(scores) < 10:
        return Scale()
    inside = np.clip(scores, _EDGE, 1 - _EDGE)
    rows = np.stack([np.log(inside / (1 - inside)), np.ones(len(scores))], axis=1)
    start = np.array([1.0, 0.0])
    line = start.copy()
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(rows @ line, -30, 30)))
        slope = rows.T @ (chance - correct) + _PRIOR * (line - start)
        bend = (rows * (chance * (1 - chance))[:, None]).T @ rows + _PRIOR * np.eye(2)
        line = line - np.clip(np.linalg.solve(bend, slope), -1, 1)
    steepness = float(np.clip(line[0], 1 / _HOTTEST, _HOTTEST))
    return Scale(1 / steepness, float(line[1]))


def choose_thresholds(
    truth: Sequence[Page], predictions: Sequence[Page], labels: Sequence[str], iou: float = THRESHOLD_IOU
) -> dict[str, float]:
    """For every label the score from which its boxes are kept: the one most pages are right with at `iou`.

    A page is right for a label when its boxes of that label match one to one. Of equally good thresholds the middle of
    the widest run is taken, so that a slightly different score changes nothing. A label nobody predicted gets the
    default.
    """
    return {label: _threshold(truth, predictions, label, iou) for label in labels}


def calibrate(
    truth: Sequence[Page], predictions: Sequence[Page], labels: Sequence[str], *, scale: Scale | None = None
) -> dict[str, Any]:
    """What a checkpoint's calibration.json holds: {"temperature", "shift", "thresholds", "ece", "pages"}.

    `truth` and `predictions` are aligned pages, predictions at every score; of a box under several labels only the best
    label counts, since that is what a reader sees. `scale` is the one already in those scores
    (None for raw scores); the result includes it. `ece` is measured on the calibrated scores of these same pages.
    """
    shown = [replace(page, regions=tuple(kept(page, dict.fromkeys(labels, 0.0)))) for page in predictions]
    found = scored(judge_all(truth, shown, labels))
    step = fit_scale(found.scores, found.correct)
    ece, _ = reliability(step.of(found.scores), found.correct)
    rescaled = [rescored(page, step) for page in shown]
    whole = (scale or Scale()).then(step)
    return {
        "temperature": round(whole.temperature, 4),
        "shift": round(whole.shift, 4),
        "thresholds": choose_thresholds(truth, rescaled, labels),
        "ece": None if ece is None else round(ece, 4),
        "pages": len(truth),
    }


def rescored(page: Page, scale: Scale) -> Page:
    """The page with every score scaled."""
    scores = scale.of([score_of(region) for region in page.regions])
    regions = tuple(
        Region(region.label, region.box, float(score)) for region, score in zip(page.regions, scores, strict=True)
    )
    return Page(page.image, page.width, page.height, regions, page.extra)


def kept(page: Page, thresholds: Mapping[str, float]) -> list[Region]:
    """The predictions of a page whose score reaches the threshold of their label, or else the default one.

    Of one box under several labels only the best scored label counts, as in what a detector hands out.
    """
    sure = [region for region in page.regions if score_of(region) >= thresholds.get(region.label, DEFAULT_THRESHOLD)]
    best: dict[Box, Region] = {}
    for region in sure:
        if score_of(region) > score_of(best.setdefault(region.box, region)):
            best[region.box] = region
    return [region for region in sure if region.label == best[region.box].label]


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
        return DEFAULT_THRESHOLD
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
