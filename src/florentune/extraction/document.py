"""One document: its tables and figures with captions, crops and a record, page by page.

`process_document` writes a folder whose `document.json` comes last: it is there when everything else is.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from .. import __version__
from ..errors import FlorentuneError, InputError, PdfError
from ..files import write_json, written_whole
from ..images import SUFFIXES, open_image
from ..pdf import PageFailure, PdfReader, RenderedPage, check_file
from ..regions import Box, Page
from .captions import Caption, find_captions, settle
from .edges import snug, whole
from .lines import union
from .linking import Detected, Found, cut, link
from .tables import Table, read_table, words_as_csv, words_in

SCHEMA = "florentune.document/1"
DOCUMENT = "document.json"
_ABANDONED = 3600.0  # seconds after which a temporary file is no other run's work in progress


class PageDetector(Protocol):
    """What finds the boxes: `florentune.detector.Detector`, or anything that yields a Page for every image."""

    name: str

    def detect(self, images: Iterable[tuple[str, Image.Image]], *, batch: int = 8) -> Iterator[Page]:
        """One Page for each (name, image), in order, boxes in pixels of the image."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is written for a document. Every field changes the output, so together they identify it."""

    dpi: float = 200.0
    crops: bool = True
    clips: bool = False
    batch: int = 4


@dataclass(slots=True)
class _Draft:
    """What is known of a document while its pages stream by."""

    out: Path
    options: Options
    pages: int = 0
    done: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    without_text: list[int] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)
    captions: list[Caption] = field(default_factory=list)
    linked: list[Caption | None] = field(default_factory=list)
    files: set[str] = field(default_factory=lambda: {DOCUMENT, "figures.json"})


def process_document(
    path: Path | str,
    out: Path | str,
    detector: PageDetector,
    *,
    options: Options | None = None,
    reader: PdfReader | None = None,
    source: str | None = None,
    config: str = "",
    on_page: Callable[[int], None] = lambda index: None,
) -> dict[str, Any]:
    """Find the tables and figures of a PDF (or an image file) and write them to the folder `out`.

    Whatever the file holds, the returned record, which is also `document.json`, has a `status`: "ok", "partial" (some
    pages failed) or "failed", with a stable `reason` code and a sentence. Only errors of the machine, such as a full
    disk, are raised. `source` is what the record calls the file, `config` is kept in it; `on_page` hears of every
    page that is done.

    Memory does not grow with the number of pages: at most `options.batch` page images are held.
    """
    path, options = Path(path), options or Options()
    draft = _Draft(Path(out), options)
    status, reason, message = "ok", "", ""
    try:
        with contextlib.ExitStack() as stack:
            pdf = reader or stack.enter_context(PdfReader())
            for group in _batches(_pages(path, pdf, draft, on_page), options.batch):
                for page, answer in _detected(group, detector, draft):
                    _take(draft, page, answer, path, pdf)
                    on_page(page.index)
    except InputError as error:
        status, reason, message = "failed", error.reason, str(error)
    if draft.failures:
        worst = draft.failures[0]
        status, reason, message = "partial" if draft.done else "failed", worst["reason"], worst["message"]
    return _finished(draft, source or str(path), detector.name, config, _fingerprint(path), (status, reason, message))


def failure_record(
    out: Path, source: str, model: str, options: Options, config: str, reason: str, message: str
) -> dict[str, Any]:
    """Write and return the record of a document that could not be processed at all."""
    nothing = {"bytes": None, "sha256": None}
    return _finished(_Draft(out, options), source, model, config, nothing, ("failed", reason, message))


def _finished(
    draft: _Draft, source: str, model: str, config: str, file: dict[str, Any], outcome: tuple[str, str, str]
) -> dict[str, Any]:
    """Write and return the record of a draft."""
    status, reason, message = outcome
    record = {
        "schema": SCHEMA,
        "source": printable(source),
        **file,
        "status": "skipped" if reason == "not_file" else status,
        "reason": reason,
        "message": message,
        "tool": f"florentune {__version__}",
        "model": model,
        "options": asdict(draft.options),
        "config": config,
        **_contents(draft),
    }
    _write(draft, record)
    return record


def _pages(path: Path, pdf: PdfReader, draft: _Draft, on_page: Callable[[int], None]) -> Iterator[RenderedPage]:
    """The pages that can be read; the others go into the draft."""
    if path.suffix.lower() in SUFFIXES:
        check_file(path)
        draft.pages = 1
        yield _image_page(path, draft.options.dpi)
        return
    for page in pdf.pages(path, draft.options.dpi):
        draft.pages = pdf.page_count
        if isinstance(page, PageFailure):
            draft.failures.append(asdict(page))
            on_page(page.index)
        else:
            yield page


def _image_page(path: Path, dpi: float) -> RenderedPage:
    """An image file as a page without a text layer, taken to be scanned at `dpi`."""
    image = open_image(path)
    return RenderedPage(0, image.width * 72 / dpi, image.height * 72 / dpi, 0, (), False, image)


def _batches(pages: Iterator[RenderedPage], size: int) -> Iterator[list[RenderedPage]]:
    group: list[RenderedPage] = []
    for page in pages:
        group.append(page)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _detected(
    group: Sequence[RenderedPage], detector: PageDetector, draft: _Draft
) -> Iterator[tuple[RenderedPage, Page]]:
    """Each page with what the detector saw; a page that it fails on is recorded, the others are not lost with it."""
    names = [(f"page-{page.index + 1}", page.image) for page in group]
    try:
        yield from zip(group, list(detector.detect(names, batch=len(names))), strict=True)
        return
    except FlorentuneError as error:
        if len(group) == 1:
            reason = error.reason if isinstance(error, InputError) else "detector"
            draft.failures.append(asdict(PageFailure(group[0].index, reason, str(error))))
            return
    for page in group:
        yield from _detected([page], detector, draft)


def _take(draft: _Draft, page: RenderedPage, answer: Page, path: Path, pdf: PdfReader) -> None:
    """Add a page's tables and figures to the draft and write their files."""
    draft.done += 1
    if not page.has_text:
        draft.without_text.append(page.index)
    detected = [Detected(region.label, page.to_points(region.box), region.score) for region in answer.regions]
    captions = find_captions(page, [item.box for item in detected])
    size, certain = (page.width_pt, page.height_pt), settle(captions)
    found, _ = link(cut(detected, certain, size, partial(_snug, page)), certain, size)
    draft.captions += captions
    keep_off = [page.to_pixels(caption.box) for caption in captions]
    for item in found:
        name = _file_name(draft, item, page.index)
        box = page.to_points(whole(page.to_pixels(item.box), page.image, page.scale, keep_off))
        entry = {"id": name, **_described(item, box, page), **_files(draft, name, item, box, page, path, pdf)}
        draft.found.append(entry)
        draft.linked.append(item.caption)


def _snug(page: RenderedPage, box: Box) -> Box:
    return page.to_points(snug(page.to_pixels(box), page.image, page.scale))


def _file_name(draft: _Draft, item: Found, index: int) -> str:
    """A name that says what it is and is unique in the document: table-3, figure-4a, figure-p7-1 without a number."""
    kind = "".join(sign for sign in item.kind if sign.isalnum()) or "region"
    number = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in _number(item))
    stem = f"{kind}-{number}" if number.strip("-") else f"{kind}-p{index + 1}"
    taken = {entry["id"] for entry in draft.found}
    count = 1
    name = stem if number.strip("-") else f"{stem}-1"
    while name in taken:
        count += 1
        name = f"{stem}-{count}" if not number.strip("-") else f"{stem}-p{index + 1}-{count}"
    return name


def _number(item: Found) -> str:
    return item.caption.number if item.caption else ""


def _described(item: Found, box: Box, page: RenderedPage) -> dict[str, Any]:
    """What a figure's entry says apart from its files; `box` is that of its parts with whole edges."""
    caption = item.caption
    words = words_in(page, box)
    angles = [word.angle for word in words]
    turn = caption.angle if caption else max(set(angles), key=angles.count, default=0)
    scores = [part.score for part in item.parts if part.score is not None]
    return {
        "kind": item.kind,
        "number": caption.number if caption else None,
        "label": caption.label if caption else None,
        "caption": caption.text if caption else None,
        "page": page.index,
        "page_size": [round(page.width_pt, 2), round(page.height_pt, 2)],
        "bbox": _rounded(box),
        "bbox_pixels": _rounded(page.to_pixels(box)),
        "caption_bbox": _rounded(caption.box) if caption else None,
        "parts": [{"label": part.label, "bbox": _rounded(part.box), "score": part.score} for part in item.parts],
        "score": min(scores) if scores else None,
        "rotation": turn,
        "text_layer": page.has_text,
        "text": " ".join(word.text for word in words),
    }


def _files(
    draft: _Draft, name: str, item: Found, box: Box, page: RenderedPage, path: Path, pdf: PdfReader
) -> dict[str, str | dict[str, object] | None]:
    """Write a figure's files; their names, None where there is none."""
    files: dict[str, str | dict[str, object] | None] = {"crop": None, "crop_with_caption": None, "clip": None}
    if draft.options.crops:
        files["crop"] = _write_crop(draft, f"{name}.png", page, box)
        if item.caption:
            whole = union([box, item.caption.box])
            files["crop_with_caption"] = _write_crop(draft, f"{name}-caption.png", page, whole)
    if draft.options.clips and path.suffix.lower() not in SUFFIXES:
        with contextlib.suppress(PdfError):
            files["clip"] = _write_bytes(draft, f"{name}.pdf", pdf.clip(path, page.index, box))
    if item.kind == "table":
        table: Table = read_table(page, box)
        files["table"] = table.as_dict()
        files["csv"] = _write_bytes(draft, f"{name}.csv", table.as_csv().encode()) if table.rows else None
        words = words_as_csv(words_in(page, box)).encode()
        files["words"] = _write_bytes(draft, f"{name}-words.csv", words) if page.has_text else None
    return files


def _write_crop(draft: _Draft, name: str, page: RenderedPage, box: Box) -> str:
    """The part of the page image as PNG, to whole pixels outwards."""
    exact = page.to_pixels(box).clipped(page.image.width, page.image.height)
    x1, y1 = min(int(exact.x1), page.image.width - 1), min(int(exact.y1), page.image.height - 1)
    x2, y2 = max(-int(-exact.x2 // 1), x1 + 1), max(-int(-exact.y2 // 1), y1 + 1)
    stream = io.BytesIO()
    dpi = page.scale * 72
    page.image.crop((x1, y1, x2, y2)).save(stream, "PNG", dpi=(dpi, dpi), compress_level=4)
    return _write_bytes(draft, name, stream.getvalue())


def _write_bytes(draft: _Draft, name: str, data: bytes) -> str:
    with written_whole(draft.out / name, "wb") as stream:
        stream.write(data)
    draft.files.add(name)
    return name


def _contents(draft: _Draft) -> dict[str, Any]:
    """The part of the record that comes from the pages."""
    kept = settle(draft.captions)
    linked = set(draft.linked)
    return {
        "pages": draft.pages,
        "pages_done": draft.done,
        "page_failures": draft.failures,
        "pages_without_text": draft.without_text,
        "figures": draft.found,
        "captions_without_box": [
            {
                "kind": caption.kind,
                "number": caption.number,
                "label": caption.label,
                "caption": caption.text,
                "page": caption.page,
                "bbox": _rounded(caption.box),
                "rotation": caption.angle,
            }
            for caption in kept
            if caption not in linked
        ],
    }


def _write(draft: _Draft, record: dict[str, Any]) -> None:
    """Write the record last, then remove what an earlier run left behind: other options' files, a dead run's parts."""
    write_json(draft.out / "figures.json", [pdffigures2(entry, draft.options.dpi) for entry in record["figures"]])
    write_json(draft.out / DOCUMENT, record)
    for stale in draft.out.iterdir():
        abandoned = stale.suffix == ".tmp" and time.time() - stale.stat().st_mtime > _ABANDONED
        if abandoned or (stale.name not in draft.files and stale.suffix in (".png", ".csv", ".pdf")):
            stale.unlink(missing_ok=True)


def counts(record: dict[str, Any]) -> dict[str, int]:
    """How many tables and figures a record has."""
    kinds = [entry["kind"] for entry in record["figures"]]
    return {"tables": kinds.count("table"), "figures": kinds.count("figure")}


def pdffigures2(entry: dict[str, Any], dpi: float) -> dict[str, Any]:
    """An entry in the fields of pdffigures2's figure data: points, origin at the top left, pages from 0."""
    return {
        "name": entry["number"] or "",
        "figType": entry["kind"].capitalize(),
        "page": entry["page"],
        "caption": entry["caption"] or "",
        "captionBoundary": _boundary(entry["caption_bbox"]),
        "regionBoundary": _boundary(entry["bbox"]),
        "imageText": entry["text"].split(),
        "renderDpi": dpi,
        "renderURL": entry["crop"] or "",
    }


def _boundary(box: list[float] | None) -> dict[str, float] | None:
    return dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)) if box else None


def _rounded(box: Box) -> list[float]:
    return [round(value, 2) for value in box]


def printable(name: str) -> str:
    """A file name as Unicode text: bytes that are no UTF-8 become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _fingerprint(path: Path) -> dict[str, Any]:
    """Size and sha256 of the file; None where it cannot be read."""
    try:
        if not path.is_file():
            return {"bytes": None, "sha256": None}
        with path.open("rb") as stream:
            return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
    except OSError:
        return {"bytes": None, "sha256": None}
