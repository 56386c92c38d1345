"""Figures that look like tables: confusion matrices, grids of words, spreadsheets on a screen, pictures in rows."""

from __future__ import annotations

from .pictures import KINDS, data_url
from .plots import ramp
from .sketches import PASTEL
from .svg import PALETTES, Svg
from .words import Prose

FACES = ("DejaVu Sans", "DejaVu Sans", "STIXGeneral", "New Computer Modern")


def confusion(prose: Prose, width: float) -> Svg:
    """Counts or shares of classes against classes, coloured by value or not at all."""
    rng, count = prose.rng, prose.rng.randint(2, 12)
    cell = max(min(width / (count + 3), 46), 15)
    left, top, size = cell * 2, rng.choice((6.0, cell * 0.9)), min(cell * 0.34, 10)
    svg = Svg(left + count * cell + 6, top + count * cell + cell * 1.3, rng.choice(FACES))
    shades, share = rng.choice((0, 0, 3, 4, -1)), rng.random() < 0.5
    names = [prose.plain(1).capitalize()[:8] for _ in range(count)]
    for r in range(count):
        svg.text(left - 4, top + (r + 0.6) * cell, names[r], size, "end")
        svg.text(left + (r + 0.5) * cell, top + count * cell + size * 1.4, names[r], size, "middle", rng.choice((0, 0)))
        for c in range(count):
            v = rng.uniform(0.6, 1) if r == c else rng.random() ** 4
            fill = "none" if shades < 0 else ramp(shades, v)
            svg.rect(left + c * cell, top + r * cell, cell, cell, fill, "#fff" if shades >= 0 else "#888")
            ink = "#fff" if v > 0.55 and shades >= 0 else "#000"
            value = f"{v:.2f}" if share else f"{v * 900:.0f}"
            svg.text(left + (c + 0.5) * cell, top + (r + 0.6) * cell, value, size, "middle", fill=ink)
    svg.text(9, top + count * cell / 2, rng.choice(("True label", "Actual", prose.plain(1))), size * 1.1, "middle", -90)
    below = rng.choice(("Predicted label", "Predicted", prose.plain(2)))
    svg.text(left + count * cell / 2, svg.height - 3, below, size * 1.1, "middle")
    return svg


def word_grid(prose: Prose, width: float) -> Svg:
    """Words or short texts in a grid of coloured or framed cells."""
    rng, wide = prose.rng, max(min(width, 480), 150)
    columns, rows, size = rng.randint(2, 6), rng.randint(2, 8), rng.uniform(6, 9)
    lines, gap = rng.choice((1, 1, 2, 3)), rng.choice((0, 0, 2, 5))
    w, h = wide / columns, lines * size * 1.25 + rng.uniform(5, 12)
    svg = Svg(wide + 2, rows * h + 2, rng.choice(FACES))
    stroke, round_, colours = rng.choice(("#555", "#999", "none", "#fff")), rng.choice((0, 0, 4)), rng.sample(PASTEL, 5)
    by = rng.choice(("row", "column", "cell", "head", "none"))
    if by == "none":
        stroke = rng.choice(("#555", "#bbb"))
    for r in range(rows):
        for c in range(columns):
            k = {"row": r, "column": c, "cell": rng.randrange(5), "head": min(r, 1)}.get(by)
            fill = "#fff" if k is None else colours[k % 5]
            x, y = 1 + c * w, 1 + r * h
            svg.rect(x, y, w - gap, h - gap, fill, stroke, rx=round_)
            for line in range(lines):
                text = prose.plain(max(int(w / size / 3), 1))[: int(w / size * 1.6)]
                svg.text(x + (w - gap) / 2, y + size * (1.15 + 1.25 * line) + 1, text, size, "middle")
    return svg


def spreadsheet(prose: Prose, width: float) -> Svg:
    """Part of a spreadsheet's window: lettered columns, numbered rows, grey lines, a chosen cell."""
    rng, wide = prose.rng, max(min(width, 460), 180)
    columns, rows, h = rng.randint(3, 9), rng.randint(4, 18), rng.uniform(10, 14)
    w, size, figures = (wide - 18) / columns, rng.uniform(5.5, 7), rng.random() < 0.7
    svg = Svg(wide + 1, (rows + 1) * h + 1)
    svg.rect(0, 0, wide, h, "#e6e6e6")
    svg.rect(0, 0, 18, svg.height, "#e6e6e6")
    tint = rng.choice(("#fff", "#fff", "#e2efda", "#fff2cc", "#ddebf7"))
    for r in range(rows + 1):
        svg.line((0, r * h), (wide, r * h), "#bbb", 0.5)
        if r:
            svg.text(9, r * h + h * 0.7, str(r), size, "middle", fill="#555")
    for c in range(columns + 1):
        svg.line((18 + c * w, 0), (18 + c * w, svg.height), "#bbb", 0.5)
    for c in range(columns):
        svg.text(18 + (c + 0.5) * w, h * 0.7, "ABCDEFGHIJ"[c], size, "middle", fill="#555")
        if tint != "#fff":
            svg.rect(18.5 + c * w, h + 0.5, w - 1, h - 1, tint)
        for r in range(1, rows + 1):
            if r == 1 or not figures or c == 0:
                text = prose.plain(2).capitalize()[: int(w / size * 1.5)]
                svg.text(20 + c * w, r * h + h * 0.7, text, size, font_weight="bold" if r == 1 else "normal")
            else:
                svg.text(16 + (c + 1) * w, r * h + h * 0.7, f"{rng.uniform(0, 9999):,.1f}", size, "end")
    c, r = rng.randrange(columns), rng.randint(1, rows)
    svg.rect(18 + c * w, r * h, w, h, "none", rng.choice(("#217346", "#1a73e8")), stroke_width=1.2)
    return svg


def picture_rows(prose: Prose, width: float) -> Svg:
    """Rows of a name, pictures and figures under column heads, with a table's rules."""
    rng, wide = prose.rng, max(min(width, 480), 150)
    columns, rows, size = rng.randint(2, 6), rng.randint(1, 5), rng.uniform(7, 9)
    w = wide / columns
    tall, head = w * rng.uniform(0.45, 0.9), size * 1.9
    svg = Svg(wide, head + rows * (tall + 4) + 2, rng.choice(FACES))
    pictured = [c > 0 and rng.random() < 0.7 for c in range(columns)]
    pictured[-1] = pictured[-1] or not any(pictured)
    kind = rng.choice(KINDS)
    pool = [data_url(kind(rng, 72, max(int(72 * tall / w), 8))) for _ in range(6)]
    for c in range(columns):
        svg.text((c + 0.5) * w, size * 1.25, prose.plain(1).capitalize()[: int(w / size * 1.6)], size, "middle")
        for r in range(rows):
            y = head + r * (tall + 4) + 2
            if pictured[c]:
                svg.image(c * w + 3, y, w - 6, tall, rng.choice(pool))
                continue
            for k in range(rng.choice((1, 1, 2, 3)) if tall > size * 5 else 1):
                text = prose.plain(3).capitalize() if rng.random() < 0.6 else f"{rng.uniform(0, 99):.2f}"
                svg.text((c + 0.5) * w, y + tall * 0.4 + k * size * 1.3, text[: int(w / size * 1.6)], size, "middle")
    thick = rng.choice((0, 0.6, 0.8, 1.1))
    every = rng.random() < 0.4
    for r in range(rows + 1 if thick else 0):
        if every or r in (0, rows):
            y = head + r * (tall + 4)
            svg.line((0, y), (wide, y), "#000", thick * (1 if r == rows else 0.6))
    if thick:
        svg.line((0, thick / 2), (wide, thick / 2), "#000", thick)
    if rng.random() < 0.15:
        svg.rect(0.4, 0.4, wide - 0.8, svg.height - 0.8, "none", rng.choice(PALETTES)[0])
    return svg


GRIDS = (confusion, confusion, word_grid, word_grid, spreadsheet, picture_rows)
