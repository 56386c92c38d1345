"""What a value of an annotation file must be: a box, a label, a file name."""

from __future__ import annotations

import re
import reprlib
from pathlib import PurePosixPath

from ..errors import InputError
from ..locations import check_label
from ..regions import Box

LIMIT = 1e7
MAX_SIDE = 1_000_000
MAX_ID = 200
Id = int | str
_TOLERANCE = 1e-3
_OVERSHOOT = 0.1
_URL = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.\-]*://")
_DRIVE = re.compile(r"^[a-zA-Z]:")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlist = 9


def quoted(value: object) -> str:
    """A value of a file for a message: short, on one line, whatever it is."""
    return _SHORT.repr(value)


def four_numbers(value: object) -> tuple[float, float, float, float] | None:
    """The four finite numbers of a bbox, or None: text, nesting, NaN, infinity and other lengths are refused."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    for number in value:
        # A comparison with NaN is false; bool is no coordinate although Python counts with it.
        if type(number) not in (int, float) or not -LIMIT < number < LIMIT:
            return None
    return value[0], value[1], value[2], value[3]


def suspicion(x: float, y: float, w: float, h: float, width: int, height: int) -> str | None:
    """The code of an issue when pixels [x, y, w, h] were surely meant as something else, else None.

    All four numbers in 0..1 are fractions of the page. A box that leaves the image by more than a tenth of its size,
    but fits when read as [x1, y1, x2, y2], is just that.
    """
    if min(x, y, w, h) >= 0 and max(x, y, w, h) <= 1 and max(width, height) > 1:
        return "normalised"
    overshoots = x + w > width * (1 + _OVERSHOOT) or y + h > height * (1 + _OVERSHOOT)
    if overshoots and 0 <= x < w <= width and 0 <= y < h <= height:
        return "looks_like_xyxy"
    return None


def fit(box: Box, width: int, height: int) -> tuple[Box | None, str | None]:
    """The part of the box inside the image, or None, and the code of the issue, if there is one.

    Less than a thousandth of a pixel outside is rounding and no issue.
    """
    if box.width <= 0 or box.height <= 0:
        return None, "zero_area"
    inside = box.clipped(width, height)
    if inside == box:
        return box, None
    if inside.area == 0:
        return None, "outside"
    moved = max(abs(a - b) for a, b in zip(inside, box, strict=True))
    return inside, "clipped" if moved > _TOLERANCE else None


def clean_label(value: object) -> str:
    """The label with every run of blanks and line breaks as one blank; ValueError says why it cannot be a label."""
    if not isinstance(value, str):
        raise ValueError(f"{quoted(value)} is not text")
    if any("\ud800" <= sign <= "\udfff" for sign in value):
        raise ValueError(f"{quoted(value)} holds half a character (a lone surrogate)")
    try:
        return check_label(" ".join(value.replace("\x00", " ").split()))
    except InputError as error:
        raise ValueError(str(error)) from None


def safe_name(value: object) -> str:
    """A file name from an annotation file as a relative path with `/`; ValueError says why it cannot be one."""
    if not isinstance(value, str):
        raise ValueError(f"file name {quoted(value)} is not text")
    name = value.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if not name.strip() or not parts or name.endswith("/"):
        raise ValueError(f"file name {quoted(value)} names no file")
    if "\x00" in name or any("\ud800" <= sign <= "\udfff" for sign in name):
        raise ValueError(f"file name {quoted(value)} holds a character that no file name can have")
    if _URL.match(name):
        raise ValueError(f"file name {quoted(value)} is an address; nothing is ever fetched")
    if name.startswith("/") or _DRIVE.match(name) or ".." in parts:
        raise ValueError(f"file name {quoted(value)} points out of the image folder")
    return "/".join(parts)


def id_of(value: object) -> Id | None:
    """An id as it can be looked up: whole numbers and short text; anything else is None."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return value if len(value) <= MAX_ID else None
    return value if type(value) is int else None


def side(value: object) -> int | None:
    """A width or height as a whole number of pixels in 1..MAX_SIDE."""
    whole = id_of(value)
    return whole if isinstance(whole, int) and 0 < whole <= MAX_SIDE else None


def score_of(value: object) -> float | None:
    """A probability in 0..1, or None."""
    return float(value) if type(value) in (int, float) and 0 <= value <= 1 else None  # type: ignore[operator, arg-type]
