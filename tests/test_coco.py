"""COCO: every broken file ends as MANIFEST.tsv expects, no mutation makes a traceback, boxes survive a round trip."""

import contextlib
import copy
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florentune.errors import AnnotationError
from florentune.formats import DataSet, ImageFolder, check, coco, read, write
from florentune.regions import Box, Page, Region
from manifest import manifest_rows

GOOD = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 800, "height": 1000},
        {"id": 2, "file_name": "b.png", "width": 800, "height": 1000},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 100, 200], "area": 20000, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [30, 40, 50, 60], "area": 3000, "iscrowd": 0},
    ],
    "categories": [{"id": 1, "name": "table"}, {"id": 2, "name": "figure"}],
}


@pytest.fixture
def load(tmp_path):
    """Read a COCO document from a file."""

    def load(document, **options):
        path = tmp_path / "coco.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return read(path, **options)

    return load


def codes(dataset):
    return [issue.code for issue in dataset.issues]


def changed(**values):
    return {**copy.deepcopy(GOOD), **values}


# Every phrase MANIFEST.tsv uses, as what reading the file must give: (boxes kept of 2, issues that must be named).
BOTH, ONE = 2, 1
OUTCOMES = {
    "converted": (BOTH, ()),
    "never fetched": (BOTH, ()),
    "ignored": (BOTH, ()),
    "same": (400, ()),
    "clipped": (BOTH, ("clipped",)),
    "both converted + warned": (BOTH, ("duplicate_annotation_id",)),
    "merged": (BOTH, ("duplicate_category",)),
    "warned; boxes merged": (BOTH, ("duplicate_file_name",)),
    "skipped or warned": (ONE, ("normalised", "looks_like_xyxy")),
    "that annotation skipped": (
        ONE,
        ("bad_bbox", "bad_annotation", "zero_area", "crowd", "orphan", "unknown_category", "id_type"),
    ),
    "that image skipped": (ONE, ("bad_file_name", "bad_image_entry", "unknown_size")),
}


@pytest.mark.parametrize(("name", "expected"), manifest_rows("coco/"))
def test_broken_files_end_as_the_manifest_expects(shared, name, expected):
    path = shared / "bad_inputs" / name
    if expected.startswith("error"):
        with pytest.raises(AnnotationError, match=path.name):
            read(path)
        return
    dataset = read(path)
    if name.endswith(("missing_file.json", "id_string_vs_int.json")):
        assert len(dataset.counts()) == 2  # The image folder decides; the id is matched by its text.
        return
    boxes, allowed = next(value for phrase, value in OUTCOMES.items() if expected.startswith(phrase))
    assert sum(dataset.counts().values()) == boxes
    assert bool(set(codes(dataset)) & set(allowed)) == bool(allowed)


def test_a_good_file_has_no_issues(load):
    dataset = load(GOOD)
    assert dataset.issues == []
    assert dataset.labels == ("table", "figure")
    first = dataset.pages[0]
    assert (first.image, first.width, first.height) == ("a.png", 800, 1000)
    assert first.regions == (Region("table", Box(10, 20, 110, 220)),)


def test_the_real_file(shared):
    dataset = read(shared / "data/tfid/annotations_no_caption_all_481_papers.json")
    assert (len(dataset.pages), dataset.counts()) == (4685, {"table": 1586, "figure": 2654})
    assert sum(not page.regions for page in dataset.pages) == 1877
    assert codes(dataset) == ["ignored_category"]


def test_ignored_categories_are_left_out_by_name_and_counted(load):
    document = changed(categories=[{"id": 1, "name": "ignore"}, {"id": 2, "name": "figure"}])
    dataset = load(document)
    assert dataset.labels == ("figure",)
    assert dataset.counts() == {"figure": 1}
    assert [issue.message for issue in dataset.issues] == ["1 box"]
    assert load(document, ignore=()).labels == ("ignore", "figure")


def test_missing_sizes_are_read_from_the_image(load, shared, tmp_path):
    shutil.copy(shared / "data/llamafactory_demo/arxiv_2407_02687_7.png", tmp_path / "a.png")
    images = [{"id": 1, "file_name": "a.png"}]
    dataset = load(changed(images=images), images=tmp_path)
    assert (dataset.pages[0].width, dataset.pages[0].height) == (791, 1024)


def test_an_image_that_is_not_there_is_left_out_with_its_boxes(load, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/b.png").touch()
    dataset = load(GOOD, images=tmp_path / "images")
    assert [page.image for page in dataset.pages] == ["b.png"]
    assert codes(dataset) == ["missing_image", "on_skipped_image"]


@pytest.mark.parametrize("second", [{"file_name": "b.png"}, {"file_name": "../b.png"}, {"width": 900}])
def test_two_images_with_one_id_cannot_be_told_apart(load, second):
    images = [GOOD["images"][0], {**GOOD["images"][0], **second}]
    dataset = load(changed(images=images))
    assert dataset.pages == []
    assert set(codes(dataset)) >= {"duplicate_image_id", "on_skipped_image"}


def test_one_image_listed_twice_is_one_page(load):
    dataset = load(changed(images=[GOOD["images"][0]] * 2))
    assert len(dataset.pages) == 1
    assert "duplicate_file_name" in codes(dataset)


def test_one_file_with_two_sizes_is_an_error(load):
    images = [GOOD["images"][0], {**GOOD["images"][1], "file_name": "a.png", "width": 900}]
    assert codes(load(changed(images=images))) == ["file_name_conflict", "on_skipped_image"]


def test_one_category_id_with_two_names_is_refused(load):
    with pytest.raises(AnnotationError, match="already is 'table'"):
        load(changed(categories=[{"id": 1, "name": "table"}, {"id": 1, "name": "figure"}]))


@pytest.mark.parametrize(("mark", "kept"), [("iscrowd", {}), ("ignore", {"ignore": True})])
def test_crowd_regions_are_kept_apart_and_written_back(load, tmp_path, mark, kept):
    document = changed()
    document["annotations"][0][mark] = 1
    dataset = load(document)
    assert dataset.pages[0].regions == ()
    assert dataset.pages[0].extra["crowd"] == [{"label": "table", "bbox": [10, 20, 110, 220], **kept}]
    write(dataset, tmp_path / "again.json", format="coco")
    assert read(tmp_path / "again.json").pages == dataset.pages


def test_a_whole_number_of_another_type_is_the_same_id(load):
    document = changed()
    document["annotations"][0]["image_id"] = 1.0
    document["annotations"][1]["category_id"] = "2"
    dataset = load(document)
    assert sum(dataset.counts().values()) == 2
    assert codes(dataset) == ["id_type"]


def test_a_crossing_box_of_the_whole_page_is_only_cut(load):
    document = changed()
    document["annotations"][0]["bbox"] = [10, 20, 795, 985]
    dataset = load(document)
    assert codes(dataset) == ["clipped"]
    assert dataset.pages[0].regions[0].box == (10, 20, 800, 1000)


def test_rounding_at_the_border_is_no_issue(load):
    document = changed()
    document["annotations"][0]["bbox"] = [700, 900, 100.0000001, 100.0000001]
    dataset = load(document)
    assert dataset.issues == []
    assert dataset.pages[0].regions[0].box == (700, 900, 800, 1000)


def test_deep_nesting_in_a_value_is_only_quoted(load):
    document = changed()
    nested = []
    for _ in range(300):
        nested = [nested]
    document["annotations"][0]["bbox"] = nested
    (issue,) = load(document).issues
    assert issue.code == "bad_bbox"
    assert len(issue.message) < 200


def places(value, path=()):
    """Every path into a JSON value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


PLACES = list(places(GOOD))
NASTY = [None, True, False, 0, 1, 2, -1, 0.5, -0.0, 1e308, 1e-320, 10**400, -(10**15), float("nan"), float("inf")]
NASTY += [
    "",
    " ",
    "1",
    "a.png",
    "../a.png",
    "/",
    "table",
    "ignore",
    "</s>",
    "<loc_1>",
    "\ud800",
    "\x00",
    "\n",
    "é" * 300,
]
NASTY += [[], {}, [[]], [{}], {"id": 1}, [1], [1, 2, 3, 4], [0, 0, 1e9, 1e9], [-5, -5, 20, 20], ["1"] * 4, [None] * 4]
values = st.sampled_from(NASTY) | st.integers() | st.floats() | st.text(max_size=8)
mutations = st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(["replace", "remove", "repeat"]), values), min_size=1, max_size=4
)


def mutate(changes):
    """A COCO document with values replaced, removed or repeated; a place that is gone is left alone."""
    document = copy.deepcopy(GOOD)
    for (*way, last), action, value in changes:
        with contextlib.suppress(KeyError, IndexError, TypeError):
            parent = document
            for key in way:
                parent = parent[key]
            if action == "replace":
                parent[last] = copy.deepcopy(value)
            elif action == "repeat" and isinstance(parent, list):
                parent.append(copy.deepcopy(parent[last]))
            else:
                del parent[last]
    return document


@settings(max_examples=2000, deadline=None)
@given(mutations)
def test_no_mutation_makes_a_traceback(changes):
    document = json.loads(json.dumps(mutate(changes)))
    try:
        dataset = coco.parse(document, Path("mutated.json"))
    except AnnotationError as error:
        assert str(error).startswith("mutated.json: ")  # noqa: PT017  most mutations make no error
        return
    for page in dataset.pages:
        for region in page.regions:
            assert region.label in dataset.labels
            assert region.box == region.box.clipped(page.width, page.height)
            assert region.box.area > 0
    assert check(dataset) is not None


@settings(max_examples=30, deadline=None)
@given(mutations)
def test_what_was_read_can_be_written_and_read_again(tmp_path_factory, changes):
    document = mutate(changes)
    path = tmp_path_factory.getbasetemp() / "mutated.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with contextlib.suppress(AnnotationError):
        dataset = coco.read(path)
        write(dataset, path, format="coco")
        again = coco.read(path, ignore=()) if dataset.pages and dataset.labels else dataset
        assert [len(page.regions) for page in again.pages] == [len(page.regions) for page in dataset.pages]


@settings(max_examples=100)
@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_no_bytes_make_a_traceback(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(data)
    with pytest.raises(AnnotationError, match=r"bytes\.json"):
        read(path)


def test_ids_of_images_are_kept_if_all_are_different(tmp_path):
    pages = [Page("a.png", 10, 10, (), {"image_id": 7}), Page("b.png", 10, 10, (), {"image_id": 3})]
    write(DataSet(pages, ("table",)), tmp_path / "a.json", format="coco")
    assert [image["id"] for image in json.loads((tmp_path / "a.json").read_text())["images"]] == [7, 3]
    write(DataSet([pages[0], pages[0]], ("table",)), tmp_path / "a.json", format="coco")
    assert [image["id"] for image in json.loads((tmp_path / "a.json").read_text())["images"]] == [1, 2]


def test_a_folder_is_read_by_its_only_json(tmp_path):
    with pytest.raises(AnnotationError, match=r"0 \.json files"):
        read(tmp_path)
    (tmp_path / "_annotations.coco.json").write_text(json.dumps(GOOD))
    (tmp_path / "other.json").write_text("{}")
    assert len(read(tmp_path).pages) == 2


def test_images_beside_the_file_are_found_only_if_all_are_there(load, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").touch()
    assert load(GOOD).images is None
    (tmp_path / "images/b.png").touch()
    assert load(GOOD).images.root == tmp_path / "images"
    assert isinstance(load(GOOD).images, ImageFolder)


@pytest.mark.slow
def test_a_million_annotations_fit_into_two_gigabytes(tmp_path):
    """In a child process, so that its peak memory is its own."""
    import resource
    import subprocess
    import sys

    images = [{"id": i, "file_name": f"{i}.png", "width": 1000, "height": 1000} for i in range(200_000)]
    annotations = [
        {
            "id": i,
            "image_id": i % 200_000,
            "category_id": 1,
            "bbox": [i % 500, 10.5, 100, 200.25],
            "area": 1,
            "iscrowd": 0,
        }
        for i in range(1_000_000)
    ]
    path = tmp_path / "large.json"
    path.write_text(json.dumps({**GOOD, "images": images, "annotations": annotations}))
    code = f"from florentune.formats import coco; from pathlib import Path; d = coco.read(Path({str(path)!r}));"
    code += "print(sum(d.counts().values()))"

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (2 * 1024**3,) * 2)

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=limit, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "1000000"), done.stderr
