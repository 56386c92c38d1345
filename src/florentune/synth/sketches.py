"""More drawings as SVG: taxonomies, conversations, screens, molecules, maps, surfaces, fields, signals and matrices."""

from __future__ import annotations

import math
from random import Random

from .pictures import data_url, picture
from .svg import PALETTES, Point, Svg
from .words import Prose

PASTEL = ("#dae8fc", "#d5e8d4", "#ffe6cc", "#f8cecc", "#e1d5e7", "#fff2cc", "#f5f5f5", "#ffffff", "#cfe2f3", "#fce5cd")


def _lines(prose: Prose, words: int, room: int) -> list[str]:
    """Plain words broken into lines of at most `room` letters."""
    lines = [""]
    for word in prose.plain(words).split():
        if len(lines[-1]) + len(word) < room:
            lines[-1] = f"{lines[-1]} {word}".strip()
        else:
            lines.append(word)
    return [line for line in lines if line]


def taxonomy(prose: Prose, width: float) -> Svg:
    """A tree that grows to the right, of boxes with right-angled branches."""
    rng, wide = prose.rng, max(width, 300) / 3.4
    groups = [rng.randint(1, 4) for _ in range(rng.randint(2, 6))]
    row, size = rng.uniform(14, 22), rng.uniform(5.5, 7.5)
    svg, colours = Svg(wide * 3.4, sum(groups) * row + 6), rng.sample(PASTEL, 3)
    middle = svg.height / 2
    svg.rect(0, middle - 22, 16, 44, colours[0], "#555", rx=3)
    svg.text(10, middle, prose.plain(1)[:9], size, "middle", -90)
    at = 3.0
    for leaves in groups:
        centre = at + leaves * row / 2
        svg.path([(16, middle), (24, middle), (24, centre), (34, centre)], "#777", 0.7)
        svg.rect(34, centre - row * 0.4, wide * 0.9, row * 0.8, colours[1], "#777", rx=2)
        svg.text(34 + wide * 0.45, centre + size * 0.35, prose.plain(2).title()[:22], size, "middle")
        for k in range(leaves):
            y = at + (k + 0.5) * row
            x = 34 + wide * 0.9
            svg.path([(x, centre), (x + 8, centre), (x + 8, y), (x + 16, y)], "#777", 0.7)
            svg.rect(x + 16, y - row * 0.4, svg.width - x - 18, row * 0.8, colours[2], "#777", rx=2)
            svg.text(x + 20, y + size * 0.35, prose.plain(7)[: int((svg.width - x) / size * 1.6)], size)
        at += leaves * row
    return svg


def conversation(prose: Prose, width: float) -> Svg:
    """Speech bubbles from both sides, or cards of text with coloured heads."""
    rng, size, wide = prose.rng, prose.rng.uniform(6, 8.5), max(min(width, 420), 180)
    svg, y, cards = Svg(wide, 400), 4.0, prose.rng.random() < 0.4
    for turn in range(rng.randint(2, 7)):
        room = wide * (0.94 if cards else rng.uniform(0.5, 0.8))
        lines = _lines(prose, rng.randint(5, 40), int(room / size * 1.75))
        tall = len(lines) * size * 1.3 + 10
        x = 4 if turn % 2 == 0 or cards else wide - room - 4
        svg.rect(
            x,
            y,
            room,
            tall + (12 if cards else 0),
            rng.choice(PASTEL),
            rng.choice(("none", "#999")),
            rx=rng.choice((0, 6)),
        )
        if cards:
            svg.rect(x, y, room, 12, rng.choice(PALETTES)[0])
            svg.text(x + 4, y + 9, prose.title(2), size, fill="#fff", font_weight="bold")
            y += 12
        for k, line in enumerate(lines):
            svg.text(x + 5, y + 5 + size * (1 + 1.3 * k), line, size)
        y += tall + 6
    svg.height = y
    return svg


def screen(prose: Prose, width: float) -> Svg:
    """A program's window: title bar, menu, list, form fields, buttons and a picture."""
    rng, wide = prose.rng, max(min(width, 380), 200)
    svg, dark = Svg(wide, wide * rng.uniform(0.5, 0.8)), rng.random() < 0.25
    ground, ink = ("#2b2b2b", "#ddd") if dark else ("#ffffff", "#333")
    svg.rect(0.5, 0.5, wide - 1, svg.height - 1, ground, "#888", rx=4)
    svg.rect(0.5, 0.5, wide - 1, 14, rng.choice(("#e8e8e8", "#3b5998", "#444", "#f0f0f0")), "#888")
    for k, colour in enumerate(("#ff5f57", "#febc2e", "#28c840")):
        svg.circle(9 + 9 * k, 7.5, 3, colour)
    side = wide * 0.27
    svg.rect(1, 15, side, svg.height - 16, "#383838" if dark else "#f3f4f6")
    for k in range(int((svg.height - 30) / 12)):
        svg.text(8, 28 + 12 * k, prose.plain(2)[: int(side / 4.6)], 6.5, fill=ink)
    y = 24.0
    while y < svg.height - 30:
        kind = rng.random()
        if kind < 0.4:
            svg.text(side + 10, y + 8, prose.plain(12)[: int((wide - side) / 3.9)], 6.5, fill=ink)
            y += 12
        elif kind < 0.6:
            svg.rect(side + 10, y, wide - side - 24, 13, "none", "#aaa", rx=2)
            svg.text(side + 14, y + 9, prose.plain(3)[:30], 6, fill="#888")
            y += 18
        elif kind < 0.8:
            svg.rect(side + 10, y, 46, 13, rng.choice(("#1a73e8", "#34a853", "#d93025")), rx=3)
            svg.text(side + 33, y + 9, prose.plain(1)[:9], 6.5, "middle", fill="#fff")
            y += 18
        else:
            tall = min(svg.height - y - 6, 60)
            svg.image(side + 10, y, tall * 1.4, tall, data_url(picture(rng, 90, 64)))
            y += tall + 6
    return svg


def molecule(prose: Prose, width: float) -> Svg:
    """One or more skeletal formulas: fused rings with chains and hetero atoms."""
    rng = prose.rng
    columns, rows = rng.choice(((1, 1), (2, 1), (3, 1), (4, 2), (3, 2)))
    cell = max(min(width / columns, 120), 55)
    svg = Svg(columns * cell, rows * cell * 0.9)
    for c in range(columns):
        for r in range(rows):
            _formula(rng, svg, (c + 0.5) * cell, (r + 0.45) * cell * 0.9, cell / 9)
            if rng.random() < 0.5:
                svg.text(
                    (c + 0.5) * cell, (r + 0.97) * cell * 0.9, f"{prose.plain(1)[:8]} {rng.randint(1, 40)}", 7, "middle"
                )
    return svg


def _formula(rng: Random, svg: Svg, x: float, y: float, bond: float) -> None:
    for ring in range(rng.randint(1, 3)):
        cx = x + (ring - 1) * bond * 1.732
        spots = [(cx + bond * math.sin(math.pi / 3 * k), y - bond * math.cos(math.pi / 3 * k)) for k in range(6)]
        svg.path([*spots, spots[0]], "#000", 1)
        for k in (0, 2, 4):
            (ax, ay), (bx, by) = spots[k], spots[(k + 1) % 6]
            pull = 0.82
            svg.line(
                (cx + (ax - cx) * pull, y + (ay - y) * pull), (cx + (bx - cx) * pull, y + (by - y) * pull), "#000", 0.8
            )
        spot: Point = rng.choice(spots)
        for step in range(rng.randint(0, 3)):
            angle = math.atan2(spot[1] - y, spot[0] - cx) + (0.5 if step % 2 else -0.5)
            end = (spot[0] + bond * math.cos(angle), spot[1] + bond * math.sin(angle))
            svg.line(spot, end, "#000", 1)
            spot = end
        atom = rng.choice(("O", "N", "OH", "NH", "Cl", "F", "S", ""))
        if atom:
            svg.circle(*spot, bond * 0.42, "#fff")
            colour = {"O": "#d00", "OH": "#d00", "N": "#00c", "NH": "#00c"}.get(atom, "#060")
            svg.text(spot[0], spot[1] + bond * 0.28, atom, bond * 0.75, "middle", fill=colour)


def chart_map(prose: Prose, width: float) -> Svg:
    """Regions with borders in shades of one colour, or a coast with points, with a key."""
    rng, wide = prose.rng, min(width, 300)
    svg, cells = Svg(wide, wide * rng.uniform(0.55, 0.8)), rng.randint(4, 8)
    colours = rng.choice(
        (("#deebf7", "#9ecae1", "#4292c6", "#084594"), ("#fee5d9", "#fcae91", "#fb6a4a", "#a50f15"), PASTEL[:4])
    )
    sea = rng.random() < 0.5
    if sea:
        svg.rect(0, 0, wide, svg.height, "#dceaf5")
    stepx, stepy = wide / cells, svg.height / cells

    def corner(c: int, r: int) -> Point:
        shake = Random(f"{c} {r} {cells}")
        inside = 0 < c < cells and 0 < r < cells
        dx, dy = (shake.uniform(-0.4, 0.4), shake.uniform(-0.4, 0.4)) if inside or not sea else (0.0, 0.0)
        x, y = (c + dx) * stepx, (r + dy) * stepy
        return min(max(x, 1), wide - 1), min(max(y, 1), svg.height - 1)

    for c in range(cells):
        for r in range(cells):
            if sea and (c in (0, cells - 1) or rng.random() < 0.25):
                continue
            corners = [corner(c, r), corner(c + 1, r), corner(c + 1, r + 1), corner(c, r + 1)]
            svg.path([*corners, corners[0]], "#666", 0.6, fill=rng.choice(colours))
            if rng.random() < 0.15:
                svg.circle((c + 0.5) * stepx, (r + 0.5) * stepy, 2.2, "#d00")
                svg.text((c + 0.6) * stepx, (r + 0.5) * stepy, prose.plain(1).capitalize()[:9], 6)
    for k, colour in enumerate(colours):
        svg.rect(4, svg.height - 12 * (k + 1), 9, 9, colour, "#555")
        svg.text(16, svg.height - 12 * (k + 1) + 8, f"{k * 25}-{k * 25 + 25}", 6.5)
    return svg


def surface(prose: Prose, width: float) -> Svg:
    """A function of two variables as a shaded mesh in perspective, on its axes."""
    rng, wide, n = prose.rng, min(width, 260), prose.rng.randint(10, 22)
    svg, colours = Svg(wide, wide * 0.75), rng.choice(PALETTES)
    a, b, lift = rng.uniform(2, 8), rng.uniform(2, 8), wide * rng.uniform(0.08, 0.2)

    def spot(i: int, j: int) -> Point:
        u, v = i / n, j / n
        z = math.sin(a * u) * math.cos(b * v)
        return wide * (0.5 + 0.42 * (u - v)), wide * (0.2 + 0.24 * (u + v)) - z * lift * 0.6 + 8

    for i in range(n):
        for j in range(n):
            corners = [spot(i, j), spot(i + 1, j), spot(i + 1, j + 1), spot(i, j + 1)]
            shade = 0.35 + 0.6 * (0.5 + 0.5 * math.sin(a * i / n) * math.cos(b * j / n))
            svg.path([*corners, corners[0]], "#333", 0.3, fill=colours[0], fill_opacity=f"{shade:.2f}")
    for text, x, y in ((prose.plain(1), 0.2, 0.68), (prose.plain(1), 0.8, 0.68), ("z", 0.03, 0.35)):
        svg.text(wide * x, wide * y, text[:9], 7.5, "middle")
    return svg


def vector_field(prose: Prose, width: float) -> Svg:
    """Arrows on a grid, or contour lines."""
    rng, wide = prose.rng, min(width, 220)
    svg = Svg(wide, wide * 0.85)
    svg.rect(12, 4, wide - 16, svg.height - 18, "none", "#000")
    cx, cy = wide * rng.uniform(0.35, 0.65), svg.height * rng.uniform(0.35, 0.6)
    if rng.random() < 0.5:
        for k in range(3, 12):
            rx, ry = (wide - 30) * k / 26, (svg.height - 34) * k / 26
            points = [
                (
                    wide / 2 + rx * math.cos(t / 8) * (1 + 0.15 * math.sin(3 * t / 8 + cx)),
                    svg.height / 2 - 5 + ry * math.sin(t / 8),
                )
                for t in range(51)
            ]
            svg.path(points, rng.choice(PALETTES)[k % 8], 0.9)
    else:
        for i in range(10):
            for j in range(9):
                x, y = 22 + i * (wide - 38) / 9, 14 + j * (svg.height - 38) / 8
                angle = math.atan2(y - cy, x - cx) + 1.3
                svg.arrow((x, y), (x + 8 * math.cos(angle), y + 8 * math.sin(angle)), "#2040a0", 0.7, 3)
    svg.text(wide / 2, svg.height - 4, prose.plain(2), 7.5, "middle")
    return svg


def signals(prose: Prose, width: float) -> Svg:
    """Several time series above each other, without frames, named at the left."""
    rng, wide = prose.rng, max(min(width, 460), 160)
    count, row = rng.randint(3, 9), rng.uniform(16, 34)
    svg, colours = Svg(wide, count * row + 14), rng.choice(PALETTES)
    one = rng.random() < 0.5
    for k in range(count):
        y, spike = (k + 0.5) * row, rng.uniform(0.05, 0.3)
        svg.text(2, y + 2, f"{prose.plain(1)[:6]}{k}", 6.5)
        points = [
            (
                40 + t * (wide - 44) / 160,
                y + row * (rng.gauss(0, 0.1) + (rng.uniform(-0.4, 0.4) if rng.random() < spike / 3 else 0)),
            )
            for t in range(161)
        ]
        svg.path(points, "#222" if one else colours[k % 8], 0.6)
    svg.arrow((40, svg.height - 8), (wide - 2, svg.height - 8), "#333", 0.8)
    svg.text(wide / 2, svg.height - 1, "time (s)", 6.5, "middle")
    return svg


def matrices(prose: Prose, width: float) -> Svg:
    """Grids of cells with brackets and signs between them: tensors, masks, token sequences."""
    rng, x = prose.rng, 6.0
    svg, cell = Svg(300, 90), rng.uniform(7, 12)
    for k in range(rng.randint(2, 4)):
        rows, columns = rng.randint(1, 7), rng.randint(1, 7)
        top, colours = 40 - rows * cell / 2, rng.sample(PASTEL, 4)
        for r in range(rows):
            for c in range(columns):
                triangle = k == 1 and c > r
                svg.rect(
                    x + c * cell,
                    top + r * cell,
                    cell,
                    cell,
                    "#fff" if triangle else rng.choice(colours),
                    "#444",
                    stroke_width=0.6,
                )
        svg.text(
            x + columns * cell / 2, 88, rng.choice(("Q", "K", "V", "W", "x", "mask", prose.plain(1)[:7])), 8, "middle"
        )
        x += columns * cell + 8
        svg.text(x + 4, 44, rng.choice(("×", "=", "+", "→")), 12, "middle")
        x += 16
    svg.width = x
    return svg


def tokens(prose: Prose, width: float) -> Svg:
    """Words in shaded boxes, or words joined by arcs, as in parsing and attribution figures."""
    rng, wide, size = prose.rng, max(width, 150), prose.rng.uniform(6.5, 9)
    svg, x, y, arcs = Svg(wide, 400), 6.0, 40.0, prose.rng.random() < 0.5
    base = rng.choice(("#d62728", "#1f77b4", "#2ca02c"))
    spots: list[float] = []
    for word in prose.plain(rng.randint(7, 12) if arcs else rng.randint(20, 70)).split():
        w = len(word) * size * 0.62 + 5
        if x + w > wide - 4:
            if arcs:
                break
            x, y = 6.0, y + size * 1.7
        if not arcs:
            svg.rect(x, y - size, w, size * 1.4, base, fill_opacity=f"{rng.random() ** 2 * 0.7:.2f}")
        svg.text(x + 2.5, y, word, size)
        spots.append(x + w / 2)
        x += w + 2
    for k in range(1, len(spots) if arcs else 0):
        a, b = spots[k], spots[rng.randrange(k)]
        foot = y - size
        top = foot - min(abs(a - b) * 0.5, 34)
        svg.curve(f"M{a:.1f} {foot:.1f} C{a:.1f} {top:.1f} {b:.1f} {top:.1f} {b:.1f} {foot:.1f}", "#555", 0.8)
    svg.height = y + 8
    return svg
