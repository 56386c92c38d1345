"""One row of a JSON or JSON lines file as a page: what LLaMA-Factory and the JSON lines format share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import AnnotationError, ImageError
from ..files import read_json, read_json_lines
from ..locations import text_to_regions
from ..regions import Page
from .dataset import DataSet, Issue
from .folder import ImageFolder
from .values import clean_label, quoted, safe_name


def read_rows(path: Path) -> list[Any]:
    """The rows of a `.json` list or of a file with one JSON value a line; AnnotationError names file and line."""
    if path.suffix.lower() == ".json":
        rows = read_json(path, AnnotationError, unique_keys=True)
        if not isinstance(rows, list):
            raise AnnotationError(f"{path}: must be a JSON list of rows")
        return rows
    return list(read_json_lines(path, AnnotationError, unique_keys=True))


class RowReader:
    """Collects the pages of rows; each method that cannot make a page reports an issue and returns None."""

    def __init__(self, path: Path, images: ImageFolder | None) -> None:
        self.path = path
        self.images = images
        self.pages: list[Page] = []
        self.issues: list[Issue] = []

    def dataset(self) -> DataSet:
        """The pages so far, labels in the order of their first appearance."""
        if not self.pages and not self.issues:
            raise AnnotationError(f"{self.path}: has no rows, there is nothing to read")
        found = DataSet(self.pages, (), self.images, self.issues, str(self.path))
        found.labels = found.all_labels()
        return found

    def issue(self, code: str, about: str, message: str) -> None:
        self.issues.append(Issue(code, str(self.path), about, message))

    def name(self, value: object, about: str) -> str | None:
        """A file name of the image folder, if it is one and the file is there."""
        try:
            name = safe_name(value)
        except ValueError as error:
            self.issue("bad_file_name", about, str(error))
            return None
        if self.images is not None and name not in self.images:
            self.issue("missing_image", about, f"{quoted(name)} is not in {self.images.root}")
            return None
        return name

    def size(self, name: str, about: str) -> tuple[int, int] | None:
        """The size of an image in pixels, from its header."""
        if self.images is None:
            self.issue("unknown_size", about, f"{quoted(name)} has no width and height here")
            return None
        try:
            header = self.images.header(name)
        except ImageError as error:
            self.issue("unreadable_image", about, str(error))
            return None
        return header.width, header.height

    def answer(self, value: object, image: object, about: str) -> Page | None:
        """A page from an answer text and an image name; the size comes from the image, since the text has only bins."""
        name = self.name(image, about)
        size = self.size(name, about) if name is not None else None
        if name is None or size is None:
            return None
        if not isinstance(value, str):
            self.issue("bad_row", about, f"the answer {quoted(value)} is not text")
            return None
        regions, unread = text_to_regions(value, *size)
        for piece in unread:
            self.issue("unreadable_answer", about, quoted(piece))
        return Page(name, *size, tuple(regions))

    def label(self, value: object, about: str) -> str | None:
        """A label the answer's grammar can hold."""
        try:
            return clean_label(value)
        except ValueError as error:
            self.issue("bad_annotation", about, f"label {error}")
            return None
