"""COCO detection files: {"images", "annotations", "categories"} with bbox [x, y, width, height] in pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import AnnotationError, ImageError
from ..files import read_json, write_json
from ..regions import Box, Page, Region, counted
from .dataset import DataSet, Issue
from .folder import ImageFolder
from .values import Id, clean_label, fit, four_numbers, id_of, quoted, safe_name, score_of, side, suspicion

SUFFIXES = (".json",)
IGNORED = ("ignore",)


def read(path: Path, *, images: ImageFolder | None = None, ignore: Iterable[str] = IGNORED) -> DataSet:
    """The data set of a COCO file; categories come from the file, those named in `ignore` are left out and counted.

    Pages keep the file's image id as extra["image_id"]; regions marked iscrowd or ignore are no targets and are kept
    as extra["crowd"], a list of {"label", "bbox" (xyxy)}, with "ignore": True where they are not iscrowd. With
    `images`, entries without a file there are left out.
    Raises AnnotationError when the file is not COCO or a category is unusable; everything smaller is an issue.
    """
    return parse(read_json(path, AnnotationError, unique_keys=True), path, images=images, ignore=ignore)


def parse(
    document: object, path: Path, *, images: ImageFolder | None = None, ignore: Iterable[str] = IGNORED
) -> DataSet:
    """As `read`, from JSON that is already parsed; `path` is what messages call it."""
    if not isinstance(document, dict):
        raise AnnotationError(f"{path}: is a JSON {type(document).__name__}, not an object with images and categories")
    return _Reader(path, images, frozenset(ignore)).read(document)


@dataclass(slots=True)
class _Draft:
    """A page that is being filled."""

    name: str
    width: int
    height: int
    id: Id
    regions: list[Region] = field(default_factory=list)
    crowd: list[dict[str, Any]] = field(default_factory=list)

    def page(self) -> Page:
        extra: dict[str, Any] = {"image_id": self.id}
        if self.crowd:
            extra["crowd"] = self.crowd
        return Page(self.name, self.width, self.height, tuple(self.regions), extra)


class _Reader:
    """One pass over one file: categories, then images, then annotations; every defect becomes an issue."""

    def __init__(self, path: Path, images: ImageFolder | None, ignore: frozenset[str]) -> None:
        self.path = path
        self.images = images
        self.ignore = ignore
        self.issues: list[Issue] = []
        self.labels: dict[Id, str] = {}
        self.drafts: dict[Id, _Draft] = {}
        self.skipped: set[Id] = set()
        self.left_out: Counter[str] = Counter()

    def read(self, document: dict[str, Any]) -> DataSet:
        self._read_categories(self._list(document, "categories"))
        self._read_images(self._list(document, "images"))
        self._read_annotations(self._list(document, "annotations", may_be_empty=True))
        for name, count in self.left_out.items():
            self._issue("ignored_category", f"category {name!r}", counted(count, "box"))
        labels = tuple(dict.fromkeys(label for label in self.labels.values() if label not in self.ignore))
        pages = list({id(draft): draft for draft in self.drafts.values()}.values())
        return DataSet([draft.page() for draft in pages], labels, self.images, self.issues, str(self.path))

    def _issue(self, code: str, about: str, message: str) -> None:
        self.issues.append(Issue(code, str(self.path), about, message))

    def _list(self, document: dict[str, Any], key: str, *, may_be_empty: bool = False) -> list[Any]:
        if key not in document:
            raise AnnotationError(f"{self.path}: has no '{key}'; a COCO file has images, annotations and categories")
        value = document[key]
        if not isinstance(value, list):
            raise AnnotationError(f"{self.path}: '{key}' is {_kind(value)}, it must be a list of objects")
        if not value and not may_be_empty:
            raise AnnotationError(f"{self.path}: '{key}' is empty, there is nothing to read")
        return value

    def _read_categories(self, entries: list[Any]) -> None:
        names: dict[str, Id] = {}
        for index, entry in enumerate(entries):
            where = f"{self.path}: categories[{index}]"
            if not isinstance(entry, dict) or (key := id_of(entry.get("id"))) is None:
                raise AnnotationError(f"{where} must be an object with an 'id' that is a number or text")
            raw = entry.get("name")
            try:
                label = clean_label(raw)
            except ValueError as error:
                raise AnnotationError(f"{where} (id {key}): 'name' {error}") from None
            if self.labels.get(key, label) != label:
                raise AnnotationError(f"{where}: id {key} already is {self.labels[key]!r}; every category needs its id")
            if label != raw:
                self._issue("renamed_label", f"category {key}", f"{quoted(raw)} is read as {label!r}")
            if label in names:
                self._issue("duplicate_category", f"category {key}", f"{label!r} is also category {names[label]}")
            names.setdefault(label, key)
            self.labels[key] = label
            if label in self.ignore:
                self.left_out[label] = 0

    def _read_images(self, entries: list[Any]) -> None:
        by_name: dict[str, _Draft] = {}
        for index, entry in enumerate(entries):
            key = id_of(entry.get("id")) if isinstance(entry, dict) else None
            if key is None:
                self._issue("bad_image_entry", f"images[{index}]", "has no usable 'id'")
                continue
            draft = self._draft(key, entry)
            earlier = self.drafts.get(key)
            if earlier is not None or key in self.skipped:
                self._repeatedid_of(key, earlier, draft, by_name)
            elif draft is None:
                self.skipped.add(key)
            else:
                self._add(key, draft, by_name)

    def _repeatedid_of(self, key: Id, earlier: _Draft | None, again: _Draft | None, by_name: dict[str, _Draft]) -> None:
        """Two images with one id: harmless if they are the same file, else nobody can tell whose the boxes are."""
        if earlier and again and (earlier.name, earlier.width) == (again.name, again.width):
            self._issue("duplicate_file_name", f"image {key}", f"{again.name!r} is listed twice with the same id")
            return
        self._issue("duplicate_image_id", f"image {key}", "two images have this id")
        self.skipped.add(key)
        if earlier:
            del self.drafts[key]
            by_name.pop(earlier.name, None)

    def _add(self, key: Id, draft: _Draft, by_name: dict[str, _Draft]) -> None:
        twin = by_name.setdefault(draft.name, draft)
        if twin is draft:
            self.drafts[key] = draft
        elif (twin.width, twin.height) == (draft.width, draft.height):
            self._issue("duplicate_file_name", f"image {key}", f"{draft.name!r} is also image {twin.id}")
            self.drafts[key] = twin
        else:
            message = f"{draft.name!r} is {draft.width} x {draft.height} here, {twin.width} x {twin.height} before"
            self._issue("file_name_conflict", f"image {key}", message)
            self.skipped.add(key)

    def _draft(self, key: Id, entry: dict[str, Any]) -> _Draft | None:
        """The page of an image entry, or None and an issue."""
        about = f"image {key}"
        try:
            name = safe_name(entry.get("file_name"))
        except ValueError as error:
            self._issue("bad_file_name", about, str(error))
            return None
        if self.images is not None and name not in self.images:
            self._issue("missing_image", about, f"{name!r} is not in {self.images.root}")
            return None
        size = entry.get("width"), entry.get("height")
        if None in size:
            size = self._size_of_file(name)
            if None in size:
                self._issue("unknown_size", about, f"{name!r} has no width and height")
                return None
        width, height = side(size[0]), side(size[1])
        if width is None or height is None:
            message = f"{name!r} cannot be {quoted(size[0])} x {quoted(size[1])} pixels"
            self._issue("bad_image_entry", about, message)
            return None
        return _Draft(name, width, height, key)

    def _size_of_file(self, name: str) -> tuple[int | None, int | None]:
        if self.images is None:
            return None, None
        try:
            header = self.images.header(name)
        except ImageError:
            return None, None
        return header.width, header.height

    def _read_annotations(self, entries: list[Any]) -> None:
        by_text = {str(key): key for key in (*self.drafts, *self.skipped)}
        category_by_text = {str(key): key for key in self.labels}
        seen: set[Id] = set()
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict):
                self._issue("bad_annotation", f"annotations[{index}]", f"is {_kind(entry)}, not an object")
                continue
            key = id_of(entry.get("id"))
            about = f"annotation {key}" if key is not None else f"annotations[{index}]"
            if key is not None and key in seen:
                self._issue("duplicate_annotation_id", about, "another annotation has this id")
            elif key is not None:
                seen.add(key)
            draft = self._image_of(entry, about, by_text)
            label = self._label_of(entry, about, category_by_text) if draft else None
            if draft is None or label is None:
                continue
            box = self._box_of(entry, about, draft)
            if box is None:
                continue
            if entry.get("iscrowd") or entry.get("ignore"):
                only = {} if entry.get("iscrowd") else {"ignore": True}
                draft.crowd.append({"label": label, "bbox": list(box), **only})
                self._issue("crowd", about, f"{label!r} on {draft.name!r} is marked iscrowd or ignore")
            else:
                draft.regions.append(Region(label, box, score_of(entry.get("score"))))

    def _image_of(self, entry: dict[str, Any], about: str, by_text: dict[str, Id]) -> _Draft | None:
        key = id_of(entry.get("image_id"))
        if key is None:
            self._issue("bad_annotation", about, "has no usable 'image_id'")
            return None
        if key not in self.drafts and key not in self.skipped and str(key) in by_text:
            self._issue("id_type", about, f"image_id {key!r} is taken for {by_text[str(key)]!r}")
            key = by_text[str(key)]
        if key in self.drafts:
            return self.drafts[key]
        code = "on_skipped_image" if key in self.skipped else "orphan"
        self._issue(code, about, f"image {key} was left out" if key in self.skipped else f"there is no image {key}")
        return None

    def _label_of(self, entry: dict[str, Any], about: str, by_text: dict[str, Id]) -> str | None:
        """The label of an annotation; None when it is left out."""
        key = id_of(entry.get("category_id"))
        if key is None:
            self._issue("bad_annotation", about, "has no usable 'category_id'")
            return None
        if key not in self.labels and str(key) in by_text:
            self._issue("id_type", about, f"category_id {key!r} is taken for {by_text[str(key)]!r}")
            key = by_text[str(key)]
        label = self.labels.get(key)
        if label is None:
            self._issue("unknown_category", about, f"there is no category {key}")
        elif label in self.left_out:
            self.left_out[label] += 1
            return None
        return label

    def _box_of(self, entry: dict[str, Any], about: str, draft: _Draft) -> Box | None:
        numbers = four_numbers(entry.get("bbox"))
        if numbers is None:
            text = f"bbox is {quoted(entry['bbox'])}" if "bbox" in entry else "has no 'bbox'"
            self._issue("bad_bbox", about, text)
            return None
        x, y, w, h = numbers
        code = suspicion(x, y, w, h, draft.width, draft.height)
        box: Box | None = None
        if code is None:
            box, code = fit(Box(x, y, x + w, y + h), draft.width, draft.height)
        if code is not None:
            self._issue(code, about, f"bbox {list(numbers)} on {draft.name!r} of {draft.width} x {draft.height} pixels")
        return box


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "a truth value"}
    return names.get(type(value), "a number")


def write(dataset: DataSet, path: Path) -> None:
    """Write the data set as a COCO file, whole or not at all.

    Images keep their extra["image_id"] when all pages have different whole numbers there, else they count from 1.
    Scores, where regions have them, are written as "score"; crowd regions come back as iscrowd 1 or as ignore 1.
    """
    kept = [page.extra.get("image_id") for page in dataset.pages]
    keep = all(type(key) is int for key in kept) and len(set(kept)) == len(kept)
    ids = {label: index for index, label in enumerate(dataset.all_labels(), 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, page in enumerate(dataset.pages, 1):
        key = kept[index - 1] if keep else index
        images.append({"id": key, "file_name": page.image, "width": page.width, "height": page.height})
        for annotation in _annotations(page, ids):
            annotations.append({"id": len(annotations) + 1, "image_id": key, **annotation})
    categories = [{"id": key, "name": label, "supercategory": ""} for label, key in ids.items()]
    document = {"images": images, "annotations": annotations, "categories": categories}
    write_json(path, document, indent=None)


def _annotations(page: Page, ids: dict[str, int]) -> Iterator[dict[str, Any]]:
    for region in page.regions:
        found = _annotation(region.label, region.box, ids)
        yield found if region.score is None else {**found, "score": region.score}
    for crowd in page.extra.get("crowd", ()):
        mark = {"ignore": 1} if crowd.get("ignore") else {"iscrowd": 1}
        yield {**_annotation(crowd["label"], Box(*crowd["bbox"]), ids), **mark}


def _annotation(label: str, box: Box, ids: dict[str, int]) -> dict[str, Any]:
    bbox = [_short(value) for value in (box.x1, box.y1, box.width, box.height)]
    # CVAT refuses annotations without a "segmentation", and takes an empty one for a box.
    return {"category_id": ids[label], "bbox": bbox, "area": _short(box.area), "iscrowd": 0, "segmentation": []}


def _short(value: float) -> float:
    """Four decimals are far below a bin; whole numbers stay whole."""
    rounded = round(value, 4)
    return int(rounded) if rounded == int(rounded) else rounded
