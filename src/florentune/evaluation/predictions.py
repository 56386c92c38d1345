"""Predictions of any system, from a file, as Pages of the truth they belong to; what cannot be scored is named."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import AnnotationError, InputError
from ..files import read_json, read_json_lines
from ..formats import DataSet, coco_file, read
from ..regions import Box, Page, Region
from .results import Problem

Names = Mapping[Any, str]


def read_predictions(
    path: Path, truth: Sequence[Page], categories: Names | None = None
) -> tuple[list[Page], list[Problem]]:
    """Pages of predictions and the problems met: entries with NaN, without a bbox, for unknown images or categories.

    Four kinds of file: COCO results (a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}),
    JSON lines or a list of pages as `florentune predict --json` writes them, what `evaluate --json` wrote (its
    "predictions"), and a COCO file with scores as `florentune label` writes it, matched by file name. In COCO results
    an image_id is one of the truth's (extra["image_id"]) or an image's name, a category_id is a key of `categories`
    (see `category_names`) or a label. Raises AnnotationError when the file is none of these.
    """
    if (coco := _as_coco(path)) is not None:
        problems = [Problem(issue.code, issue.id, issue.message) for issue in coco.issues if issue.severity == "error"]
        return coco.pages, problems
    entries = _entries(path)
    if entries and all(isinstance(entry, dict) and {"image", "regions"} <= set(entry) for entry in entries):
        return _from_pages(entries)
    if all(isinstance(entry, dict) and "image_id" in entry for entry in entries):
        return _from_results(path, entries, truth, categories or {})
    raise AnnotationError(
        f"{path}: is neither COCO results (a list of objects with image_id, category_id, bbox, score) nor pages with "
        "image, width, height and regions"
    )


def category_names(path: Path) -> dict[Any, str]:
    """The labels by category id of a COCO file or of a folder with one; empty for anything else."""
    if path.is_dir() and not (path / "data.yaml").is_file():
        path = coco_file(path)
    if path.suffix.lower() != ".json" or not path.is_file():
        return {}
    coco = read_json(path, AnnotationError)
    entries = coco.get("categories") if isinstance(coco, dict) else None
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return {entry["id"]: str(entry["name"]) for entry in entries if {"id", "name"} <= set(entry)}


def _as_coco(path: Path) -> DataSet | None:
    """The data set of a COCO file, None for any other file."""
    if path.suffix.lower() != ".json":
        return None
    try:
        found = read_json(path, AnnotationError)
    except AnnotationError:  # JSON lines in a .json; what is broken is said when the entries are read
        return None
    is_coco = isinstance(found, dict) and {"images", "annotations", "categories"} <= set(found)
    return read(path, format="coco") if is_coco else None


def _entries(path: Path) -> list[Any]:
    if path.suffix.lower() in {".jsonl", ".ndjson"}:
        return list(read_json_lines(path, AnnotationError))
    try:
        found = read_json(path, AnnotationError)
    except AnnotationError:
        if path.is_file() and _is_lines(path):
            return list(read_json_lines(path, AnnotationError))
        raise
    if isinstance(found, dict):
        found = found.get("predictions", [found] if "regions" in found else None)
    if not isinstance(found, list):
        raise AnnotationError(f"{path}: holds no list of predictions")
    return found


def _is_lines(path: Path) -> bool:
    """Whether the first line is a JSON object of its own."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        try:
            return isinstance(json.loads(stream.readline()), dict)
        except ValueError:
            return False


def _from_results(
    path: Path, entries: list[Any], truth: Sequence[Page], categories: Names
) -> tuple[list[Page], list[Problem]]:
    by_name: dict[str, list[Region]] = {page.image: [] for page in truth}
    images = {page.extra["image_id"]: page.image for page in truth if "image_id" in page.extra}
    labels = {*categories.values(), *(region.label for page in truth for region in page.regions)}
    problems = []
    for position, entry in enumerate(entries):
        image = _named(entry["image_id"], images, by_name)
        label = _named(entry.get("category_id"), categories, labels)
        where = f"{path.name} entry {position}"
        if image is None:
            problems.append(
                Problem("unknown_image", str(entry["image_id"]), f"{where}: no image of the truth has this id")
            )
        elif label is None:
            message = f"{where}: category_id {entry.get('category_id')!r} is no category of the truth"
            problems.append(Problem("unknown_category", image, message))
        else:
            region = _region(label, entry.get("bbox"), entry.get("score"), corners=False)
            if isinstance(region, str):
                problems.append(Problem("bad_box", image, f"{where}: {region}"))
            else:
                by_name[image].append(region)
    return [replace(page, regions=tuple(by_name[page.image]), extra={}) for page in truth], problems


def _from_pages(entries: list[Any]) -> tuple[list[Page], list[Problem]]:
    pages = []
    problems = []
    for entry in entries:
        name = str(entry["image"])
        if not isinstance(entry["regions"], list):
            problems.append(Problem("bad_page", name, "its regions are not a list"))
            continue
        regions = []
        for item in entry["regions"]:
            item = item if isinstance(item, dict) else {}
            region = _region(item.get("label"), item.get("bbox"), item.get("score"), corners=True)
            if isinstance(region, str):
                problems.append(Problem("bad_box", name, region))
            else:
                regions.append(region)
        try:
            pages.append(Page(name, int(entry.get("width", 0)), int(entry.get("height", 0)), tuple(regions)))
        except (InputError, TypeError, ValueError, OverflowError):
            problems.append(Problem("bad_page", name, "has no width and height in pixels; its boxes are left out"))
    return pages, problems


def _named(key: Any, names: Names, known: Container[str]) -> str | None:
    """The name of an id: through the table of ids, or the name itself where it was given in place of an id."""
    try:
        name = names.get(key, key)
    except TypeError:  # a list or an object as an id
        return None
    return name if isinstance(name, str) and name in known else None


def _region(label: Any, bbox: Any, score: Any, *, corners: bool) -> Region | str:
    """A Region, or what is wrong with its values. `corners` tells xyxy from COCO's x, y, width, height."""
    if not isinstance(label, str):
        return f"label {label!r} is not text"
    try:
        a, b, c, d = (float(value) for value in bbox)
        box = Box(a, b, c, d) if corners else Box(a, b, a + c, b + d)
        return Region(label, box, None if score is None else float(score))
    except (TypeError, ValueError, OverflowError):
        return f"bbox {bbox!r} or score {score!r} is not numbers"
    except InputError as error:
        return str(error)
