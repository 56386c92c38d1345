"""Which caption belongs to which box.

A page's captions and boxes are matched so that the sum of their distances is least (Hungarian method); a table's
caption is expected above it and a figure's below, which decides only between equals. Boxes left over that adjoin a
matched one become its parts: the panels of one figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..regions import Box
from .captions import Caption
from .lines import turned, turned_back, union

FAR = 150.0
_WRONG_KIND, _WRONG_SIDE, _BESIDE, _ACROSS = 60.0, 6.0, 12.0, 40.0
_CLOSE = 30.0  # how far above or below a caption may be that begins at the margin, its box in the middle
_PANEL_GAP = 36.0
_SLIVER = 24.0  # what a caption leaves of a box and is lower than two rows is nothing


@dataclass(frozen=True, slots=True)
class Detected:
    """A box of the detector on a page, in points as shown."""

    label: str
    box: Box
    score: float | None

    @property
    def kind(self) -> str:
        """ "table" or "figure" for the labels that mean one, else the label itself."""
        lowered = self.label.lower()
        if "table" in lowered:
            return "table"
        return "figure" if lowered in ("figure", "picture", "image", "chart", "graphic") else lowered


@dataclass(frozen=True, slots=True)
class Found:
    """A table or figure: its boxes (more than one where the detector saw the panels apart) and its caption, if any."""

    parts: tuple[Detected, ...]
    caption: Caption | None

    @property
    def box(self) -> Box:
        return union(part.box for part in self.parts)

    @property
    def kind(self) -> str:
        """What the caption calls it; without one, what the detector does."""
        return self.caption.kind if self.caption else self.parts[0].kind


def cut(
    detected: Sequence[Detected], captions: Sequence[Caption], size: tuple[float, float], snug: Callable[[Box], Box]
) -> list[Detected]:
    """The boxes without the captions that reach into them; one with a caption across its middle is two objects.

    `snug` takes the blank border off what was cut, so that a piece is as far from the caption as its ink is.
    """
    parts: list[Detected] = []
    for item in detected:
        pieces = [item.box]
        for caption in captions:
            pieces = [piece for whole in pieces for piece in _pieces(whole, caption, size)]
        parts += [replace(item, box=piece if piece == item.box else snug(piece)) for piece in pieces]
    return parts


def _pieces(whole: Box, caption: Caption, size: tuple[float, float]) -> list[Box]:
    """What a caption leaves of a box above and below it: the box as it is where the caption is not in it."""
    text, box = (turned(part, caption.angle, *size) for part in (caption.box, whole))
    inside = min(text.x2, box.x2) - max(text.x1, box.x1) > 0.5 * text.width
    if not inside or text.y1 >= box.y2 or text.y2 <= box.y1:
        return [whole]
    least = max(_SLIVER, 0.1 * box.height)
    parts = [Box(box.x1, box.y1, box.x2, text.y1 - 1), Box(box.x1, text.y2 + 1, box.x2, box.y2)]  # off its last pixel
    return [turned_back(part, caption.angle, *size) for part in parts if part.y2 - part.y1 >= least] or [whole]


def link(
    detected: Sequence[Detected], captions: Sequence[Caption], size: tuple[float, float]
) -> tuple[list[Found], list[Caption]]:
    """The tables and figures of a page of that size (points) in reading order, and the captions left without a box."""
    owner = dict(_pairs(detected, captions, size))
    parts: dict[int, list[int]] = {box: [box] for box in owner}
    left = [box for box in range(len(detected)) if box not in owner]
    while (joined := _adjoining(detected, captions, owner, parts, left)) is not None:
        panel, main = joined
        parts[main].append(panel)
        left.remove(panel)
    found = [Found(tuple(detected[i] for i in sorted(parts[box])), captions[owner[box]]) for box in owner]
    found += [Found((detected[box],), None) for box in left]
    unused = [caption for index, caption in enumerate(captions) if index not in owner.values()]
    return in_reading_order(found, size[0]), unused


def in_reading_order(found: Sequence[Found], width: float) -> list[Found]:
    """Bands between objects that span the columns, top to bottom; in a band the left column before the right one."""
    ordered: list[Found] = []
    band: list[Found] = []
    for item in sorted(found, key=lambda item: item.box.y1):
        if _column(item.box, width) is None:
            ordered += [*_by_column(band, width), item]
            band = []
        else:
            band.append(item)
    return ordered + _by_column(band, width)


def _by_column(band: Sequence[Found], width: float) -> list[Found]:
    return sorted(band, key=lambda item: (_column(item.box, width) or 0, item.box.y1, item.box.x1))


def _column(box: Box, width: float) -> int | None:
    """0 for the left half, 1 for the right half, None for what reaches well into both."""
    if box.x1 < 0.45 * width and box.x2 > 0.55 * width:
        return None
    return int((box.x1 + box.x2) / 2 > width / 2)


def _pairs(
    detected: Sequence[Detected], captions: Sequence[Caption], size: tuple[float, float]
) -> list[tuple[int, int]]:
    """(box, caption) of the matching with the least sum of distances; each takes part at most once."""
    if not detected or not captions:
        return []
    costs = np.array([[distance(caption, item, size) for item in detected] for caption in captions])
    alone = np.full((len(captions), len(captions)), FAR)  # to stay without a box costs FAR
    chosen = assignment(np.hstack([np.minimum(costs, 10 * FAR), alone]))
    return [(box, caption) for caption, box in enumerate(chosen) if box < len(detected) and costs[caption, box] < FAR]


def distance(caption: Caption, item: Detected, size: tuple[float, float]) -> float:
    """How far a caption is from being an object's own, in points plus penalties; infinite when it cannot be."""
    text, box = (turned(part, caption.angle, *size) for part in (caption.box, item.box))
    below, above = text.y1 - box.y2, box.y1 - text.y2
    side = max(text.x1 - box.x2, box.x1 - text.x2)
    gap = max(below, above, 0.0)
    over = _overlap(text.x1, text.x2, box.x1, box.x2)
    level = _overlap(text.y1, text.y2, box.y1, box.y2)
    penalty = 0.0 if item.kind == caption.kind else _WRONG_KIND
    if item.kind not in ("table", "figure"):
        return float("inf")
    if over <= 0.3 and level > 0.5 and side < FAR / 2:
        return max(side, 0.0) + _BESIDE + penalty
    width = size[1] if caption.angle in (90, 270) else size[0]
    if over > 0.3 or (gap < _CLOSE and _column(box, width) in (None, _column(text, width))):
        penalty += _WRONG_SIDE if (below > above) == (caption.kind == "table") else 0.0
        return gap + max(side, 0.0) / 2 + _ACROSS * max(0.0, 0.9 - over) + penalty
    return float("inf")


def _overlap(start: float, end: float, other_start: float, other_end: float) -> float:
    """The shared length of two intervals as a part of the shorter one."""
    shared = min(end, other_end) - max(start, other_start)
    return max(shared, 0.0) / max(min(end - start, other_end - other_start), 1e-6)


def _adjoining(
    detected: Sequence[Detected],
    captions: Sequence[Caption],
    owner: dict[int, int],
    parts: dict[int, list[int]],
    left: Sequence[int],
) -> tuple[int, int] | None:
    """(panel, captioned box) for the nearest free box of the same kind that no caption separates from it."""
    best: tuple[float, int, int] | None = None
    for panel in left:
        for main, members in parts.items():
            if detected[panel].kind != detected[main].kind:
                continue
            gap = min(_gap(detected[panel].box, detected[member].box) for member in members)
            whole = union([detected[panel].box, *(detected[member].box for member in members)])
            apart = any(_cuts(caption.box, whole) for caption in captions)
            if gap <= _PANEL_GAP and not apart and (best is None or gap < best[0]):
                best = gap, panel, main
    return best[1:] if best else None


def _gap(one: Box, two: Box) -> float:
    """The blank between two boxes that are side by side or one above the other; infinite for boxes at a corner."""
    if _overlap(one.y1, one.y2, two.y1, two.y2) > 0.4:
        return max(one.x1 - two.x2, two.x1 - one.x2, 0.0)
    if _overlap(one.x1, one.x2, two.x1, two.x2) > 0.4:
        return max(one.y1 - two.y2, two.y1 - one.y2, 0.0)
    return float("inf")


def _cuts(text: Box, whole: Box) -> bool:
    """Whether a caption lies inside what would be one object."""
    x, y = (text.x1 + text.x2) / 2, (text.y1 + text.y2) / 2
    return whole.x1 < x < whole.x2 and whole.y1 < y < whole.y2


def assignment(costs: NDArray[np.float64]) -> list[int]:
    """The column of each row in the cheapest one-to-one assignment; at least as many columns as rows.

    The Hungarian method with potentials and shortest augmenting paths (Jonker and Volgenant 1987), O(rows^2 columns).
    """
    rows, columns = costs.shape
    row_price, column_price = np.zeros(rows + 1), np.zeros(columns + 1)
    row_of = np.zeros(columns + 1, dtype=int)  # rows and columns count from 1 here; 0 is "none"
    for row in range(1, rows + 1):
        row_of[0] = row
        column, slack = 0, np.full(columns + 1, np.inf)
        came_from, used = np.zeros(columns + 1, dtype=int), np.zeros(columns + 1, dtype=bool)
        while row_of[column]:
            used[column] = True
            current = row_of[column]
            reduced = costs[current - 1] - row_price[current] - column_price[1:]
            better = ~used[1:] & (reduced < slack[1:])
            slack[1:][better], came_from[1:][better] = reduced[better], column
            following = 1 + int(np.argmin(np.where(used[1:], np.inf, slack[1:])))
            step = slack[following]
            row_price[row_of[used]] += step
            column_price[used] -= step
            slack[~used] -= step
            column = following
        while column:
            row_of[column] = row_of[came_from[column]]
            column = came_from[column]
    return [int(np.flatnonzero(row_of[1:] == row)[0]) for row in range(1, rows + 1)]
