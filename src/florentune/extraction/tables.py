"""The words of a table as rows and columns, for tables that are a plain grid; for others, what stands in the way."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
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

    `spanning` counts the cells that lie across a column boundary (headings over several columns): each stands in the
    column where it begins. `left_out` counts the words that read in another direction than most (turned headings).
    `problem` says why there are no rows, and is "" where there are.
    """

    rows: tuple[tuple[str, ...], ...]
    spanning: int
    left_out: int
    problem: str

    def as_csv(self) -> str:
        """The rows as CSV."""
        return _as_csv(self.rows)

    def as_dict(self) -> dict[str, object]:
        columns = len(self.rows[0]) if self.rows else 0
        doubts = {"spanning": self.spanning, "left_out": self.left_out, "problem": self.problem}
        return {"rows": len(self.rows), "columns": columns, **doubts}


def words_in(page: PageText, box: Box) -> list[Word]:
    """The words whose centre is in a box (points)."""
    return [
        word
        for word in page.words
        if box.x1 <= (word.box.x1 + word.box.x2) / 2 <= box.x2 and box.y1 <= (word.box.y1 + word.box.y2) / 2 <= box.y2
    ]


def words_as_csv(words: Sequence[Word]) -> str:
    """CSV with a line for each word: text, x1, y1, x2, y2 (points of the page)."""
    return _as_csv([("text", "x1", "y1", "x2", "y2"), *((word.text, *word.box) for word in words)])


def read_table(page: PageText, box: Box) -> Table:
    """The cells of the table in a box (points of the page)."""
    if not page.has_text:
        return _unread("the page has no text layer")
    words = words_in(page, box)
    if len(words) < 4:
        return _unread("there are fewer than four words in it")
    angle = max({word.angle for word in words}, key=lambda turn: sum(word.angle == turn for word in words))
    placed = _placed([word for word in words if word.angle == angle], page, angle)
    narrow = _COLUMN_GAP * median(word[3] for word in placed)
    rows = [_runs(row, narrow) for row in _rows(placed)]
    edges = _boundaries(rows, narrow)
    if len(rows) < 2 or not edges:
        return _unread("its words do not line up in rows and columns")
    spanning = sum(any(left < edge < right for edge in edges) for row in rows for left, right, _ in row)
    if spanning > 0.2 * sum(map(len, rows)):
        return _unread("too many cells span several columns")
    return Table(tuple(_cells(row, edges) for row in rows), spanning, len(words) - len(placed), "")


_Placed = tuple[float, float, float, float, str]  # left, right, baseline, size, text
_Run = tuple[float, float, str]  # left, right, text


def _as_csv(rows: Iterable[Iterable[object]]) -> str:
    """RFC 4180 with LF line ends."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def _unread(problem: str) -> Table:
    return Table((), 0, 0, problem)


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


def _runs(row: Sequence[_Placed], narrow: float) -> list[_Run]:
    """The words of a row, those joined that are not further apart than `narrow`."""
    runs: list[_Run] = []
    for left, right, _, _, text in row:
        if runs and left - runs[-1][1] <= narrow:
            start, end, before = runs[-1]
            runs[-1] = start, max(end, right), f"{before} {text}"
        else:
            runs.append((left, right, text))
    return runs


def _boundaries(rows: Sequence[Sequence[_Run]], narrow: float) -> list[float]:
    """Middles of the blanks that run down the whole table; a row in ten may reach across (headings do)."""
    allowed = max(len(rows) // 10, 1 if len(rows) >= 4 else 0)
    steps = sorted(
        [(left, 1) for row in rows for left, _, _ in row] + [(right, -1) for row in rows for _, right, _ in row]
    )
    edges, covered, start, seen = [], 0, None, False
    for x, change in steps:
        if start is not None and covered <= allowed and covered + change > allowed and x - start > narrow and seen:
            edges.append((start + x) / 2)
        covered += change
        seen = seen or covered > allowed
        start = x if covered <= allowed and change < 0 and covered + 1 > allowed else start
    return edges


def _cells(row: Sequence[_Run], edges: Sequence[float]) -> tuple[str, ...]:
    """A row's texts by column; what lies across a boundary stands where it begins."""
    cells: list[list[str]] = [[] for _ in range(len(edges) + 1)]
    for left, right, text in row:
        across = any(left < edge < right for edge in edges)
        cells[sum(edge < (left if across else (left + right) / 2) for edge in edges)].append(text)
    return tuple(" ".join(cell) for cell in cells)
