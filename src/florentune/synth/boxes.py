"""From markers to boxes: Typst says where a block stands, the rendered pixels say where its ink ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from ..regions import Box

MARGIN = 3.6  # points round the ink: 10 px at 200 dpi, as TF-ID's annotators left
REACH = 2.5  # points a block's ink may stick out of it (descenders, line caps)
Ink = npt.NDArray[np.bool_]
Span = tuple[str, int, Box]  # marker id, page index, rectangle in points


def spans(markers: Iterable[Mapping[str, Any]], columns: Sequence[tuple[float, float]], points: float) -> list[Span]:
    """Rectangles, in points, of everything marked.

    A block leaves two markers `i`: its top left and bottom right corner. Flowing text leaves one marker `l` a line,
    at the left edge of its column and on its baseline. `columns` are the (left, right) of the page's columns and
    `points` is the font size.
    """
    corners: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    lines: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    for marker in markers:
        page, x, y = marker["p"]["page"] - 1, _points(marker["p"]["x"]), _points(marker["p"]["y"])
        if "i" in marker:
            corners[marker["i"], page].append((x, y))
        else:
            column = min(range(len(columns)), key=lambda k: abs(columns[k][0] - x))
            lines[marker["l"], page, column].append(y)
    found = [
        (key, page, Box(*first, *last))
        for (key, page), spots in corners.items()
        for first, last in zip(spots[::2], spots[1::2], strict=False)
    ]
    for (key, page, column), baselines in lines.items():
        left, right = columns[column]
        top, bottom = min(baselines) - 0.8 * points, max(baselines) + 0.28 * points
        found.append((key, page, Box(left, top, right, bottom)))
    return found


def ink_of(image: Image.Image) -> Ink:
    """Where a page (RGB) differs visibly from its top left pixel, the background; shape (height, width)."""
    background = Image.new("RGB", image.size, image.getpixel((0, 0)))
    red, green, blue = ImageChops.difference(image, background).split()
    different: Ink = np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue)) > 5
    return different


def tight(ink: Ink, box: Box, reach: float) -> Box | None:
    """The smallest box round the ink in `box` grown by `reach` pixels, in whole pixels; None where there is no ink."""
    height, width = ink.shape
    x1, y1 = max(int(box.x1 - reach), 0), max(int(box.y1 - reach), 0)
    part = ink[y1 : min(int(box.y2 + reach) + 1, height), x1 : min(int(box.x2 + reach) + 1, width)]
    if not part.any():
        return None
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    return Box(float(x1 + columns[0]), float(y1 + rows[0]), float(x1 + columns[-1] + 1), float(y1 + rows[-1] + 1))


def grown(ink: Ink, box: Box, margin: int) -> Box:
    """`box` with up to `margin` pixels of blank page on every side: it stops at foreign ink and at the page's edge."""
    height, width = ink.shape
    x1, y1, x2, y2 = (int(value) for value in box)
    for _ in range(margin):
        if y1 > 0 and not ink[y1 - 1, x1:x2].any():
            y1 -= 1
        if y2 < height and not ink[y2, x1:x2].any():
            y2 += 1
        if x1 > 0 and not ink[y1:y2, x1 - 1].any():
            x1 -= 1
        if x2 < width and not ink[y1:y2, x2].any():
            x2 += 1
    return Box(float(x1), float(y1), float(x2), float(y2))


def crossed(ink: Ink, box: Box) -> bool:
    """Whether ink inside a box (whole pixels, not at the page's edge) touches ink outside over one of its sides."""
    x1, y1, x2, y2 = (int(value) for value in box)
    sides = (
        (ink[y1, x1:x2], ink[y1 - 1, x1:x2]),
        (ink[y2 - 1, x1:x2], ink[y2, x1:x2]),
        (ink[y1:y2, x1], ink[y1:y2, x1 - 1]),
        (ink[y1:y2, x2 - 1], ink[y1:y2, x2]),
    )
    return any(bool((inner & outer).any()) for inner, outer in sides)


def _points(length: str) -> float:
    return float(length.removesuffix("pt"))
