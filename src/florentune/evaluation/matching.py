"""Which prediction is which truth: the pairings that every measure here is counted from.

Two rules, because two questions are asked. *Is this page right?* is answered by a maximum one-to-one matching: it never
calls a page wrong that could be paired completely. *Is this prediction right, given its score?* is answered as COCOeval
does it, greedily from the highest score down. Crowd boxes are no truth to find; a prediction that matched nothing and
lies on one (its share inside the crowd box is at least the IoU threshold) is not counted, as in COCOeval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..regions import Box, Page, Region

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Pairing(NamedTuple):
    """Indices of truth and prediction that belong together on a page, and what is left over."""

    correct: list[tuple[int, int]]
    confused: list[tuple[int, int]]
    missed: list[int]
    invented: list[int]


def iou_matrix(first: Sequence[Box], second: Sequence[Box]) -> Floats:
    """Intersection over union of every pair, shape (len(first), len(second)); 0 where both boxes are empty."""
    shared, areas_first, areas_second = _overlaps(first, second)
    union = areas_first[:, None] + areas_second[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def crowd_regions(page: Page) -> list[Region]:
    """The crowd boxes of a page of truth: `extra["crowd"]`, a list of {"label", "bbox": [x1, y1, x2, y2]}."""
    return [Region(item["label"], Box(*item["bbox"])) for item in page.extra.get("crowd", ())]


def pair_up(
    truth: Sequence[Region],
    predicted: Sequence[Region],
    crowd: Sequence[Region],
    threshold: float,
    ious: Floats | None = None,
) -> Pairing:
    """Pair truth and prediction one to one at IoU >= `threshold`: same label first, then what is left of any label.

    `ious` is their `iou_matrix`, for callers that ask at several thresholds.
    """
    if ious is None:
        ious = iou_matrix([region.box for region in truth], [region.box for region in predicted])
    near = ious >= threshold
    same = np.array([[a.label == b.label for b in predicted] for a in truth], dtype=bool).reshape(near.shape)
    correct = maximum_matching(near & same, ious)
    left, right = {row for row, _ in correct}, {column for _, column in correct}
    open_rows = np.array([row not in left for row in range(len(truth))], dtype=bool)
    open_columns = np.array([column not in right for column in range(len(predicted))], dtype=bool)
    confused = maximum_matching(near & open_rows[:, None] & open_columns[None, :], ious)
    left |= {row for row, _ in confused}
    right |= {column for _, column in confused}
    extra = [column for column in range(len(predicted)) if column not in right]
    excused = on_crowd([predicted[column] for column in extra], crowd, threshold)
    return Pairing(
        correct,
        confused,
        [row for row in range(len(truth)) if row not in left],
        [column for column, fine in zip(extra, excused, strict=True) if not fine],
    )


def maximum_matching(edges: Flags, ious: Floats) -> list[tuple[int, int]]:
    """The largest set of one-to-one pairs among `edges` (rows x columns), by augmenting paths, best IoU tried first."""
    if not edges.any():
        return []
    if edges.sum(axis=0).max() <= 1 and edges.sum(axis=1).max() <= 1:
        return [(int(row), int(column)) for row, column in np.argwhere(edges)]
    choices = [[int(c) for c in np.argsort(-ious[row], kind="stable") if edges[row, c]] for row in range(len(edges))]
    row_of: dict[int, int] = {}
    column_of: dict[int, int] = {}
    for start in range(len(edges)):
        reached: dict[int, int] = {}
        end = _free_column(start, choices, row_of, reached)
        while end is not None:  # flip the path back to its start
            row = reached[end]
            row_of[end], before = row, column_of.get(row)
            column_of[row] = end
            end = before
    return sorted(column_of.items())


def greedy_matches(
    truth: Sequence[Region], predicted: Sequence[Region], crowd: Sequence[Region], threshold: float
) -> list[bool | None]:
    """For every prediction: is it right? None where it lies on a crowd box and does not count.

    From the highest score down each prediction takes the free truth of its label with the best IoU, if that reaches
    `threshold`. Predictions need scores.
    """
    ious = iou_matrix([region.box for region in predicted], [region.box for region in truth])
    taken: set[int] = set()
    right: list[bool | None] = [False] * len(predicted)
    for row in sorted(range(len(predicted)), key=lambda index: -score_of(predicted[index])):
        near = [
            column
            for column, region in enumerate(truth)
            if column not in taken and region.label == predicted[row].label and ious[row, column] >= threshold
        ]
        if near:
            taken.add(max(near, key=lambda column: float(ious[row, column])))
            right[row] = True
    if crowd:
        excused = on_crowd(predicted, crowd, threshold)
        right = [None if fine and not hit else hit for fine, hit in zip(excused, right, strict=True)]
    return right


def on_crowd(predicted: Sequence[Region], crowd: Sequence[Region], threshold: float) -> list[bool]:
    """Whether each prediction lies on a crowd box of its label: intersection / own area >= `threshold`."""
    if not crowd or not predicted:
        return [False] * len(predicted)
    shared, areas, _ = _overlaps([region.box for region in predicted], [region.box for region in crowd])
    share = np.divide(shared, areas[:, None], out=np.zeros_like(shared), where=areas[:, None] > 0)
    same = np.array([[a.label == b.label for b in crowd] for a in predicted], dtype=bool)
    return [bool(flag) for flag in ((share >= threshold) & same).any(axis=1)]


def score_of(region: Region) -> float:
    """The score of a prediction; 1 where it has none."""
    return 1.0 if region.score is None else region.score


def _free_column(start: int, choices: list[list[int]], row_of: dict[int, int], reached: dict[int, int]) -> int | None:
    """The nearest free column an alternating path from row `start` leads to; `reached` maps column -> row before it."""
    queue = [start]
    for row in queue:
        for column in choices[row]:
            if column in reached:
                continue
            reached[column] = row
            if column not in row_of:
                return column
            queue.append(row_of[column])
    return None


def _overlaps(first: Sequence[Box], second: Sequence[Box]) -> tuple[Floats, Floats, Floats]:
    """Intersections (n, m) and both sets of areas (n,), (m,), all in square pixels."""
    a = np.asarray(first, dtype=np.float64).reshape(-1, 4)
    b = np.asarray(second, dtype=np.float64).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0.0, None).prod(axis=2)
    return shared, _areas(a), _areas(b)


def _areas(boxes: Floats) -> Floats:
    areas: Floats = np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None).prod(axis=1)
    return areas
