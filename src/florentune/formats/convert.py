"""From one format to another: read, order, split, write, register. Images are referenced, and copied only if asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AnnotationError, InputError
from ..files import written_whole
from . import FORMATS, coco, llamafactory, read, write, yolo
from .dataset import DataSet, Issue, Order
from .folder import ImageFolder
from .split import leaks, split


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was written: one file a part ("" without a split), its pages, and the folder that image names start from.

    `issues` are those of reading the source and documents that the split tore apart.
    """

    source: DataSet
    parts: dict[str, DataSet]
    files: dict[str, Path]
    images: Path | None
    registered: tuple[str, ...]
    issues: list[Issue]

    def as_dict(self) -> dict[str, Any]:
        """{"source", "read", "issues", "parts": {part: {"file", "pages", ...}}, "images", "registered"}."""
        parts = {part or "all": {"file": str(self.files[part]), **data.summary()} for part, data in self.parts.items()}
        for part in parts.values():
            del part["issues"]  # They belong to the source, not to a part.
        return {
            "source": self.source.source,
            "read": self.source.summary(),
            "issues": [issue.as_dict() for issue in self.issues],
            "parts": parts,
            "images": str(self.images) if self.images else None,
            "registered": list(self.registered),
        }


def convert(
    source: Path,
    target: Path,
    *,
    to: str,
    images: Path | None = None,
    format: str | None = None,
    ignore: Iterable[str] = coco.IGNORED,
    order: Order = "label",
    skip_empty: bool = False,
    shares: str | None = None,
    group_by: str | None = None,
    seed: int = 0,
    registry: Path | None = None,
    name: str | None = None,
    copy_images: bool = False,
    on_copy: Callable[[], None] | None = None,
) -> Conversion:
    """Write the data set at `source` in format `to`; nothing is written when it cannot be read.

    `target` is a file (a folder for YOLO); with `shares` ("85/15") it becomes one file a part, `name_train.json` and
    `name_val.json`. `registry` is a dataset_info.json that gets an entry for every file, named `name` or as the file.
    Raises AnnotationError, InputError, ImageError (only when copying) and DiskFullError.
    """
    if registry is not None and to != "llamafactory":
        raise InputError("--register goes with --to llamafactory: dataset_info.json lists sharegpt files")
    if group_by is not None and shares is None:
        raise InputError("--group-by goes with --split, for example --split 85/15")
    dataset = read(source, images=images, format=format, ignore=ignore)
    if copy_images and dataset.images is None:
        raise InputError("--copy-images needs to know where the images are: pass --images")
    kept = dataset.ordered(order)
    kept = kept.without_empty() if skip_empty else kept
    if not kept.pages:
        raise AnnotationError(f"{source}: no page is left to write; `florentune check {source}` lists why")
    parts = split(kept, shares, group_by=group_by, seed=seed) if shares else {"": kept}
    files = _files(source, target, to, tuple(parts))
    names = _names(files, name) if registry else {}
    _write(parts, files, to)
    folder = dataset.images.root if dataset.images else None
    if copy_images and dataset.images is not None:
        folder = _copy(parts, dataset.images, target, to, on_copy)
    if registry is not None:
        llamafactory.register(registry, names)
    return Conversion(dataset, parts, files, folder, tuple(names), dataset.issues + leaks(parts, group_by))


def _files(source: Path, target: Path, to: str, parts: tuple[str, ...]) -> dict[str, Path]:
    """The file of every part; raises InputError when one would replace the source."""
    if to == "yolo":
        return dict.fromkeys(parts, target / "data.yaml")
    if target.is_dir() or not target.suffix:
        target = target / f"{source.stem}{FORMATS[to].SUFFIXES[0]}"
    files = {part: target.with_stem(f"{target.stem}_{part}") if part else target for part in parts}
    for file in files.values():
        if file.resolve() == source.resolve():
            raise InputError(f"{file}: would replace the source; choose another target")
    return files


def _names(files: dict[str, Path], name: str | None) -> dict[str, Path]:
    names = {(f"{name}_{part}" if part else name) if name else path.stem: path for part, path in files.items()}
    llamafactory.check_names(names)
    return names


def _write(parts: dict[str, DataSet], files: dict[str, Path], to: str) -> None:
    if to == "yolo":
        yolo.write_parts({part or "train": dataset for part, dataset in parts.items()}, files[next(iter(files))].parent)
        return
    for part, dataset in parts.items():
        write(dataset, files[part], format=to)


def _copy(
    parts: dict[str, DataSet], images: ImageFolder, target: Path, to: str, on_copy: Callable[[], None] | None
) -> Path:
    """Copy every image: to images/ beside the file, for YOLO to images/<part>/ of the folder."""
    folder = target if to == "yolo" else (target if target.is_dir() or not target.suffix else target.parent) / "images"
    for part, dataset in parts.items():
        for page in dataset.pages:
            place = folder / (yolo.image_path(page.image, part or "train") if to == "yolo" else page.image)
            with written_whole(place, "wb") as stream:
                stream.write(images.read(page.image))
            if on_copy is not None:
                on_copy()
    return folder
