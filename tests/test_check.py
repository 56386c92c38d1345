"""check: every defect is named with file, id and remedy; errors give exit code 1."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from florentune.cli import build_app
from florentune.formats import DataSet, ImageFolder, check, read
from florentune.formats.check import check_parts, describe
from florentune.regions import Box, Page, Region

BOX = Region("table", Box(10, 10, 50, 50))


def noise(seed=0, left=15, top=15, right=46, bottom=46, width=200, height=100):
    """A white page with random dots, by default inside of BOX."""
    pixels = np.full((height, width), 255, np.uint8)
    size = bottom - top, right - left
    pixels[top:bottom, left:right] = np.random.default_rng(seed).integers(0, 2, size, np.uint8) * 255
    return Image.fromarray(pixels)


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def codes(issues):
    return [issue.code for issue in issues]


@pytest.fixture
def images(tmp_path):
    noise().save(tmp_path / "a.png")
    return ImageFolder(tmp_path)


def page(*regions, image="a.png", width=200, height=100):
    return Page(image, width, height, regions or (BOX,))


def findings(images, *pages, labels=("table",), **options):
    return check(DataSet(list(pages), labels, images, source="data.json"), **options)


def test_a_good_data_set_has_no_findings(images):
    assert findings(images, page()) == []


def test_findings_of_reading_come_first(tmp_path):
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "t"}]}))
    found = check(read(path))
    assert codes(found) == ["bad_file_name", "unused_label", "images_unchecked"]
    assert all(issue.file == str(path) and issue.id and issue.remedy for issue in found)


@pytest.mark.parametrize(
    ("regions", "code"),
    [
        ([BOX, BOX], "duplicate_box"),
        ([BOX, Region("table", Box(10.01, 10.01, 50, 50))], "duplicate_box"),
        ([BOX, Region("table", Box(10, 11, 50, 50))], "near_duplicate_box"),
        ([BOX, Region("figure", Box(11, 10, 50, 50))], "near_duplicate_box"),
        ([Region("table", Box(10, 10, 10.01, 50))], "thin_box"),
        ([Region("table", Box(10, 10, 50, 10.01))], "thin_box"),
    ],
)
def test_boxes(images, regions, code):
    assert codes(findings(images, page(*regions), decode=False)) == [code]


def test_boxes_that_share_much_but_not_all_are_fine(images):
    found = findings(images, page(BOX, Region("table", Box(10, 10, 50, 80))))
    assert found == []


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10, 10, 50, 50), []),
        ((100, 10, 180, 90), ["blank_box"]),
        ((10, 10, 30, 50), ["cut_ink"]),
        ((30, 10, 50, 50), ["cut_ink"]),
        ((10, 10, 50, 30), ["cut_ink"]),
        ((10, 30, 50, 50), ["cut_ink"]),
        ((0, 0, 200, 100), []),
    ],
)
def test_ink_in_and_around_a_box(images, box, expected):
    assert codes(findings(images, page(Region("table", Box(*box))))) == expected
    doubled = [Region("table", Box(*(2 * value for value in box)))]
    assert codes(findings(images, page(*doubled, width=400, height=200))) == ["other_resolution", *expected]


def test_a_rule_along_the_edge_is_the_end_of_a_table(images, tmp_path):
    pixels = np.asarray(noise()).copy()
    pixels[48:53, 10:51] = 0
    Image.fromarray(pixels).save(tmp_path / "ruled.png")
    assert findings(images, page(image="ruled.png")) == []


def test_pages_that_look_the_same_are_found_in_other_sizes(images, tmp_path):
    big = noise(1, 20, 20, 380, 180, width=400, height=200)
    whole = Region("table", Box(0, 0, 400, 200))
    big.save(tmp_path / "big.png")
    big.resize((300, 150)).convert("RGB").save(tmp_path / "small.jpg")
    noise(2, 20, 20, 380, 180, width=400, height=200).save(tmp_path / "other.png")
    Image.new("L", (400, 200), 255).save(tmp_path / "white.png")
    Image.new("L", (400, 200), 255).save(tmp_path / "white2.png")

    def of(name, **extra):
        return Page(name, 400, 200, () if "white" in name else (whole,), extra)

    found = findings(images, of("big.png"), of("other.png"), of("small.jpg"), of("white.png"), of("white2.png"))
    assert codes(found) == ["other_resolution", "near_duplicate_page"]
    assert "'big.png'" in found[1].message
    train, val = (DataSet([of(name)], ("table",), images, source=name) for name in ("big.png", "small.jpg"))
    assert codes(check_parts({"train": train, "val": val}))[-1] == "split_near_duplicate"
    both = DataSet([of("big.png", split="train"), of("small.jpg", split="val")], ("table",), images)
    assert codes(check_parts({"all": both}))[-1] == "split_near_duplicate"


def test_more_boxes_than_the_decoder_can_write(images):
    boxes = [Region("table", Box(i, 1, i + 1, 99)) for i in range(21)]

    def of(count, **options):
        return codes(findings(images, page(*boxes[:count]), max_tokens=2 + 20 * 5, decode=False, **options))

    assert of(20) == []
    assert of(21) == ["too_many_boxes"]
    assert of(20, count_tokens=len) == ["too_many_boxes"]


def test_400_boxes_are_too_many_for_1024_tokens(shared):
    found = check(read(shared / "bad_inputs/coco/ann_400_distinct.json"))
    assert "too_many_boxes" in codes(found)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("table", "figure"), ["unused_label"]),
        (("Table", "table"), ["unused_label", "similar_labels"]),
        (("table", "été"), ["unused_label", "non_ascii_label"]),
    ],
)
def test_labels(images, labels, expected):
    assert codes(findings(images, page(), labels=labels)) == expected


def exif(image, orientation, path):
    tags = image.getexif()
    tags[0x0112] = orientation
    image.save(path, exif=tags)


def test_images_that_differ_from_their_annotation(images, tmp_path):
    def of(name, **size):
        return codes(findings(images, page(image=name, **size), decode=name == "cut.png"))

    (tmp_path / "text.png").write_text("no image")
    data = png(noise())
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    exif(noise(), 6, tmp_path / "turned.jpg")
    exif(noise(), 3, tmp_path / "upside.jpg")
    assert of("nowhere.png") == ["missing_image"]
    assert of("text.png") == ["unreadable_image"]
    assert of("cut.png") == ["unreadable_image"]
    assert of("a.png", width=100, height=100) == ["size_mismatch"]
    assert of("a.png", width=400, height=200) == ["other_resolution"]
    assert of("turned.jpg", width=200, height=100) == ["size_mismatch"]
    assert of("turned.jpg", width=100, height=200) == ["exif_rotated"]
    assert of("upside.jpg") == ["exif_rotated"]


def test_headers_alone_do_not_find_a_cut_image(images, tmp_path):
    data = png(noise())
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    assert findings(images, page(image="cut.png"), decode=False) == []


def test_two_names_of_one_file(images):
    found = findings(images, page(image="a.png"), page(image="one/a.png"), page(image="two/a.png"), decode=False)
    assert codes(found) == ["same_file"]


def test_leaks_between_files_and_inside_a_yolo_data_set(images):
    def part(*names, **extra):
        pages = [Page(name, 200, 100, (BOX,), extra) for name in names]
        return DataSet(pages, ("table",), source=names[0])

    parts = {"train": part("p1_1.png", "p2_1.png"), "val": part("p1_2.png", "p3_1.png")}
    assert codes(check_parts(parts))[-1] == "split_likely_group"
    assert codes(check_parts(parts, group_by=r"^(p\d)_"))[-1] == "split_group"
    assert codes(check_parts({"train": parts["train"]}, group_by=r"^(p\d)_")) == ["images_unchecked"]
    inside = part("p1_1.png", split="train")
    inside.pages += part("p1_2.png", split="val").pages
    assert "split_group" in codes(check_parts({"all": inside}, group_by=r"^(p\d)_"))


def test_progress_counts_every_page(images):
    seen = []
    findings(images, page(), page(image="nowhere.png"), on_page=lambda: seen.append(1))
    assert len(seen) == 2


def test_the_description_groups_by_kind_with_errors_first(images):
    missing = (page(image=f"{i}.png") for i in range(5))
    found = findings(images, page(BOX, BOX), *missing)
    lines = describe(found, examples=2)
    assert lines[0].startswith("error: missing_image: 5 (image left out). Remedy: ")
    assert lines[3] == "    ... and 3 more"
    assert lines[4].startswith("warning: duplicate_box: 1 ")
    assert len(lines) == 6


# -- the command ---------------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(build_app(), ["check", *map(str, arguments)])


def write_coco(folder, **image):
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 200, "height": 100, **image}],
        "annotations": [{"id": 7, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40]}],
        "categories": [{"id": 1, "name": "table"}],
    }
    (folder / "coco.json").write_text(json.dumps(document))
    return folder / "coco.json"


def test_command_exit_codes(images, tmp_path):
    done = run(write_coco(tmp_path))
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "no errors")
    assert "1 page, 0 of them empty; table 1" in done.stdout
    done = run(write_coco(tmp_path, file_name="b.png"), "--images", tmp_path)
    assert done.exit_code == 1
    assert "annotation 7" in done.stdout
    assert "Remedy" in done.stdout


def test_command_json(images, tmp_path):
    done = run(write_coco(tmp_path, width=100), "--images", tmp_path, "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["ok"]) == (1, False)
    (summary,) = found["data"].values()
    assert summary["labels"] == {"table": 1}
    assert set(found["issues"][0]) == {"severity", "code", "file", "id", "message", "effect", "remedy"}


def test_command_names_a_file_it_cannot_read(tmp_path):
    done = run(tmp_path / "nowhere.json")
    assert "nowhere.json" in str(done.exception)
    assert done.exception.exit_code == 2
