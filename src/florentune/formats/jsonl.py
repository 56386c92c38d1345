"""JSON lines: one page a line, {"image", "width", "height", "regions": [{"label", "bbox" (xyxy), "score"}]}.

Detections are written in this form too. Lines of LLaMA-Factory ("messages") and of the Florence-2 export that other
tools make ({"image", "prefix": "<OD>", "suffix": answer}) are understood as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..files import written_whole
from ..locations import OD_TASK
from ..regions import Box, Page, Region
from . import llamafactory
from .dataset import DataSet
from .folder import ImageFolder
from .rows import RowReader, read_rows
from .values import fit, four_numbers, quoted, score_of, side

SUFFIXES = (".jsonl", ".ndjson")
_PAGE_KEYS = frozenset({"image", "width", "height", "regions"})


def read(path: Path, *, images: ImageFolder | None = None) -> DataSet:
    """The pages of a JSON lines file, labels in the order of their first appearance. Raises AnnotationError."""
    reader = RowReader(path, images)
    for index, row in enumerate(read_rows(path), 1):
        page = _page(reader, row, f"row {index}")
        if page is not None:
            reader.pages.append(page)
    return reader.dataset()


def write(dataset: DataSet, path: Path) -> None:
    """Write one line a page, whole or not at all. Coordinates keep two decimals."""
    with written_whole(path) as stream:
        for page in dataset.pages:
            stream.write(json.dumps(page.as_dict(), ensure_ascii=False, allow_nan=False) + "\n")


def _page(reader: RowReader, row: object, about: str) -> Page | None:
    if not isinstance(row, dict):
        reader.issue("bad_row", about, f"{quoted(row)} is not an object")
        return None
    if "regions" in row:
        return _page_with_boxes(reader, row, about)
    reader.images = reader.images or ImageFolder(reader.path.parent)
    if "suffix" not in row:
        return llamafactory.row_to_page(reader, row, about)
    if row.get("prefix") != OD_TASK:
        reader.issue("other_task", about, f"asks {quoted(row.get('prefix'))}")
        return None
    return reader.answer(row["suffix"], row.get("image"), about)


def _page_with_boxes(reader: RowReader, row: dict[str, Any], about: str) -> Page | None:
    name = reader.name(row.get("image"), about)
    if name is None:
        return None
    width, height = side(row.get("width")), side(row.get("height"))
    if width is None or height is None:
        size = quoted(row.get("width")), quoted(row.get("height"))
        reader.issue("bad_image_entry", about, f"{quoted(name)} cannot be {size[0]} x {size[1]} pixels")
        return None
    if not isinstance(row["regions"], list):
        reader.issue("bad_row", about, "'regions' must be a list")
        return None
    found = (_region(reader, value, width, height, f"{about}, region {i}") for i, value in enumerate(row["regions"], 1))
    extra = {key: value for key, value in row.items() if key not in _PAGE_KEYS}
    return Page(name, width, height, tuple(region for region in found if region), extra)


def _region(reader: RowReader, value: object, width: int, height: int, about: str) -> Region | None:
    if not isinstance(value, dict):
        reader.issue("bad_annotation", about, f"{quoted(value)} is not an object")
        return None
    label = reader.label(value.get("label"), about)
    numbers = four_numbers(value.get("bbox"))
    if numbers is None:
        reader.issue("bad_bbox", about, f"bbox {quoted(value.get('bbox'))} is not [x1, y1, x2, y2]")
    if label is None or numbers is None:
        return None
    box, code = fit(Box(*numbers), width, height)
    if code is not None:
        reader.issue(code, about, f"bbox {list(numbers)} on a page of {width} x {height} pixels")
    return Region(label, box, score_of(value.get("score"))) if box else None
