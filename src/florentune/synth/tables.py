"""Tables as Typst markup: booktabs, fully ruled, without rules, with merged headers, colours, long and text-heavy."""

from __future__ import annotations

from random import Random

from .words import Prose, acronym

MARKS = ("✓", "✗", "--", "n/a", "$plus.minus$", "$checkmark$", "$times$")


def _value(rng: Random, kind: int) -> str:
    if kind == 0:
        return f"{rng.uniform(0, 100):.1f}"
    if kind == 1:
        return f"{rng.uniform(0, 1):.3f}"
    if kind == 2:
        return f"{rng.uniform(10, 99):.1f} $plus.minus$ {rng.uniform(0, 3):.1f}"
    if kind == 3:
        return f"{rng.randrange(10, 99999):,}"
    if kind == 4:
        return rng.choice(("$checkmark$", "$times$", "--"))
    if kind == 5:
        return f"{rng.uniform(1, 9):.1f}e-{rng.randint(1, 6)}"
    value = f"{rng.uniform(20, 99):.2f}"
    return value + rng.choice(("", "", "", "", "#super[\\*]", "#super[a]", "#super[†]", "#super[\\*\\*]"))


def _cell(prose: Prose, kind: int, words: int) -> str:
    rng = prose.rng
    text = prose.plain(rng.randint(max(words // 2, 1), words)).capitalize() if words else _value(rng, kind)
    chance = rng.random()
    if chance < 0.06:
        return f"*{text}*"
    return f"#underline[{text}]" if chance < 0.08 else text


def _rules(style: str, rows: int, header: int, groups: set[int], thick: float) -> str:
    """The `stroke` and `hline` arguments of one ruling style."""
    if style == "full":
        return f"stroke: {thick / 2:.2f}pt,"
    if style == "columns":
        return f"stroke: (x, y) => (top: if y in (0, {header}) {{ {thick:.2f}pt }}, left: if x > 0 {{ {thick / 2:.2f}pt }}, bottom: if y == {rows - 1} {{ {thick:.2f}pt }}),"
    if style == "rows":
        return f"stroke: (x, y) => (bottom: {thick / 2:.2f}pt, top: if y == 0 {{ {thick:.2f}pt }}),"
    if style == "none":
        return "stroke: none,"
    lines = [f"table.hline(y: {header}, stroke: {thick * 0.6:.2f}pt)"]
    lines += [f"table.hline(y: {y}, stroke: {thick * 0.5:.2f}pt)" for y in sorted(groups)]
    ends = f"table.hline(y: 0, stroke: {thick:.2f}pt), table.hline(y: {rows}, stroke: {thick:.2f}pt)"
    return f"stroke: none, {ends}, {', '.join(lines)},"


def table(prose: Prose, *, wide: bool, rows: int = 0) -> str:
    """One table's markup. `wide`: it may take the page's whole width. `rows` 0 lets chance decide."""
    rng = prose.rng
    text_heavy = rng.random() < 0.16
    columns = rng.randint(2, 4) if text_heavy else rng.randint(2, 12 if wide else 7)
    rows = rows or rng.choice((2, 3, 4, 5, 6, 8, 10, 12, 16, 22) if not text_heavy else (2, 3, 4, 6))
    header = rng.choice((1, 1, 1, 2)) if columns > 3 and not text_heavy else 1
    style = rng.choice(("booktabs",) * 7 + ("full", "full", "columns", "rows", "none"))
    kinds = [rng.randrange(7) if rng.random() < 0.4 else 0 for _ in range(columns)]
    groups = {header + k for k in range(1, rows) if rng.random() < 0.12}
    total = rows + header
    parts = [_header(prose, columns, header, text_heavy)]
    for row in range(rows):
        first = rng.choice((acronym(rng), prose.plain(rng.randint(1, 3)).capitalize()))
        if rng.random() < 0.2:
            first += " " + prose.citation()
        words = rng.randint(6, 24) if text_heavy else 0
        cells = [f"[{first}]"] + [f"[{_cell(prose, kinds[c], words)}]" for c in range(1, columns)]
        if row == rows - 1 and rng.random() < 0.3:
            cells = [f"table.cell(fill: {_tint(rng)}){cell}" for cell in cells]
        parts.append(", ".join(cells))
    width = "auto" if not text_heavy else "1fr"
    widths = (
        f"({', '.join(['auto'] + [width] * (columns - 1))})"
        if rng.random() < 0.85 or text_heavy
        else f"(1fr,) * {columns}"
    )
    stripes = f"fill: (x, y) => if y > 0 and calc.even(y) {{ {_tint(rng)} }}," if rng.random() < 0.1 else ""
    if not stripes and rng.random() < 0.08:
        stripes = f"fill: (x, y) => if y < {header} {{ {_tint(rng)} }},"
    align = "left" if text_heavy else rng.choice(("center", "left", "(x, y) => if x == 0 { left } else { center }"))
    inset = f"(x: {rng.uniform(2.5, 7):.1f}pt, y: {rng.uniform(1.6, 4.5):.1f}pt)"
    rules = _rules(style, total, header, groups, rng.choice((0.6, 0.8, 1.0, 1.2)))
    body = ",\n".join(parts)
    return f"table(columns: {widths}, align: {align}, inset: {inset}, {stripes} {rules}\n{body})"


def _header(prose: Prose, columns: int, header: int, text_heavy: bool) -> str:
    rng, bold = prose.rng, prose.rng.random() < 0.5
    names = [prose.plain(1).capitalize() if rng.random() < 0.6 else acronym(rng) for _ in range(columns)]
    if not text_heavy and rng.random() < 0.3:
        names = [name[:5] + rng.choice(("", " $arrow.t$", " $arrow.b$", "\\@1", " (%)")) for name in names]
    cells = [f"[*{name}*]" if bold else f"[{name}]" for name in names]
    if header == 1:
        return ", ".join(cells)
    spans, left = [f"[{prose.plain(1).capitalize()}]"], columns - 1
    while left:
        span = min(rng.randint(1, 4), left)
        spans.append(f"table.cell(colspan: {span}, align: center)[{prose.plain(1).capitalize()}]")
        left -= span
    return ", ".join(spans) + ",\n" + ", ".join(cells)


def _tint(rng: Random) -> str:
    return rng.choice(
        ("luma(235)", "luma(220)", "rgb(225,235,250)", "rgb(230,245,230)", "rgb(255,240,220)", "rgb(250,228,230)")
    )


def prompt_box(prose: Prose) -> str:
    """Framed text such as a prompt or a dialogue, which papers caption as a table or as a figure."""
    rng = prose.rng
    lines = []
    for _ in range(rng.randint(3, 9)):
        head = rng.choice(("User", "Assistant", "System", "Input", "Output", "Question", "Answer", "Prompt", "Context"))
        lines.append(f"*{head}:* {prose.plain(rng.randint(8, 40))}.")
    fill, frame = rng.choice((("none", "0.6pt"), (_tint(rng), "none"), (_tint(rng), "0.8pt"), ("luma(247)", "0.5pt")))
    font = '#set text(font: "DejaVu Sans Mono", size: 0.78em)\n' if rng.random() < 0.35 else ""
    align = "#set align(left)\n#set par(justify: false, first-line-indent: 0pt)\n"
    return f"block(width: 100%, inset: 6pt, fill: {fill}, stroke: {frame}, radius: {rng.choice((0, 0, 4))}pt)[{align}{font}{chr(10).join(l + chr(10) for l in lines)}]"
