"""Pictures: what is drawn where, and that it can be read without colour."""

import json
import sys

import numpy as np
import pytest
from PIL import Image, ImageColor

from florentune.errors import InputError, MissingExtraError
from florentune.evaluation import evaluate
from florentune.regions import Box, Page, Region
from florentune.report.plots import PALETTE, colour_of, draw, plot_curves, plot_loss

PAGE = Page("a.png", 800, 1000, (Region("table", Box(100, 200, 500, 600), 0.875),))


def test_a_box_is_drawn_where_it_is():
    blank = Image.new("RGB", (800, 1000), "white")
    drawn = np.asarray(draw(PAGE, blank))
    colour = ImageColor.getrgb(PALETTE[0])
    assert tuple(drawn[400, 100]) == tuple(drawn[599, 300]) == colour
    assert (drawn[300:590, 110:490] == 255).all()
    assert np.asarray(blank).min() == 255  # the image itself is left alone


def test_boxes_are_scaled_to_the_image():
    drawn = np.asarray(draw(PAGE, Image.new("RGB", (400, 500), "white")))
    assert tuple(drawn[200, 50]) == ImageColor.getrgb(PALETTE[0])


@pytest.mark.parametrize("box", [(0, 0, 60, 60), (-50, -50, 900, 1100), (780, 990, 800, 1000), (30, 30, 30, 30)])
def test_the_tag_stays_on_the_page(box):
    """The name is written inside the image wherever the box lies: white letters are on the tag."""
    page = Page("a.png", 800, 1000, (Region("figure", Box(*box), 0.5),))
    drawn = np.asarray(draw(page, Image.new("RGB", (800, 1000), "black")))
    assert (drawn == 255).all(axis=2).sum() > 50


def test_tags_do_not_cover_each_other():
    two = tuple(Region(label, Box(100, 300, 500, 600), 0.5) for label in ("figure", "table"))
    drawn = np.asarray(draw(Page("a.png", 800, 1000, two), Image.new("RGB", (800, 1000), "white")))
    counts = [(drawn == np.array(ImageColor.getrgb(PALETTE[i]))).all(axis=2).sum() for i in (0, 1)]
    assert min(counts) > 500


def test_truth_is_dashed_and_dark():
    drawn = np.asarray(draw(Page("a.png", 800, 1000), Image.new("RGB", (800, 1000), "white"), truth=PAGE))
    edge = drawn[200, 100:500].sum(axis=1) < 100
    assert 0.3 < edge.mean() < 0.7


def test_colours_differ_in_lightness():
    grey = sorted(np.dot(ImageColor.getrgb(colour), (0.299, 0.587, 0.114)) for colour in PALETTE[:4])
    assert min(np.diff(grey)) > 4
    assert colour_of("b", ("a", "b")) == PALETTE[1]
    assert colour_of("elsewhere", ("a", "b")) in PALETTE


def test_plot_loss(tmp_path):
    rows = [{"step": s, "loss": 2 / s} for s in range(1, 30)] + [{"step": 20, "val_loss": 0.3, "map": 0.5, "lr": 1e-4}]
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("\n".join(json.dumps(row) for row in rows) + '\n{"step": 31, "lo')
    plot_loss(metrics, tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as image:
        assert image.format == "PNG"
        assert np.asarray(image.convert("L")).std() > 5
    assert "matplotlib.pyplot" not in sys.modules


def test_plot_loss_without_numbers(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"lr": 1}\n[]\n')
    with pytest.raises(InputError, match="no line with a step"):
        plot_loss(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    with pytest.raises(InputError, match="cannot be read"):
        plot_loss(tmp_path / "none.jsonl", tmp_path / "loss.png")


def test_plot_curves(tmp_path):
    truth = [Page("a.png", 800, 1000, (Region("table", Box(100, 200, 500, 600)),))]
    inked = []
    for name, predictions in (("empty.png", []), ("curves.png", [PAGE])):
        plot_curves(evaluate(truth, predictions, ("table", "figure"), coco=False), tmp_path / name)
        with Image.open(tmp_path / name) as image:
            inked.append((np.asarray(image.convert("RGB")) == ImageColor.getrgb(PALETTE[0])).all(axis=2).sum())
    assert inked[1] > inked[0] > 0  # the legend alone, then the bin's marker too


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1}\n')
    with pytest.raises(MissingExtraError, match=r"florentune\[report\]"):
        plot_loss(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
