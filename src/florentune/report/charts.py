"""The curves of the HTML report as inline SVG: no script, no picture files, colours from the page's style sheet.

Lines differ in dashes and carry their label, so a grayscale print tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ..evaluation import Calibration, Curve

_WIDTH, _HEIGHT = 460, 340
_LEFT, _TOP, _RIGHT, _BOTTOM = 52, 16, 444, 288
_DASHES = ("", "8 4", "2 3", "10 3 2 3", "14 4", "5 2", "1 4", "8 2 2 2 2 2")


def precision_recall(curves: Mapping[str, Curve]) -> str:
    """Precision over recall of every label that has truth and predictions."""
    parts = []
    drawn = [(label, curve) for label, curve in curves.items() if any(curve.recall)]
    for index, (label, curve) in enumerate(drawn):
        points = list(zip(curve.recall, curve.precision, strict=True))
        colour = f"var(--c{index % 8})"
        dash = _DASHES[index % len(_DASHES)]
        parts.append(f'<polyline points="{_points(points)}" class="line" stroke="{colour}" stroke-dasharray="{dash}"/>')
        y = _BOTTOM - 14 - 18 * (len(drawn) - 1 - index)
        key = f'x1="{_LEFT + 10}" x2="{_LEFT + 46}" y1="{y - 4}" y2="{y - 4}"'
        parts.append(f'<line {key} class="line" stroke="{colour}" stroke-dasharray="{dash}"/>')
        parts.append(f'<text x="{_LEFT + 54}" y="{y}">{escape(label[:40])}</text>')
    title = "Precision over recall at IoU 0.5, one line a label"
    return _svg(title, _axes("recall", "precision at IoU 0.5") + "".join(parts))


def reliability(calibration: Calibration) -> str:
    """Share of right predictions by score: bars, with the number of predictions over each, and the ideal diagonal."""
    parts = [_line((0, 0), (1, 1), "ideal")]
    for found in calibration.bins:
        if found.accuracy is None or found.confidence is None:
            continue
        x1, x2 = _x(found.low) + 2, _x(found.high) - 2
        top = _y(found.accuracy)
        parts.append(
            f'<rect x="{x1:.1f}" y="{top:.1f}" width="{x2 - x1:.1f}" height="{_BOTTOM - top:.1f}" class="bar"/>'
        )
        at = _y(found.confidence)
        parts.append(f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{at:.1f}" y2="{at:.1f}" class="mark"/>')
        parts.append(f'<text x="{(x1 + x2) / 2:.1f}" y="{max(top - 5, 12):.1f}" class="count">{found.count:,}</text>')
    title = "Share of right predictions by score; a thick line in each bar is the mean score"
    return _svg(title, _axes("score", "share that is right") + "".join(parts))


def _svg(title: str, inner: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" class="chart"><title>{escape(title)}</title>{inner}</svg>'


def _axes(x_title: str, y_title: str) -> str:
    parts = []
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts += [_line((tick, 0), (tick, 1), "grid"), _line((0, tick), (1, tick), "grid")]
        parts.append(f'<text x="{_x(tick):.1f}" y="{_BOTTOM + 18}" class="tick">{tick:g}</text>')
        parts.append(f'<text x="{_LEFT - 8}" y="{_y(tick) + 4:.1f}" class="tick end">{tick:g}</text>')
    middle = (_TOP + _BOTTOM) / 2
    parts.append(f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 12}" class="tick">{escape(x_title)}</text>')
    turned = f'transform="rotate(-90 14 {middle})"'
    parts.append(f'<text x="14" y="{middle}" class="tick" {turned}>{escape(y_title)}</text>')
    return "".join(parts)


def _line(start: tuple[float, float], end: tuple[float, float], kind: str) -> str:
    (a, b), (c, d) = start, end
    return f'<line x1="{_x(a):.1f}" y1="{_y(b):.1f}" x2="{_x(c):.1f}" y2="{_y(d):.1f}" class="{kind}"/>'


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)


def _x(value: float) -> float:
    return _LEFT + value * (_RIGHT - _LEFT)


def _y(value: float) -> float:
    return _BOTTOM - value * (_BOTTOM - _TOP)
