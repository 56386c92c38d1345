"""YOLO: data.yaml in its usual variants, label lines, paths that stay inside."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from florentune.errors import AnnotationError, InputError
from florentune.formats import DataSet, read, write, yolo
from florentune.regions import Box, Page, Region


@pytest.fixture
def root(tmp_path):
    """images/train/a.png of 200 x 100 pixels with its label folder, and data.yaml."""
    for folder in ("images/train", "labels/train"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("L", (200, 100)).save(tmp_path / "images/train/a.png")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [table, figure]\n")
    return tmp_path


def with_labels(root, text):
    (root / "labels/train/a.txt").write_text(text)
    return read(root)


def codes(dataset):
    return [issue.code for issue in dataset.issues]


def test_a_line_is_a_box(root):
    dataset = with_labels(root, "1 0.5 0.5 0.1 0.2\n\n0 0.25 0.25 0.5 0.5\n")
    (page,) = dataset.pages
    assert (page.image, page.extra) == ("images/train/a.png", {"split": "train"})
    assert [region.label for region in page.regions] == ["figure", "table"]
    assert page.regions[0].box == pytest.approx((90, 40, 110, 60))
    assert dataset.issues == []


def test_an_image_without_label_file_is_an_empty_page(root):
    assert [page.regions for page in read(root).pages] == [()]


@pytest.mark.parametrize("line", ["0 0.1 0.1 0.5 0.1 0.3 0.9", "0 0.1 0.1 0.5 0.1 0.5 0.9 0.1 0.9"])
def test_a_polygon_becomes_its_box(root, line):
    dataset = with_labels(root, line)
    assert dataset.pages[0].regions[0].box == pytest.approx((20, 10, 100, 90))
    assert codes(dataset) == ["polygon"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("0 0.5 0.5 0.1", "bad_bbox"),
        ("0 100 50 20 20", "bad_bbox"),
        ("0 nan 0.5 0.1 0.1", "bad_bbox"),
        ("table 0.5 0.5 0.1 0.1", "bad_bbox"),
        ("0.5 0.5 0.5 0.1 0.1", "bad_bbox"),
        ("inf 0.5 0.5 0.1 0.1", "bad_bbox"),
        ("7 0.5 0.5 0.1 0.1", "unknown_category"),
        ("0 0.5 0.5 0 0.1", "zero_area"),
        ("0 0.99 0.5 0.1 0.1", "clipped"),
        ("0 1.5 0.5 0.1 0.1", "outside"),
    ],
)
def test_a_line_that_cannot_be_used_is_reported(root, line, code):
    dataset = with_labels(root, line)
    assert codes(dataset) == [code]
    assert "labels/train/a.txt, line 1" in dataset.issues[0].id


@pytest.mark.parametrize(
    "config",
    [
        "path: .\ntrain: images/train\nnames: {0: table}",
        "path: /another/machine\ntrain: images/train\nnames: {0: table}",
        "train: ../images/train\nnames: [table]",
        "train: [images/train]\nnames: [table]",
        "train: list.txt\nnames: [table]",
    ],
)
def test_the_usual_ways_to_name_the_images(root, config):
    (root / "data.yaml").write_text(config)
    (root / "list.txt").write_text("./images/train/a.png\n\n")
    assert [page.image for page in read(root / "data.yaml").pages] == ["images/train/a.png"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "must map"),
        ("{", "YAML"),
        ("train: images/train", "names"),
        ("train: images/train\nnames: [5]", "not text"),
        ("train: images/train\nnames: ['a<b']", "names"),
        ("train: images/train\nnames: {a: b}", "names"),
        ("names: [table]", "neither train"),
        ("train: 5\nnames: [table]", "train"),
        ("train: /etc\nnames: [table]", "not below"),
        ("train: nowhere\nnames: [table]", "not below"),
        ("train: labels\nnames: [table]", "hold no images"),
        ("train: images/train/a.png\nnames: [table]", "list of images"),
        ("train: !!python/object:os.system {}\nnames: [table]", "YAML"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(root, config, message):
    (root / "data.yaml").write_text(config)
    with pytest.raises(AnnotationError, match=message):
        read(root)


def test_listed_images_stay_inside(root):
    (root / "data.yaml").write_text("train: list.txt\nnames: [table]")
    (root / "list.txt").write_text("../../secret.png\nimages/train/b.png\n")
    assert codes(read(root)) == ["missing_image", "missing_image"]


def test_a_broken_image_is_reported(root):
    (root / "images/train/a.png").write_text("no image")
    assert codes(read(root)) == ["unreadable_image"]


def test_parts_are_written_side_by_side(tmp_path):
    pages = [Page(f"{name}.png", 10, 10, (Region("table", Box(1, 1, 2, 2)),)) for name in "ab"]
    data = DataSet(pages, ("figure", "table"))
    yolo.write_parts({"train": data.with_pages(pages[:1]), "val": data.with_pages(pages[1:])}, tmp_path)
    assert (tmp_path / "labels/train/a.txt").read_text() == "1 0.15000000 0.15000000 0.10000000 0.10000000\n"
    assert (tmp_path / "labels/val/b.txt").exists()
    assert (tmp_path / "data.yaml").read_text().splitlines()[:2] == ["train: images/train", "val: images/val"]


def test_two_images_cannot_share_a_label_file(tmp_path):
    pages = [Page("a.png", 1, 1), Page("a.jpg", 1, 1)]
    with pytest.raises(InputError, match="share"):
        write(DataSet(pages, ("table",)), tmp_path, format="yolo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "images/val/a.png"),
        ("sub/a.png", "images/val/sub/a.png"),
        ("images/train/a.png", "images/val/a.png"),
        ("x/images/a.png", "images/val/a.png"),
        ("images/train", "images/val/train"),
    ],
)
def test_where_images_go(name, expected):
    assert yolo.image_path(name, "val") == expected


@settings(max_examples=200)
@given(st.text(alphabet="0123456789.- e\nnaif", max_size=60))
def test_no_label_file_makes_a_traceback(tmp_path_factory, text):
    root = tmp_path_factory.getbasetemp() / "yolo"
    (root / "labels").mkdir(parents=True, exist_ok=True)
    (root / "images").mkdir(exist_ok=True)
    if not (root / "images/a.png").exists():
        Image.new("L", (20, 10)).save(root / "images/a.png")
        (root / "data.yaml").write_text("train: images\nnames: [table]\n")
    (root / "labels/a.txt").write_text(text)
    (page,) = read(root).pages
    assert all(region.box.area > 0 for region in page.regions)
