"""YOLO data sets: data.yaml, images/<part>/, labels/<part>/ with a line `class cx cy w h` (fractions) for each box."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ..errors import AnnotationError, ImageError, InputError
from ..files import written_whole
from ..images import SUFFIXES as IMAGES
from ..regions import Box, Page, Region
from .dataset import DataSet, Issue
from .folder import ImageFolder
from .values import clean_label, fit, quoted

SUFFIXES = (".yaml", ".yml")
PARTS = ("train", "val", "test")


def read(path: Path, *, images: ImageFolder | None = None) -> DataSet:
    """The pages of a YOLO data set: `path` is its data.yaml or the folder that holds it.

    The images are where data.yaml says, whatever `images` is. Sizes are read from their headers, so they must be there.
    Pages know their part as extra["split"]; an image without a label file is a page without boxes. Raises
    AnnotationError.
    """
    config_path = path if path.is_file() else path / "data.yaml"
    config = _config(config_path)
    return _Reader(config_path, _labels(config, config_path)).read(config)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such file; a YOLO data set has a data.yaml", reason="missing") from None
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise AnnotationError(f"{path}: is not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(config, dict):
        raise AnnotationError(f"{path}: must map names, train and val")
    return config


def _labels(config: Mapping[str, Any], path: Path) -> dict[int, str]:
    names = config.get("names")
    pairs = list(names.items()) if isinstance(names, dict) else list(enumerate(names or ()))
    if not pairs or not all(type(key) is int for key, _ in pairs):
        raise AnnotationError(f"{path}: 'names' must be a list of labels or map class numbers to labels")
    try:
        return {key: clean_label(name) for key, name in sorted(pairs)}
    except ValueError as error:
        raise AnnotationError(f"{path}: 'names': {error}") from None


class _Reader:
    def __init__(self, path: Path, labels: dict[int, str]) -> None:
        self.path = path
        self.root = path.parent
        self.labels = labels
        self.images = ImageFolder(self.root)
        self.issues: list[Issue] = []

    def read(self, config: Mapping[str, Any]) -> DataSet:
        parts = [part for part in PARTS if config.get(part)]
        if not parts:
            raise AnnotationError(f"{self.path}: names neither train, val nor test images")
        pages: list[Page] = []
        for part in parts:
            for name in self._names(config, part):
                page = self._page(name, part)
                if page is not None:
                    pages.append(page)
        if not pages and not self.issues:
            raise AnnotationError(f"{self.path}: {', '.join(parts)} hold no images")
        labels = tuple(dict.fromkeys(self.labels.values()))
        return DataSet(pages, labels, self.images, self.issues, str(self.path))

    def _names(self, config: Mapping[str, Any], part: str) -> Iterator[str]:
        """The image names of a part, relative to the root: of a folder, or listed in a text file."""
        entries = config[part] if isinstance(config[part], list) else [config[part]]
        for entry in entries:
            place = self._place(config, entry, part)
            if place.is_dir():
                files = sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGES)
                yield from (path.relative_to(self.root).as_posix() for path in files)
            else:
                lines = self._list(place)
                yield from (line.strip().removeprefix("./") for line in lines if line.strip())

    def _list(self, path: Path) -> list[str]:
        try:
            return path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise AnnotationError(f"{path}: is neither a folder nor a list of images ({error})") from None

    def _place(self, config: Mapping[str, Any], entry: object, part: str) -> Path:
        """The folder or list of a part. Only what lies below the data.yaml is read: exports often name a folder
        beside it ("../train/images") or an absolute path of another machine, and hold it here."""
        if not isinstance(entry, str):
            raise AnnotationError(f"{self.path}: '{part}' must be a path")
        root, base = os.path.abspath(self.root), str(config.get("path") or "")
        inner = [piece for piece in PurePosixPath(entry.replace("\\", "/")).parts if piece not in ("..", "/")]
        for place in (os.path.join(root, base, entry), os.path.join(root, *inner)):
            relative = os.path.relpath(place, root)
            if not relative.startswith("..") and (self.root / relative).exists():
                return self.root / relative
        raise AnnotationError(f"{self.path}: '{part}' is {quoted(entry)}, which is not below {self.root}")

    def _page(self, name: str, part: str) -> Page | None:
        try:
            header = self.images.header(name)
        except ImageError as error:
            code = "missing_image" if error.reason == "missing" else "unreadable_image"
            self._issue(code, f"image {quoted(name)}", str(error))
            return None
        label_name = label_path(name)
        text = self._text(label_name)
        regions = [
            region
            for number, line in enumerate(text.splitlines(), 1)
            if (region := self._region(line, header.width, header.height, f"{label_name}, line {number}"))
        ]
        return Page(name, header.width, header.height, tuple(regions), {"split": part})

    def _text(self, name: str) -> str:
        try:
            return (self.root / name).read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            self._issue("bad_row", name, f"cannot be read ({error})")
            return ""

    def _region(self, line: str, width: int, height: int, about: str) -> Region | None:
        if not line.strip():
            return None
        numbers = _numbers(line)
        if numbers is None:
            self._issue("bad_bbox", about, f"{quoted(line)} is not 'class cx cy w h' in fractions of the page")
            return None
        label = self.labels.get(int(numbers[0]))
        if label is None:
            self._issue("unknown_category", about, f"there is no class {numbers[0]:g}")
            return None
        if len(numbers) > 5:
            self._issue("polygon", about, f"{(len(numbers) - 1) // 2} points")
        box, code = fit(_box(numbers[1:], width, height), width, height)
        if code is not None:
            self._issue(code, about, f"{quoted(line)} on {width} x {height} pixels")
        return Region(label, box) if box else None

    def _issue(self, code: str, about: str, message: str) -> None:
        self.issues.append(Issue(code, str(self.path), about, message))


def _numbers(line: str) -> list[float] | None:
    """The class and a box (4 numbers) or polygon (an even count of at least 6) in fractions, or None."""
    try:
        numbers = [float(part) for part in line.split()]
    except ValueError:
        return None
    count = len(numbers) - 1
    fractions = all(math.isfinite(value) and -1 <= value <= 2 for value in numbers[1:])
    usable = count == 4 or (count >= 6 and count % 2 == 0)
    return numbers if usable and fractions and numbers[0].is_integer() else None


def _box(values: list[float], width: int, height: int) -> Box:
    if len(values) == 4:
        cx, cy, w, h = values
        return Box((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
    xs, ys = values[::2], values[1::2]
    return Box(min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height)


def label_path(image: str) -> str:
    """The label file of an image: its last folder "images" becomes "labels", its suffix ".txt"."""
    parts = list(PurePosixPath(image).with_suffix(".txt").parts)
    folders = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return "/".join(parts)


def write(dataset: DataSet, path: Path) -> None:
    """Write the data set into the folder `path`, all of it for training."""
    write_parts({"train": dataset}, path)


def write_parts(parts: Mapping[str, DataSet], folder: Path) -> None:
    """Write data.yaml and one label file a page for every part ("train", "val", "test"); images are not copied.

    Boxes are fractions with eight decimals. Raises InputError when two images of a part would share a label file.
    """
    labels = list(dict.fromkeys(label for dataset in parts.values() for label in dataset.all_labels()))
    numbers = {label: index for index, label in enumerate(labels)}
    for part, dataset in parts.items():
        files: dict[str, Page] = {}
        for page in dataset.pages:
            name = label_path(image_path(page.image, part))
            if name in files:
                raise InputError(f"{page.image} and {files[name].image} would share {name}: rename one of them")
            files[name] = page
        for name, page in files.items():
            with written_whole(folder / name) as stream:
                stream.writelines(_line(region, page, numbers) for region in page.regions)
    config = {**{part: f"images/{part}" for part in parts}, "names": dict(enumerate(labels))}
    with written_whole(folder / "data.yaml") as stream:
        yaml.safe_dump(config, stream, sort_keys=False, allow_unicode=True)


def image_path(name: str, part: str) -> str:
    """Where a YOLO data set keeps the image of a page: images/<part>/ and the name without such folders of before."""
    inner = list(PurePosixPath(name).parts)
    if "images" in inner[:-1]:
        inner = inner[len(inner) - inner[::-1].index("images") :]
        inner = inner[1:] if len(inner) > 1 and inner[0] in PARTS else inner
    return "/".join(("images", part, *inner))


def _line(region: Region, page: Page, numbers: Mapping[str, int]) -> str:
    box = region.box
    values = (
        (box.x1 + box.x2) / 2 / page.width,
        (box.y1 + box.y2) / 2 / page.height,
        box.width / page.width,
        box.height / page.height,
    )
    return f"{numbers[region.label]} " + " ".join(f"{value:.8f}" for value in values) + "\n"
