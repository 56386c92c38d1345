"""Images to Pages: order, batches, errors, thresholds, duplicates; no torch where the graphs are enough."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

import florentune
from florentune.detector import Detector, _without_duplicates, crop, load_detector, to_supervision
from florentune.engines.export import export_onnx
from florentune.errors import CheckpointError, GenerationError, ImageError, InputError
from florentune.model.checkpoint import open_checkpoint
from florentune.regions import Box, Page, Region
from florentune.scores import Scale
from test_engines import lively


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint folder with weights and graphs."""
    folder = lively(tmp_path_factory.mktemp("detector") / "tiny", 9)
    export_onnx(folder, folder)
    return folder


@pytest.fixture(scope="module")
def detector(folder):
    return load_detector(folder, engine="onnx")


def noise(count, seed=0, size=(90, 70)):
    generator = np.random.default_rng(seed)
    return [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for _ in range(count)]


def pages(count):
    """Images as different as pages are: a dark block somewhere on white."""
    generator, found = np.random.default_rng(5), []
    for _ in range(count):
        image = Image.new("RGB", (120, 160), "white")
        x, y = (int(generator.integers(0, side - 40)) for side in image.size)
        image.paste((int(generator.integers(0, 200)), 20, 90), (x, y, x + 40, y + 40))
        found.append(image)
    return found


def test_engines_and_batch_sizes_agree(folder, detector):
    images = pages(7)
    expected = list(detector.detect(images, batch=3, conf=0.0))
    assert [len(page.regions) for page in expected] != [0] * 7
    by_torch = load_detector(folder, engine="torch").detect(images, conf=0.0)
    for others in (by_torch, *(detector.detect(images, batch=batch, conf=0.0) for batch in (1, 7, 20))):
        for ours, theirs in zip(expected, others, strict=True):
            assert [r.label for r in ours.regions] == [r.label for r in theirs.regions]
            for one, two in zip(ours.regions, theirs.regions, strict=True):
                assert one.box == pytest.approx(two.box, abs=0.02)
                assert one.score == pytest.approx(two.score, rel=1e-3)


def test_pages_carry_name_size_and_boxes_in_pixels(detector, tmp_path):
    noise(1, size=(300, 200))[0].save(tmp_path / "a.png")
    named = ("given", noise(1, size=(50, 80))[0])
    found = list(detector.detect([tmp_path / "a.png", str(tmp_path / "a.png"), named, noise(1)[0]], conf=0.0))
    assert [page.image for page in found] == [str(tmp_path / "a.png")] * 2 + ["given", "image-3"]
    assert [(page.width, page.height) for page in found] == [(200, 300), (200, 300), (80, 50), (70, 90)]
    for page in found:
        for region in page.regions:
            assert 0 <= region.box.x1 < region.box.x2 <= page.width
            assert 0 <= region.box.y1 < region.box.y2 <= page.height


def test_images_are_taken_lazily_and_at_most_two_batches_ahead(detector):
    taken = []

    def source():
        for index, image in enumerate(noise(20)):
            taken.append(index)
            yield image

    found = detector.detect(source(), batch=2, conf=0.0)
    assert taken == []
    next(found)
    assert len(taken) <= 4
    found.close()


def test_a_broken_image_is_recorded_and_the_rest_goes_on(detector, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    good = noise(1)[0]
    found = list(detector.predict([good, tmp_path / "bad.png", tmp_path / "missing.png", good], batch=2))
    assert [prediction.error is None for prediction in found] == [True, False, False, True]
    assert isinstance(found[1].error, ImageError)
    assert found[2].error.reason == "missing"
    assert found[0].text == found[3].text
    with pytest.raises(ImageError, match=r"bad\.png"):
        list(detector.detect([good, tmp_path / "bad.png"]))


def test_a_lazy_pil_image_that_cannot_be_decoded_is_recorded(detector, tmp_path):
    noise(1)[0].save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:3000])
    found = list(detector.predict([Image.open(tmp_path / "cut.png"), noise(1)[0]]))
    assert found[0].error.reason == "corrupt"
    assert found[1].error is None


class NanEngine:
    """An engine whose every second row is NaN."""

    name, start_id, vocabulary, max_positions = "nan", 2, 0, 128

    def start(self, pixels, prompt, tokens=None):
        rows = list(range(len(pixels)))

        class Decoding:
            def step(self, ids):
                logits = np.zeros((len(rows), len(tokens)), np.float32)
                logits[[place for place, row in enumerate(rows) if row % 2]] = np.nan
                return logits

            def keep(self, kept):
                rows[:] = [rows[place] for place in kept]

        return Decoding()


def test_nan_logits_fail_their_page_only(folder):
    found = list(Detector(open_checkpoint(folder), NanEngine()).predict(noise(4), batch=4))
    assert [type(prediction.error) for prediction in found] == [type(None), GenerationError] * 2
    assert "image-1" in str(found[1].error)


def test_thresholds_conf_and_temperature(folder, detector, tmp_path):
    import shutil

    images = pages(6)
    everything = [region for page in detector.detect(images, conf=0.0) for region in page.regions]
    middle = sorted(region.score for region in everything)[len(everything) // 2]
    kept = [region for page in detector.detect(images, conf=middle) for region in page.regions]
    assert kept == [region for region in everything if region.score >= middle]
    assert 0 < len(kept) < len(everything)

    shutil.copytree(folder, tmp_path / "calibrated")
    label = everything[0].label
    thresholds = {label: 0.0}
    (tmp_path / "calibrated" / "calibration.json").write_text(
        json.dumps({"temperature": 2.0, "thresholds": thresholds})
    )
    calibrated_detector = load_detector(tmp_path / "calibrated")
    assert calibrated_detector.thresholds == thresholds
    found = [region for page in calibrated_detector.detect(images) for region in page.regions]
    assert all(region.label == label or region.score >= 0.5 for region in found)
    same = [region for region in everything if region.label == label]
    assert [region.score for region in found if region.label == label] == pytest.approx(
        Scale(2.0).of([region.score for region in same]).tolist()
    )


def test_duplicates_across_labels_leave_the_better_one():
    regions = [
        Region("table", Box(0, 0, 100, 100), 0.6),
        Region("figure", Box(2, 2, 100, 100), 0.9),
        Region("table", Box(0, 0, 100, 40), 0.5),
        Region("figure", Box(2, 2, 100, 100), 0.9),
    ]
    assert _without_duplicates(regions) == [regions[1], regions[2]]


def test_sub_bin_moves_corners_by_less_than_the_window(folder, detector):
    images = pages(4)
    plain = list(load_detector(folder, engine="onnx", sub_bin=False).detect(images, conf=0.0))
    moved = list(detector.detect(images, conf=0.0))
    shifts = [
        abs(a - b) / side
        for one, two in zip(plain, moved, strict=True)
        for first, second in zip(one.regions, two.regions, strict=False)
        for a, b, side in zip(first.box, second.box, (one.width, one.height) * 2, strict=True)
    ]
    assert max(shifts) <= 8.01 / 1000
    assert max(shifts) > 0


def test_the_answer_is_the_references_dictionary(detector):
    prediction = next(detector.predict(pages(1), conf=0.0))
    assert prediction.text.startswith("</s><s>")
    assert prediction.text.endswith("</s>")
    assert prediction.answer == {
        "<OD>": {
            "bboxes": [list(region.box) for region in prediction.page.regions],
            "labels": [region.label for region in prediction.page.regions],
        }
    }


@pytest.mark.parametrize(
    ("task", "keys"),
    [
        ("<DENSE_REGION_CAPTION>", {"bboxes", "labels"}),
        ("<REGION_PROPOSAL>", {"bboxes", "labels"}),
        ("<CAPTION_TO_PHRASE_GROUNDING>a table", {"bboxes", "labels"}),
        ("<OPEN_VOCABULARY_DETECTION>a table", {"bboxes", "bboxes_labels", "polygons", "polygons_labels"}),
        ("<OCR_WITH_REGION>", {"quad_boxes", "labels"}),
        ("<REFERRING_EXPRESSION_SEGMENTATION>a table", {"polygons", "labels"}),
    ],
)
def test_other_tasks_answer_in_their_dictionaries(detector, task, keys):
    prediction = next(detector.predict(pages(1), task=task, conf=0.0))
    assert prediction.error is None
    assert set(prediction.answer[task.split(">")[0] + ">"]) == keys


def test_tasks_of_words_answer_in_words(detector):
    assert isinstance(next(detector.predict(pages(1), task="<CAPTION>")).answer["<CAPTION>"], str)
    with pytest.raises(InputError, match="takes no words"):
        next(detector.predict(pages(1), task="<OD>tables"))


def test_beam_search_is_for_torch(folder, detector):
    with pytest.raises(InputError, match="torch"):
        next(detector.predict(pages(1), free=True, beams=3))
    found = next(load_detector(folder, engine="torch").predict(pages(1), free=True, beams=3))
    assert found.text.startswith("</s><s>")


def test_threads_take_turns(detector):
    images, results = pages(6), {}
    expected = [page.regions for page in detector.detect(images, conf=0.0)]

    def work(index):
        results[index] = [page.regions for page in detector.detect(images, batch=2, conf=0.0)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[len(regions) for regions in results[index]] for index in range(4)] == [
        [len(regions) for regions in expected]
    ] * 4
    assert results[0] == results[1] == results[2] == results[3]


def test_the_onnx_engine_needs_no_torch(folder, tmp_path):
    """A process in which torch and transformers cannot be imported detects the same boxes."""
    pages(1)[0].save(tmp_path / "page.png")
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'onnx', 'safetensors', 'huggingface_hub'): sys.modules[name] = None\n"
        "from florentune import load_detector\n"
        f"page = next(load_detector({str(folder)!r}).detect([{str(tmp_path / 'page.png')!r}], conf=0.0))\n"
        "print(len(page.regions))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = next(load_detector(folder, engine="onnx").detect([tmp_path / "page.png"], conf=0.0))
    assert int(done.stdout) == len(expected.regions)


def test_half_precision_of_torch_finds_nearly_the_same(folder):
    images = pages(4)
    whole = list(load_detector(folder, engine="torch", dtype="fp32").detect(images, conf=0.0))
    half = load_detector(folder, engine="torch", dtype="bf16")
    assert half.engine.name == "torch cpu bfloat16"
    scores = [
        [region.score for page in found for region in page.regions[:1]]
        for found in (whole, half.detect(images, conf=0.0))
    ]
    assert len(scores[0]) == len(scores[1]) > 0
    assert scores[0] != scores[1], "another precision must have been at work"
    assert scores[0] == pytest.approx(scores[1], abs=0.1)


def test_load_detector_names_what_is_wrong(folder, tmp_path):
    with pytest.raises(InputError, match="tensorrt"):
        load_detector(folder, engine="tensorrt")
    for engine in ("torch", "onnx"):
        with pytest.raises(InputError, match="fp8"):
            load_detector(folder, engine=engine, dtype="fp8")
    with pytest.raises(CheckpointError, match=r"vision_encoder_quantized\.onnx"):
        load_detector(folder, engine="onnx", dtype="int8")
    with pytest.raises(CheckpointError):
        load_detector(tmp_path / "nothing")
    with pytest.raises(InputError, match="batch"):
        next(load_detector(folder).predict(pages(1), batch=0))
    assert florentune.load_detector is load_detector


def test_crop_is_never_empty():
    image = Image.new("RGB", (100, 50))
    assert crop(image, Box(10, 10, 30.4, 20.6)).size == (20, 11)
    assert crop(image, Box(99.9, 49.9, 120, 80)).size == (1, 1)


def test_supervision_detections():
    supervision = pytest.importorskip("supervision")
    page = Page("a", 100, 100, (Region("table", Box(1, 2, 3, 4), 0.5), Region("figure", Box(5, 6, 7, 8), 0.25)))
    found = to_supervision(page, ("table", "figure"))
    assert isinstance(found, supervision.Detections)
    assert found.xyxy.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert found.class_id.tolist() == [0, 1]
    assert list(found.data["class_name"]) == ["table", "figure"]
    assert len(to_supervision(Page("b", 1, 1))) == 0
