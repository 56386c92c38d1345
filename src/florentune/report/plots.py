"""Boxes on pages, and plots of training and evaluation; all of it readable in grayscale.

Colours differ in lightness as well as hue (Okabe and Ito's set), lines differ in dashes too, and every box carries its
label in letters. matplotlib is used through its objects only, so nothing global changes; it is part of the extras
`report` and `train`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..errors import InputError, MissingExtraError
from ..evaluation import Evaluation
from ..files import written_whole
from ..regions import Box, Page, Region

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6bb1", "#7a5c00", "#56b4e9", "#444444")
TRUTH = "#111111"
_DASHES = ("-", "--", "-.", ":")
_SMOOTH = 0.9
_LOSSES = ("loss", "val_loss")
_SCORES = ("page_success", "map", "ap50", "false_alarm_rate")


def colour_of(label: str, labels: Sequence[str]) -> str:
    """The colour of a label: its place among `labels`, so truth and prediction of a data set agree."""
    place = labels.index(label) if label in labels else sum(label.encode())
    return PALETTE[place % len(PALETTE)]


def draw(page: Page, image: Image.Image, *, labels: Sequence[str] = (), truth: Page | None = None) -> Image.Image:
    """A copy of the image with the boxes of `page`, solid in the colour of their label, named with label and score.

    `page` is in pixels of its own width and height, whatever the size of `image`. The boxes of `truth` are dashed and
    near black. `labels` fixes which label has which colour; without it, labels are taken in alphabetical order.
    """
    drawn = image.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    names = tuple(labels) or tuple(sorted({region.label for region in page.regions}))
    line = max(2, round(min(drawn.size) / 400))
    font = ImageFont.load_default(size=max(12, round(min(drawn.size) / 60)))
    for region in truth.regions if truth else ():
        _dashed(pen, _scaled(region.box, truth or page, drawn), line)
    for region in page.regions:
        pen.rectangle(_scaled(region.box, page, drawn), outline=colour_of(region.label, names), width=line)
    used: list[tuple[float, float, float, float]] = []
    for region in page.regions:
        _tag(pen, _scaled(region.box, page, drawn), _title(region), colour_of(region.label, names), font, used)
    return drawn


def plot_loss(metrics: Path, png: Path) -> None:
    """The plot of a training run from its metrics.jsonl: loss, validation loss, and validation scores below.

    Lines are JSON objects with "step"; "loss" is drawn as it is and smoothed, "val_loss" and the scores of a validation
    ("page_success", "map", "ap50", "false_alarm_rate") as points. Raises InputError when no line has a step and one of
    these numbers, and MissingExtraError without matplotlib.
    """
    series = _series(metrics)
    if not series:
        raise InputError(f"{metrics}: has no line with a step and a number to plot")
    losses = {name: points for name, points in series.items() if name in _LOSSES}
    scores = {name: points for name, points in series.items() if name not in losses}
    figure, axes = _figure(8, 4.5 if not (losses and scores) else 7, int(bool(losses)) + int(bool(scores)))
    panels = iter(axes)
    if losses:
        _plot_losses(next(panels), losses)
    if scores:
        _plot_scores(next(panels), scores)
    axes[-1].set_xlabel("step")
    _save(figure, png)


def plot_curves(evaluation: Evaluation, png: Path) -> None:
    """Precision over recall of every label, and the reliability diagram, side by side in one picture."""
    figure, (curves, calibration) = _figure(10, 4.5, 1, columns=2)
    for (label, curve), dash, colour in zip(evaluation.curves.items(), cycle(_DASHES), cycle(PALETTE), strict=False):
        curves.plot(curve.recall, curve.precision, dash, color=colour, label=label)
    curves.set(xlabel="recall", ylabel="precision at IoU 0.5", xlim=(0, 1.02), ylim=(0, 1.02))
    if evaluation.curves:
        curves.legend(loc="lower left")
    known = [found for found in evaluation.calibration.bins if found.count]
    calibration.plot([0, 1], [0, 1], ":", color="#666666", label="scores that say what they mean")
    calibration.plot(
        [found.confidence for found in known], [found.accuracy for found in known], "o-", color=PALETTE[0], label="bins"
    )
    ece = evaluation.calibration.ece
    title = "no predictions" if ece is None else f"ECE {ece:.3f}"
    calibration.set(xlabel="score", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02), title=title)
    calibration.legend(loc="upper left")
    _save(figure, png)


def _scaled(box: Box, page: Page, image: Image.Image) -> tuple[float, float, float, float]:
    x, y = image.width / page.width, image.height / page.height
    left, right = sorted((box.x1 * x, box.x2 * x))
    top, bottom = sorted((box.y1 * y, box.y2 * y))
    return left, top, right, bottom


def _title(region: Region) -> str:
    return region.label if region.score is None else f"{region.label} {region.score:.2f}"


def _tag(
    pen: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    text: str,
    colour: str,
    font: Any,
    used: list[tuple[float, float, float, float]],
) -> None:
    """White letters on the label's colour: above the box, else inside it, moved down past tags that are there."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 8, bottom - top + 6
    limit_x, limit_y = pen.im.size if pen.im else (width, height)
    x = min(max(box[0], 0), max(limit_x - width, 0))
    y = box[1] - height if box[1] >= height else max(box[1], 0)
    while any(x < u[2] and u[0] < x + width and y < u[3] and u[1] < y + height for u in used) and y + height < limit_y:
        y += height
    y = min(y, max(limit_y - height, 0))
    used.append((x, y, x + width, y + height))
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    pen.text((x + 4 - left, y + 3 - top), text, fill="white", font=font)


def _dashed(pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float], line: int) -> None:
    left, top, right, bottom = box
    for start, end in _dashes(left, right, 6 * line):
        pen.line((start, top, end, top), fill=TRUTH, width=line)
        pen.line((start, bottom, end, bottom), fill=TRUTH, width=line)
    for start, end in _dashes(top, bottom, 6 * line):
        pen.line((left, start, left, end), fill=TRUTH, width=line)
        pen.line((right, start, right, end), fill=TRUTH, width=line)


def _dashes(start: float, end: float, length: float) -> Iterator[tuple[float, float]]:
    while start < end:
        yield start, min(start + length, end)
        start += 2 * length


def _series(metrics: Path) -> dict[str, list[tuple[float, float]]]:
    """The numbers of each name by step. A line that is cut off, as after a crash, is passed over."""
    found: dict[str, list[tuple[float, float]]] = {}
    try:
        lines = metrics.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{metrics}: cannot be read ({error.strerror})") from None
    for line in lines:
        row = _row(line)
        step = row.get("step")
        if not isinstance(step, int | float):
            continue
        for name, value in row.items():
            if name in (*_LOSSES, *_SCORES) and isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(name, []).append((step, value))
    return found


def _row(line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _plot_losses(axes: Any, losses: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    if "loss" in losses:
        steps, values = zip(*losses["loss"], strict=True)
        axes.plot(steps, values, color="#bbbbbb", linewidth=1, label="loss")
        axes.plot(steps, _smoothed(values), color=PALETTE[0], linewidth=2, label="loss, smoothed")
    if "val_loss" in losses:
        steps, values = zip(*losses["val_loss"], strict=True)
        axes.plot(steps, values, "o--", color=PALETTE[1], label="validation loss")
    axes.set_ylabel("loss")
    if all(value > 0 for points in losses.values() for _, value in points):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    axes.legend()


def _plot_scores(axes: Any, scores: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    for (name, points), dash, colour in zip(scores.items(), cycle(_DASHES), cycle(PALETTE), strict=False):
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, dash, marker="o", color=colour, label=name.replace("_", " "))
    axes.set(ylim=(0, 1.02), ylabel="validation")
    axes.legend()


def _smoothed(values: Sequence[float]) -> list[float]:
    """The exponential mean, unbiased at the start."""
    mean, weight, found = 0.0, 0.0, []
    for value in values:
        mean, weight = _SMOOTH * mean + (1 - _SMOOTH) * value, _SMOOTH * weight + (1 - _SMOOTH)
        found.append(mean / weight)
    return found


def _figure(width: float, height: float, rows: int, columns: int = 1) -> tuple[Any, list[Any]]:
    """A figure that draws into memory only, and its axes in a flat list."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "report") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for each in axes:
        each.grid(visible=True, color="#dddddd", linewidth=0.6)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, png: Path) -> None:
    with written_whole(png, "wb") as stream:
        figure.savefig(stream, format="png", dpi=120)
