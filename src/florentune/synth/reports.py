"""Tables of reports: a stub of words, right-aligned figures, thin rules or none, totals, units, notes below."""

from __future__ import annotations

from random import Random

from .text_tables import TINTS, TITLES
from .vocabulary import STATISTICS
from .words import Prose, invented

LOOKS = (
    "none", "none", "header", "header", "ends", "ends", "booktabs", "hairlines", "hairlines", "grid", "grid", "zebra",
    "band", "frame", "dotted", "sheet",
)  # fmt: skip
GREY = ("luma(120)", "luma(170)", "luma(90)", "black", "black")


def statistics_table(prose: Prose, *, width: float, height: float) -> tuple[str, bool]:
    """Code of a table of at most about `width` x `height` points, and whether it takes the full width."""
    rng = prose.rng
    most = max(int(width / 44), 2)
    figures = rng.randint(1, min(most, 12))
    rows = min(rng.choice((2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 26, 34, 44)), max(int(height / 12), 3))
    look = rng.choice(LOOKS)
    heads = _heads(prose, figures, look)
    body = _body(prose, figures, rows, look)
    stretched = rng.random() < 0.5
    stub = f"{rng.uniform(1.4, 3.2):.2f}fr" if stretched else "auto"
    widths = f"({stub}, ..({'1fr' if stretched else 'auto'},) * {figures})"
    side = rng.choice(("right", "right", "right", "right", "center"))
    over = rng.choice((side, "center"))
    align = f"(x, y) => if x == 0 {{ left }} else if y < {len(heads)} {{ {over} }} else {{ {side} }}"
    inset = f"(x: {rng.uniform(2.5, 7):.1f}pt, y: {rng.choice((0.9, 1.5, 2.2, 3, 4.5, 6)):.1f}pt)"
    style = f"columns: {widths}, align: {align}, inset: {inset}, {_rules(rng, look, len(heads), len(body))}"
    return f"table({style}\n{', '.join([*heads, *body])})", stretched


def _heads(prose: Prose, figures: int, look: str) -> list[str]:
    """The header's rows as code: years, groups over years, words, column numbers."""
    rng, year, rows = prose.rng, prose.rng.randint(1990, 2015), []
    bold = "*" if rng.random() < 0.6 or look == "band" else ""
    colour = "white" if look == "band" else "black"

    def cell(text: str) -> str:
        return f"text(fill: {colour})[{bold}{text}{bold}]" if text else "[]"

    if figures > 3 and figures % 2 == 0 and rng.random() < 0.35:
        span = rng.choice([k for k in (2, 3, figures // 2) if figures % k == 0])
        names = [_words(prose, 3).capitalize() for _ in range(figures // span)]
        rows.append(", ".join(["[]", *(f"table.cell(colspan: {span}, align: center, {cell(name)})" for name in names)]))
    if rng.random() < 0.5:
        step = rng.choice((1, 1, 1, 5))
        names = [f"{year + k * step}{rng.choice(('', '', '', '*'))}".replace("*", "\\*") for k in range(figures)]
    else:
        long = rng.choice((1, 2, 3, 5))
        names = [_words(prose, rng.randint(1, long)).capitalize() for _ in range(figures)]
    first = rng.choice(("", _words(prose, 1).capitalize(), _words(prose, 2).capitalize()))
    rows.append(", ".join(cell(name) for name in (first, *names)))
    if rng.random() < 0.1:
        rows.append(", ".join(["[]", *(cell(f"({k + 1})") for k in range(figures))]))
    elif rng.random() < 0.15:
        rows.append(
            ", ".join(["[]", *(f"[{rng.choice(('%', 'EUR', 'No.', 'tonnes', 'km'))}]" for _ in range(figures))])
        )
    return rows


def _words(prose: Prose, count: int) -> str:
    rng = prose.rng
    words = [rng.choice(STATISTICS) if rng.random() < 0.8 else prose.plain(1) for _ in range(count)]
    if count > 2:
        words[1] = rng.choice(("of", "and", "in", "by", "per"))
    return " ".join(words)


def _body(prose: Prose, figures: int, rows: int, look: str) -> list[str]:
    rng = prose.rng
    formats = [_format(rng)] * figures if rng.random() < 0.6 else [_format(rng) for _ in range(figures)]
    places = rng.random() < 0.4
    grouped, indent = rng.choice((0, 0, 4, 6)), rng.choice((0, 5, 9))
    long = rng.choice((1, 2, 4, 7))
    words = rng.random() < 0.08
    body = []
    for row in range(rows):
        name = invented(rng).capitalize() if places else _words(prose, rng.randint(1, long)).capitalize()
        if look == "sheet":
            name = f"{row + 1} #h(6pt) {name}"
        heading = grouped and row % grouped == 0
        if heading and rng.random() < 0.5:
            body.append(f"table.cell(colspan: {figures + 1})[*{_words(prose, 3).capitalize()}*]")
        total = heading or (row == rows - 1 and rng.random() < 0.5)
        bold = "*" if total and rng.random() < 0.8 else ""
        if row == rows - 1 and bold and not heading:
            name = rng.choice(("Total", "All", "TOTAL", "Average", "Sum"))
        gap = "" if total or not grouped else f"#h({indent}pt)"
        note = f"#super[({rng.randint(1, 5)})]" if rng.random() < 0.06 else ""
        values = [_words(prose, rng.randint(1, 3)) if words else _figure(rng, kind) for kind in formats]
        body.append(", ".join([f"[{gap}{bold}{name}{bold}{note}]", *(f"[{bold}{value}{bold}]" for value in values)]))
    return body


def _format(rng: Random) -> tuple[str, int, int, str]:
    """Thousands separator, decimals, greatest value, what follows."""
    places = rng.choice((0, 0, 0, 1, 1, 2))
    return (
        rng.choice((",", "~", "~", ".", "")),
        places,
        rng.choice((100, 100, 1000, 10_000)) if places else rng.choice((60, 900, 20_000, 900_000, 30_000_000)),
        rng.choice(("", "", "", "", "", "%", " %")),
    )


def _figure(rng: Random, kind: tuple[str, int, int, str]) -> str:
    separator, places, most, after = kind
    if rng.random() < 0.04:
        return rng.choice(("..", "--", "n.a.", ":", "0", "-"))
    value = rng.uniform(0, most) * (-1 if rng.random() < 0.05 else 1)
    text = f"{value:,.{places}f}"
    point = "," if separator in (".", "~") else "."
    return text.replace(",", "\0").replace(".", point).replace("\0", separator).replace("-", "−") + after


def _rules(rng: Random, look: str, heads: int, rows: int) -> str:
    total, thick = heads + rows, rng.choice((0.25, 0.4, 0.5, 0.8, 1.2))
    stroke = f"{thick}pt + {rng.choice(GREY)}"
    tint = rng.choice(TINTS)
    under = f"table.hline(y: {heads}, stroke: {stroke})"
    ends = f"table.hline(y: 0, stroke: {stroke}), table.hline(y: {total}, stroke: {stroke})"
    band = f"fill: (x, y) => if y < {heads} {{ {tint} }},"
    shaded = band if rng.random() < 0.3 else ""
    return {
        "none": "stroke: none,",
        "header": f"stroke: none, {shaded} {under},",
        "ends": f"stroke: none, {shaded} {ends},",
        "booktabs": f"stroke: none, {ends}, {under},",
        "hairlines": f"{shaded} stroke: (x, y) => (y: {stroke}),",
        "dotted": f'stroke: (x, y) => (bottom: (thickness: {thick}pt, dash: "dotted")),',
        "grid": f"{shaded} stroke: {stroke},",
        "zebra": f"stroke: none, fill: (x, y) => if calc.odd(y) {{ {tint} }}, {ends},",
        "band": f"stroke: (x, y) => (bottom: {stroke}), fill: (x, y) => if y < {heads} {{ {rng.choice(TITLES)} }},",
        "frame": f"stroke: (x, y) => (top: if y in (0, {heads}) {{ {stroke} }}, bottom: if y == {total - 1} "
        f"{{ {stroke} }}, left: {stroke}, right: {stroke}), {shaded}",
        "sheet": f"stroke: 0.3pt + luma(190), fill: (x, y) => if y < {heads} or x == 0 {{ luma(235) }},",
    }[look]


def title(prose: Prose) -> str:
    """What stands over a report's table where no "Table 1" does: its matter, years and unit, as plain text."""
    rng = prose.rng
    years = rng.choice(("", f", {rng.randint(1990, 2015)}", f", {rng.randint(1990, 2004)}-{rng.randint(2005, 2020)}"))
    unit = rng.choice(("", "", " (%)", " (in thousands)", " (EUR million)", " (per 1000 inhabitants)"))
    return f"{_words(prose, rng.randint(3, 7)).capitalize()}{years}{unit}"


def notes(prose: Prose) -> str:
    """Markup of the source and the notes below a table."""
    rng = prose.rng
    lines = [f"({k + 1}) {_words(prose, rng.randint(3, 14)).capitalize()}." for k in range(rng.choice((0, 0, 1, 2, 4)))]
    source = f"{rng.choice(('Source', 'Source', 'Sources', 'Note'))}: {prose.title(rng.randint(2, 8))}."
    return " \\ ".join([*lines, source] if rng.random() < 0.5 else [source, *lines])
