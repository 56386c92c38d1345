"""Drawings as SVG: pipelines, networks, trees, graphs, image grids and other figures that are not plots."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from .pictures import data_url, photographs, picture
from .sketches import (
    PASTEL,
    chart_map,
    conversation,
    matrices,
    molecule,
    screen,
    signals,
    surface,
    taxonomy,
    tokens,
    vector_field,
)
from .svg import PALETTES, Svg
from .words import Prose


def _box(svg: Svg, prose: Prose, x: float, y: float, w: float, h: float, fill: str, size: float) -> None:
    rng = prose.rng
    svg.rect(x, y, w, h, fill, rng.choice(("#333", "#6c8ebf", "#82b366", "#999")), rx=rng.choice((0, 0, 4, 8)))
    words = prose.plain(rng.randint(1, 3)).title().split()
    rows = [" ".join(words[:1]), " ".join(words[1:])] if len(words) > 1 else words
    for k, row in enumerate(row for row in rows if row):
        middle = y + h / 2 + size * (0.35 + 1.1 * (k - (len(rows) - 1) / 2))
        svg.text(x + w / 2, middle, row[: max(int(w / size * 1.7), 3)], size, "middle")


def pipeline(prose: Prose, width: float) -> Svg:
    """Rows of boxes joined by arrows, sometimes inside dashed stages with small pictures."""
    rng = prose.rng
    columns, rows = rng.randint(3, 7), rng.randint(1, 4)
    w, h, gap, size = rng.uniform(50, 80), rng.uniform(24, 50), rng.uniform(16, 34), rng.uniform(6.5, 9)
    svg = Svg(columns * (w + gap), rows * (h + gap) + 16)
    if rng.random() < 0.5:
        at = rng.randrange(columns)
        fill = rng.choice(("none", "#f7f7f7", "#eef4fb"))
        svg.rect(at * (w + gap) + 2, 2, w + gap - 4, svg.height - 4, fill, "#888", stroke_dasharray="4 3", rx=6)
    pastel = rng.sample(PASTEL, 4)
    for r in range(rows):
        for c in range(columns):
            x, y = c * (w + gap) + gap / 2, r * (h + gap) + gap / 2 + 8
            if rng.random() < 0.12:
                svg.image(x + w / 2 - h / 2, y, h, h, data_url(picture(rng, 64, 64)))
            else:
                _box(svg, prose, x, y, w, h, pastel[(c + r * rng.choice((0, 1))) % 4], size)
            if c + 1 < columns and rng.random() < 0.9:
                svg.arrow((x + w, y + h / 2), (x + w + gap, y + h / 2))
            if r + 1 < rows and rng.random() < 0.35:
                svg.arrow((x + w / 2, y + h), (x + w / 2, y + h + gap))
    if rng.random() < 0.5:
        svg.text(svg.width / 2, svg.height - 3, prose.plain(3), size * 1.1, "middle", font_weight="bold")
    return svg


def network(prose: Prose, width: float) -> Svg:
    """Layers of neurons, all connected."""
    rng = prose.rng
    layers = [rng.randint(2, 7) for _ in range(rng.randint(3, 6))]
    svg, colours = Svg(60.0 * len(layers), 170), rng.choice(PALETTES)
    spots = [[(30 + 60 * k, 85 + (n - (count - 1) / 2) * 22) for n in range(count)] for k, count in enumerate(layers)]
    for left, right in pairwise(spots):
        for a in left:
            for b in right:
                svg.line(a, b, "#aaa", 0.5)
    for k, layer in enumerate(spots):
        for x, y in layer:
            svg.circle(x, y, 8, rng.choice(("#fff", colours[k % 8])) if k else colours[0], "#333")
        svg.text(30 + 60 * k, 167, prose.plain(1)[:9], 8, "middle")
    return svg


def architecture(prose: Prose, width: float) -> Svg:
    """A stack of layers with a residual arrow, or convolution slabs in perspective."""
    rng = prose.rng
    if rng.random() < 0.5:
        count = rng.randint(4, 9)
        svg, pastel = Svg(170, count * 24 + 20), rng.sample(PASTEL, 4)
        for k in range(count):
            y = svg.height - 14 - (k + 1) * 24 + 4
            _box(svg, prose, 35, y, 100, 16, pastel[k % 4], 8)
            svg.arrow((85, y + 24), (85, y + 16))
        svg.rect(24, 6, 122, svg.height - 26, stroke="#777", rx=8)
        svg.text(155, svg.height / 2, f"{rng.randint(2, 48)} x", 9, fill="#444")
        return svg
    count, x = rng.randint(4, 9), 10.0
    svg, colour = Svg(count * 46.0 + 40, 150), rng.choice(PASTEL[:6])
    for k in range(count):
        side, deep = 100 * (1 - k / count) + 16, 6.0 + 3 * k
        top, d = 75 - side / 2, side * 0.22
        svg.path(
            [(x, top), (x + d, top - d), (x + d + deep, top - d), (x + deep, top), (x, top)], "#555", 0.7, fill="#fff"
        )
        right = [(x + deep, top), (x + deep + d, top - d), (x + deep + d, top + side - d), (x + deep, top + side)]
        svg.path([*right, right[0]], "#555", 0.7, fill="#eee")
        svg.rect(x, top, deep, side, colour, "#555", stroke_width=0.7)
        svg.text(x + deep / 2, min(top + side + 10, 148), str(2 ** (k + 3)), 7, "middle")
        x += deep + d + 12
    svg.width = x + 10
    return svg


def tree(prose: Prose, width: float) -> Svg:
    """A tree with boxed or bare labels."""
    rng = prose.rng
    branching, depth = rng.choice(((2, 3), (3, 2), (2, 2), (4, 2), (2, 4)))
    leaves = branching**depth
    step = max(320 / leaves, 30)
    svg, bare = Svg(leaves * step, depth * 44 + 30), rng.random() < 0.4
    pastel = rng.sample(PASTEL, depth + 1)
    for level in range(depth + 1):
        count = branching**level
        for k in range(count):
            x, y = (k + 0.5) * svg.width / count, 15 + level * 44
            if level:
                parent = ((k // branching + 0.5) * svg.width / (count / branching), y - 44 + 8)
                svg.line(parent, (x, y - 8), "#555", 0.8)
            if bare:
                svg.text(x, y + 3, prose.plain(1)[:8], 8, "middle")
            else:
                _box(svg, prose, x - step * 0.44, y - 8, step * 0.88, 16, pastel[level], 6.5)
    return svg


def graph(prose: Prose, width: float) -> Svg:
    """Nodes on a disc with edges, some directed."""
    rng = prose.rng
    svg, colours, count = Svg(220, 170), rng.choice(PALETTES), rng.randint(5, 26)
    spots = [(rng.uniform(15, 205), rng.uniform(15, 155)) for _ in range(count)]
    directed, radius = rng.random() < 0.4, 4.0 if count > 14 else 9.0
    for k, a in enumerate(spots):
        for b in sorted(spots, key=lambda other: math.dist(a, other))[1 : rng.randint(2, 4)]:
            svg.arrow(a, b, "#666", 0.8) if directed else svg.line(a, b, "#888", 0.8)
        svg.circle(*a, radius, colours[k % 4] if count > 14 else "#fff", "#333")
        if radius > 5:
            svg.text(a[0], a[1] + 3, rng.choice("xyzvuABCSt") + str(k), 7, "middle")
    return svg


DRAWINGS: tuple[Callable[[Prose, float], Svg], ...] = (
    pipeline, pipeline, pipeline, pipeline, photographs, photographs, photographs, photographs, network, architecture,
    architecture, tree, graph, graph, taxonomy, conversation, conversation, screen, molecule, chart_map, surface,
    vector_field, signals, matrices, tokens,
)  # fmt: skip


def random_drawing(prose: Prose, width: float) -> Svg:
    """Any drawing, for a printed width in points."""
    return prose.rng.choice(DRAWINGS)(prose, width)


def logo(prose: Prose) -> Svg:
    """A conference's or company's mark: shapes and a word."""
    rng, colours = prose.rng, prose.rng.choice(PALETTES)
    svg = Svg(110, 34)
    for k in range(rng.randint(1, 3)):
        if rng.random() < 0.5:
            svg.circle(17 + 5 * k, 17, 13 - 4 * k, colours[k])
        else:
            svg.rect(5 + 4 * k, 5 + 3 * k, 22 - 5 * k, 22 - 5 * k, colours[k], rx=rng.choice((0, 5)))
    svg.text(38, 23, rng.choice(prose.terms)[:9], 15, font_weight="bold", fill=colours[3])
    return svg
