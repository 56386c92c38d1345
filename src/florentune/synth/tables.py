"""Tables as Typst code: booktabs, ruled, without rules, merged headers, row groups, colours, long and text-heavy."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from .words import Prose, acronym, number

TINTS = (
    "luma(235)", "luma(220)", "luma(245)", "rgb(225,235,250)", "rgb(230,245,230)", "rgb(255,240,220)",
    "rgb(250,228,230)", "rgb(255,250,215)", "rgb(238,230,248)",
)  # fmt: skip
TITLES = (
    "rgb(60,90,160)",
    "rgb(40,110,90)",
    "rgb(150,60,60)",
    "luma(60)",
    "luma(110)",
    "rgb(90,60,140)",
    "rgb(200,120,30)",
)
SPEAKERS = ("User", "Assistant", "System", "Input", "Output", "Question", "Answer", "Prompt", "Context", "Human", "AI")


@dataclass(frozen=True)
class Shape:
    """What is decided before a table's cells are written. `rows` does not count the `header` rows."""

    columns: int
    rows: int
    header: int
    style: str  # "booktabs" | "barred" (booktabs with vertical lines) | "full" | "columns" | "rows" | "none"
    kinds: tuple[int, ...]
    groups: frozenset[int]  # rows (0-based, without the header) that begin a group
    grouping: str  # "" | "rule" | "span" (first column spans the group) | "title" (a row names the group)


def table(prose: Prose, *, width: float, rows: int = 0) -> tuple[str, bool]:
    """One table's code, and whether it holds text that wraps (and so wants the full width).

    `width` in points decides how many columns there may be; `rows` 0 lets chance decide.
    """
    rng = prose.rng
    if rng.random() < (0.16 if width > 200 else 0.05):
        return _text_table(prose, width, rows), True
    shape = _shape(rng, width, rows)
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
    return f"table(columns: (auto, ..({widths},) * {shape.columns - 1}), {look}\n{code})", False


def _shape(rng: Random, width: float, rows: int) -> Shape:
    columns = rng.randint(2, 14 if width > 400 else 8 if width > 200 else 5)
    rows = rows or rng.choice((1, 2, 3, 3, 4, 5, 5, 6, 7, 8, 9, 10, 12, 14, 18, 24))
    style = rng.choice(("booktabs",) * 7 + ("barred", "full", "full", "columns", "rows", "none"))
    kinds = tuple(rng.randrange(8) if rng.random() < 0.4 else rng.choice((0, 0, 6)) for _ in range(columns))
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
    lines = [f"table.hline(y: {y}, stroke: {thick:.2f}pt)" for y in (0, total)]
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
    for row in range(shape.rows):
        cells = [f"[{_value(prose, kind)}]" for kind in shape.kinds[1:]]
        if row in tinted:
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
    if kind == 1:
        text = f"{rng.uniform(0, 1):.3f}"
    elif kind == 2:
        text = f"{rng.uniform(10, 99):.1f} $plus.minus$ {rng.uniform(0, 3):.1f}"
    elif kind == 3:
        text = f"{rng.randrange(10, 99999):,}"
    elif kind == 4:
        text = rng.choice(("$checkmark$", "$times$", "--"))
    elif kind == 5:
        text = f"{rng.uniform(1, 9):.1f}e-{rng.randint(1, 6)}"
    elif kind == 7:
        text = prose.plain(rng.randint(1, 2))
    else:
        text = f"{rng.uniform(0, 100):.{rng.choice((1, 1, 2))}f}"
        text += rng.choice(("",) * 12 + ("#super[\\*]", "#super[†]", " #text(fill: rgb(0,130,0), size: 0.8em)[(+1.2)]"))
    chance = rng.random()
    return f"*{text}*" if chance < 0.07 else f"#underline[{text}]" if chance < 0.1 else text


def _text_table(prose: Prose, width: float, rows: int) -> str:
    """A table of sentences: examples, definitions, hyper-parameters, symbols."""
    rng = prose.rng
    columns = rng.randint(2, 4 if width > 300 else 2)
    rows = min(rows, 14) or rng.choice((2, 3, 4, 5, 7, 9))
    longest = rng.choice((3, 8, 20, 35))
    bold = rng.random() < 0.5
    cells = [
        f"[*{prose.plain(1).capitalize()}*]" if bold else f"[{prose.plain(1).capitalize()}]" for _ in range(columns)
    ]
    for _ in range(rows):
        cells.append(f"[{rng.choice((_name(prose), '$lambda_1$', '$cal(D)$', prose.plain(1).capitalize()))}]")
        for _ in range(columns - 1):
            text = prose.plain(rng.randint(max(longest // 3, 1), longest)).capitalize()
            if rng.random() < 0.12:
                text += (
                    f" #text(fill: {rng.choice(('rgb(200,0,0)', 'rgb(0,0,200)', 'rgb(0,120,0)'))})[{prose.plain(4)}]"
                )
            cells.append(f"[{text}{rng.choice(('.', '', ''))}]")
    shape = Shape(
        columns, rows, 1, rng.choice(("booktabs", "booktabs", "full", "rows", "columns")), (), frozenset(), ""
    )
    if rng.random() < 0.4:
        shape = Shape(columns, rows, 1, shape.style, (), frozenset(range(rows)), "rule")
    first = f"{rng.uniform(0.14, 0.3):.2f}fr"
    fill = _fill(rng, shape)
    rules = _rules(shape, rows + 1, rng.choice((0.5, 0.8, 1.0)))
    inset = f"(x: {rng.uniform(2.5, 6):.1f}pt, y: {rng.uniform(2, 4.5):.1f}pt)"
    widths = f"({first}, {', '.join(['1fr'] * (columns - 1))})"
    return f"table(columns: {widths}, align: left, inset: {inset}, {fill} {rules}\n{', '.join(cells)})"


def prompt_box(prose: Prose) -> str:
    """Framed text such as a prompt or a dialogue, which papers caption as a table or as a figure."""
    rng = prose.rng
    mono = rng.random() < 0.35
    lines = []
    for _ in range(rng.randint(2, 9)):
        text = f"{prose.plain(rng.randint(5, 40)).capitalize()}."
        if rng.random() < 0.2:
            text = f"#text(fill: {rng.choice(TITLES)})[{text}]"
        if rng.random() < 0.12:
            text = f"#highlight(fill: {rng.choice(TINTS)})[{text}]"
        head = rng.choice(
            (f"*{rng.choice(SPEAKERS)}:* ", f"*\\#\\#\\# {rng.choice(SPEAKERS)}* ", "", f"{number(rng)}. ")
        )
        lines.append(head + text)
    tint = rng.choice((*TINTS, "white", "white", "white"))
    frame = (
        rng.choice(("0.5pt", "0.7pt", "none", "1pt + luma(120)")) if tint != "white" else rng.choice(("0.5pt", "0.8pt"))
    )
    radius = rng.choice((0, 0, 3, 5))
    font = '#set text(font: "DejaVu Sans Mono", size: 0.76em)\n' if mono else "#set text(size: 0.9em)\n"
    setup = "#set align(left)\n#set par(justify: false, first-line-indent: 0pt, leading: 0.5em, spacing: 0.75em)\n"
    setup += "#set block(spacing: 0.75em)\n"
    inner = f"block(width: 100%, inset: 6pt)[{setup}{font}{chr(10).join(line + chr(10) for line in lines)}]"
    if rng.random() < 0.4:
        title = f'text(fill: white, weight: "bold")[{prose.title(3)}]'
        inner = f"block(width: 100%, inset: 4pt, fill: {rng.choice(TITLES)}, align(left, {title})); {inner}"
    look = f"fill: {tint}, stroke: {frame}, radius: {radius}pt"
    return f"block(width: 100%, clip: true, {look}, {{ set block(spacing: 0pt); {inner} }})"
