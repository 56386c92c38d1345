"""Florence-2's tasks: the prompt each one stands for, and the reference reading of the text a model answers with.

`post_process` reads an answer exactly as Microsoft's processor does (revision 39ddb41), peculiarities included, so
that results can be compared with the original's; it is what `predict --free` prints. Detection itself does not come
this way: `grammar` decides which tokens may follow and keeps the boxes it walked through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..errors import InputError
from ..locations import OD_TASK, from_bin

Size = tuple[int, int]


class Task(NamedTuple):
    """What a task token stands for: its prompt (`{}` marks where the user's words go) and how answers are read."""

    prompt: str
    answer: str


TASKS = {
    "<OCR>": Task("What is the text in the image?", "text"),
    "<OCR_WITH_REGION>": Task("What is the text in the image, with regions?", "quads"),
    "<CAPTION>": Task("What does the image describe?", "text"),
    "<DETAILED_CAPTION>": Task("Describe in detail what is shown in the image.", "text"),
    "<MORE_DETAILED_CAPTION>": Task("Describe with a paragraph what is shown in the image.", "text"),
    OD_TASK: Task("Locate the objects with category name in the image.", "regions"),
    "<DENSE_REGION_CAPTION>": Task("Locate the objects in the image, with their descriptions.", "regions"),
    "<REGION_PROPOSAL>": Task("Locate the region proposals in the image.", "proposals"),
    "<CAPTION_TO_PHRASE_GROUNDING>": Task("Locate the phrases in the caption: {}", "phrases"),
    "<REFERRING_EXPRESSION_SEGMENTATION>": Task("Locate {} in the image with mask", "polygons"),
    "<REGION_TO_SEGMENTATION>": Task("What is the polygon mask of region {}", "polygons"),
    "<OPEN_VOCABULARY_DETECTION>": Task("Locate {} in the image.", "regions or polygons"),
    "<REGION_TO_CATEGORY>": Task("What is the region {}?", "text"),
    "<REGION_TO_DESCRIPTION>": Task("What does the region {} describe?", "text"),
    "<REGION_TO_OCR>": Task("What text is in the region {}?", "text"),
}

# Words that are no phrase worth grounding, as the reference's processor lists them.
_PRONOUNS = (
    "it I me mine you your yours he him his she her hers they them their theirs one oneself we us our ours its myself "
    "yourself himself herself itself ourselves yourselves themselves this that these those who whom whose which what "
    "all another any anybody anyone anything each everybody everyone everything few many nobody none several some "
    "somebody someone something image images the a an lots"
)
_NO_PHRASE = {*_PRONOUNS.split(), "each other", "one another", "the image", "a group", "other objects", "a set"}

_LOCATION = re.compile(r"<loc_(\d+)>")
_BOX = re.compile(r"<loc_(\d+)>" * 4)
_QUAD = re.compile(r"(.+?)" + r"<loc_(\d+)>" * 8)
_BOX_RUN = re.compile(r"(?:<loc_\d+>){4,}")
_NAMED_BOX_RUN = re.compile(r"[^<]+(?:<loc_\d+>){4,}")
_SHAPE_RUN = re.compile(r"(?:<loc_\d+>|<sep>|<poly>|</poly>){4,}")
_NAMED_SHAPE_RUN = re.compile(r"[^<]+(?:<loc_\d+>|<sep>|<poly>|</poly>){4,}")
_NAME = re.compile(r"\s*(.*?)(?=</?od>|</?box>|</?bbox>|<loc_)")
_SHAPE_NAME = re.compile(r"\s*(.*?)(?=</?od>|</?box>|</?bbox>|<loc_|<poly>)")
_SHAPE = re.compile(r"<poly>(.*?)</poly>")
_RING = re.compile(r"((?:<loc_\d+>)+)(?:<sep>|$)")


def task_of(text: str) -> str | None:
    """The task token of a prompt such as `<OD>` or `<OPEN_VOCABULARY_DETECTION>a table`; None for free text."""
    return next((token for token in TASKS if token in text), None)


def prompt_for(task: str) -> str:
    """The words the model reads for a task token, with the user's input where the task takes one.

    Text without a task token is a prompt of its own and comes back as it is. Raises InputError when words stand beside
    a token that takes none, or are missing beside one that needs them.
    """
    token = task_of(task)
    if token is None:
        return task
    prompt, words = TASKS[token].prompt, task.replace(token, "").strip()
    if "{}" in prompt:
        if not words:
            raise InputError(f"task {token} needs words after the token, such as '{token}a table'")
        return prompt.replace("{}", words)
    if task != token:
        raise InputError(f"task {token} takes no words of its own, but the prompt is {task!r}")
    return prompt


def post_process(text: str, task: str, image_size: Size) -> dict[str, Any]:
    """Read an answer as the reference does: `{task token: value}`.

    `image_size` is (width, height) in pixels of the original image; coordinates are float pixels in it (bin centres).
    The value is a string for tasks that answer in words, otherwise a dictionary of equally long lists: "bboxes"
    (xyxy) and "labels"; "quad_boxes" (four corners, 8 numbers) and "labels"; "polygons" (rings x, y, x, y, ...) and
    "labels"; or, for <OPEN_VOCABULARY_DETECTION>, "bboxes", "bboxes_labels", "polygons" and "polygons_labels".
    """
    token = task_of(task) or task
    answer = TASKS[token].answer if token in TASKS else "text"
    if answer != "text":
        text = text.replace("<s>", "").replace("</s>", "").replace("<pad>", "")
    return {token: _READERS[answer](text, image_size)}


def _text(text: str, size: Size) -> str:
    return text.replace("<s>", "").replace("</s>", "").strip()


def _regions(text: str, size: Size, runs: re.Pattern[str] = _NAMED_BOX_RUN) -> dict[str, Any]:
    found = [(name, box) for name, boxes in _named_boxes(text, size, runs) for box in boxes]
    return {"bboxes": [box for _, box in found], "labels": [_ascii(name) for name, _ in found]}


def _proposals(text: str, size: Size) -> dict[str, Any]:
    return _regions(text, size, _BOX_RUN)


def _phrases(text: str, size: Size) -> dict[str, Any]:
    runs = [(name, boxes) for name, boxes in _named_boxes(text, size) if name not in _NO_PHRASE]
    found = [(name, box) for name, boxes in runs for box in boxes]
    return {"bboxes": [box for _, box in found], "labels": [_ascii(name) for name, _ in found]}


def _quads(text: str, size: Size) -> dict[str, Any]:
    found = _QUAD.findall(text)
    return {
        "quad_boxes": [_pixels(bins, size) for _, *bins in found],
        "labels": [words.strip() for words, *_ in found],
    }


def _polygons(text: str, size: Size, runs: re.Pattern[str] = _SHAPE_RUN) -> dict[str, Any]:
    found = list(_named_polygons(text, size, runs))
    return {"polygons": [rings for _, rings in found], "labels": [name for name, _ in found]}


def _regions_or_polygons(text: str, size: Size) -> dict[str, Any]:
    shapes: dict[str, Any] = {"polygons": [], "labels": []}
    boxes: dict[str, Any] = {"bboxes": [], "labels": []}
    if "<poly>" in text:
        shapes = _polygons(text, size, _NAMED_SHAPE_RUN)
    else:
        boxes = _regions(text, size)
    return {
        "bboxes": boxes["bboxes"],
        "bboxes_labels": boxes["labels"],
        "polygons": shapes["polygons"],
        "polygons_labels": shapes["labels"],
    }


def _named_boxes(
    text: str, size: Size, runs: re.Pattern[str] = _NAMED_BOX_RUN
) -> Iterator[tuple[str, list[list[float]]]]:
    """Each run's name and its boxes; the reference's `.` stops at a line break, which loses the run."""
    for run in runs.findall(text):
        name = _NAME.match(run)
        if name:
            yield name.group().strip(), [_pixels(bins, size) for bins in _BOX.findall(run)]


def _named_polygons(text: str, size: Size, runs: re.Pattern[str]) -> Iterator[tuple[str, list[list[float]]]]:
    for run in runs.findall(text):
        name = _SHAPE_NAME.match(re.sub(r"^<loc_\d+>", "", run))
        if not name:
            continue
        for shape in _SHAPE.findall(run) if "<poly>" in run and "</poly>" in run else [run]:
            rings = [_LOCATION.findall(ring) for ring in _RING.findall(shape)]
            if rings:
                yield name.group().strip(), [_pixels(bins[: len(bins) // 2 * 2], size) for bins in rings]


def _pixels(bins: list[str], size: Size) -> list[float]:
    """Alternating x and y bins as pixels (bin centres)."""
    return [from_bin(int(index), size[axis % 2]) for axis, index in enumerate(bins)]


def _ascii(name: str) -> str:
    return name.encode("ascii", "ignore").decode("ascii")


_READERS: dict[str, Callable[[str, Size], Any]] = {
    "text": _text,
    "regions": _regions,
    "proposals": _proposals,
    "phrases": _phrases,
    "quads": _quads,
    "polygons": _polygons,
    "regions or polygons": _regions_or_polygons,
}
