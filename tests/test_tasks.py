"""Prompts and the reference parser, against the reference's battery and transformers' own post-processor."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florentune.errors import InputError
from florentune.model.tasks import TASKS, post_process, prompt_for, task_of

SIZE = (1654, 2339)


def centre(*bins):
    return [(index + 0.5) * SIZE[axis % 2] / 1000 for axis, index in enumerate(bins)]


A, B = (100, 200, 300, 400), (5, 6, 7, 8)


def loc(*bins):
    return "".join(f"<loc_{index}>" for index in bins)


BATTERY = {
    "table and figure": (f"table{loc(*A)}figure{loc(*B)}", [("table", A), ("figure", B)]),
    "eight locations": (f"table{loc(*A, *B)}", [("table", A), ("table", B)]),
    "five locations": (f"table{loc(*A, 9)}", [("table", A)]),
    "three locations, then figure": (f"table{loc(1, 2, 3)}figure{loc(*B)}", [("loc_3>figure", B)]),
    "no label": (loc(*A), []),
    "empty": ("", []),
    "text only": ("table", []),
    "twice": (f"table{loc(*A)}table{loc(*A)}", [("table", A), ("table", A)]),
    "swapped corners": (f"table{loc(300, 400, 100, 200)}", [("table", (300, 400, 100, 200))]),
    "bin 1000": (f"table{loc(0, 0, 1000, 1000)}", [("table", (0, 0, 1000, 1000))]),
    "and between": (f"table{loc(*A)}<and>figure{loc(*B)}", [("table", A), ("and>figure", B)]),
    "od before": (f"<od>table{loc(*A)}", [("od>table", A)]),
    "line break in a label": (f"ta\nble{loc(*A)}figure{loc(*B)}", [("figure", B)]),
    "a sign that opens a token": (f"a<b{loc(*A)}", [("b", A)]),
    "not ASCII": (f"täble é{loc(*A)}", [("tble ", A)]),
    "case is kept": (f"Table{loc(*A)}", [("Table", A)]),
}


@pytest.mark.parametrize(("text", "expected"), BATTERY.values(), ids=BATTERY)
def test_the_battery_of_the_reference(text, expected):
    found = post_process(f"</s><s>{text}</s><pad><pad>", "<OD>", SIZE)
    assert found == {
        "<OD>": {"bboxes": [centre(*bins) for _, bins in expected], "labels": [label for label, _ in expected]}
    }


def test_each_task_has_its_dictionary():
    assert post_process("</s><s> a page </s>", "<CAPTION>", SIZE) == {"<CAPTION>": "a page"}
    assert post_process("<s>free words</s>", "what is this", SIZE) == {"what is this": "free words"}
    proposals = post_process(loc(*A, *B, 1), "<REGION_PROPOSAL>", SIZE)["<REGION_PROPOSAL>"]
    assert proposals == {"bboxes": [centre(*A), centre(*B)], "labels": ["", ""]}
    phrases = post_process(
        f"<s>the image{loc(*A)}a table{loc(*A, *B)}</s>", "<CAPTION_TO_PHRASE_GROUNDING>a table", SIZE
    )
    assert phrases == {
        "<CAPTION_TO_PHRASE_GROUNDING>": {"bboxes": [centre(*A), centre(*B)], "labels": ["a table", "a table"]}
    }
    quads = post_process(f"</s><s>hello{loc(*A, *B)}</s>", "<OCR_WITH_REGION>", SIZE)["<OCR_WITH_REGION>"]
    assert quads == {"quad_boxes": [centre(*A, *B)], "labels": ["hello"]}


def test_polygons_and_open_vocabulary():
    ring = (1, 2, 3, 4, 5, 6)
    shape = f"cat<poly>{loc(*ring, 7)}<sep>{loc(*ring)}</poly>"
    found = post_process(shape, "<OPEN_VOCABULARY_DETECTION>cat", SIZE)["<OPEN_VOCABULARY_DETECTION>"]
    assert found["polygons"] == [[centre(*ring), centre(*ring)]]
    assert found["polygons_labels"] == ["cat"]
    assert found["bboxes"] == []
    found = post_process(f"cat{loc(*A)}", "<OPEN_VOCABULARY_DETECTION>cat", SIZE)["<OPEN_VOCABULARY_DETECTION>"]
    assert (found["bboxes"], found["bboxes_labels"], found["polygons"]) == ([centre(*A)], ["cat"], [])
    found = post_process(loc(*ring), "<REFERRING_EXPRESSION_SEGMENTATION>a cat", SIZE)
    assert found == {"<REFERRING_EXPRESSION_SEGMENTATION>": {"polygons": [[centre(*ring)]], "labels": [""]}}


def test_prompts():
    assert prompt_for("<OD>") == "Locate the objects with category name in the image."
    assert prompt_for("<OPEN_VOCABULARY_DETECTION> a {brace} ") == "Locate a {brace} in the image."
    assert prompt_for("anything else") == "anything else"
    assert task_of("<REGION_TO_OCR><loc_1>") == "<REGION_TO_OCR>"
    with pytest.raises(InputError, match="takes no words"):
        prompt_for("<OD> tables")
    with pytest.raises(InputError, match="needs words"):
        prompt_for("<OPEN_VOCABULARY_DETECTION>")


class Vocabulary:
    """What transformers' post-processor asks of a tokenizer."""

    all_special_tokens = ("<s>", "</s>", "<pad>")


CONFIG = {
    "ocr": {},
    "phrase_grounding": {"banned_grounding_tokens": ["the image", "it"]},
    "pure_text": {},
    "description_with_bboxes": {},
    "description_with_polygons": {},
    "polygons": {},
    "bboxes": {},
    "description_with_bboxes_or_polygons": {},
}
PIECES = st.sampled_from(
    "table| figure|the image|<s>|</s>|<pad>|<loc_1>|<loc_20>|<loc_999>|<loc_1000>|<poly>|</poly>|<sep>|<od>|</od>|"
    f"<and>|\n|é|<|>|loc_3>| |{loc(*A)}|{loc(*B)}".split("|")
)


@settings(deadline=None)  # the first example imports transformers
@given(st.lists(PIECES, max_size=14).map("".join), st.sampled_from(sorted(TASKS)))
def test_reads_as_transformers_does(text, task):
    """Native transformers has the same parser but for coordinates, which it cuts to whole pixels."""
    processing = pytest.importorskip("transformers.models.florence2.processing_florence2")
    processor = processing.Florence2Processor.__new__(processing.Florence2Processor)
    processor.post_processor = processing.Florence2PostProcessor(CONFIG, Vocabulary())
    kinds = {"text": "pure_text", "quads": "ocr", "regions": "description_with_bboxes", "proposals": "bboxes"}
    kinds |= {"phrases": "phrase_grounding", "polygons": "polygons"}
    kinds["regions or polygons"] = "description_with_bboxes_or_polygons"
    processor.tasks_answer_post_processing_type = {task: kinds[TASKS[task].answer]}
    theirs = processor.post_process_generation(text=text, task=task, image_size=(1000, 2000))
    ours = post_process(text, task, (1000, 2000))
    assert truncated(ours) == theirs


def truncated(value):
    if isinstance(value, dict):
        return {key: truncated(part) for key, part in value.items()}
    if isinstance(value, list):
        return [truncated(part) for part in value]
    return int(value) if isinstance(value, float) else value
