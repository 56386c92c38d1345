"""Tables of results as Typst code: booktabs, ruled, without rules, merged headers, row groups, colours, long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .text_tables import TINTS
from .words import Prose, acronym

STYLES = (*("booktabs",) * 7, "barred", "full", "full", "columns", "rows", "none", "none", "head", "head", "ends")
HEAT = ("blue.lighten({}%)", "green.lighten({}%)", "red.lighten({}%)", "orange.lighten({}%)", "gray.lighten({}%)")


@dataclass(frozen=True)
class Shape:
    """What is decided before a table's cells are written. `rows` does not count the `header` rows."""

    columns: int
    rows: int
    header: int
    style: str  # one of STYLES; "barred" is booktabs with vertical lines, "head" has one rule under the header
    kinds: tuple[int, ...]
    groups: frozenset[int]  # rows (0-based, without the header) that begin a group
    grouping: str  # "" | "rule" | "span" (first column spans the group) | "title" (a row names the group)


def table(prose: Prose, *, width: float, rows: int = 0, style: str = "") -> str:
    """One table's code. `width` in points decides how many columns there may be; `rows` 0 and `style` "" are chance."""
    rng = prose.rng
    shape = _shape(rng, width, rows, style or rng.choice(STYLES))
    parts = [_header(prose, shape.columns, shape.header), *_body(prose, shape)]
    even = rng.random() < 0.12 and width / shape.columns > 45
    widths = f"{width / (shape.columns + 0.5) * rng.uniform(0.7, 0.98):.0f}pt" if even else "auto"
    align = rng.choice(
        (
            "center",
            "left",
            "(x, y) => if x == 0 { left } else { center }",
            "(x, y) => if x == 0 { left } else { right }",
        )
    )
    inset = f"(x: {rng.uniform(2.2, 8):.1f}pt, y: {rng.uniform(1.5, 4.5):.1f}pt)"
    total = shape.header + shape.rows + (len(shape.groups) if shape.grouping == "title" else 0)
    rules = _rules(shape, total, rng.choice((0.5, 0.7, 0.8, 1.0, 1.2)))
    code = ",\n".join(part for part in parts if part)
    look = f"align: {align}, inset: {inset}, {_fill(rng, shape)} {rules}"
    return f"table(columns: (auto, ..({widths},) * {shape.columns - 1}), {look}\n{code})"


def _shape(rng: Random, width: float, rows: int, style: str) -> Shape:
    columns = rng.randint(2, 14 if width > 400 else 8 if width > 200 else 5)
    rows = rows or rng.choice((1, 2, 3, 3, 4, 5, 5, 6, 7, 8, 9, 10, 12, 14, 18, 24))
    chance = rng.random()
    if chance < 0.1:
        kinds = (WORDS,) * columns
    elif chance < 0.25:
        kinds = (rng.randrange(WORDS + 1),) * columns
    else:
        kinds = tuple(rng.randrange(WORDS + 1) if rng.random() < 0.4 else 0 for _ in range(columns))
    groups: frozenset[int] = frozenset()
    grouping = rng.choice(("", "", "rule", "rule", "span", "title")) if rows > 3 else ""
    if grouping:
        step = rng.choice((2, 3, 4, 5))
        groups = frozenset(range(0, rows, step))
    return Shape(columns, rows, rng.choice((1, 1, 1, 2)) if columns > 3 else 1, style, kinds, groups, grouping)


def _fill(rng: Random, shape: Shape) -> str:
    chance, tint = rng.random(), rng.choice(TINTS)
    if chance < 0.08:
        return f"fill: (x, y) => if y > 0 and calc.even(y) {{ {tint} }},"
    if chance < 0.16:
        return f"fill: (x, y) => if y < {shape.header} {{ {tint} }},"
    if chance < 0.20:
        return f"fill: (x, y) => if x == {rng.randrange(shape.columns)} {{ {tint} }},"
    return ""


def _rules(shape: Shape, total: int, thick: float) -> str:
    """The `stroke` and line arguments of one ruling style; `total` counts all rows."""
    header = shape.header
    if shape.style == "full":
        return f"stroke: {thick / 2:.2f}pt,"
    if shape.style == "columns":
        ends = f"top: if y in (0, {header}) {{ {thick:.2f}pt }}, bottom: if y == {total - 1} {{ {thick:.2f}pt }}"
        return f"stroke: (x, y) => ({ends}, left: if x > 0 {{ {thick / 2:.2f}pt }}),"
    if shape.style == "rows":
        return f"stroke: (x, y) => (bottom: {thick / 2:.2f}pt, top: if y == 0 {{ {thick:.2f}pt }}),"
    if shape.style == "none":
        return "stroke: none,"
    if shape.style == "head":
        return f"stroke: none, table.hline(y: {header}, stroke: {thick * 0.6:.2f}pt),"
    lines = [f"table.hline(y: {y}, stroke: {thick:.2f}pt)" for y in (0, total)]
    if shape.style != "ends":
        lines += [f"table.hline(y: {header}, stroke: {thick * 0.6:.2f}pt)"]
    if shape.grouping in ("rule", "span"):
        lines += [f"table.hline(y: {header + row}, stroke: {thick * 0.5:.2f}pt)" for row in sorted(shape.groups) if row]
    if shape.style == "barred":
        lines += [f"table.vline(x: {x}, stroke: {thick * 0.5:.2f}pt)" for x in {1, shape.columns - 1}]
    return f"stroke: none, {', '.join(lines)},"


def _header(prose: Prose, columns: int, header: int) -> str:
    rng, bold = prose.rng, prose.rng.random() < 0.5
    names = [prose.plain(1).capitalize() if rng.random() < 0.6 else acronym(rng) for _ in range(columns)]
    if columns > 7 or rng.random() < 0.3:
        names = [name[:5] + rng.choice(("", "", " $arrow.t$", " $arrow.b$", "\\@1", " (%)")) for name in names]
    if rng.random() < 0.1:
        names[0] = ""
    cells = [f"[*{name}*]" if bold and name else f"[{name}]" for name in names]
    if header == 1:
        return ", ".join(cells)
    spans, left = [rng.choice(("[]", f"[{prose.plain(1).capitalize()}]"))], columns - 1
    at, lines = 1, ""
    while left:
        span = min(rng.randint(1, 4), left)
        spans.append(f"table.cell(colspan: {span}, align: center)[{prose.plain(1).capitalize()}]")
        if span > 1:
            lines += f"table.hline(y: 1, start: {at}, end: {at + span}, stroke: 0.4pt), "
        at, left = at + span, left - span
    return lines + ", ".join(spans) + ",\n" + ", ".join(cells)


def _body(prose: Prose, shape: Shape) -> list[str]:
    rng, parts = prose.rng, []
    step = min((row for row in shape.groups if row), default=shape.rows)
    tinted = {row for row in range(shape.rows) if rng.random() < 0.03} | (
        {shape.rows - 1} if rng.random() < 0.15 else set()
    )
    cite = rng.random() < 0.25
    heat = rng.choice(HEAT) if rng.random() < 0.08 else ""
    for row in range(shape.rows):
        cells = [f"[{_value(prose, kind)}]" for kind in shape.kinds[1:]]
        if heat:
            cells = [f"table.cell(fill: {heat.format(rng.randint(0, 85))}){cell}" for cell in cells]
        elif row in tinted:
            tint = rng.choice(TINTS)
            cells = [f"table.cell(fill: {tint}){cell}" for cell in cells]
        first = f"[{_name(prose)}{' ' + prose.citation() if cite else ''}]"
        if row in shape.groups and shape.grouping == "title":
            look = rng.choice(("_", "*", ""))
            parts.append(
                f"table.cell(colspan: {shape.columns})[{look}{prose.plain(rng.randint(1, 5)).capitalize()}{look}]"
            )
        if shape.grouping == "span":
            span = min(step, shape.rows - row)
            head = [f"table.cell(rowspan: {span}, align: horizon){first}"] if row in shape.groups else []
            cells = [*head, f"[{_name(prose)}]", *cells[1:]] if shape.columns > 2 else [*head, *cells]
        else:
            cells = [first, *cells]
        parts.append(", ".join(cells))
    return parts


def _name(prose: Prose) -> str:
    """A row's name: a method, some words, or a setting."""
    rng = prose.rng
    kind = rng.random()
    if kind < 0.45:
        return acronym(rng)
    if kind < 0.6:
        return f"{rng.choice(('+', 'w/o', '-'))} {prose.plain(rng.randint(1, 2))}".replace("+ ", "\\+ ").replace(
            "- ", "\\- "
        )
    return prose.plain(rng.randint(1, 3)).capitalize()


def _value(prose: Prose, kind: int) -> str:
    rng = prose.rng
    text = prose.plain(rng.randint(1, 2)) if kind == WORDS else VALUES[kind](rng)
    chance = rng.random()
    return f"*{text}*" if chance < 0.07 else f"#underline[{text}]" if chance < 0.1 else text


def _score(rng: Random) -> str:
    text = f"{rng.uniform(0, 100):.{rng.choice((1, 1, 2))}f}"
    return text + rng.choice((
        *("",) * 12, "#super[\\*]", "#super[†]", " #text(fill: rgb(0,130,0), size: 0.8em)[(+1.2)]",
    ))  # fmt: skip


def _interval(rng: Random) -> str:
    middle = rng.uniform(10, 90)
    return f"{middle:.1f} \\[{middle - rng.uniform(0, 9):.1f}, {middle + rng.uniform(0, 9):.1f}\\]"


def _coefficient(rng: Random) -> str:
    stars = rng.choice((0, 0, 1, 2, 3)) * "\\*"
    return f"{rng.uniform(-2, 2):.3f}#super[{stars}] ({rng.uniform(0, 1):.3f})".replace("-", "−")


FORMULAS = ("$10^(-4)$", "$2^(10)$", "$O(n^2)$", "$n log n$", "$lambda = 0.1$", "$pi slash 2$", "$d_k = 64$")
UNITS = ("M", "K", "B", "G", " ms", "s", "%", "x")
VALUES: tuple[Callable[[Random], str], ...] = (
    _score,
    lambda rng: f"{rng.uniform(0, 1):.3f}",
    lambda rng: f"{rng.uniform(10, 99):.1f} $plus.minus$ {rng.uniform(0, 3):.1f}",
    lambda rng: f"{rng.randrange(10, 99999):,}",
    lambda rng: rng.choice(("$checkmark$", "$times$", "--")),
    lambda rng: f"{rng.uniform(1, 9):.1f}e-{rng.randint(1, 6)}",
    _interval,
    _coefficient,
    lambda rng: f"{rng.randint(1, 48)}h {rng.randint(0, 59)}m",
    lambda rng: f"{rng.uniform(0.1, 900):.{rng.choice((0, 1))}f}{rng.choice(UNITS)}",
    lambda rng: rng.choice(FORMULAS),
    lambda rng: f"{rng.randint(1, 90)}/{rng.randint(90, 400)}",
)
WORDS = len(VALUES)  # the kind of a column of words
