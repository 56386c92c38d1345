"""convert: from the command line to files that the readers, and LLaMA-Factory, find their way in."""

import io
import json
import zipfile
from itertools import pairwise

import pytest
from PIL import Image
from typer.testing import CliRunner

from florentune.cli import build_app
from florentune.errors import AnnotationError, InputError
from florentune.formats import read, read_registered
from florentune.formats.convert import convert


def run(*arguments):
    return CliRunner().invoke(build_app(), ["convert", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def source(tmp_path):
    """coco.json with 12 pages of 4 papers, every third of them empty, and papers.zip with their images."""
    images, annotations = [], []
    with zipfile.ZipFile(tmp_path / "papers.zip", "w") as archive:
        for index in range(12):
            name = f"paper_{index // 3}_{index % 3}.png"
            images.append({"id": index, "file_name": name, "width": 100, "height": 80})
            if index % 3:
                boxes = ([50, 40, 20, 20], 2), ([10, 10, 20, 20], 1), ([10, 5, 20, 20], 2)
                annotations += [{"image_id": index, "category_id": c, "bbox": bbox} for bbox, c in boxes]
            stream = io.BytesIO()
            Image.new("L", (100, 80), index).save(stream, "PNG")
            archive.writestr(f"papers/{name}", stream.getvalue())
    categories = [{"id": 1, "name": "table"}, {"id": 2, "name": "figure"}, {"id": 3, "name": "ignore"}]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_the_real_file_by_the_command(shared, out):
    source = shared / "data/tfid/annotations_no_caption_all_481_papers.json"
    options = ["--order", "category", "--skip-empty", "--register", out / "dataset_info.json"]
    done = run(source, out / "tfid.json", "--to", "llamafactory", *options)
    assert done.exit_code == 0
    assert "ignored_category: 1" in done.stdout
    assert "2,808 pages, 0 of them empty; table 1,586, figure 2,654" in done.stdout
    assert len(json.loads((out / "tfid.json").read_text())) == 2808
    assert list(json.loads((out / "dataset_info.json").read_text())) == ["tfid"]


def test_boxes_are_sorted_and_empty_pages_kept_by_default(source, out):
    done = convert(source, out / "rows.json", to="llamafactory")
    rows = json.loads(done.files[""].read_text())
    answers = [row["messages"][1]["content"] for row in rows]
    assert len(rows) == 12
    assert answers[0] == ""
    assert answers[1].startswith("table<loc_100><loc_125>")
    assert answers[1].count("figure") == 2
    assert answers[1].index("<loc_62>") < answers[1].index("<loc_500>")


def test_a_split_by_paper_is_registered_part_by_part(source, out):
    registry = out / "dataset_info.json"
    options = ["--split", "70/30", "--group-by", r"^(paper_\d+)_", "--seed", "3", "--register", registry, "--name", "p"]
    done = run(source, out / "rows.json", "--to", "llamafactory", "--images", source.parent / "papers.zip", *options)
    assert "split_group" not in done.stdout
    assert f"media_dir: {source.parent / 'papers.zip'}" in done.stdout
    assert list(json.loads(registry.read_text())) == ["p_train", "p_val"]
    parts = [
        read_registered(registry, f"p_{part}", media_dir=source.parent / "papers.zip") for part in ("train", "val")
    ]
    assert [len(part.pages) for part in parts] == [9, 3]
    assert all(part.issues == [] for part in parts)


def test_a_split_that_tears_papers_apart_is_reported(source, out):
    done = run(source, out, "--to", "jsonl", "--split", "50/50")
    assert "split_likely_group" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["coco_train.jsonl", "coco_val.jsonl"]


@pytest.mark.parametrize("to", ["coco", "jsonl", "llamafactory", "yolo"])
def test_copied_images_are_found_without_being_told(source, out, to):
    target = out if to in ("yolo", "llamafactory") else out / "data"
    done = convert(source, target, to=to, images=source.parent / "papers.zip", copy_images=True)
    path = done.files[""]
    found = read(path, images=done.images if to == "llamafactory" else None)
    assert found.issues == []
    assert found.counts() == {"table": 8, "figure": 16}
    assert found.images.open(found.pages[5].image).getpixel((0, 0)) == (5, 5, 5)


def test_every_way_round_gives_the_same_answers(source, tmp_path):
    """coco -> yolo -> jsonl -> llamafactory -> coco -> llamafactory, images copied once."""
    first = convert(source, tmp_path / "y", to="yolo", images=source.parent / "papers.zip", copy_images=True)
    steps = [("a.jsonl", "jsonl"), ("b.json", "llamafactory"), ("c.json", "coco"), ("d.json", "llamafactory")]
    paths = [first.files[""], *(tmp_path / "y" / name for name, _ in steps)]
    for (before, after), (_, to) in zip(pairwise(paths), steps, strict=True):
        assert convert(before, after, to=to).source.issues == []
    assert (tmp_path / "y/b.json").read_bytes() == (tmp_path / "y/d.json").read_bytes()


def test_the_result_as_json(source, out):
    done = json.loads(run(source, out / "rows.json", "--to", "llamafactory", "--split", "1/1", "--json").stdout)
    assert list(done) == ["source", "read", "issues", "parts", "images", "registered"]
    assert done["read"]["issues"] == {"ignored_category": 1}
    assert sum(part["pages"] for part in done["parts"].values()) == 12


def test_ignored_names_can_be_chosen(source, out):
    run(source, out / "rows.jsonl", "--to", "jsonl", "--ignore", "figure")
    assert read(out / "rows.jsonl").counts() == {"table": 8}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "coco", "registry": "x.json"}, "--register goes with"),
        ({"to": "coco", "group_by": "x"}, "--group-by goes with"),
        ({"to": "coco", "copy_images": True}, "--images"),
        ({"to": "llamafactory", "registry": "x.json", "name": "a,b"}, "--name"),
        ({"to": "coco", "images": "nowhere.zip"}, "nowhere.zip"),
        ({"to": "coco", "shares": "85"}, "--split"),
    ],
)
def test_options_that_do_not_fit_are_named_before_anything_is_written(source, out, options, message):
    paths = {key: source.parent / options[key] for key in ("registry", "images") if key in options}
    with pytest.raises(InputError, match=message):
        convert(source, out / "x.json", **{**options, **paths})
    assert not out.exists()


def test_the_source_is_never_replaced(source):
    before = source.read_bytes()
    with pytest.raises(InputError, match="replace the source"):
        convert(source, source, to="coco")
    with pytest.raises(InputError, match="replace the source"):
        convert(source, source.parent, to="llamafactory")
    assert source.read_bytes() == before


def test_a_data_set_without_usable_pages_is_an_error(source, out):
    (source.parent / "empty").mkdir()
    with pytest.raises(AnnotationError, match="no page is left"):
        convert(source, out / "x.json", to="coco", images=source.parent / "empty")
    assert not out.exists()


def test_images_keep_the_names_of_the_source(source, out):
    convert(source, out / "rows.json", to="llamafactory", images=source.parent / "papers.zip")
    assert json.loads((out / "rows.json").read_text())[0]["images"] == ["paper_0_0.png"]


def test_the_command_offers_every_format():
    from florentune.cli.convert import Format
    from florentune.formats import FORMATS

    assert [*Format] == [*FORMATS]
