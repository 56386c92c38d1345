"""Edges of boxes that cut through ink."""

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from florentune.extraction.edges import whole
from florentune.regions import Box


def page(*inked: tuple[int, int, int, int]) -> Image.Image:
    """A white page of 200 x 200 pixels with black boxes (right and bottom edge excluded)."""
    image = Image.new("RGB", (200, 200), "white")
    for x1, y1, x2, y2 in inked:
        ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), fill="black")
    return image


ROWS = [(50, 50 + 12 * row, 150, 58 + 12 * row) for row in range(5)]  # 8 pixels of ink, 4 of blank; ends at 106


def test_edges_on_blank_paper_stay():
    box = Box(45.5, 47.25, 155.0, 111.5)
    assert whole(box, page(*ROWS), 1.0) == box


def test_a_row_that_is_mostly_inside_comes_in_whole_and_one_that_is_hardly_goes_out():
    assert whole(Box(45, 47, 155, 104), page(*ROWS), 1.0).y2 == 107
    assert whole(Box(45, 47, 155, 100), page(*ROWS), 1.0).y2 == 98
    assert whole(Box(45, 54, 155, 110), page(*ROWS), 1.0).y1 == 49
    assert whole(Box(53, 47, 148, 110), page(*ROWS), 1.0)[0::2] == (49, 151)


def test_ink_without_an_end_nearby_changes_nothing():
    box = Box(60, 60, 140, 140)
    assert whole(box, page((20, 20, 180, 180)), 1.0) == box


def test_captions_stay_outside():
    image = page(*ROWS[:4], (50, 95, 150, 101))  # a figure of four rows, and a caption below it
    assert whole(Box(45, 47, 155, 93), image, 1.0).y2 == 95
    assert whole(Box(45, 47, 155, 93), image, 1.0, [Box(50, 93, 150, 110)]).y2 == 93
    assert whole(Box(45, 47, 155, 98), image, 1.0, [Box(50, 95, 150, 101)]).y2 == 95


def test_the_edge_of_the_page_is_an_edge():
    image = page((0, 0, 200, 200))
    assert whole(Box(-3, -3, 203, 203), image, 1.0) == Box(0, 0, 200, 200)


corner = st.floats(0, 200)


@given(corner, corner, corner, corner, st.floats(0.3, 4), st.lists(st.tuples(*[st.integers(0, 200)] * 4), max_size=4))
def test_no_edge_moves_far(x1, y1, x2, y2, scale, inked):
    box = Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    image = page(*((min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1) for a, b, c, d in inked))
    found = whole(box, image, scale)
    assert all(abs(new - old) <= 9 * scale + 1 for new, old in zip(found, box, strict=True))
    assert (found.x1 < found.x2 and found.y1 < found.y2) or found == box
    assert Box(*found).clipped(200, 200) == found
