"""Locations against the reference formulas: q = clamp(floor(x / (s / 1000)), 0, 999), x' = (q + 0.5) * s / 1000."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from florentune.errors import InputError
from florentune.locations import (
    BINS,
    bins_to_box,
    bins_to_text,
    box_to_bins,
    check_label,
    from_bin,
    regions_to_text,
    sorted_regions,
    text_to_regions,
    to_bin,
)
from florentune.regions import Box, Region

sides = st.integers(1, 20_000)
bins = st.integers(0, BINS - 1)
labels = st.text(st.characters(exclude_characters="<>\n\r\x00", exclude_categories=["Cs"]), min_size=1).map(str.strip)
labels = labels.filter(bool)


@given(st.integers(-5_000, 25_000), sides)
def test_bins_equal_the_exact_formula(value, size):
    exact = math.floor(Fraction(value) / Fraction(size, BINS))
    assert to_bin(value, size) == min(max(exact, 0), 999)


@given(st.floats(0, 20_000), sides)
def test_bins_equal_the_float32_reference_up_to_its_rounding(value, size):
    reference = np.floor(np.float32(value) / np.float32(size / BINS)).clip(0, 999)
    assert abs(to_bin(value, size) - int(reference)) <= 1
    distance = value * BINS / size % 1
    assume(1e-2 < distance < 1 - 1e-2)
    assert to_bin(value, size) == int(reference)


@given(st.integers(0, 999), st.integers(1, 40))
def test_the_edge_of_a_bin_belongs_to_it(index, pixels_per_bin):
    assert to_bin(index * pixels_per_bin, 1000 * pixels_per_bin) == index


@given(bins, sides)
def test_a_bin_survives_the_way_to_pixels_and_back(index, size):
    assert to_bin(from_bin(index, size), size) == index
    assert from_bin(index, size) == pytest.approx((index + 0.5) * (size / 1000))


@given(st.floats(0, 1), sides)
def test_the_error_is_at_most_half_a_bin(fraction, size):
    value = fraction * size
    assert abs(from_bin(to_bin(value, size), size) - value) <= 0.5 * size / BINS + 1e-6


@pytest.mark.parametrize("value", [-1e300, -0.1, 1000, 1001, 1e300])
def test_bin_1000_does_not_exist(value):
    assert to_bin(value, 1000) in (0, 999)


def test_x_uses_the_width_and_y_the_height():
    assert box_to_bins(Box(10, 10, 50, 50), 100, 1000) == (100, 10, 500, 50)
    assert bins_to_box((100, 10, 500, 50), 100, 1000) == pytest.approx((10.05, 10.5, 50.05, 50.5))


@given(st.lists(st.tuples(labels, st.tuples(bins, bins, bins, bins))), sides, sides)
def test_text_is_read_back_as_it_was_written(objects, width, height):
    regions = [Region(label, bins_to_box(four, width, height)) for label, four in objects]
    text = regions_to_text(regions, width, height)
    assert text == "".join(label + bins_to_text(four) for label, four in objects)
    assert text_to_regions(text, width, height) == (regions, [])


@given(st.text(alphabet="ab <>_loc0123456789/s\n"), sides)
def test_no_text_breaks_the_parser_and_nothing_is_lost(text, size):
    regions, unread = text_to_regions(text, size, size)
    written = regions_to_text(regions, size, size)
    squeeze = str.maketrans("", "", " \n")
    kept = written.translate(squeeze) + "".join(unread).translate(squeeze)
    # Leading zeros ("<loc_007>") are read as the number they are, so compare without digits.
    digits = str.maketrans("", "", "0123456789")
    assert sorted(kept.translate(digits)) == sorted(text.translate(squeeze).translate(digits))


@pytest.mark.parametrize(
    ("text", "regions", "unread"),
    [
        ("", 0, []),
        ("table<loc_1><loc_2><loc_3><loc_4>", 1, []),
        ("table<loc_1><loc_2><loc_3>", 0, ["table<loc_1><loc_2><loc_3>"]),
        ("table<loc_1><loc_2><loc_3><loc_1000>", 0, ["table<loc_1><loc_2><loc_3><loc_1000>"]),
        ("<loc_1><loc_2><loc_3><loc_4>", 0, ["<loc_1><loc_2><loc_3><loc_4>"]),
        ("table", 0, ["table"]),
        ("table<loc_1><loc_2><loc_3><loc_4><loc_5>", 0, ["table<loc_1><loc_2><loc_3><loc_4><loc_5>"]),
    ],
)
def test_pieces_that_do_not_fit_are_reported(text, regions, unread):
    found, left = text_to_regions(text, 100, 100)
    assert (len(found), left) == (regions, unread)


@pytest.mark.parametrize("label", ["", "  ", "a<b", "</s>", "a\nb", "a\rb", "a\x00b", ">"])
def test_a_label_that_breaks_the_grammar_is_refused(label):
    with pytest.raises(InputError):
        check_label(label)
    with pytest.raises(InputError):
        regions_to_text([Region(label, Box(0, 0, 1, 1))], 10, 10)


def test_regions_are_sorted_by_label_then_y_then_x():
    def at(label, x, y):
        return Region(label, Box(x, y, x + 1, y + 1))

    regions = [at("figure", 0, 0), at("table", 5, 9), at("table", 9, 1), at("table", 1, 9), at("other", 0, 0)]
    found = sorted_regions(regions, ["table", "figure"])
    assert [(r.label, r.box.x1, r.box.y1) for r in found] == [
        ("table", 9, 1),
        ("table", 1, 9),
        ("table", 5, 9),
        ("figure", 0, 0),
        ("other", 0, 0),
    ]
