"""A small SVG writer: figures are drawn straight into text, which is far faster than a plotting library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

PALETTES: tuple[tuple[str, ...], ...] = (
    ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f"),
    ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c"),
    ("#0072bd", "#d95319", "#edb120", "#7e2f8e", "#77ac30", "#4dbeee", "#a2142f", "#333333"),
    ("#66c2a5", "#fc8d62", "#8da0cb", "#e78ac3", "#a6d854", "#ffd92f", "#e5c494", "#b3b3b3"),
    ("#264653", "#2a9d8f", "#e9c46a", "#f4a261", "#e76f51", "#6d597a", "#355070", "#b56576"),
    ("#000000", "#555555", "#888888", "#bbbbbb", "#222222", "#777777", "#aaaaaa", "#444444"),
    ("#a6cee3", "#1f78b4", "#b2df8a", "#33a02c", "#fb9a99", "#e31a1c", "#fdbf6f", "#ff7f00"),
    ("#0000ff", "#ff0000", "#008000", "#000000", "#ff00ff", "#00bfbf", "#bfbf00", "#800080"),
    ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725", "#31688e", "#35b779", "#443983"),
)
Point = tuple[float, float]


class Svg:
    """A drawing of `width` x `height` user units; methods add one element each."""

    def __init__(self, width: float, height: float, font: str = "DejaVu Sans") -> None:
        self.width, self.height, self.font = width, height, font
        self.parts: list[str] = []

    def rect(
        self, x: float, y: float, w: float, h: float, fill: str = "none", stroke: str = "none", **more: object
    ) -> None:
        """A rectangle; `rx` rounds its corners."""
        self._add(
            "rect", x=_n(x), y=_n(y), width=_n(max(w, 0.0)), height=_n(max(h, 0.0)), fill=fill, stroke=stroke, **more
        )

    def line(self, a: Point, b: Point, stroke: str = "#000", width: float = 1.0, **more: object) -> None:
        """A straight line."""
        self._add(
            "line", x1=_n(a[0]), y1=_n(a[1]), x2=_n(b[0]), y2=_n(b[1]), stroke=stroke, stroke_width=_n(width), **more
        )

    def path(self, points: Sequence[Point], stroke: str = "#000", width: float = 1.0, **more: object) -> None:
        """A polyline; `fill` makes it a polygon."""
        more.setdefault("fill", "none")
        text = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._add("polyline", points=text, stroke=stroke, stroke_width=_n(width), **more)

    def curve(self, d: str, stroke: str = "#000", width: float = 1.0, **more: object) -> None:
        """A path in SVG's own path language."""
        more.setdefault("fill", "none")
        self._add("path", d=d, stroke=stroke, stroke_width=_n(width), **more)

    def circle(self, x: float, y: float, r: float, fill: str = "none", stroke: str = "none", **more: object) -> None:
        """A circle."""
        self._add("circle", cx=_n(x), cy=_n(y), r=_n(r), fill=fill, stroke=stroke, **more)

    def text(
        self, x: float, y: float, text: str, size: float = 8, anchor: str = "start", turn: float = 0, **more: object
    ) -> None:
        """A line of text with its baseline at y, turned by `turn` degrees about its anchor."""
        if turn:
            more["transform"] = f"rotate({_n(turn)} {_n(x)} {_n(y)})"
        more.setdefault("font_family", self.font)
        self._add("text", escape(text), x=_n(x), y=_n(y), font_size=_n(size), text_anchor=anchor, **more)

    def arrow(
        self, a: Point, b: Point, stroke: str = "#333", width: float = 1.0, head: float = 4.0, **more: object
    ) -> None:
        """A line with a filled head at b."""
        length = max(((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2) ** 0.5, 1e-6)
        ux, uy = (b[0] - a[0]) / length, (b[1] - a[1]) / length
        base = (b[0] - ux * head, b[1] - uy * head)
        self.line(a, base, stroke, width, **more)
        side = head * 0.45
        corners = [b, (base[0] - uy * side, base[1] + ux * side), (base[0] + uy * side, base[1] - ux * side)]
        self.path(corners, "none", 0, fill=stroke)

    def image(self, x: float, y: float, w: float, h: float, data_url: str) -> None:
        """A raster image given as a data URL."""
        self._add("image", x=_n(x), y=_n(y), width=_n(w), height=_n(h), href=data_url, preserveAspectRatio="none")

    def group(self, inner: Svg, x: float, y: float, scale: float = 1.0) -> None:
        """Another drawing, placed at (x, y)."""
        self.parts.append(f'<g transform="translate({_n(x)} {_n(y)}) scale({_n(scale)})">{"".join(inner.parts)}</g>')

    def __str__(self) -> str:
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(self.width)}" height="{_n(self.height)}" '
            f'viewBox="0 0 {_n(self.width)} {_n(self.height)}">{"".join(self.parts)}</svg>'
        )

    def _add(self, tag: str, text: str = "", /, **attributes: object) -> None:
        spelled = " ".join(f'{name.replace("_", "-")}="{value}"' for name, value in attributes.items())
        spelled = spelled.replace("preserveaspectratio", "preserveAspectRatio")
        self.parts.append(f"<{tag} {spelled}>{text}</{tag}>" if text else f"<{tag} {spelled}/>")


def _n(value: float) -> str:
    """A coordinate with two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
