"""JSON lines: our own pages, LLaMA-Factory's rows and the prefix/suffix rows of other tools."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from florentune.errors import AnnotationError
from florentune.formats import read
from florentune.regions import Box, Region

PAGE = {"image": "a.png", "width": 100, "height": 50, "regions": [{"label": "table", "bbox": [1, 2, 30, 40]}]}
ANSWER = "table<loc_100><loc_200><loc_300><loc_400>"


def load(folder, *rows):
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return read(path)


def test_pages_with_scores_and_extras(tmp_path):
    row = {**PAGE, "model": "nano", "regions": [{"label": "table", "bbox": [1, 2, 30, 40], "score": 0.5}]}
    (page,) = load(tmp_path, row).pages
    assert page.regions == (Region("table", Box(1, 2, 30, 40), 0.5),)
    assert page.extra == {"model": "nano"}
    assert page.as_dict() == row


@pytest.mark.parametrize(
    "row",
    [
        {"image": "a.png", "prefix": "<OD>", "suffix": ANSWER},
        {
            "messages": [{"role": "user", "content": "<OD>"}, {"role": "assistant", "content": ANSWER}],
            "images": ["a.png"],
        },
    ],
)
def test_rows_of_other_tools(tmp_path, row):
    Image.new("L", (100, 50)).save(tmp_path / "a.png")
    dataset = load(tmp_path, row)
    assert dataset.issues == []
    assert dataset.pages[0].regions[0].box == pytest.approx((10.05, 10.025, 30.05, 20.025))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"image": "../a.png"}, "bad_file_name"),
        ({"image": None}, "bad_file_name"),
        ({"width": "100"}, "bad_image_entry"),
        ({"height": 0}, "bad_image_entry"),
        ({"regions": {}}, "bad_row"),
        ({"regions": [5]}, "bad_annotation"),
        ({"regions": [{"label": "</s>", "bbox": [1, 2, 3, 4]}]}, "bad_annotation"),
        ({"regions": [{"label": "table", "bbox": [1, 2, 3]}]}, "bad_bbox"),
        ({"regions": [{"label": "table"}]}, "bad_bbox"),
        ({"regions": [{"label": "table", "bbox": [3, 3, 1, 1]}]}, "zero_area"),
        ({"regions": [{"label": "table", "bbox": [1, 2, 3000, 4]}]}, "clipped"),
        ({"regions": [{"label": "table", "bbox": [300, 2, 3000, 4]}]}, "outside"),
    ],
)
def test_what_cannot_be_used_is_reported(tmp_path, change, code):
    dataset = load(tmp_path, PAGE, {**PAGE, **change})
    assert [issue.code for issue in dataset.issues] == [code]
    assert dataset.issues[0].id.startswith("row 2")


@pytest.mark.parametrize("prefix", [None, "<CAPTION>"])
def test_rows_of_another_task_are_counted(tmp_path, prefix):
    dataset = load(tmp_path, PAGE, {"image": "a.png", "prefix": prefix, "suffix": "text"})
    assert [issue.code for issue in dataset.issues] == ["other_task"]


@pytest.mark.parametrize("line", ["{", "\x00", '{"a": 1} {"b": 2}', "[" * 100_000])
def test_a_line_that_is_no_json_is_named(tmp_path, line):
    (tmp_path / "rows.jsonl").write_text(json.dumps(PAGE) + "\n" + line + "\n")
    with pytest.raises(AnnotationError, match="line 2"):
        read(tmp_path / "rows.jsonl")


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AnnotationError, match="UTF-8"):
        read(tmp_path / "rows.jsonl")


values = st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.floats(), max_size=5)


@given(st.dictionaries(st.sampled_from([*PAGE, "suffix", "prefix", "messages", "images"]), values))
def test_no_row_makes_a_traceback(tmp_path_factory, change):
    dataset = load(tmp_path_factory.getbasetemp(), PAGE, {**PAGE, **change})
    assert len(dataset.pages) + len(dataset.issues) >= 2
