"""Small PDFs written by hand, and detectors that are not models, for the tests of pdf and extraction."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from florentune.regions import Box, Page, Region

LETTER = (612, 792)
Text = tuple[float, float, float, str]  # x, baseline from the top, size, text


def write_pdf(path: Path, pages: Iterable[list[Text]], size: tuple[float, float] = LETTER, rotate: int = 0) -> Path:
    """A PDF whose pages hold lines of Helvetica; coordinates in points from the top left of the unrotated page."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for lines in pages:
        shown = [f"BT /F1 {s} Tf {x} {size[1] - y} Td ({_escaped(text)}) Tj ET" for x, y, s, text in lines]
        stream = "\n".join(shown)
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        kids.append(len(objects) + 1)
        box = f"/MediaBox [0 0 {size[0]} {size[1]}] /Rotate {rotate}"
        resources = "/Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R {box} {resources} /Contents {len(objects)} 0 R >>")
    objects[1] = f"<< /Type /Pages /Count {len(kids)} /Kids [{' '.join(f'{kid} 0 R' for kid in kids)}] >>"
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    head = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    tail = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(data)}\n%%EOF\n"
    path.write_bytes(data + (head + tail).encode())
    return path


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


class Given:
    """A detector that returns the regions it was given for each page number (from 0), in points at `dpi`."""

    name = "given"

    def __init__(self, regions: dict[int, list[tuple[str, Box]]] | None = None, dpi: float = 72) -> None:
        self.regions, self.scale = regions or {}, dpi / 72

    def detect(self, images: Iterable[tuple[str, Image.Image]], *, batch: int = 8) -> Iterator[Page]:
        for name, image in images:
            found = self.regions.get(int(name.removeprefix("page-")) - 1, [])
            regions = [Region(label, Box(*(value * self.scale for value in box)), 0.9) for label, box in found]
            yield Page(name, image.width, image.height, tuple(regions))


class Poisoned(Given):
    """A detector whose behaviour the page's width at 72 dpi decides: what poisons a real model, on demand."""

    name = "poisoned"

    def detect(self, images: Iterable[tuple[str, Image.Image]], *, batch: int = 8) -> Iterator[Page]:
        images = list(images)
        for _, image in images:
            match image.width:
                case 101:
                    ctypes.string_at(0)  # a real one: a signal that is sent can be outrun by the answer
                case 102:
                    time.sleep(3600)
                case 103:
                    os.abort()
                case 104:
                    raise MemoryError
                case 105:
                    raise RuntimeError("a bug in a detector")
        return super().detect(images, batch=batch)


def poisoned() -> Poisoned:
    """The factory of workers in tests: every page has one table across its upper half."""
    return Poisoned({0: [("table", Box(20, 30, 90, 60))]})


POISON = {"segv": 101, "hang": 102, "abort": 103, "memory": 104, "raise": 105}
