"""Edges of boxes moved to blank lines of pixels, so that a crop does not cut through a row or a letter.

A detector places edges to a thousandth of the page and errs by a few points, which is more than the blank between two
rows of small print.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..regions import Box

_OUT, _IN = 9.0, 4.0  # how far an edge may move, in points
_FARTHER = 2  # to grow is worth a way this many times as long as to shrink: it loses nothing
_MARGIN = 3.6  # blank round the ink of a box that was cut, in points: 10 pixels at 200 dpi, as TF-ID leaves
_DARK = 225  # grey levels below this are ink
_BLANK, _INK, _CLOSED = 0, 1, 2

Profile = NDArray[np.uint8]


def whole(box: Box, image: Image.Image, scale: float, captions: Iterable[Box] = ()) -> Box:
    """The box with each edge that cuts through ink moved to blank paper, where there is some within a few points.

    Boxes are in pixels of the image, `scale` is pixels a point. Edges do not move into captions, and one on blank
    paper stays where it is.
    """
    far = int(_OUT * scale) + 2
    left, top = max(int(box.x1) - far, 0), max(int(box.y1) - far, 0)
    right, bottom = min(int(box.x2) + far, image.width), min(int(box.y2) + far, image.height)
    marks = _ink(image, (left, top, right, bottom)).astype(np.uint8)
    for x1, y1, x2, y2 in captions:
        marks[
            max(int(y1) - top, 0) : max(int(y2) + 1 - top, 0), max(int(x1) - left, 0) : max(int(x2) + 1 - left, 0)
        ] = _CLOSED
    x, y = (round(box.x1) - left, round(box.x2) - left), (round(box.y1) - top, round(box.y2) - top)
    if x[0] >= x[1] or y[0] >= y[1]:
        return box
    columns, rows = marks[slice(*y)].max(axis=0), marks[:, slice(*x)].max(axis=1)
    moved = Box(
        box.x1 - _step(columns[::-1], columns.size - x[0], scale),
        box.y1 - _step(rows[::-1], rows.size - y[0], scale),
        box.x2 + _step(columns, x[1], scale),
        box.y2 + _step(rows, y[1], scale),
    ).clipped(image.width, image.height)
    return moved if moved.x1 < moved.x2 and moved.y1 < moved.y2 else box


def snug(box: Box, image: Image.Image, scale: float) -> Box:
    """The box (pixels) without the blank at its edges beyond a margin; as it is where there is no ink in it."""
    exact = box.clipped(image.width, image.height)
    ink = _ink(image, (int(exact.x1), int(exact.y1), int(exact.x2), int(exact.y2)))
    columns, rows = np.flatnonzero(ink.any(axis=0)), np.flatnonzero(ink.any(axis=1))
    if not rows.size:
        return box
    margin, left, top = _MARGIN * scale, int(exact.x1), int(exact.y1)
    return Box(
        max(box.x1, left + int(columns[0]) - margin),
        max(box.y1, top + int(rows[0]) - margin),
        min(box.x2, left + int(columns[-1]) + 1 + margin),
        min(box.y2, top + int(rows[-1]) + 1 + margin),
    )


def _ink(image: Image.Image, part: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    return np.asarray(image.crop(part).convert("L")) < _DARK


def _step(profile: Profile, edge: int, scale: float) -> int:
    """How many pixels outwards (towards the end of the profile) an edge must move; negative is inwards."""
    if not 0 < edge <= profile.size or profile[edge - 1] == _BLANK:
        return 0
    out = _first_blank(profile[edge : edge + int(_OUT * scale)])
    inwards = _first_blank(np.minimum(profile[:edge][::-1][: int(_IN * scale)], _INK))
    if out is not None and (inwards is None or out < _FARTHER * inwards):
        return out + 1
    return -inwards if inwards is not None else 0


def _first_blank(profile: Profile) -> int | None:
    """The index of the first blank, unless something closed comes before it."""
    blanks, closed = np.flatnonzero(profile == _BLANK), np.flatnonzero(profile == _CLOSED)
    return int(blanks[0]) if blanks.size and not (closed.size and closed[0] < blanks[0]) else None
