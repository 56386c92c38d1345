"""Boxes, regions and pages."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from florentune.errors import InputError
from florentune.regions import Box, Page, Region, counted, iou

coordinates = st.integers(-5, 25)
boxes = st.builds(Box, coordinates, coordinates, coordinates, coordinates)


def cells(box):
    x1, y1, x2, y2 = map(int, box)
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


@given(boxes, boxes)
def test_iou_counts_pixels(first, second):
    union = cells(first) | cells(second)
    expected = len(cells(first) & cells(second)) / len(union) if union else 0.0
    assert iou(first, second) == pytest.approx(expected)
    assert iou(first, second) == iou(second, first)


@given(boxes)
def test_area_counts_pixels(box):
    assert box.area == len(cells(box))


@given(boxes, st.integers(1, 20), st.integers(1, 20))
def test_clipping_keeps_what_is_inside(box, width, height):
    page = cells(Box(0, 0, width, height))
    assert cells(box.clipped(width, height)) == cells(box) & page


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_region_has_finite_coordinates(value):
    with pytest.raises(InputError, match="table"):
        Region("table", Box(0, 0, value, 1))


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan])
def test_a_score_is_a_probability(score):
    with pytest.raises(InputError):
        Region("table", Box(0, 0, 1, 1), score)


@pytest.mark.parametrize(("width", "height"), [(0, 1), (1, 0), (-1, 5)])
def test_a_page_has_pixels(width, height):
    with pytest.raises(InputError, match=r"a\.png"):
        Page("a.png", width, height)


def test_as_dict_is_what_the_json_files_hold():
    page = Page(
        "a.png", 10, 20, (Region("table", Box(1.234, 2, 3, 4), 0.56789), Region("figure", Box(0, 0, 1, 1))), {"k": 1}
    )
    assert page.as_dict() == {
        "image": "a.png",
        "width": 10,
        "height": 20,
        "regions": [
            {"label": "table", "bbox": [1.23, 2, 3, 4], "score": 0.5679},
            {"label": "figure", "bbox": [0, 0, 1, 1]},
        ],
        "k": 1,
    }


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [
        (0, "page", "0 pages"),
        (1, "page", "1 page"),
        (4685, "page", "4,685 pages"),
        (1, "box", "1 box"),
        (2, "box", "2 boxes"),
    ],
)
def test_counts_are_said_as_people_say_them(number, noun, said):
    assert counted(number, noun) == said
