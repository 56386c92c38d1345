"""LLaMA-Factory: the demo's rows are reproduced, dataset_info.json is changed in one entry only."""

import json
from fractions import Fraction

import pytest
from PIL import Image

from florentune.errors import AnnotationError, InputError
from florentune.formats import read, read_registered, register
from florentune.formats.llamafactory import SHAREGPT_STYLE, Keys, check_names, page_to_row
from florentune.locations import box_to_bins

ROW = {
    "messages": [
        {"content": "<OD>", "role": "user"},
        {"content": "table<loc_1><loc_2><loc_300><loc_400>", "role": "assistant"},
    ],
    "images": ["a.png"],
}


@pytest.fixture
def load(tmp_path):
    """Read rows from a file beside the image a.png of 200 x 100 pixels."""
    Image.new("L", (200, 100)).save(tmp_path / "a.png")

    def load(*rows):
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        return read(tmp_path / "rows.json")

    return load


def turn(prompt, answer):
    return {**ROW, "messages": [{"content": prompt, "role": "user"}, {"content": answer, "role": "assistant"}]}


def test_the_demo_file_is_read_and_written_as_it_is(shared):
    path = shared / "data/llamafactory_demo/TF-ID-arxiv-papers_example.json"
    dataset = read(path)
    assert dataset.issues == []
    rows = json.loads(path.read_text())
    written = [page_to_row(page) for page in dataset.ordered("category").pages]
    assert [row["messages"] for row in written] == [row["messages"] for row in rows]
    assert [row["images"] for row in written] == [row["images"] for row in rows]
    assert list(written[0]) == list(rows[0])


def test_the_coco_boxes_of_the_demo_pages_give_the_demo_rows(shared):
    """The golden case: the same two pages, from the pixels of the COCO file (which is of another resolution)."""
    rows = json.loads((shared / "data/llamafactory_demo/TF-ID-arxiv-papers_example.json").read_text())
    dataset = read(shared / "data/tfid/annotations_no_caption_all_481_papers.json").ordered("category")
    pages = {page.image: page for page in dataset.pages}
    for row in rows:
        page = pages[row["images"][0].split("/")[-1]]
        assert page_to_row(page)["messages"] == row["messages"]


def test_every_answer_of_the_real_file_follows_the_formula(shared):
    """An independent writer: categories in turn, floor(1000 x / size) in exact arithmetic on the written decimals."""
    path = shared / "data/tfid/annotations_no_caption_all_481_papers.json"
    document = json.loads(path.read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    expected = {image: "" for image in sizes}
    for category in (1, 2):
        for annotation in document["annotations"]:
            if annotation["category_id"] == category:
                x, y, w, h = (Fraction(str(value)) for value in annotation["bbox"])
                width, height = sizes[annotation["image_id"]]
                corners = (x / width, y / height, (x + w) / width, (y + h) / height)
                bins = "".join(f"<loc_{min(int(1000 * value), 999)}>" for value in corners)
                expected[annotation["image_id"]] += {1: "table", 2: "figure"}[category] + bins
    found = {
        p.extra["image_id"]: page_to_row(p)["messages"][1]["content"] for p in read(path).ordered("category").pages
    }
    different = [image for image in expected if found[image] != expected[image]]
    assert not any("<loc_1000>" in answer for answer in found.values())
    # x + w in floating point may fall just below the edge of a bin that the decimals reach exactly.
    assert len(different) <= 2


@pytest.mark.parametrize("prompt", ["<OD>", "<image><OD>", "Locate the objects with category name in the image."])
def test_prompts_that_ask_for_boxes(load, prompt):
    dataset = load(turn(prompt, "table<loc_1><loc_2><loc_300><loc_400>"))
    (region,) = dataset.pages[0].regions
    assert (region.label, box_to_bins(region.box, 200, 100)) == ("table", (1, 2, 300, 400))
    assert region.box == pytest.approx((0.3, 0.25, 60.1, 40.05))


def test_an_empty_answer_is_an_empty_page(load):
    dataset = load(turn("<OD>", ""))
    assert [page.regions for page in dataset.pages] == [()]
    assert page_to_row(dataset.pages[0])["messages"][1]["content"] == ""


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (turn("<CAPTION>", "a table"), "other_task"),
        (turn("<OD>", 5), "bad_row"),
        (turn("<OD>", "table<loc_1><loc_2><loc_3><loc_1000>"), "unreadable_answer"),
        ({**ROW, "images": []}, "bad_row"),
        ({**ROW, "images": ["a.png", "a.png"]}, "bad_row"),
        ({**ROW, "images": ["b.png"]}, "missing_image"),
        ({**ROW, "images": ["../a.png"]}, "bad_file_name"),
        ({**ROW, "messages": ROW["messages"][::-1]}, "bad_row"),
        ({**ROW, "messages": ROW["messages"] * 2}, "bad_row"),
        ({**ROW, "messages": "text"}, "bad_row"),
        ({}, "bad_row"),
        ("text", "bad_row"),
        (None, "bad_row"),
    ],
)
def test_rows_that_cannot_be_used_are_reported(load, row, code):
    dataset = load(ROW, row)
    assert [issue.code for issue in dataset.issues] == [code]
    assert dataset.issues[0].id.startswith("row 1")


def test_an_image_that_does_not_decode_is_reported(load, tmp_path):
    (tmp_path / "b.png").write_text("no image")
    assert [issue.code for issue in load({**ROW, "images": ["b.png"]}).issues] == ["unreadable_image"]


def test_both_spellings_are_understood(load):
    messages = [{"from": "human", "value": "<OD>"}, {"from": "gpt", "value": ""}]
    assert len(load({"conversations": messages, "images": ["a.png"]}).pages) == 1


OTHER = {"other": {"hf_hub_url": "someone/set", "weird": [1.5, None, "é"]}, "old": {"file_name": "x.json"}}


def test_registering_leaves_everything_else_alone(load, tmp_path):
    load(ROW)
    registry = tmp_path / "dataset_info.json"
    registry.write_text(json.dumps({**OTHER, "mine": {"file_name": "before.json", "num_samples": 5}}, indent=4))
    register(registry, {"mine": tmp_path / "rows.json"})
    known = json.loads(registry.read_text())
    assert list(known) == ["other", "old", "mine"]
    assert {name: known[name] for name in OTHER} == OTHER
    assert known["mine"] == {
        "file_name": "rows.json",
        "num_samples": 5,
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    }
    before = registry.read_bytes()
    register(registry, {"mine": tmp_path / "rows.json"})
    assert registry.read_bytes() == before
    assert len(read_registered(registry, "mine").pages) == 1


def test_a_new_registry_is_made_and_a_far_file_is_named_in_full(load, tmp_path):
    load(ROW)
    registry = tmp_path / "elsewhere/dataset_info.json"
    register(registry, {"mine": tmp_path / "rows.json"})
    assert json.loads(registry.read_text())["mine"]["file_name"] == str(tmp_path / "rows.json")
    assert len(read_registered(registry, "mine", media_dir=tmp_path).pages) == 1


@pytest.mark.parametrize("content", ["[]", "{", '{"a": 1, "a": 2}'])
def test_a_file_that_is_no_registry_is_not_touched(tmp_path, content):
    registry = tmp_path / "dataset_info.json"
    registry.write_text(content)
    with pytest.raises(AnnotationError, match=r"dataset_info\.json"):
        register(registry, {"mine": tmp_path / "rows.json"})
    assert registry.read_text() == content


def test_an_entry_without_columns_and_tags_means_the_sharegpt_names(load, tmp_path):
    load({"conversations": [{"from": "human", "value": "<OD>"}, {"from": "gpt", "value": ""}], "images": ["a.png"]})
    entry = {"file_name": "rows.json", "formatting": "sharegpt", "columns": SHAREGPT_STYLE.entry("")["columns"]}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    assert len(read_registered(tmp_path / "dataset_info.json", "mine").pages) == 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (5, "object"),
        ({}, "file_name"),
        ({"hf_hub_url": "a/b"}, "hf_hub_url"),
        ({"file_name": "rows.json"}, "formatting"),
        ({"file_name": "rows.json", "formatting": "alpaca"}, "formatting"),
        ({"file_name": "rows.json", "formatting": "sharegpt", "columns": {"messages": "messages"}}, "images"),
        ({"file_name": "rows.json", "formatting": "sharegpt", "columns": 5}, "columns"),
        ({**Keys().entry("rows.json"), "tags": {"role_tag": "role"}}, "content_tag"),
        (Keys().entry("nowhere.json"), "nowhere"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named(tmp_path, entry, message):
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    with pytest.raises(AnnotationError, match=message):
        read_registered(tmp_path / "dataset_info.json", "mine")


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"b": {}, "a": {}}')
    with pytest.raises(AnnotationError, match="known are a, b"):
        read_registered(tmp_path / "dataset_info.json", "mine")


@pytest.mark.parametrize("name", ["", " ", "a,b"])
def test_a_name_that_a_comma_list_cannot_hold_is_refused(name):
    with pytest.raises(InputError, match="--name"):
        check_names([name])
