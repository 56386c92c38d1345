"""Plots as SVG: lines, bars, scatter, histograms, heat maps, box plots, pies, radar, and grids of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from .svg import PALETTES, Point, Svg
from .words import Prose


@dataclass(frozen=True)
class Look:
    """What the panels of one figure share."""

    palette: tuple[str, ...]
    frame: str  # "box" | "half" | "none" | "grey" (ggplot-like background)
    grid: str  # "" | "both" | "y"
    size: float  # font size
    dashed: bool
    markers: bool


def random_look(rng: Random) -> Look:
    """A plotting library's defaults, roughly."""
    return Look(
        palette=rng.choice(PALETTES),
        frame=rng.choice(("box", "box", "half", "grey", "none")),
        grid=rng.choice(("", "", "both", "y", "both")),
        size=rng.uniform(6, 11),
        dashed=rng.random() < 0.3,
        markers=rng.random() < 0.5,
    )


@dataclass
class Axes:
    """The rectangle data is drawn in, in SVG units, y downwards; data runs over 0..1 in both directions."""

    svg: Svg
    x: float
    y: float
    w: float
    h: float

    def at(self, u: float, v: float) -> Point:
        """The SVG point of data coordinates (u, v)."""
        return self.x + u * self.w, self.y + (1 - v) * self.h


def _labels(rng: Random, count: int) -> list[str]:
    low, step = rng.choice((0, 0, 0, 1, -2, 10)), rng.choice((0.1, 0.2, 0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000))
    if rng.random() < 0.1:
        return [f"1e{k}" for k in range(count)]
    return [f"{low + k * step:g}" for k in range(count)]


def open_axes(
    svg: Svg, prose: Prose, look: Look, area: tuple[float, float, float, float], *, names: bool = True
) -> Axes:
    """Draw frame, grid, ticks and axis titles in `area` (x, y, w, h) and return the data rectangle."""
    rng, size = prose.rng, look.size
    x, y, w, h = area
    title = size * 1.7 if rng.random() < 0.45 else 2.0
    axes = Axes(svg, x + size * 3.4, y + title, w - size * 3.9, h - title - size * 2.9)
    if title > 2:
        svg.text(axes.x + axes.w / 2, y + size * 1.1, prose.plain(rng.randint(1, 4)), size * 1.1, "middle")
    if look.frame == "grey":
        svg.rect(axes.x, axes.y, axes.w, axes.h, rng.choice(("#eaeaf2", "#ebebeb", "#f4f4f4")))
    ink = "#ffffff" if look.frame == "grey" else rng.choice(("#dddddd", "#cccccc", "#b0b0b0"))
    xs, ys = rng.randint(3, 7), rng.randint(3, 6)
    for k, text in enumerate(_labels(rng, ys)):
        point = axes.at(0, k / (ys - 1) * 0.94 + 0.03)
        if look.grid:
            svg.line(point, (axes.x + axes.w, point[1]), ink, 0.6)
        svg.text(point[0] - 4, point[1] + size * 0.35, text, size * 0.9, "end")
    for k, text in enumerate(_labels(rng, xs)):
        point = axes.at(k / (xs - 1) * 0.94 + 0.03, 0)
        if look.grid == "both":
            svg.line(point, (point[0], axes.y), ink, 0.6)
        if names:
            svg.text(point[0], point[1] + size * 1.1, text, size * 0.9, "middle")
    if look.frame == "box":
        svg.rect(axes.x, axes.y, axes.w, axes.h, stroke="#000")
    elif look.frame in ("half", "none"):
        svg.path([axes.at(0, 1), axes.at(0, 0), axes.at(1, 0)], "#222", 0.9)
    svg.text(axes.x + axes.w / 2, y + h - size * 0.35, prose.plain(rng.randint(1, 3)).capitalize(), size, "middle")
    svg.text(x + size, axes.y + axes.h / 2, prose.plain(rng.randint(1, 2)).capitalize(), size, "middle", -90)
    return axes


def legend(axes: Axes, prose: Prose, look: Look, count: int) -> None:
    """A key of `count` series inside the axes."""
    rng, size = prose.rng, look.size * 0.85
    words = [rng.choice(prose.terms) if rng.random() < 0.7 else prose.plain(1) for _ in range(count)]
    width = max(len(word) for word in words) * size * 0.6 + size * 2.6
    height = count * size * 1.25 + 4
    x = axes.x + (4 if rng.random() < 0.4 else max(axes.w - width - 4, 0))
    y = axes.y + (4 if rng.random() < 0.6 else max(axes.h - height - 4, 0))
    axes.svg.rect(x, y, width, height, "#fff", "#ccc", fill_opacity=0.8)
    for k, word in enumerate(words):
        row = y + size * (1.1 + 1.25 * k)
        axes.svg.line((x + 3, row - size * 0.3), (x + size * 1.9, row - size * 0.3), _colour(look, k), 2)
        axes.svg.text(x + size * 2.3, row, word, size)


def _colour(look: Look, k: int) -> str:
    return look.palette[k % len(look.palette)]


def _wander(rng: Random, count: int) -> list[float]:
    """A curve in 0..1: learning curve, decay, random walk, wave, or step."""
    kind, noise = rng.randrange(5), rng.choice((0, 0, 0.01, 0.03))
    top, rate = rng.uniform(0.4, 0.95), rng.uniform(2, 9)
    phase, value, curve = rng.uniform(0, 6), rng.uniform(0.2, 0.8), []
    for k in range(count):
        t = k / max(count - 1, 1)
        if kind == 0:
            found = top * (1 - math.exp(-rate * t)) + 0.03
        elif kind == 1:
            found = top * math.exp(-rate * t) + 0.05
        elif kind == 2:
            value = min(max(value + rng.gauss(0, 0.6 / count**0.5), 0.02), 0.98)
            found = value
        elif kind == 3:
            found = 0.5 + 0.4 * top * math.sin(phase + rate * t)
        else:
            found = 0.08 + (top - 0.08) * t ** rng.choice((1, 1, 2))
        curve.append(min(max(found + rng.gauss(0, noise), 0.01), 0.99))
    return curve


def lines(axes: Axes, prose: Prose, look: Look) -> None:
    """Curves, with error bands or markers now and then."""
    rng = prose.rng
    series, count = rng.randint(1, 6), rng.choice((5, 8, 12, 40, 90))
    band = rng.random() < 0.25
    for s in range(series):
        points = [axes.at(0.03 + 0.94 * k / (count - 1), v) for k, v in enumerate(_wander(rng, count))]
        if band:
            width = [axes.h * rng.uniform(0.02, 0.06) for _ in points]
            upper = [(x, max(y - d, axes.y)) for (x, y), d in zip(points, width, strict=True)]
            lower = [(x, min(y + d, axes.y + axes.h)) for (x, y), d in zip(points, width, strict=True)]
            axes.svg.path(upper + lower[::-1], "none", 0, fill=_colour(look, s), fill_opacity=0.2)
        dash = {"stroke_dasharray": rng.choice(("4 2", "1 2", "6 2 1 2"))} if look.dashed and s % 2 else {}
        axes.svg.path(points, _colour(look, s), rng.choice((0.8, 1.2, 1.8)), **dash)
        if look.markers and count <= 12:
            for x, y in points:
                axes.svg.circle(x, y, 2.2, _colour(look, s)) if s % 2 else axes.svg.rect(
                    x - 2, y - 2, 4, 4, _colour(look, s)
                )
    if rng.random() < 0.7:
        legend(axes, prose, look, series)


def categories(axes: Axes, prose: Prose, look: Look, count: int) -> None:
    """Names under `count` groups; turned where they would not fit."""
    room = axes.w / count
    turn = 0 if room > look.size * 4 else -35
    for k in range(count):
        x, y = axes.at((k + 0.5) / count, 0)
        word = prose.rng.choice(prose.terms) if prose.rng.random() < 0.5 else prose.plain(1)
        axes.svg.text(x, y + look.size * 1.05, word[:8], look.size * 0.8, "end" if turn else "middle", turn)


def bars(axes: Axes, prose: Prose, look: Look) -> None:
    """Grouped or stacked bars, upright or lying, with values or error bars now and then."""
    rng = prose.rng
    groups, series = rng.randint(2, 12), rng.choice((1, 1, 2, 3, 4))
    stacked, values, whisker = rng.random() < 0.25, rng.random() < 0.2, rng.random() < 0.2
    slot = 0.94 / groups
    for g in range(groups):
        base = 0.0
        for s in range(series):
            v = rng.uniform(0.1, 0.9) / (series if stacked else 1)
            wide = slot * 0.75 / (1 if stacked else series)
            u = 0.03 + g * slot + slot * 0.12 + (0 if stacked else s * wide)
            x, y = axes.at(u, base + v)
            edge = "#000" if look.markers else "none"
            axes.svg.rect(x, y, wide * axes.w, v * axes.h, _colour(look, s), edge, stroke_width=0.5)
            if values and not stacked:
                axes.svg.text(x + wide * axes.w / 2, y - 2, f"{v * 100:.1f}", look.size * 0.65, "middle")
            elif whisker and not stacked:
                middle = x + wide * axes.w / 2
                axes.svg.line((middle, y - 5), (middle, y + 5), "#000", 0.8)
            base += v if stacked else 0
    categories(axes, prose, look, groups)
    if series > 1:
        legend(axes, prose, look, series)


def scatter(axes: Axes, prose: Prose, look: Look) -> None:
    """Clouds of points, with a fitted line now and then."""
    rng = prose.rng
    clusters = rng.randint(1, 6)
    for c in range(clusters):
        cx, cy, sx, sy = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), rng.uniform(0.02, 0.2), rng.uniform(0.02, 0.2)
        for _ in range(rng.choice((5, 20, 60, 150)) // clusters + 2):
            x, y = axes.at(min(max(rng.gauss(cx, sx), 0.01), 0.99), min(max(rng.gauss(cy, sy), 0.01), 0.99))
            axes.svg.circle(x, y, 1.8 + 0.8 * look.markers, _colour(look, c), fill_opacity=0.7)
    if rng.random() < 0.3:
        axes.svg.line(axes.at(0.03, rng.uniform(0.1, 0.4)), axes.at(0.97, rng.uniform(0.6, 0.95)), "#d00", 1.2)


def lying_bars(axes: Axes, prose: Prose, look: Look) -> None:
    """Horizontal bars, with values at their ends now and then."""
    rng, count = prose.rng, prose.rng.randint(3, 18)
    values, one = rng.random() < 0.5, rng.random() < 0.6
    lengths = sorted(rng.uniform(0.05, 0.85) for _ in range(count))
    for k, v in enumerate(lengths):
        x, y = axes.at(0, (k + 0.85) / count)
        axes.svg.rect(x, y, v * axes.w, axes.h / count * 0.7, _colour(look, 0 if one else k))
        if values:
            axes.svg.text(x + v * axes.w + 2, y + axes.h / count * 0.55, f"{v * 100:.1f}", look.size * 0.7)


def histogram(axes: Axes, prose: Prose, look: Look) -> None:
    """One or two overlapping histograms."""
    rng, count = prose.rng, prose.rng.choice((10, 20, 40))
    for s in range(rng.choice((1, 1, 2))):
        centre, width = rng.uniform(0.25, 0.75), rng.uniform(0.08, 0.25)
        for k in range(count):
            u = k / count
            v = 0.9 * math.exp(-(((u - centre) / width) ** 2) / 2) * rng.uniform(0.8, 1.05)
            x, y = axes.at(u, v)
            axes.svg.rect(
                x, y, axes.w / count, v * axes.h, _colour(look, s), "#fff", fill_opacity=0.7, stroke_width=0.3
            )


def boxes(axes: Axes, prose: Prose, look: Look) -> None:
    """Box plots with whiskers and outliers."""
    rng, count = prose.rng, prose.rng.randint(2, 10)
    for k in range(count):
        u = (k + 0.5) / count
        low, q1, q2, q3, high = sorted(rng.uniform(0.08, 0.92) for _ in range(5))
        half = 0.3 / count
        x, y = axes.at(u - half, q3)
        axes.svg.line(axes.at(u, low), axes.at(u, high), "#333", 0.8)
        axes.svg.rect(x, y, 2 * half * axes.w, (q3 - q1) * axes.h, _colour(look, k if look.markers else 0), "#333")
        axes.svg.line(axes.at(u - half, q2), axes.at(u + half, q2), "#e07000", 1.3)
        for v in (low, high):
            axes.svg.line(axes.at(u - half / 2, v), axes.at(u + half / 2, v), "#333", 0.8)
    categories(axes, prose, look, count)


def area(axes: Axes, prose: Prose, look: Look) -> None:
    """Stacked areas."""
    rng, count = prose.rng, 30
    layers = rng.randint(2, 5)
    base = [0.0] * count
    for s in range(layers):
        top = [b + v * 0.9 / layers for b, v in zip(base, _wander(rng, count), strict=True)]
        upper = [axes.at(k / (count - 1), v) for k, v in enumerate(top)]
        lower = [axes.at(k / (count - 1), v) for k, v in enumerate(base)]
        axes.svg.path(upper + lower[::-1], "#fff", 0.4, fill=_colour(look, s))
        base = top
    legend(axes, prose, look, layers)


PANELS: tuple[Callable[[Axes, Prose, Look], None], ...] = (
    lines, lines, lines, lines, bars, bars, bars, lying_bars, scatter, scatter, histogram, boxes, area,
)  # fmt: skip


def ramp(kind: int, v: float) -> str:
    """A colour map: white-blue, viridis-like, red-white-blue, grey, hot."""
    stops = (
        ((247, 251, 255), (8, 48, 107)),
        ((68, 1, 84), (33, 145, 140), (253, 231, 37)),
        ((178, 24, 43), (247, 247, 247), (33, 102, 172)),
        ((255, 255, 255), (20, 20, 20)),
        ((255, 255, 204), (253, 141, 60), (128, 0, 38)),
        ((13, 8, 135), (204, 71, 120), (240, 249, 33)),
    )[kind % 6]
    place = min(max(v, 0.0), 0.9999) * (len(stops) - 1)
    k, t = int(place), place - int(place)
    return "#" + "".join(f"{round(a + (b - a) * t):02x}" for a, b in zip(stops[k], stops[k + 1], strict=True))


def heat_map(prose: Prose) -> Svg:
    """A matrix of coloured cells with row and column labels, values, and a colour bar."""
    rng = prose.rng
    rows, columns, cell = rng.randint(3, 16), rng.randint(3, 16), rng.uniform(11, 24)
    size, kind, values = cell * 0.42, rng.randrange(6), rng.random() < 0.4
    left = rng.choice((8.0, cell * 2.6))
    svg = Svg(left + columns * cell + 46, rows * cell + cell * 2.4)
    smooth = [
        [0.5 + 0.5 * math.sin(r * rng.uniform(0.2, 1)) * math.cos(c * 0.6) for c in range(columns)] for r in range(rows)
    ]
    for r in range(rows):
        for c in range(columns):
            v = min(max(smooth[r][c] + rng.gauss(0, 0.15) + 0.3 * (r == c), 0), 1)
            x, y = left + c * cell, 6 + r * cell
            svg.rect(x, y, cell + 0.3, cell + 0.3, ramp(kind, v))
            if values:
                svg.text(
                    x + cell / 2, y + cell * 0.65, f"{v:.2f}", size * 0.85, "middle", fill="#fff" if v > 0.6 else "#000"
                )
        if left > 8:
            svg.text(left - 3, 6 + r * cell + cell * 0.65, prose.plain(1)[:8], size, "end")
    for c in range(columns):
        svg.text(
            left + (c + 0.6) * cell, 10 + rows * cell + size, prose.plain(1)[:7], size, "end", rng.choice((0, -45))
        )
    if rng.random() < 0.7:
        x = left + columns * cell + 10
        for k in range(20):
            svg.rect(x, 6 + k * rows * cell / 20, 9, rows * cell / 20 + 0.4, ramp(kind, 1 - k / 20))
        for k in range(4):
            svg.text(x + 12, 6 + rows * cell * k / 3 + size * 0.5, f"{1 - k / 3:.1f}", size * 0.9)
    return svg


def pie(prose: Prose) -> Svg:
    """A pie or a ring with labels."""
    rng, look = prose.rng, random_look(prose.rng)
    svg, radius = Svg(240, 170), 65.0
    shares = [rng.uniform(0.3, 1) for _ in range(rng.randint(3, 8))]
    angle = rng.uniform(0, 6)
    for k, share in enumerate(shares):
        turn = share / sum(shares) * 2 * math.pi
        a = (120 + radius * math.cos(angle), 85 + radius * math.sin(angle))
        b = (120 + radius * math.cos(angle + turn), 85 + radius * math.sin(angle + turn))
        svg.curve(
            f"M120 85 L{a[0]:.2f} {a[1]:.2f} A{radius} {radius} 0 {int(turn > math.pi)} 1 {b[0]:.2f} {b[1]:.2f} Z",
            "#fff", 1, fill=_colour(look, k),
        )  # fmt: skip
        middle = angle + turn / 2
        side = "start" if math.cos(middle) > 0 else "end"
        svg.text(120 + 72 * math.cos(middle), 88 + 72 * math.sin(middle), f"{prose.plain(1)} {share:.0%}", 8, side)
        angle += turn
    if rng.random() < 0.4:
        svg.circle(120, 85, radius * 0.5, "#fff")
    return svg


def radar(prose: Prose) -> Svg:
    """A spider chart."""
    rng, look, count = prose.rng, random_look(prose.rng), prose.rng.randint(5, 9)
    svg = Svg(230, 200)

    def spot(k: int, v: float) -> Point:
        angle = 2 * math.pi * k / count - math.pi / 2
        return 115 + 75 * v * math.cos(angle), 100 + 75 * v * math.sin(angle)

    for ring in (0.25, 0.5, 0.75, 1.0):
        svg.path([spot(k, ring) for k in range(count + 1)], "#ccc", 0.6)
    for k in range(count):
        svg.line((115, 100), spot(k, 1), "#ccc", 0.6)
        svg.text(*spot(k, 1.17), prose.plain(1)[:10], 7.5, "middle")
    for s in range(rng.randint(1, 4)):
        values = [rng.uniform(0.3, 0.95) for _ in range(count)]
        corners = [spot(k % count, values[k % count]) for k in range(count + 1)]
        svg.path(corners, _colour(look, s), 1.4, fill=_colour(look, s), fill_opacity=0.12)
    return svg


def plot_grid(prose: Prose, width: float) -> Svg:
    """Panels with one look, as many beside each other as suit a printed width in points; a key below now and then."""
    rng, look = prose.rng, random_look(prose.rng)
    w = rng.uniform(105, 260)
    columns = min(max(round(width / w), 1), 6)
    if rng.random() < 0.25:
        columns = 1
    rows = rng.choice((1, 1, 1, 1, 2, 2, 3, 5)) if columns > 1 else rng.choice((1, 1, 1, 1, 1, 2, 3))
    w = min(width / columns, 330)
    h = w * rng.choice((rng.uniform(0.45, 0.85), rng.uniform(0.45, 0.85), 1.0))
    look = replace(look, size=min(max(look.size, 4.0), w / 15))
    below = rng.random() < 0.2
    svg = Svg(
        columns * w,
        rows * h + 16 * below,
        rng.choice(("DejaVu Sans", "DejaVu Sans", "STIXGeneral", "Libertinus Serif")),
    )
    panel, mixed = rng.choice(PANELS), rng.random() < 0.3
    for r in range(rows):
        for c in range(columns):
            draw = rng.choice(PANELS) if mixed else panel
            axes = open_axes(svg, prose, look, (c * w, r * h, w - 4, h - 4), names=draw not in (bars, boxes))
            draw(axes, prose, look)
    if below:
        step = svg.width / 5
        for k in range(rng.randint(2, 4)):
            svg.rect(step * k + 20, svg.height - 11, 12, 6, _colour(look, k))
            svg.text(step * k + 36, svg.height - 5, rng.choice(prose.terms)[:9], 7)
    return svg


def random_plot(prose: Prose, width: float) -> Svg:
    """Any plot, for a printed width in points."""
    kind = prose.rng.random()
    if kind < 0.12:
        return heat_map(prose)
    if kind < 0.15:
        return pie(prose)
    return radar(prose) if kind < 0.18 else plot_grid(prose, width)
