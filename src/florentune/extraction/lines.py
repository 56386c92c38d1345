"""Words to lines of text.

Everything here is in the reading frame of a line: points of the page turned so that its text runs left to right. For
upright text that is the page as shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from ..pdf import PageText, Word
from ..regions import Box

_WORD_GAP = 1.6  # widest gap within a line, in font sizes; the gutter of two columns is wider


@dataclass(frozen=True)
class Line:
    """Words on one baseline that belong together; `box` and `baseline` in the reading frame."""

    words: tuple[Word, ...]
    box: Box
    baseline: float
    angle: int

    @cached_property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    @cached_property
    def size(self) -> float:
        """The font size of the line: the median over its words."""
        return median(word.size for word in self.words) or self.box.height or 1.0


def turned(box: Box, angle: int, width: float, height: float) -> Box:
    """A box of a page of that size in the frame where text that reads at `angle` runs left to right."""
    match angle:
        case 90:
            return Box(box.y1, width - box.x2, box.y2, width - box.x1)
        case 180:
            return Box(width - box.x2, height - box.y2, width - box.x1, height - box.y1)
        case 270:
            return Box(height - box.y2, box.x1, height - box.y1, box.x2)
    return box


def turned_back(box: Box, angle: int, width: float, height: float) -> Box:
    """The inverse of `turned`: `width` and `height` are again those of the page."""
    if angle in (90, 270):
        return turned(box, 360 - angle, height, width)
    return turned(box, angle, width, height)


def union(boxes: Iterable[Box]) -> Box:
    """The smallest box that holds all boxes; there must be at least one."""
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return Box(min(x1), min(y1), max(x2), max(y2))


def lines_of(page: PageText) -> list[Line]:
    """The lines of a page in the order of its content stream, then those whose text is turned, top to bottom.

    PDFium keeps the order of the stream only for text that is upright on the page as shown.
    """
    lines = [_line(group) for group in _groups(page)]
    upright = [line for line in lines if line.angle == 0]
    others = [line for line in lines if line.angle != 0]
    return upright + sorted(others, key=lambda line: (line.angle, line.baseline, line.box.x1))


def joined(lines: Iterable[Line]) -> str:
    """The text of lines with the words mended that a line break hyphenated.

    The hyphen stays where the word has another one (state-of-the-art) or goes on with a capital or a digit (CIFAR-10).
    """
    text = ""
    for line in lines:
        word = text.rpartition(" ")[2]
        broken = len(word) > 1 and word[-1] == "-" and word[-2].isalnum() and line.text[:1].isalnum()
        soft = broken and word[-2].isalpha() and word.count("-") == 1 and line.text[0].islower()
        text = text[:-1] + line.text if soft else f"{text}{'' if broken else ' '}{line.text}".lstrip()
    return text


_Placed = tuple[Word, Box, float]


def _groups(page: PageText) -> Iterator[list[_Placed]]:
    group: list[_Placed] = []
    for word in page.words:
        box = turned(word.box, word.angle, page.width_pt, page.height_pt)
        point = Box(*word.origin, *word.origin)
        placed = word, box, turned(point, word.angle, page.width_pt, page.height_pt).y1
        if group and not _continues(group, placed):
            yield group
            group = []
        group.append(placed)
    if group:
        yield group


def _continues(group: list[_Placed], placed: _Placed) -> bool:
    """Whether a word goes on the line that the words before it are on."""
    (last, last_box, last_base), (word, box, base) = group[-1], placed
    size = max(last.size, word.size, 1.0)
    near = -0.3 * size < box.x1 - last_box.x2 < _WORD_GAP * size
    level = abs(base - last_base) < 0.45 * size or abs(base - group[0][2]) < 0.3 * size
    return word.angle == last.angle and near and level


def _line(group: list[_Placed]) -> Line:
    words, boxes, bases = zip(*group, strict=True)
    return Line(words, union(boxes), median(bases), words[0].angle)
