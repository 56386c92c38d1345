"""The process that takes one document after the other apart. PDFium is a process behind it, the model another one.

Page images go to the model as files that the server names to it; they stay, because people look at them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import InputError, PdfError
from ..extraction import Options, process_document
from ..files import disk_full, read_json, write_json
from ..images import SUFFIXES
from ..pdf import PdfReader
from ..regions import Box, Page, Region
from .children import heard, ignore_signals, tell

DOCUMENT = "document.json"


class _RemoteDetector:
    """The detector of `process_document`: writes the page images and asks the server for what is on them."""

    def __init__(self, channel: Connection, folder: Path, name: str) -> None:
        self.name, self._channel, self._folder = name, channel, folder

    def detect(self, images: Iterable[tuple[str, Image.Image]], *, batch: int = 8) -> Iterator[Page]:
        names = []
        for name, image in images:
            image.save(self._folder / f"{name}.png", compress_level=1)
            names.append(name)
        tell(self._channel, event="detect", names=names)
        answer = heard(self._channel)
        if "error" in answer:
            raise InputError(answer["error"]["message"], reason=answer["error"]["reason"])
        yield from (_page(page) for page in answer["pages"])


def serve(channel: Connection) -> None:
    """Answer {"path", "source", "out", "images", "pages", "dpi", "model"} until the server is gone.

    Events are opened (pages), detect (names; to be answered with {"pages"} or {"error"}) and done (status, reason,
    message); the record itself is on disk.
    """
    ignore_signals()
    reader = PdfReader()
    while True:
        job = heard(channel)
        try:
            outcome = _extract(channel, job, reader)
        except OSError as error:
            outcome = {"status": "failed", "reason": "disk_full", "message": f"{error.strerror}"}
            if error.errno is None or error.filename is None:
                outcome["message"] = str(disk_full(Path(job["out"])))
        except Exception as error:  # noqa: BLE001 - one document must not end the process that serves the next one
            reason = getattr(error, "reason", "disk_full" if getattr(error, "exit_code", 0) == 5 else "error")
            outcome = {"status": "failed", "reason": reason, "message": _named(str(error), job)}
        tell(channel, event="done", **outcome)


def _extract(channel: Connection, job: dict[str, Any], reader: PdfReader) -> dict[str, Any]:
    path, out = Path(job["path"]), Path(job["out"])
    count = 1 if path.suffix in SUFFIXES else reader.open(path)
    if count > job["pages"]:
        text = f"{job['source']}: has {count} pages; at most {job['pages']} are taken"
        raise PdfError(text, reason="too_many_pages")
    tell(channel, event="opened", pages=count)
    detector = _RemoteDetector(channel, Path(job["images"]), job["model"])
    record = process_document(path, out, detector, options=Options(dpi=job["dpi"]), reader=reader, source=job["source"])
    stored = read_json(out / DOCUMENT)
    for entry in (stored, *stored["page_failures"]):
        entry["message"] = _named(entry["message"], job)
    write_json(out / DOCUMENT, stored)
    return {"status": record["status"], "reason": record["reason"], "message": stored["message"]}


def _named(message: str, job: dict[str, Any]) -> str:
    """A message under the client's name of the file, not under the server's path."""
    return message.replace(job["path"], job["source"])


def _page(page: dict[str, Any]) -> Page:
    regions = (Region(entry["label"], Box(*entry["bbox"]), entry.get("score")) for entry in page["regions"])
    return Page(page["image"], page["width"], page["height"], tuple(regions))
