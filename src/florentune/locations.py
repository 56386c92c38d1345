"""Regions as Florence-2 writes them: `label<loc_x1><loc_y1><loc_x2><loc_y2>` on a grid of 1000 x 1000 bins.

A coordinate x on an axis of s pixels falls into bin floor(1000 x / s), clamped to 0..999, and is read back as the
centre of its bin, (q + 0.5) * s / 1000: the "floor" mode of the quantizer in Microsoft's Florence-2 processor.
Bin 1000 is not a token of the vocabulary, so it never appears here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from .errors import InputError
from .regions import Box, Region

BINS = 1000
OD_TASK = "<OD>"
_LOCATION = re.compile(r"<loc_(\d+)>")
_RESERVED = ("<", ">", "\n", "\r", "\x00")

Bins = tuple[int, int, int, int]


def to_bin(value: float, size: float) -> int:
    """The bin (0..999) of a coordinate in pixels on an axis `size` pixels long."""
    # Multiplied first: s / 1000 is rounded, and a coordinate on the edge of a bin would fall one bin low.
    return min(max(math.floor(value * BINS / size), 0), BINS - 1)


def from_bin(index: float, size: float) -> float:
    """The centre of a bin, in pixels on an axis `size` pixels long; a mean position lies between centres."""
    return (index + 0.5) * size / BINS


def box_to_bins(box: Box, width: float, height: float) -> Bins:
    """The four bins (x1, y1, x2, y2) of a box in pixels of an image of that size."""
    return to_bin(box.x1, width), to_bin(box.y1, height), to_bin(box.x2, width), to_bin(box.y2, height)


def bins_to_box(bins: Sequence[float], width: float, height: float) -> Box:
    """The box in pixels whose corners are the centres of the four bins."""
    x1, y1, x2, y2 = bins
    return Box(from_bin(x1, width), from_bin(y1, height), from_bin(x2, width), from_bin(y2, height))


def bins_to_text(bins: Bins) -> str:
    """Four bins as the text `<loc_a><loc_b><loc_c><loc_d>`."""
    return "".join(f"<loc_{index}>" for index in bins)


def check_label(label: str) -> str:
    """The label itself; raises InputError when it would break the target grammar.

    A label must have visible text and none of `<`, `>`, line breaks and NUL, which delimit tokens and objects.
    """
    if not label.strip():
        raise InputError("a label has no visible text: name the category")
    if any(sign in label for sign in _RESERVED):
        raise InputError(f"label {label!r} holds '<', '>' or a line break, which the answer's grammar reserves")
    return label


def regions_to_text(regions: Iterable[Region], width: float, height: float) -> str:
    """The answer text for regions of an image of that size, in the order given and without blanks."""
    return "".join(
        check_label(region.label) + bins_to_text(box_to_bins(region.box, width, height)) for region in regions
    )


def text_to_regions(text: str, width: float, height: float) -> tuple[list[Region], list[str]]:
    """Regions of a well-formed answer text, and the pieces that could not be read as `label` + four locations.

    Strict on purpose: this reads data sets, where a piece that does not fit is a defect to report. What a model
    generated is read by its token ids (grammar) or by the reference parser (reference).
    """
    regions: list[Region] = []
    unread: list[str] = []
    for piece in re.findall(r"[^<]*(?:<loc_\d+>)+|[^<]+|<[^<]*", text):
        label = piece.split("<", 1)[0].strip()
        bins = [int(found) for found in _LOCATION.findall(piece)]
        if label and len(bins) == 4 and all(index < BINS for index in bins):
            a, b, c, d = bins
            regions.append(Region(label, bins_to_box((a, b, c, d), width, height)))
        else:
            unread.append(piece)
    return regions, unread


def sorted_regions(regions: Iterable[Region], labels: Iterable[str]) -> list[Region]:
    """Regions in an order a decoder can learn: by label (order of the data set), then top to bottom, left to right."""
    rank = {label: index for index, label in enumerate(labels)}
    return sorted(regions, key=lambda region: (rank.get(region.label, len(rank)), region.box.y1, region.box.x1))
