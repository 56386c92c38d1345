"""Which page comes when, what augmentation may do to it, how sets are mixed and split."""

import math
import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from florentune.errors import InputError
from florentune.regions import Box, Page, Region
from florentune.training.augment import augment, generator
from florentune.training.batches import Schedule, padded_answers, read_ahead
from florentune.training.datasets import Sample, mix, split


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5))
def test_every_epoch_holds_every_page_once_in_another_order(pages, batch, seed):
    schedule = Schedule(pages, batch, seed)
    steps = schedule.steps_per_epoch
    assert steps == math.ceil(pages / batch)
    epochs = [[place for step in range(n * steps, (n + 1) * steps) for place in schedule.batch(step)] for n in (0, 1)]
    for number, places in enumerate(epochs):
        assert {epoch for epoch, _ in places} == {number}
        assert sorted(index for _, index in places) == list(range(pages))
    if pages > 12:
        assert [index for _, index in epochs[0]] != [index for _, index in epochs[1]]


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 60), st.integers(0, 30))
def test_a_run_that_starts_at_a_step_sees_what_a_whole_run_sees(pages, batch, start, more):
    schedule = Schedule(pages, batch, 3)
    assert list(schedule.batches(start, start + more)) == [schedule.batch(n) for n in range(start, start + more)]


def test_pages_are_read_ahead_in_order_by_any_number_of_threads():
    def read(place):
        time.sleep(0.002 * (place[1] % 3))
        return place

    places = [(0, index) for index in range(20)]
    for threads in (0, 1, 4):
        assert list(read_ahead(read, places, threads, 5)) == places


def test_reading_ahead_is_bounded_and_passes_errors_on():
    started = []

    def read(place):
        started.append(place)
        if place[1] == 7:
            raise ValueError("page 7")
        return place

    examples = read_ahead(read, [(0, index) for index in range(100)], 2, 4)
    next(examples)
    time.sleep(0.05)
    assert len(started) <= 6
    with pytest.raises(ValueError, match="page 7"):
        list(examples)
    assert len(started) < 20


def test_answers_are_padded_with_what_the_loss_ignores():
    assert padded_answers([[0, 5, 2], [0, 2]]).tolist() == [[0, 5, 2], [0, 2, -100]]


boxes = st.tuples(st.integers(0, 180), st.integers(0, 230), st.integers(8, 60), st.integers(8, 60)).map(
    lambda b: Box(b[0], b[1], min(b[0] + b[2], 200), min(b[1] + b[3], 260))
)


@given(boxes, st.integers(0, 1000))
def test_augmented_boxes_still_lie_on_what_they_enclosed(box, seed):
    """A black rectangle on white: after any augmentation its box is where the dark pixels are."""
    pixels = np.full((260, 200, 3), 255, np.uint8)
    pixels[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)] = 0
    page, (region,), (width, height) = augment(
        Image.fromarray(pixels), [Region("table", box)], (300, 256), generator(seed)
    )
    assert page.size == (256, 300)
    assert 0 <= region.box.x1 < region.box.x2 <= width
    assert 0 <= region.box.y1 < region.box.y2 <= height
    rows, columns = np.nonzero(np.asarray(page.convert("L"), dtype=int) < 110)
    found = Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    wanted = [region.box.x1 / width * 256, region.box.y1 / height * 300]
    wanted += [region.box.x2 / width * 256, region.box.y2 / height * 300]
    assert found == pytest.approx(wanted, abs=2.5)


def test_augmentation_depends_on_its_numbers_alone_and_never_mirrors():
    page = Image.fromarray(np.tile(np.linspace(0, 255, 200, dtype=np.uint8)[None, :, None], (260, 1, 3)))
    first, again, other = (np.asarray(augment(page, [], (64, 64), generator(*n))[0]) for n in ((1, 2), (1, 2), (1, 3)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    for number in range(50):
        varied = np.asarray(augment(page, [], (64, 64), generator(number))[0], dtype=int)
        assert varied[:, :20].mean() < varied[:, -20:].mean(), "dark stays left"


def samples(count, source="a", name="{}_{}"):
    return [Sample(Page(name.format(i // 3, i % 3) + ".png", 10, 10), None, source) for i in range(count)]


def test_data_sets_are_mixed_as_named():
    short, long = samples(2, "short"), samples(5, "long")

    def sources(found):
        return "".join(sample.source[0] for sample in found)

    assert sources(mix([short, long], "concat", (), 0)) == "sslllll"
    assert sources(mix([short, long], "interleave_under", (), 0)) == "sls"
    over = mix([short, long], "interleave_over", (), 0)
    assert sources(over) == "slslslslsl"
    assert {sample.page.image for sample in over if sample.source == "long"} == {s.page.image for s in long}
    drawn = mix([samples(50, "short"), samples(500, "long")], "interleave_under", (0.9, 0.1), 1)
    assert sources(drawn).count("s") > 4 * sources(drawn).count("l")
    assert drawn == mix([samples(50, "short"), samples(500, "long")], "interleave_under", (0.9, 0.1), 1)


@given(st.integers(1, 40), st.floats(0, 0.9), st.integers(0, 5))
def test_a_split_is_seeded_complete_and_of_the_wanted_size(count, share, seed):
    pages = [Sample(Page(f"page{i}.png", 10, 10), None, "a") for i in range(count)]
    train, validation = split(pages, share, None, seed)
    assert len(validation) == min(math.ceil(share * count), max(count - 1, 1))
    assert {s.page.image for s in train} | {s.page.image for s in validation} == {s.page.image for s in pages}
    assert (train, validation) == split(pages, share, None, seed)


@pytest.mark.parametrize("group_by", [r"^(\d+)_", None])
def test_a_document_is_never_on_both_sides(group_by):
    """Also when nobody says what a document is: names that end in a page number tell."""
    train, validation = split(samples(30), 5, group_by, 0)
    papers = [{re.match(r"\d+", sample.page.image).group() for sample in part} for part in (train, validation)]
    assert not papers[0] & papers[1]
    assert 5 <= len(validation) <= 7


def test_names_that_tell_nothing_are_split_by_page_and_a_rule_that_misses_is_an_error():
    one = [Sample(Page(f"IMG_{i}.png", 10, 10), None, "a") for i in range(20)]
    assert len(split(one, 0.25, None, 0)[1]) == 5
    with pytest.raises(InputError, match=r"does not match 20 of 20 image names, for example 'IMG_0\.png'"):
        split(one, 0.25, r"^paper(\d+)", 0)
