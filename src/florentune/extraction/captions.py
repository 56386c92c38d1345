"""Captions from the words of a page: where they begin, what they say, where they end.

A caption is a block of lines whose first line starts with a label such as "Table 3:", "Figure A.2.", "Fig. 4a",
"TABLE IV" or "Extended Data Fig. 1 |". A sentence that starts a line with "Figure 3 shows" is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..pdf import PageText
from ..regions import Box
from .lines import Line, joined, lines_of, turned, turned_back, union

Kind = Literal["figure", "table"]

_LABEL = re.compile(
    r"""^\W{0,2}(?P<label>
        (?:(?:extended\s+data|supplement(?:ary|al)|appendix|online)\s+)?
        (?P<kind>t\s?able(?:au)?|tab\.|tbl\.|tabelle|tabl?[ea]la?|f\s?ig(?:\s?ure|ura)?s?\.?|abb(?:ildung|\.))
        \s*
        (?P<number>(?-i:(?:[A-Z]{1,2}\s?[.\-]?\s?)?\d{1,3}(?:[.\-–]\d{1,3})*(?:\s?\([a-z]\)|[a-z])?
            |[IVXLC]{1,7}|[A-Z](?=\s*[:.|])))
    )(?![A-Za-z0-9])(?P<rest>.*)$""",
    re.IGNORECASE | re.VERBOSE,
)
_SEPARATOR = re.compile(r"^\s*(?P<sign>[:|•]|\.?\s?[—–-]+\s|\.)?\s*(?P<text>.*)$")
_CONTINUED = re.compile(r"^[(\[]?\s*(?:continued|cont[.'’]?d?\b)", re.IGNORECASE)
_SENTENCE = re.compile(
    r"^(?:and|or|to|in|on|of|from|for|with|the|we|is|are|was|were|has|have|can|also|below|above|further|then|"
    r"(?:show|present|illustrat|depict|report|list|compar|summari[sz]|display|demonstrat|describ|give|provid|plot|"
    r"contain|indicat|highlight|visuali[sz]|reveal|detail|outlin|confirm|consolidat|enumerat|suggest|explain|"
    r"exemplif|includ|introduc)\w*)\b",
)
_SENTENCE_ENDS = ".!?:"
_MAX_LINES = 60
_STRENGTH = {":": 3, "|": 3, "•": 3, "-": 3, ".": 2, "": 1}


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption on a page (`page` counts from 0).

    `label` is as printed ("Fig. 4a"), `number` its number part ("4a"), `text` the whole caption with its label, `box`
    in points of the page as shown, `angle` the direction of reading in degrees clockwise. `strength` ranks how sure
    the label is (3 "Figure 1:", 2 "Figure 1." or a label alone on its line, 1 no sign after the number);
    `continued` marks "Table 3 (continued)".
    """

    kind: Kind
    number: str
    label: str
    text: str
    page: int
    box: Box
    angle: int
    strength: int
    continued: bool = False


def find_captions(page: PageText, boxes: Sequence[Box] = ()) -> list[Caption]:
    """The captions of a page in the order of its content stream.

    `boxes` are the regions detected on the page, in points: lines inside one do not continue a caption that starts
    outside it.
    """
    lines = lines_of(page)
    starts = {index: start for index, line in enumerate(lines) if (start := _start(lines, index, page.index))}
    captions = []
    for index, caption in starts.items():
        block = _block(lines, index, starts, [turned(box, lines[index].angle, *_size(page)) for box in boxes])
        box = turned_back(union(line.box for line in block), caption.angle, *_size(page))
        captions.append(replace(caption, text=joined(block), box=box))
    return captions


def settle(captions: Iterable[Caption]) -> list[Caption]:
    """The captions of a document without mentions that merely look like one.

    A number that is captioned by a sure label elsewhere is not captioned by a less sure one too; of equally sure ones
    all are kept, because a document may print a caption twice.
    """
    captions = list(captions)
    best: dict[tuple[str, str], int] = {}
    for caption in captions:
        key = caption.kind, caption.number
        best[key] = max(best.get(key, 0), caption.strength)
    return [c for c in captions if c.continued or c.strength == best[c.kind, c.number]]


def _size(page: PageText) -> tuple[float, float]:
    return page.width_pt, page.height_pt


def _start(lines: Sequence[Line], index: int, page: int) -> Caption | None:
    """The caption that starts with this line, as far as the line alone tells."""
    line = lines[index]
    found = _LABEL.match(line.text)
    if not found or not found["label"][0].isupper():
        return None
    rest = _SEPARATOR.match(found["rest"])
    assert rest is not None
    sign = (rest["sign"] or "").strip()
    sign = "-" if sign and sign[-1] in "—–-" else sign
    strength = _STRENGTH[sign]
    if strength < 3 and not _stands_alone(lines, index, sign, rest["text"]):
        return None
    label, number = re.sub(r"\s+", " ", found["label"]), re.sub(r"\s+", "", found["number"])
    kind: Kind = "table" if found["kind"][0] in "tT" else "figure"
    continued = bool(_CONTINUED.match(rest["text"]))
    return Caption(kind, number, label, line.text, page, line.box, line.angle, strength, continued)


def _stands_alone(lines: Sequence[Line], index: int, sign: str, text: str) -> bool:
    """Whether a label without a colon starts a caption rather than a line in the middle of a sentence."""
    if sign == "." and text and not (text[0].isupper() or text[0] in "([“\"'‘" or text[0].isdigit()):
        return False
    if not sign and text and (_SENTENCE.match(text) or not (text[0].isupper() or text[0] in '(“"')):
        return False
    return not _inside_paragraph(lines, index)


def _inside_paragraph(lines: Sequence[Line], index: int) -> bool:
    """Whether the line before it runs on into this one: same size, normal line distance, same left edge, full."""
    if index == 0:
        return False
    line, before = lines[index], lines[index - 1]
    size = line.size
    follows = 0 < line.baseline - before.baseline < 1.6 * size and abs(before.size - size) < 0.1 * size
    aligned = abs(before.box.x1 - line.box.x1) < 2.5 * size
    return before.angle == line.angle and follows and aligned and before.box.x2 > line.box.x1 + 12 * size


def _block(lines: Sequence[Line], index: int, starts: Iterable[int], boxes: Sequence[Box]) -> list[Line]:
    """The lines of the caption that starts at `index`."""
    first = lines[index]
    block, row, pitch = [first], [first], 0.0
    held = [box for box in boxes if not _holds(box, first.box)]
    for position in range(index + 1, min(index + 1 + _MAX_LINES, len(lines))):
        line = lines[position]
        step = line.baseline - row[0].baseline
        if position in starts or line.angle != first.angle or any(_ends_at(box, row, line, pitch) for box in held):
            break
        if abs(step) < 0.6 * first.size and _beside(row[-1], line):
            block.append(line)
            row.append(line)
            continue
        limit = pitch * (1.2 if len(line.words) > 2 else 1.05) + 0.3 if pitch else _first_step(first, line)
        if not 0 < step <= limit or not _same_column(block, line) or _would_have_fitted(block, row, line):
            break
        pitch = max(pitch, step) if step > 0.8 * first.size else pitch
        block.append(line)
        row = [line]
    return block


def _ends_at(box: Box, row: Sequence[Line], line: Line, pitch: float) -> bool:
    """Whether a caption ends before a line because that is in a detected box.

    A detector's box may reach over the last lines of a caption: one of several lines (whose pitch is known) does not
    end in the middle of a sentence there.
    """
    edge = min(line.box.y1 - box.y1, box.y2 - line.box.y2) < 2 * line.size
    return _holds(box, line.box) and not (edge and pitch and row[-1].text[-1] not in _SENTENCE_ENDS)


def _first_step(first: Line, line: Line) -> float:
    """How far below its first line a caption may go on: farther (double spacing) where its sentence has no end yet."""
    runs_on = first.text[-1] not in _SENTENCE_ENDS and not _would_have_fitted([first, line], [first], line)
    return (2.2 if runs_on and abs(line.box.x1 - first.box.x1) < first.size else 1.5) * first.size


def _beside(last: Line, line: Line) -> bool:
    """Whether a piece of text goes on the same line, after a wide blank or as a sub- or superscript."""
    return -3 * last.size < line.box.x1 - last.box.x2 < 3 * last.size


def _same_column(block: Sequence[Line], line: Line) -> bool:
    """Whether a line below continues the block: in the same type size and within its width."""
    first, whole = block[0], union(member.box for member in block)
    overlap = min(whole.x2, line.box.x2) - max(whole.x1, line.box.x1)
    small = len(line.words) < 3
    return overlap > 0 and (small or abs(line.size - first.size) < 0.12 * first.size)


def _would_have_fitted(block: Sequence[Line], row: Sequence[Line], line: Line) -> bool:
    """Whether the first word of a line had room at the end of the row before: then the line is no continuation."""
    right, end, word = max(member.box.x2 for member in block), max(piece.box.x2 for piece in row), line.words[0]
    width = word.box.width if line.angle in (0, 180) else word.box.height
    return end + width + 1.5 * line.size < right


def _holds(box: Box, inner: Box) -> bool:
    """Whether the centre of `inner` is in the box."""
    x, y = (inner.x1 + inner.x2) / 2, (inner.y1 + inner.y2) / 2
    return box.x1 < x < box.x2 and box.y1 < y < box.y2
