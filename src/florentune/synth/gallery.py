"""Figures drawn by matplotlib itself: its ticks, log axes, contours, surfaces and violins as papers print them."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import numpy as np

from .words import Prose

SIZE = 48  # figures in the gallery; a process draws only those its papers ask for
STYLES = (
    "default",
    "default",
    "default",
    "ggplot",
    "seaborn-v0_8-whitegrid",
    "bmh",
    "grayscale",
    "seaborn-v0_8",
    "classic",
)


def _curves(axis: Any, source: np.random.Generator, prose: Prose) -> None:
    x = np.linspace(1, 100, 60)
    for k in range(source.integers(1, 6)):
        y = np.exp(-x / source.uniform(10, 60)) * source.uniform(0.5, 3) + source.normal(0, 0.02, 60) + 0.1 * (k + 1)
        axis.plot(x, np.abs(y), label=prose.terms[k])
    axis.set_yscale("log" if source.random() < 0.5 else "linear")
    axis.legend(fontsize=7)


def _violins(axis: Any, source: np.random.Generator, prose: Prose) -> None:
    count = int(source.integers(3, 8))
    axis.violinplot([source.normal(source.uniform(-1, 1), source.uniform(0.3, 1), 80) for _ in range(count)])


def _contours(axis: Any, source: np.random.Generator, prose: Prose) -> None:
    x, y = np.meshgrid(np.linspace(-2, 2, 40), np.linspace(-2, 2, 40))
    z = np.sin(x * source.uniform(0.5, 3)) * np.cos(y * source.uniform(0.5, 3)) + 0.2 * x
    draw = axis.contourf if source.random() < 0.6 else axis.contour
    axis.figure.colorbar(
        draw(x, y, z, levels=9, cmap=str(source.choice(["viridis", "coolwarm", "plasma", "jet"]))), ax=axis
    )


def _errors(axis: Any, source: np.random.Generator, prose: Prose) -> None:
    x = np.arange(source.integers(4, 14))
    for k in range(source.integers(1, 4)):
        y = np.cumsum(source.normal(0.3, 1, len(x)))
        axis.errorbar(x, y, yerr=np.abs(source.normal(0.5, 0.2, len(x))), fmt="o-", capsize=3, label=prose.terms[k])
    axis.legend(fontsize=7, loc="best")


def _cloud(axis: Any, source: np.random.Generator, prose: Prose) -> None:
    x, y = source.normal(0, 1, (2, 200))
    axis.scatter(x, y + x * source.uniform(-1, 1), c=y, s=source.uniform(3, 20, 200), cmap="viridis", alpha=0.8)
    axis.grid(True, alpha=0.3)


def _steps(axis: Any, source: np.random.Generator, prose: Prose) -> None:
    for k in range(source.integers(1, 4)):
        axis.hist(
            source.normal(k, source.uniform(0.5, 1.5), 300),
            bins=25,
            histtype="step",
            density=True,
            label=prose.terms[k],
        )
    axis.legend(fontsize=7)


DRAWERS: tuple[Callable[[Any, np.random.Generator, Prose], None], ...] = (
    _curves, _curves, _violins, _contours, _errors, _cloud, _steps,
)  # fmt: skip


@cache
def gallery_figure(number: int) -> tuple[str, float, float]:
    """SVG text, width and height in points of figure `number` of the gallery, the same in every run and process."""
    import matplotlib as mpl
    import matplotlib.style  # loads mpl.style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    rng = Random(f"gallery {number}")
    prose, source = Prose(rng), np.random.default_rng(number)
    columns, rows = rng.choice(((1, 1), (1, 1), (2, 1), (3, 1), (2, 2)))
    wide, tall = rng.uniform(2.2, 3.4) * columns, rng.uniform(1.6, 2.6) * rows
    settings = {
        "svg.hashsalt": "florentune",
        "svg.fonttype": "path",
        "figure.facecolor": "white",
        "font.size": rng.choice((7, 8, 9, 10)),
    }
    settings["font.family"] = rng.choice(("DejaVu Sans", "DejaVu Sans", "STIXGeneral"))
    with mpl.style.context(["default", rng.choice(STYLES)]), mpl.rc_context(settings):
        figure = Figure(figsize=(wide, tall), layout="constrained")
        for axis in np.ravel(figure.subplots(rows, columns)):
            rng.choice(DRAWERS)(axis, source, prose)
            axis.set_xlabel(prose.plain(1).capitalize())
            axis.set_ylabel(prose.plain(1).capitalize())
            if rng.random() < 0.4:
                axis.set_title(prose.plain(2))
        stream = io.StringIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    return stream.getvalue(), wide * 72, tall * 72
