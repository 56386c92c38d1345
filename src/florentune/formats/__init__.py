"""Annotation files to pages and back: COCO, YOLO, LLaMA-Factory sharegpt and JSON lines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from ..errors import AnnotationError, InputError
from . import coco, jsonl, llamafactory, yolo
from .check import check
from .dataset import DataSet, Issue, Order
from .folder import ImageFolder
from .llamafactory import read_registered, register
from .split import leaks, split

__all__ = [
    "FORMATS",
    "DataSet",
    "ImageFolder",
    "Issue",
    "Order",
    "check",
    "coco_file",
    "leaks",
    "read",
    "read_registered",
    "register",
    "split",
    "write",
]


class Format(Protocol):
    """What the module of a format has."""

    @property
    def SUFFIXES(self) -> tuple[str, ...]:
        """Of its files, the usual one first."""

    def read(self, path: Path, *, images: ImageFolder | None = None) -> DataSet:
        """The data set of a file; raises AnnotationError when it cannot be used."""

    def write(self, dataset: DataSet, path: Path) -> None:
        """Write the data set, whole or not at all, and no image."""


FORMATS: dict[str, Format] = {"coco": coco, "yolo": yolo, "llamafactory": llamafactory, "jsonl": jsonl}
_COCO_NAMES = ("_annotations.coco.json", "annotations.json")


def read(
    path: Path | str,
    *,
    images: Path | str | None = None,
    format: str | None = None,
    ignore: Iterable[str] = coco.IGNORED,
) -> DataSet:
    """The data set of an annotation file or folder; the format is recognised unless given (one of FORMATS).

    `images` is the folder or zip of the images. Without it, YOLO and LLaMA-Factory look beside the file; for COCO and
    JSON lines the folder of the file or its `images/` is taken if all images are there, else images stay unknown.
    `ignore` names categories of a COCO file to leave out.
    Raises AnnotationError when the file cannot be used; smaller defects are in the data set's `issues`.
    """
    path = Path(path)
    kind = format or recognise(path)
    reader = _known(kind)
    if path.is_dir() and kind != "yolo":
        path = coco_file(path)
    folder = ImageFolder(images) if images is not None else None
    dataset = coco.read(path, images=folder, ignore=ignore) if kind == "coco" else reader.read(path, images=folder)
    dataset.images = dataset.images or _folder_beside(path, dataset)
    return dataset


def write(dataset: DataSet, path: Path | str, *, format: str) -> None:
    """Write the data set, regions in their order; `path` is a file, for YOLO a folder. No image is copied."""
    _known(format).write(dataset, Path(path))


def _known(format: str) -> Format:
    if format not in FORMATS:
        raise InputError(f"format {format!r} is unknown; formats are {', '.join(FORMATS)}")
    return FORMATS[format]


def recognise(path: Path) -> str:
    """The format of a file or folder by its name and first character. Raises AnnotationError when nothing fits."""
    suffix = path.suffix.lower()
    if path.is_dir():
        return "yolo" if (path / "data.yaml").is_file() else "coco"
    kinds = [name for name, format in FORMATS.items() if suffix in format.SUFFIXES]
    if not kinds:
        raise AnnotationError(f"{path}: a data set is a .json, .jsonl or data.yaml file, or a folder with one of them")
    if suffix != ".json":
        return kinds[0]
    try:
        with path.open("rb") as stream:
            start = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such file", reason="missing") from None
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror})") from None
    return "llamafactory" if start.startswith(b"[") else "coco"


def coco_file(folder: Path) -> Path:
    """The COCO file of a folder: one of the usual names, or the only .json there. Raises AnnotationError."""
    usual = [folder / name for name in _COCO_NAMES if (folder / name).is_file()]
    found = usual or sorted(folder.glob("*.json"))
    if len(found) != 1:
        raise AnnotationError(
            f"{folder}: has {len(found)} .json files and no data.yaml; name the annotation file itself"
        )
    return found[0]


def _folder_beside(path: Path, dataset: DataSet) -> ImageFolder | None:
    """The image folder at its usual places, only if every image is there: a guess must not drop pages."""
    for place in (path.parent, path.parent / "images"):
        if place.is_dir() and dataset.pages:
            folder = ImageFolder(place)
            if all(page.image in folder for page in dataset.pages):
                return folder
    return None
