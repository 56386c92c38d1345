"""Generated papers as a COCO data set with exact boxes: images/, annotations.json, layout.json, captions.json."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from ..errors import InputError
from ..files import write_json, written_whole
from ..regions import Box
from .boxes import MARGIN, REACH, Ink, crossed, grown, ink_of, spans, tight
from .draft import Mark, Paper
from .paper import Writer
from .typeset import fonts, page_count, page_images, typeset

LABELS = ("table", "figure")
LAYOUT_LABELS = (
    *LABELS, "caption", "text", "heading", "title", "author", "abstract", "equation", "algorithm", "code", "theorem",
    "list", "footnote", "reference", "header", "footer", "stamp",
)  # fmt: skip
ATTEMPTS = 12


@dataclass(frozen=True)
class Settings:
    """What decides every byte of a data set, apart from the versions of Typst and PDFium."""

    pages: int
    seed: int = 0
    dpi: float = 100.0
    captions: bool = False
    pdf: bool = False


@dataclass(frozen=True)
class Found:
    """One region of a rendered page: pixels, and for an object its caption's meaning and box."""

    label: str
    box: Box
    caption: Mark | None = None
    caption_box: Box | None = None


@dataclass(frozen=True)
class Sheet:
    """One page as it goes into the JSON files."""

    file_name: str
    width: int
    height: int
    regions: tuple[Found, ...]
    sound: bool  # every object stands alone, as _alone says


def synthesize(
    out: Path, settings: Settings, *, workers: int = 1, progress: Callable[[int], None] = lambda pages: None
) -> dict[str, int]:
    """Write a data set of `settings.pages` pages into the folder `out`; returns counts of pages and boxes.

    The bytes depend on the settings alone, not on `workers`. `progress` is called with the pages of each paper done.
    Raises InputError where `settings` or `out` cannot be used and MissingExtraError without Typst.
    """
    fonts()
    _check(out, settings, workers)
    jobs = list(enumerate(_page_counts(settings)))
    sheets: list[Sheet] = []
    for found in _run(partial(write_paper, out, settings), jobs, workers):
        sheets += found
        progress(len(found))
    write_json(out / "layout.json", _coco(sheets, LAYOUT_LABELS, {}), indent=None)
    write_json(out / "captions.json", _captions(sheets), indent=None)
    annotations = _coco(sheets, LABELS, {"with_captions": settings.captions})
    write_json(out / "annotations.json", annotations, indent=None)
    empty = sum(not any(region.label in LABELS for region in sheet.regions) for sheet in sheets)
    return {
        "papers": len(jobs),
        "pages": len(sheets),
        "empty_pages": empty,
        **{label: sum(region.label == label for sheet in sheets for region in sheet.regions) for label in LABELS},
    }


def _check(out: Path, settings: Settings, workers: int) -> None:
    if settings.pages < 1:
        raise InputError(f"--pages {settings.pages}: give a number of pages of at least 1")
    if not 20 <= settings.dpi <= 600:
        raise InputError(f"--dpi {settings.dpi:g}: give a resolution between 20 and 600")
    if workers < 1:
        raise InputError(f"--workers {workers}: give at least 1")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty; give a new folder, so that old and new pages do not mix")
    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
        with written_whole(out / "images" / ".probe"):
            pass
        (out / "images" / ".probe").unlink()
    except OSError as problem:
        raise InputError(f"{out}: cannot be written to ({problem.strerror}); give another folder") from None


def _page_counts(settings: Settings) -> Iterator[int]:
    """The pages of each paper, decided before any is written so that workers need not wait for each other."""
    rng, left = Random(f"pages {settings.seed}"), settings.pages
    while left:
        count = min(rng.randint(3, 9), left)
        yield count
        left -= count


def _run(
    work: Callable[[tuple[int, int]], list[Sheet]], jobs: list[tuple[int, int]], workers: int
) -> Iterator[list[Sheet]]:
    if workers == 1:
        yield from map(work, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(work, jobs)


def write_paper(out: Path, settings: Settings, job: tuple[int, int]) -> list[Sheet]:
    """Write the page images (and the PDF) of paper `job[0]`, exactly `job[1]` pages.

    A paper where something overlaps (a float too tall for its page) is thrown away and another one written.
    """
    index, pages = job
    for attempt in range(ATTEMPTS):
        paper, pdf, markers = _long_enough(f"{settings.seed} {index} {attempt}", pages)
        found = spans(markers, _columns(paper), paper.style.points)
        sheets, images = [], list(page_images(pdf, pages, settings.dpi))
        for number, image in enumerate(images):
            name = f"paper_{index:05d}_{number}.png"
            here = [(key, box) for key, page, box in found if page == number]
            sheets.append(_sheet(name, image, paper, here, settings))
        if all(sheet.sound for sheet in sheets):
            break
    else:
        raise AssertionError(f"paper {index} of seed {settings.seed} has overlaps in {ATTEMPTS} attempts")
    for sheet, image in zip(sheets, images, strict=True):
        image.save(out / "images" / sheet.file_name, compress_level=3)
    if settings.pdf:
        with written_whole(out / "pdfs" / f"paper_{index:05d}.pdf", "wb") as stream:
            stream.write(pdf)
    return sheets


def _alone(ink: Ink, thing: Found, regions: list[Found], with_captions: bool) -> bool:
    """Whether an object is inside the page, no ink crosses its border, and it shares at most 2 % of anything's area."""
    box, (height, width) = thing.box, ink.shape
    if box.x1 <= 1 or box.y1 <= 1 or box.x2 >= width - 1 or box.y2 >= height - 1 or crossed(ink, box):
        return False
    others = [other.box for other in regions if other is not thing]
    if with_captions:
        others = [other for other in others if other != thing.caption_box]
    return all(_shared(box, other) <= 0.02 * other.area for other in others)


def _shared(first: Box, second: Box) -> float:
    """The common area of two boxes."""
    width = min(first.x2, second.x2) - max(first.x1, second.x1)
    height = min(first.y2, second.y2) - max(first.y1, second.y1)
    return max(width, 0.0) * max(height, 0.0)


def _long_enough(seed: str, pages: int) -> tuple[Paper, bytes, list[dict[str, Any]]]:
    """A paper of at least `pages` pages: one that came out short is written again, longer."""
    for more in range(8):
        paper = Writer(Random(seed)).write(pages + more * max(pages // 3, 1))
        pdf, markers = typeset(paper)
        if page_count(pdf) >= pages:
            return paper, pdf, markers
    raise AssertionError(f"paper {seed!r} stays shorter than {pages} pages")


def _columns(paper: Paper) -> list[tuple[float, float]]:
    style = paper.style
    left, _, right, _ = style.margins
    width = (style.size[0] - left - right - style.gutter * (style.columns - 1)) / style.columns
    return [
        (left + k * (width + style.gutter), left + k * (width + style.gutter) + width) for k in range(style.columns)
    ]


def _sheet(name: str, image: Image.Image, paper: Paper, here: list[tuple[str, Box]], settings: Settings) -> Sheet:
    ink, scale = ink_of(image), settings.dpi / 72
    margin = round(MARGIN * scale)

    def inked(box: Box) -> Box | None:
        return tight(ink, Box(*(value * scale for value in box)), REACH * scale)

    inside = [(key, box) for key, spot in here if (box := inked(spot))]
    captions = {key: box for key, box in inside if paper.marks[key].label == "caption"}
    regions = []
    for key, box in inside:
        mark = paper.marks[key]
        if mark.label in LABELS:
            regions.append(_object(ink, mark, box, paper, captions, margin, settings.captions))
        else:
            regions.append(Found(mark.label, box))
    regions.sort(key=lambda region: (LAYOUT_LABELS.index(region.label), region.box.y1, region.box.x1))
    objects = [region for region in regions if region.label in LABELS]
    sound = all(_alone(ink, thing, regions, settings.captions) for thing in objects)
    return Sheet(name, image.width, image.height, tuple(regions), sound)


def _object(
    ink: Ink, mark: Mark, box: Box, paper: Paper, captions: dict[str, Box], margin: int, with_caption: bool
) -> Found:
    caption = captions.get(mark.caption)
    if with_caption and caption:
        box = Box(min(box.x1, caption.x1), min(box.y1, caption.y1), max(box.x2, caption.x2), max(box.y2, caption.y2))
    return Found(mark.label, grown(ink, box, margin), paper.marks.get(mark.caption), caption)


def _coco(sheets: list[Sheet], labels: tuple[str, ...], info: dict[str, Any]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for image_id, sheet in enumerate(sheets, 1):
        for region in sheet.regions:
            if region.label in labels:
                x, y, w, h = _xywh(region.box)
                annotations.append({
                    "id": len(annotations) + 1, "image_id": image_id, "category_id": labels.index(region.label) + 1,
                    "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0,
                })  # fmt: skip
    return {
        "info": {"description": "Papers generated by florentune synth", **info},
        "images": [
            {"id": k, "file_name": sheet.file_name, "width": sheet.width, "height": sheet.height}
            for k, sheet in enumerate(sheets, 1)
        ],
        "categories": [{"id": k, "name": label} for k, label in enumerate(labels, 1)],
        "annotations": annotations,
    }


def _captions(sheets: list[Sheet]) -> list[dict[str, Any]]:
    """One record an object that has a caption: image, kind, number, text, and both boxes as [x, y, width, height]."""
    return [
        {
            "image": sheet.file_name,
            "kind": region.label,
            "number": region.caption.number,
            "text": region.caption.text,
            "box": _xywh(region.caption_box),
            "object_box": _xywh(region.box),
        }
        for sheet in sheets
        for region in sheet.regions
        if region.caption and region.caption_box
    ]


def _xywh(box: Box) -> list[int]:
    return [int(box.x1), int(box.y1), int(box.width), int(box.height)]
