"""The vocabulary of the package: a Page is an image with labelled boxes, in truth and in prediction alike.

All coordinates are pixels of the original image, origin at the top left, bbox order xyxy (x1, y1, x2, y2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .errors import InputError


def counted(number: int, noun: str) -> str:
    """A count as people say it: "1 page", "4,685 pages", "2 boxes"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "es" if noun.endswith("x") else "s")


class Box(NamedTuple):
    """A bbox in xyxy order: left, top, right, bottom in pixels."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def width(self) -> float:
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        """Area in square pixels; 0 for a box without extent."""
        return max(self.width, 0.0) * max(self.height, 0.0)

    def clipped(self, width: float, height: float) -> Box:
        """The part of the box inside an image of that size."""
        return Box(
            min(max(self.x1, 0.0), width),
            min(max(self.y1, 0.0), height),
            min(max(self.x2, 0.0), width),
            min(max(self.y2, 0.0), height),
        )


@dataclass(frozen=True, slots=True)
class Region:
    """One labelled box; `score` is a probability in [0, 1] for a prediction and None for truth."""

    label: str
    box: Box
    score: float | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in self.box):
            raise InputError(f"box {tuple(self.box)} of {self.label!r} has a coordinate that is not a number")
        if self.score is not None and not 0.0 <= self.score <= 1.0:
            raise InputError(f"score {self.score} of {self.label!r} is outside 0..1")

    def as_dict(self) -> dict[str, Any]:
        """{"label", "bbox": [x1, y1, x2, y2], "score"}; the score is left out where there is none."""
        found: dict[str, Any] = {"label": self.label, "bbox": [round(value, 2) for value in self.box]}
        if self.score is not None:
            found["score"] = round(self.score, 4)
        return found


@dataclass(frozen=True, slots=True)
class Page:
    """An image and the regions on it.

    `image` names the image (a path relative to the data set's image folder, or whatever the caller called it),
    `width` and `height` are its size in pixels, `extra` holds what a format wants to carry through unread.
    """

    image: str
    width: int
    height: int
    regions: tuple[Region, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise InputError(f"{self.image}: a page cannot be {self.width} x {self.height} pixels")

    def as_dict(self) -> dict[str, Any]:
        """{"image", "width", "height", "regions": [...]} plus what `extra` holds."""
        return {
            "image": self.image,
            "width": self.width,
            "height": self.height,
            "regions": [region.as_dict() for region in self.regions],
            **self.extra,
        }


def iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes, 0 when both are empty."""
    width = min(first.x2, second.x2) - max(first.x1, second.x1)
    height = min(first.y2, second.y2) - max(first.y1, second.y1)
    overlap = max(width, 0.0) * max(height, 0.0)
    union = first.area + second.area - overlap
    return overlap / union if union > 0 else 0.0
