"""Which prediction is which truth: the pairings that every measure here is counted from.

Two rules, because two questions are asked. *Is this page right?* is answered by a maximum one-to-one matching: it never
calls a page wrong that could be paired completely. *Is this prediction right, given its score?* is answered as COCOeval
does it, greedily from the highest score down. Crowd boxes are no truth to find; a prediction that matched nothing and
lies on one (its share inside the crowd box is at least the IoU threshold) is not counted, as in COCOeval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..regions import Box, Page, Region

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]
Verdicts = NDArray[np.int8]
Edge = tuple[int, int]

COCO_IOUS: Floats = np.linspace(0.5, 0.95, 10)
"""The IoU thresholds that COCO's average precision is the mean over."""

RIGHT, WRONG, EXCUSED = 1, 0, -1


class Pairing(NamedTuple):
    """Indices of truth and prediction that belong together on a page, and what is left over."""

    correct: list[tuple[int, int]]
    confused: list[tuple[int, int]]
    missed: list[int]
    invented: list[int]


class Judged(NamedTuple):
    """Every prediction of n, page by page and best first, with COCO's verdict on it at each of `COCO_IOUS`.

    `scores` (n,); `labels` (n,) and `pages` (n,) as indices; `verdicts` (IoUs, n) of RIGHT, WRONG and EXCUSED; `truth`
    (pages, labels) counts the boxes that are there.
    """

    scores: Floats
    labels: Indices
    pages: Indices
    verdicts: Verdicts
    truth: Indices


def iou_matrix(first: Sequence[Box], second: Sequence[Box]) -> Floats:
    """Intersection over union of every pair, shape (len(first), len(second)); 0 where both boxes are empty."""
    shared, areas_first, areas_second = _overlaps(first, second)
    union = areas_first[:, None] + areas_second - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def crowd_regions(page: Page) -> list[Region]:
    """What on a page of truth nobody has to find: `extra["crowd"]`, a list of {"label", "bbox": [x1, y1, x2, y2]}."""
    return [Region(item["label"], Box(*item["bbox"])) for item in page.extra.get("crowd", ())]


def as_coco_sees(page: Page) -> tuple[list[Region], list[Region]]:
    """The boxes to find on a page of truth, and its crowd boxes; COCOeval overwrites the mark `ignore` by iscrowd."""
    marked = zip(page.extra.get("crowd", ()), crowd_regions(page), strict=True)
    sides: tuple[list[Region], list[Region]] = list(page.regions), []
    for item, region in marked:
        sides[0 if item.get("ignore") else 1].append(region)
    return sides


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
    near = _edges(ious, threshold)
    correct = maximum_matching([edge for edge in near if _same(truth, predicted, edge)], ious)
    left, right = {row for row, _ in correct}, {column for _, column in correct}
    confused = maximum_matching(
        [(row, column) for row, column in near if row not in left and column not in right], ious
    )
    left |= {row for row, _ in confused}
    right |= {column for _, column in confused}
    shares = crowd_shares(predicted, crowd)
    return Pairing(
        correct,
        confused,
        [row for row in range(len(truth)) if row not in left],
        [column for column in range(len(predicted)) if column not in right and shares[column] < threshold],
    )


def maximum_matching(edges: Sequence[Edge], ious: Floats) -> list[Edge]:
    """The largest set of one-to-one pairs among `edges` (row, column), by augmenting paths, best IoU tried first."""
    if _one_to_one(edges):
        return list(edges)
    choices: dict[int, list[int]] = {}
    for row, column in sorted(edges, key=lambda edge: -ious[edge]):
        choices.setdefault(row, []).append(column)
    row_of: dict[int, int] = {}
    column_of: dict[int, int] = {}
    for start in sorted(choices):
        reached: dict[int, int] = {}
        end = _free_column(start, choices, row_of, reached)
        while end is not None:  # flip the path back to its start
            row = reached[end]
            row_of[end], before = row, column_of.get(row)
            column_of[row] = end
            end = before
    return sorted(column_of.items())


def judge_all(truth: Sequence[Page], predictions: Sequence[Page], labels: Sequence[str]) -> Judged:
    """All predictions of aligned pages, judged; regions of labels that are not in `labels` are left out."""
    index = {label: position for position, label in enumerate(labels)}
    counts = np.zeros((len(truth), len(labels)), dtype=np.intp)
    scores: list[float] = []
    kinds: list[int] = []
    pages: list[int] = []
    verdicts = [np.zeros((len(COCO_IOUS), 0), dtype=np.int8)]
    for number, (page, guess) in enumerate(zip(truth, predictions, strict=True)):
        there, crowd = as_coco_sees(page)
        for region in there:
            if region.label in index:
                counts[number, index[region.label]] += 1
        found = [region for region in guess.regions if region.label in index]
        if not found:
            continue
        found.sort(key=lambda region: -score_of(region))
        scores += [score_of(region) for region in found]
        kinds += [index[region.label] for region in found]
        pages += [number] * len(found)
        verdicts.append(greedy_verdicts(there, found, crowd))
    return Judged(
        np.array(scores, dtype=np.float64),
        np.array(kinds, dtype=np.intp),
        np.array(pages, dtype=np.intp),
        np.concatenate(verdicts, axis=1),
        counts,
    )


def greedy_verdicts(truth: Sequence[Region], predicted: Sequence[Region], crowd: Sequence[Region]) -> Verdicts:
    """RIGHT, WRONG or EXCUSED (on a crowd box, not counted) for predictions, best first; shape (IoUs, predictions).

    From the first prediction on, each takes the free truth of its label with the best IoU, if that reaches the
    threshold; of equal ones the last, as COCOeval does.
    """
    found = np.full((len(COCO_IOUS), len(predicted)), WRONG, dtype=np.int8)
    ious = iou_matrix([region.box for region in truth], [region.box for region in predicted])
    edges = [edge for edge in _edges(ious, COCO_IOUS[0]) if _same(truth, predicted, edge)]
    if _one_to_one(edges):
        for row, column in edges:
            found[ious[row, column] >= COCO_IOUS, column] = RIGHT
    else:
        edges.sort(key=lambda edge: (edge[1], -ious[edge], -edge[0]))
        for verdicts, threshold in zip(found, COCO_IOUS, strict=True):
            taken: set[int] = set()
            for row, column in edges:
                if row not in taken and verdicts[column] == WRONG and ious[row, column] >= threshold:
                    taken.add(row)
                    verdicts[column] = RIGHT
    if crowd:
        on_crowd = crowd_shares(predicted, crowd) >= COCO_IOUS[:, None]
        found[(found == WRONG) & on_crowd] = EXCUSED
    return found


def crowd_shares(predicted: Sequence[Region], crowd: Sequence[Region]) -> Floats:
    """The share of each prediction's area that lies in a crowd box of its label, the largest of them; shape (n,)."""
    if not crowd or not predicted:
        return np.zeros(len(predicted))
    shared, areas, _ = _overlaps([region.box for region in predicted], [region.box for region in crowd])
    shares = np.divide(shared, areas[:, None], out=np.zeros_like(shared), where=areas[:, None] > 0)
    same = np.array([[a.label == b.label for b in crowd] for a in predicted], dtype=bool)
    largest: Floats = np.where(same, shares, 0.0).max(axis=1)
    return largest


def score_of(region: Region) -> float:
    """The score of a prediction; 1 where it has none."""
    return 1.0 if region.score is None else region.score


def _edges(ious: Floats, threshold: float) -> list[Edge]:
    rows, columns = np.nonzero(ious >= threshold)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _same(truth: Sequence[Region], predicted: Sequence[Region], edge: Edge) -> bool:
    return truth[edge[0]].label == predicted[edge[1]].label


def _one_to_one(edges: Sequence[Edge]) -> bool:
    """Whether nothing has to be chosen, which is so on nearly all real pages."""
    return len({row for row, _ in edges}) == len({column for _, column in edges}) == len(edges)


def _free_column(
    start: int, choices: Mapping[int, list[int]], row_of: dict[int, int], reached: dict[int, int]
) -> int | None:
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
    a = np.array(first, dtype=np.float64).reshape(-1, 4)
    b = np.array(second, dtype=np.float64).reshape(-1, 4)
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    np.maximum(sides, 0.0, out=sides)
    return sides[..., 0] * sides[..., 1], _areas(a), _areas(b)


def _areas(boxes: Floats) -> Floats:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    areas: Floats = sides[:, 0] * sides[:, 1]
    return areas
