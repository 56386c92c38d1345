"""Captions: which lines start one, how far it goes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extraction_pdfs import write_pdf
from florentune.extraction.captions import find_captions, settle
from florentune.extraction.lines import joined, lines_of, turned, turned_back
from florentune.pdf import PageText, PdfReader, Word
from florentune.regions import Box


@pytest.fixture(scope="module")
def captions_of(tmp_path_factory):
    """Captions of a page with the given lines of text, through a real PDF."""
    path = tmp_path_factory.mktemp("captions") / "a.pdf"
    with PdfReader() as reader:

        def find(lines, boxes=(), rotate=0, size=(612, 792)):
            reader.open(write_pdf(path, [lines], size, rotate))
            return find_captions(reader.text(path, 0), boxes)

        yield find


@pytest.mark.parametrize(
    ("text", "kind", "number", "label"),
    [
        ("Table 3: Results.", "table", "3", "Table 3"),
        ("Figure 12. The overview.", "figure", "12", "Figure 12"),
        ("Fig. 4a: A detail.", "figure", "4a", "Fig. 4a"),
        ("Fig. 4(b). A detail.", "figure", "4(b)", "Fig. 4(b)"),
        ("Figure A.2: Appendix.", "figure", "A.2", "Figure A.2"),
        ("Table S1 | Supplement.", "table", "S1", "Table S1"),
        ("TABLE IV", "table", "IV", "TABLE IV"),
        ("T ABLE II", "table", "II", "T ABLE II"),
        ("Extended Data Fig. 1 | Controls.", "figure", "1", "Extended Data Fig. 1"),
        ("Supplementary Table 2. More.", "table", "2", "Supplementary Table 2"),
        ("Figure 3 - Flow of data", "figure", "3", "Figure 3"),
        ("Figure 2.1: Section numbers.", "figure", "2.1", "Figure 2.1"),
        ("Table B: Letters.", "table", "B", "Table B"),
        ("Figure 7 Overview of the method", "figure", "7", "Figure 7"),
        ("Abbildung 5: Ergebnis", "figure", "5", "Abbildung 5"),
    ],
)
def test_labels_of_every_style(captions_of, text, kind, number, label):
    (caption,) = captions_of([(72, 100, 10, text)])
    assert (caption.kind, caption.number, caption.label, caption.text) == (kind, number, label, text)


@pytest.mark.parametrize(
    "text",
    [
        "Figure 3 shows that the loss falls.",
        "Table 2 and Figure 4 agree.",
        "Figures are expensive.",
        "Table 1 presents the results.",
        "figure 3: not a label",
        "Tables 1: 5 to 7",
        "Figure out 3: what to do",
        "Fig 5 also illustrates this",
    ],
)
def test_sentences_are_no_captions(captions_of, text):
    assert captions_of([(72, 100, 10, text)]) == []


def test_a_sentence_that_ends_in_a_label_is_no_caption(captions_of):
    lines = ["The loss falls for all sizes of the model as can be seen in", "Figure 9. Next we turn to the data."]
    assert captions_of([(72, 100 + 12 * i, 10, text) for i, text in enumerate(lines)]) == []
    assert len(captions_of([(72, 100, 10, lines[0]), (72, 130, 10, lines[1])])) == 1


def test_a_caption_goes_on_over_lines_and_mends_hyphens(captions_of):
    lines = [(72, 100, 9, "Figure 1: A caption that goes over some lines and ends with hyphen-")]
    lines += [
        (72, 111, 9, "ated words that belong together, in every line of it, until it ends with the"),
        (72, 122, 9, "end."),
    ]
    lines += [(72, 145, 10, "Body text begins after a blank.")]
    (caption,) = captions_of(lines)
    assert caption.text.endswith(
        "ends with hyphenated words that belong together, in every line of it, until it ends with the end."
    )
    assert caption.box.y2 == pytest.approx(122, abs=3)


def test_a_box_that_reaches_over_the_end_of_a_caption_does_not_end_its_sentence(captions_of):
    lines = [
        "Table 1: What was measured for all of the models",
        "here, and for all of those that the appendix has, of",
        "all sizes.",
    ]
    cells = [(72, 133, 9, "Model Accuracy"), (72, 144, 9, "nano 0.9")]
    box = Box(60, 114, 400, 300)
    (caption,) = captions_of([*((72, 100 + 11 * i, 9, text) for i, text in enumerate(lines)), *cells], [box])
    assert caption.text == " ".join(lines)


def test_a_caption_with_double_spacing_goes_on(captions_of):
    lines = ["Figure 2. Pressure caused by the impact as predicted by the first code,", "and by the second one.", "7"]
    (caption,) = captions_of([(72, 100 + 18 * i, 9, text) for i, text in enumerate(lines[:2])] + [(300, 220, 9, "7")])
    assert caption.text == " ".join(lines[:2])


@pytest.mark.parametrize("text", ["Figure 2. Pressure caused by the impact.", "Figure 2. Pressure"])
def test_a_title_does_not_run_on_into_the_text_far_below_it(captions_of, text):
    below = (72, 118, 9, "The text of the paper begins here and goes on for a while until it ends")
    (caption,) = captions_of([(72, 100, 9, text), below])
    assert caption.text == text


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ("Figure 1: hyphen-", "ated", "Figure 1: hyphenated"),
        ("Figure 1: on CIFAR-", "10 only", "Figure 1: on CIFAR-10 only"),
        ("Figure 1: of Mixed-", "Language models", "Figure 1: of Mixed-Language models"),
        ("Figure 1: state-of-the-", "art", "Figure 1: state-of-the-art"),
        ("Figure 1: a dash -", "and more", "Figure 1: a dash - and more"),
    ],
)
def test_hyphens_at_the_end_of_a_line(captions_of, first, second, text):
    (caption,) = captions_of([(72, 100, 9, first), (72, 111, 9, second)])
    assert caption.text == text


def test_a_caption_ends_at_a_box_another_size_or_another_caption(captions_of):
    first = (72, 100, 9, "Table 1: The caption of a table that stands above it")
    for text, size, boxes in [
        ("Model Accuracy", 9, [Box(60, 104, 400, 300)]),
        ("Body text of another size follows here", 11, []),
        ("Table 2: The caption of another table there", 9, []),
    ]:
        found = captions_of([first, (72, 111, size, text)], boxes)
        assert found[0].text == first[3]


def test_two_captions_side_by_side(captions_of):
    lines = [(60, 100, 9, "Figure 1: Left one"), (320, 100, 9, "Table 4: Right one")]
    assert [c.text for c in captions_of(lines)] == ["Figure 1: Left one", "Table 4: Right one"]


@pytest.mark.parametrize("rotate", [90, 180, 270])
def test_rotated_captions_have_their_place_on_the_page_as_shown(captions_of, rotate):
    lines = [(72, 100, 9, "Table 1: A caption on a page that lies on its side and"), (72, 111, 9, "goes on here.")]
    (caption,) = captions_of(lines, rotate=rotate)
    assert caption.angle == rotate
    assert caption.text.endswith("goes on here.")
    upright = turned(caption.box, rotate, *((612, 792) if rotate == 180 else (792, 612)))
    assert upright.x1 == pytest.approx(72, abs=2)
    assert upright.y2 == pytest.approx(111, abs=4)


def test_continued_tables_are_marked(captions_of):
    (caption,) = captions_of([(72, 100, 10, "Table 9 - continued from previous page")])
    assert caption.continued
    (caption,) = captions_of([(72, 100, 10, "Table 7 (continued)")])
    assert caption.continued


def test_a_surer_label_elsewhere_settles_a_mention(captions_of):
    sure = captions_of([(72, 100, 10, "Figure 3: The loss.")])
    mention = captions_of([(72, 100, 10, "Figure 3. Next we see the data.")])
    assert settle([*mention, *sure]) == sure
    assert settle(mention) == mention


boxes = st.tuples(*[st.floats(0, 500)] * 4).map(
    lambda v: Box(min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3]))
)


@given(boxes, st.sampled_from([0, 90, 180, 270]))
def test_turning_is_undone_by_turning_back(box, angle):
    there = turned(box, angle, 600, 800)
    assert turned_back(there, angle, 600, 800) == pytest.approx(box)
    assert there.area == pytest.approx(box.area)


words = st.builds(
    lambda text, x, y, size, angle: Word(text, Box(x, y, x + 5, y + 5), (x, y + 5), size, angle, 0),
    st.text(min_size=1, max_size=20) | st.sampled_from(["Table", "Figure", "1:", "IV", "2.", "Fig."]),
    st.floats(-100, 900),
    st.floats(-100, 900),
    st.floats(0, 100),
    st.sampled_from([0, 90, 180, 270]),
)


@given(st.lists(words, max_size=30))
def test_any_words_make_lines_that_lose_none(found):
    page = PageText(0, 600, 800, 0, tuple(found), False)
    lines = lines_of(page)
    assert Counter(word for line in lines for word in line.words) == Counter(found)
    joined(lines)
    for caption in find_captions(page):
        assert caption.text
