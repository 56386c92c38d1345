"""Annotation files to pages and back: COCO, YOLO, LLaMA-Factory sharegpt and JSON lines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

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
FORMATS = ("coco", "yolo", "llamafactory", "jsonl")
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
    if path.is_dir() and kind != "yolo":
        path = coco_file(path)
    folder = ImageFolder(images) if images is not None else None
    if kind == "yolo":
        return yolo.read(path)
    if kind == "llamafactory":
        return llamafactory.read(path, images=folder)
    if kind not in FORMATS:
        raise InputError(f"format {kind!r} is unknown; formats are {', '.join(FORMATS)}")
    dataset = coco.read(path, images=folder, ignore=ignore) if kind == "coco" else jsonl.read(path, images=folder)
    dataset.images = dataset.images or _folder_beside(path, dataset)
    return dataset


def write(dataset: DataSet, path: Path | str, *, format: str) -> None:
    """Write the data set, regions in their order; `path` is a file, for YOLO a folder. No image is copied."""
    writers = {"coco": coco.write, "llamafactory": llamafactory.write, "jsonl": jsonl.write, "yolo": _write_yolo}
    if format not in writers:
        raise InputError(f"format {format!r} is unknown; formats are {', '.join(FORMATS)}")
    writers[format](dataset, Path(path))


def _write_yolo(dataset: DataSet, folder: Path) -> None:
    yolo.write({"train": dataset}, folder)


def recognise(path: Path) -> str:
    """The format of a file or folder by its name and first character. Raises AnnotationError when nothing fits."""
    suffix = path.suffix.lower()
    if path.is_dir():
        return "yolo" if (path / "data.yaml").is_file() else "coco"
    if suffix in (".yaml", ".yml"):
        return "yolo"
    if suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    if suffix != ".json":
        raise AnnotationError(f"{path}: a data set is a .json, .jsonl or data.yaml file, or a folder with one of them")
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
