"""florentune evaluate, from the command line to files, with a real (random) model."""

import json

import pytest
from PIL import Image

from florentune.evaluation import read_predictions
from florentune.formats import read
from tiny_model import tiny_checkpoint

BOX = [20.0, 20.0, 100.0, 60.0]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six pages of three documents; the last image is broken."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    images, annotations = [], []
    for index in range(6):
        name = f"doc{index // 2}_{index % 2}.png"
        Image.new("RGB", (200, 160), "white").save(folder / "images" / name)
        images.append({"id": 10 + index, "file_name": name, "width": 200, "height": 160})
        if index % 2 == 0:
            annotations.append(
                {"id": index + 1, "image_id": 10 + index, "category_id": 3, "bbox": BOX, "area": 6000, "iscrowd": 0}
            )
    (folder / "images" / "doc2_1.png").write_bytes(b"not an image")
    categories = [{"id": 3, "name": "table"}, {"id": 7, "name": "figure"}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(coco))
    return folder


def results(path, *entries):
    path.write_text(
        json.dumps([dict(zip(("image_id", "category_id", "bbox", "score"), e, strict=False)) for e in entries])
    )
    return path


@pytest.fixture
def perfect(tmp_path):
    return results(tmp_path / "perfect.json", *((10 + i, 3, BOX, 0.9) for i in (0, 2, 4)))


def test_coco_results(data, perfect, florentune):
    code, out, _ = florentune("evaluate", data, "--predictions", perfect)
    assert code == 0
    assert "6 pages of 3 documents, 3 of them empty; 3 boxes there" in out
    assert "mAP .50:.95               1.000   1.000 - 1.000" in out


def test_what_was_written_can_be_compared(data, perfect, tmp_path, florentune):
    worse = results(tmp_path / "worse.json", (10, 3, BOX, 0.9), (11, 3, BOX, 0.9))
    assert florentune("evaluate", data, "--predictions", worse, "--json", tmp_path / "a.json")[0] == 0
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["page_success"]["0.7"] == 0.5
    code, out, _ = florentune(
        "evaluate", data, "--compare", tmp_path / "a.json", perfect, "--json", tmp_path / "difference.json"
    )
    assert code == 0
    assert "page success, IoU 0.7      0.500   1.000   +0.500" in out
    rows = {row["name"]: row for row in json.loads((tmp_path / "difference.json").read_text())["rows"]}
    assert rows["page_success_0.7"]["difference"] == 0.5


def test_bad_entries_are_named_and_the_exit_code_is_1(data, tmp_path, florentune):
    path = tmp_path / "odd.json"
    path.write_text(
        '[{"image_id": 10, "category_id": 3, "bbox": [20, 20, 100, 60]},'
        ' {"image_id": 99, "category_id": 3, "bbox": [20, 20, 100, 60], "score": 0.9},'
        ' {"image_id": [], "category_id": 3, "bbox": [20, 20, 100, 60], "score": 0.9},'
        ' {"image_id": 11, "category_id": 4, "bbox": [20, 20, 100, 60], "score": 0.9},'
        ' {"image_id": 11, "category_id": 3, "bbox": [NaN, 20, 100, 60], "score": 0.9},'
        ' {"image_id": 11, "category_id": 3, "bbox": [20, 20, 100], "score": 0.9},'
        ' {"image_id": 11, "category_id": 3, "bbox": [20, 20, 100, 60], "score": 7}]'
    )
    code, out, err = florentune("evaluate", data, "--predictions", path, "--report", tmp_path / "report")
    assert code == 1
    assert "1 box found" in out
    assert "2 x unknown_image" in err
    assert "1 x unknown_category" in err
    assert "3 x bad_box" in err
    assert "odd.json entry 4" in err
    assert "1 x no_score" in err
    assert "bad_box" in (tmp_path / "report" / "index.html").read_text()


def test_a_coco_file_with_scores(data, tmp_path, florentune):
    """What `label` wrote, against the boxes people made of it: other ids, the same file names."""
    coco = json.loads((data / "annotations.json").read_text())
    for entry in coco["images"]:
        entry["id"] += 100
    for entry in coco["annotations"]:
        entry.update(image_id=entry["image_id"] + 100, score=0.9)
    (tmp_path / "labelled.json").write_text(json.dumps(coco))
    code, out, _ = florentune("evaluate", data, "--predictions", tmp_path / "labelled.json")
    assert code == 0
    assert "page success, IoU 0.8     1.000" in out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ('{"a": 1}', "no list of predictions"),
        ("[1]", "neither COCO results"),
        ("7", "no list"),
    ],
)
def test_files_that_are_no_predictions(data, tmp_path, florentune, content, message):
    (tmp_path / "p.json").write_text(content)
    code, _, err = florentune("evaluate", data, "--predictions", tmp_path / "p.json")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert "p.json" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--conf", "much"], "write a number"),
        (["--conf", "chart=0.5"], "no label 'chart'"),
        (["--conf", "1.5"], "outside 0..1"),
        (["--group-by", "("], "regular expression"),
        (["--calibrate"], "--predictions goes with neither"),
        (["--images", "/nowhere"], "no such image folder"),
    ],
)
def test_wrong_options(data, perfect, florentune, options, message):
    code, _, err = florentune("evaluate", data, "--predictions", perfect, *options)
    assert code == 2
    assert message in err


def test_pages_as_json_lines(data, tmp_path, florentune):
    pages = read(data).pages
    lines = [{**page.as_dict(), "status": "ok"} for page in pages[:5]]
    for line in lines:
        line["regions"] = [{**region, "score": 0.8} for region in line["regions"]]
    path = tmp_path / "pages.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    code, out, err = florentune("evaluate", data, "--predictions", path)
    assert code == 1
    assert "1 x missing_page" in err
    assert "page success, IoU 0.8     1.000" in out


def test_pages_that_are_broken(data, tmp_path):
    path = tmp_path / "pages.json"
    region = {"label": "table", "bbox": [1, 2, 3, 4], "score": 0.5}
    broken = [{**region, "bbox": None}, {**region, "label": None}, 5, {**region, "score": "high"}, region]
    path.write_text(
        json.dumps(
            [
                {"image": "doc0_0.png", "width": 200, "height": 160, "regions": broken},
                {"image": "doc0_1.png", "regions": []},
                {"image": "doc1_0.png", "width": 200, "height": 160, "regions": None},
            ]
        )
    )
    pages, problems = read_predictions(path, read(data).pages)
    assert [len(page.regions) for page in pages] == [1]
    assert [problem.kind for problem in problems] == ["bad_box"] * 4 + ["bad_page"] * 2


def test_no_predictions_at_all(data, tmp_path, florentune):
    code, out, _ = florentune("evaluate", data, "--predictions", results(tmp_path / "none.json"))
    assert code == 0
    assert "page success, IoU 0.7     0.500" in out
    assert "mAP .50:.95               0.000" in out


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


def test_a_model(data, checkpoint, tmp_path, florentune):
    """A random model; the broken image is recorded and counts as an empty page."""
    code, out, err = florentune(
        "evaluate", data, "--model", checkpoint, "--json", tmp_path / "e.json", "--report", tmp_path / "report"
    )
    assert code == 1
    assert "1 x failed" in err
    assert "doc2_1.png" in err
    assert "6 pages of 3 documents" in out
    written = json.loads((tmp_path / "e.json").read_text())
    assert len(written["predictions"]) == 5
    assert written["thresholds"] == {"table": 0.0, "figure": 0.0}  # an uncalibrated model keeps every object
    assert len(list((tmp_path / "report" / "pages").iterdir())) == 5


def test_calibrate_is_stored_with_the_model_and_used(data, checkpoint, tmp_path, florentune):
    import shutil

    from florentune.detector import load_detector

    model = shutil.copytree(checkpoint, tmp_path / "model")
    _, out, _ = florentune("evaluate", data, "--model", model, "--calibrate", "--json", tmp_path / "e.json")
    stored = json.loads((model / "calibration.json").read_text())
    assert set(stored) == {"temperature", "shift", "thresholds", "ece", "pages"}
    assert "measure on others" in out
    detector = load_detector(model)
    assert detector.thresholds == stored["thresholds"]
    image = ("doc0_0.png", Image.new("RGB", (200, 160), "white"))
    again = next(detector.predict([image], conf=0.0, every_label=True)).page
    first = json.loads((tmp_path / "e.json").read_text())["predictions"][0]
    assert [r["score"] for r in again.as_dict()["regions"]] == pytest.approx(
        [r["score"] for r in first["regions"]], abs=2e-4
    )
