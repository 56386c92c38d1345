"""The words of a table as rows and columns, for tables that are a plain grid; for others, what stands in the way."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ..pdf import PageText, Word
from ..regions import Box
from .lines import turned

_ROW_STEP = 0.5  # baselines closer than this, in font sizes, are one row
_COLUMN_GAP = 0.45  # a blank narrower than this, in font sizes, parts words rather than columns


@dataclass(frozen=True, slots=True)
class Table:
    """A table's cells, row by row, every row with the same number of columns.

    `spanning` counts the words that lie across a column boundary (headings over several columns): each stands in the
    column where it begins. `problem` says why there are no rows, and is "" where there are.
    """

    rows: tuple[tuple[str, ...], ...]
    spanning: int
    problem: str

    def as_csv(self) -> str:
        """The rows as CSV (RFC 4180, LF line ends)."""
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(self.rows)
        return stream.getvalue()

    def as_dict(self) -> dict[str, object]:
        columns = len(self.rows[0]) if self.rows else 0
        return {"rows": len(self.rows), "columns": columns, "spanning": self.spanning, "problem": self.problem}


def words_in(page: PageText, box: Box) -> list[Word]:
    """The words whose centre is in a box (points)."""
    return [
        word
        for word in page.words
        if box.x1 <= (word.box.x1 + word.box.x2) / 2 <= box.x2 and box.y1 <= (word.box.y1 + word.box.y2) / 2 <= box.y2
    ]


def read_table(page: PageText, box: Box) -> Table:
    """The cells of the table in a box (points of the page)."""
    if not page.has_text:
        return _unread("the page has no text layer")
    words = words_in(page, box)
    if len(words) < 4:
        return _unread("there are fewer than four words in it")
    angle = max({word.angle for word in words}, key=lambda turn: sum(word.angle == turn for word in words))
    placed = _placed([word for word in words if word.angle == angle], page, angle)
    rows = _rows(placed)
    edges = _boundaries(rows)
    if len(rows) < 2 or not edges:
        return _unread("its words do not line up in rows and columns")
    spanning = sum(left < edge < right for row in rows for left, right, *_ in row for edge in edges)
    if spanning > 0.2 * len(placed):
        return _unread("too many cells span several columns")
    return Table(tuple(_cells(row, edges) for row in rows), spanning, "")


_Placed = tuple[float, float, float, float, str]  # left, right, baseline, size, text


def _unread(problem: str) -> Table:
    return Table((), 0, problem)


def _placed(words: Sequence[Word], page: PageText, angle: int) -> list[_Placed]:
    """The words in the reading frame."""
    found = []
    for word in words:
        box = turned(word.box, angle, page.width_pt, page.height_pt)
        base = turned(Box(*word.origin, *word.origin), angle, page.width_pt, page.height_pt).y1
        found.append((box.x1, box.x2, base, word.size, word.text))
    return found


def _rows(words: Sequence[_Placed]) -> list[list[_Placed]]:
    """Words grouped by baseline, top to bottom, each row left to right."""
    step = _ROW_STEP * median(word[3] for word in words)
    rows: list[list[_Placed]] = []
    for word in sorted(words, key=lambda word: word[2]):
        if rows and word[2] - rows[-1][0][2] < step:
            rows[-1].append(word)
        else:
            rows.append([word])
    return [sorted(row) for row in rows]


def _boundaries(rows: Sequence[Sequence[_Placed]]) -> list[float]:
    """Middles of the blanks that run down the whole table; a row in ten may reach across (headings do)."""
    narrow = _COLUMN_GAP * median(word[3] for row in rows for word in row)
    allowed = max(len(rows) // 10, 1 if len(rows) >= 4 else 0)
    steps = sorted(
        [(left, 1) for row in rows for left, _ in _runs(row, narrow)]
        + [(right, -1) for row in rows for _, right in _runs(row, narrow)],
    )
    edges, covered, start, seen = [], 0, None, False
    for x, change in steps:
        if start is not None and covered <= allowed and covered + change > allowed and x - start > narrow and seen:
            edges.append((start + x) / 2)
        covered += change
        seen = seen or covered > allowed
        start = x if covered <= allowed and change < 0 and covered + 1 > allowed else start
    return edges


def _runs(row: Sequence[_Placed], narrow: float) -> list[tuple[float, float]]:
    """The intervals of a row that ink covers, with blanks closed that are no wider than `narrow`."""
    runs: list[tuple[float, float]] = []
    for left, right, *_ in row:
        if runs and left - runs[-1][1] <= narrow:
            runs[-1] = runs[-1][0], max(runs[-1][1], right)
        else:
            runs.append((left, right))
    return runs


def _cells(row: Sequence[_Placed], edges: Sequence[float]) -> tuple[str, ...]:
    cells: list[list[str]] = [[] for _ in range(len(edges) + 1)]
    for left, right, _, _, text in row:
        inside = (left + right) / 2 if not any(left < edge < right for edge in edges) else left
        cells[sum(edge < inside for edge in edges)].append(text)
    return tuple(" ".join(cell) for cell in cells)
