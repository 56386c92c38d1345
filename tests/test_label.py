"""florentune label: a COCO file that annotation tools and we ourselves read, from images and PDFs."""

import json
import subprocess
import sys
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image

from florentune.formats import read
from tiny_model import tiny_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


def pdf(path, pages):
    document = pypdfium2.PdfDocument.new()
    for _ in range(pages):
        document.new_page(200, 300)
    document.save(str(path))
    return path


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "scans"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (120, 80), "white").save(folder / "a.png")
    Image.new("L", (80, 120), "white").save(folder / "sub" / "b.jpg")
    return folder


def test_a_folder_of_images(source, model, tmp_path, florentune):
    out = tmp_path / "boxes.json"
    assert florentune("label", source, "--out", out, "--model", model, "--conf", 0)[0] == 0
    coco = json.loads(out.read_text())
    assert [(i["file_name"], i["width"], i["height"]) for i in coco["images"]] == [
        ("a.png", 120, 80),
        ("sub/b.jpg", 80, 120),
    ]
    assert [c["name"] for c in coco["categories"]] == ["table", "figure"]
    assert coco["annotations"]
    assert read(out, images=source).labels == ("table", "figure")


def test_annotation_tools_find_what_they_read(source, model, tmp_path, florentune):
    """What CVAT's reader asks for, with these types, or refuses the file: an empty segmentation stands for a box."""
    out = tmp_path / "boxes.json"
    florentune("label", source, "--out", out, "--model", model, "--conf", 0)
    coco = json.loads(out.read_text())
    images, categories = ({entry["id"] for entry in coco[key]} for key in ("images", "categories"))
    for number, annotation in enumerate(coco["annotations"], 1):
        assert annotation["id"] == number
        assert annotation["image_id"] in images
        assert annotation["category_id"] in categories
        assert annotation["iscrowd"] == 0
        assert len(annotation["bbox"]) == 4
        assert annotation["area"] > 0
        assert 0 <= annotation["score"] <= 1
        assert annotation["segmentation"] == []
    assert min(images | categories) == 1
    assert all({"id", "name", "supercategory"} <= set(category) for category in coco["categories"])


def test_pdfs_and_images_end_in_one_folder(source, model, tmp_path, florentune):
    pdf(source / "paper.pdf", 2)
    (source / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    (source / "broken.png").write_bytes(b"nothing")
    out = tmp_path / "set" / "boxes.json"
    code, text, err = florentune("label", source, "--out", out, "--model", model, "--dpi", 72)
    assert code == 1
    assert "4 pages" in text
    assert "2 left out" in text
    assert "broken.pdf" in err
    assert "broken.png" in err
    names = [page.image for page in read(out).pages]
    assert names == ["a.png", "paper_0.png", "paper_1.png", "sub/b.jpg"]
    for name in names:
        with Image.open(out.parent / "images" / name) as image:
            assert image.size[0] > 0
    assert read(out).images is not None  # the folder is found beside the file


def test_one_pdf(model, tmp_path, florentune):
    out, pages = tmp_path / "boxes.json", tmp_path / "pages"
    paper = pdf(tmp_path / "paper.pdf", 1)
    assert florentune("label", paper, "--out", out, "--model", model, "--pages", pages, "--dpi", 72)[0] == 0
    with Image.open(pages / "paper_0.png") as image:
        assert image.size == (200, 300)


def test_two_pages_of_one_name(source, model, tmp_path, florentune):
    pdf(source / "a.pdf", 1)
    (source / "a.png").rename(source / "a_0.png")
    code, _, err = florentune("label", source, "--out", tmp_path / "x.json", "--model", model)
    assert code == 2
    assert "two pages called a_0.png" in err
    assert not (tmp_path / "x.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_importers_of_cvat_and_label_studio_read_every_box(model, tmp_path):
    script = Path(__file__).parent.parent / "benchmarks" / "annotation_tools.py"
    command = [sys.executable, str(script), "--work", str(tmp_path), "--model", str(model)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "No matching distribution" in done.stderr or "Could not find a version" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("each where it was") == 2
