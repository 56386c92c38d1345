"""PDFs read through a limited child process: pages as images and words, whatever the file holds.

PDFium is not thread-safe and a PDF of two kilobytes can make it abort or ask for gigabytes, so it runs in a child
(`child.py`) with an address-space limit, gets a deadline for every page, and is replaced when it dies.

Deadlines are seconds of CPU time, so that a page that can be read is read on a busy machine too; a child that neither
works nor answers is given thirty times as long on the clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..errors import PdfError
from ..regions import Box
from .child import FRAME

if TYPE_CHECKING:
    from PIL import Image

DEADLINE = 8.0
MEMORY = 1536 * 2**20
MAX_BYTES = 2**30
MAX_PIXELS = 25_000_000
MAX_HEADER = 64 * 2**20
_START_SECONDS = 60.0
_ON_THE_CLOCK = 30  # seconds a child may take for one of CPU time
_LEAST_SECONDS = 1.0  # what a page gets even after bad ones used up the document's patience
_PAGES_PER_CHILD = 5000
_PAGES_PER_OPEN = 200  # PDFium keeps what it has read of a document until that is closed


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the text layer.

    `box` and `origin` (of the first glyph, on the baseline) are in points (1/72 inch) of the page as shown, origin at
    the top left; `size` is the font size in points, `angle` the direction of reading in degrees clockwise (0, 90, 180
    or 270); `line` counts the line breaks PDFium saw before it.
    """

    text: str
    box: Box
    origin: tuple[float, float]
    size: float
    angle: int
    line: int


@dataclass(frozen=True, slots=True)
class PageText:
    """The words of a page in the order of its content stream; sizes in points as shown, rotation in degrees."""

    index: int
    width_pt: float
    height_pt: float
    rotation: int
    words: tuple[Word, ...]
    text_cut: bool

    @property
    def has_text(self) -> bool:
        """Whether the page has a text layer; a scanned page has none."""
        return bool(self.words)


@dataclass(frozen=True, slots=True)
class RenderedPage(PageText):
    """A page as an RGB image with its words. `index` counts from 0."""

    image: Image.Image

    @property
    def scale(self) -> float:
        """Pixels per point."""
        return self.image.width / self.width_pt

    def to_pixels(self, box: Box) -> Box:
        """A box in points of the page, in pixels of the image."""
        x, y = self.image.width / self.width_pt, self.image.height / self.height_pt
        return Box(box.x1 * x, box.y1 * y, box.x2 * x, box.y2 * y)

    def to_points(self, box: Box) -> Box:
        """A box in pixels of the image, in points of the page."""
        x, y = self.width_pt / self.image.width, self.height_pt / self.image.height
        return Box(box.x1 * x, box.y1 * y, box.x2 * x, box.y2 * y)


@dataclass(frozen=True, slots=True)
class PageFailure:
    """A page that could not be read: a stable reason code and a sentence."""

    index: int
    reason: str
    message: str


class PdfReader:
    """One PDFium child process, started when it is needed; not to be shared between threads.

    Args:
        memory: bytes of address space of the child.
        deadline: seconds of CPU time a page may take; also what opening a document and all its failing pages may
            take together (and two seconds more), so that is what a document costs beyond its good pages.
        max_pixels: pages that would be larger at the dpi asked for are rendered smaller.
        passwords: tried in turn on documents that need one.
    """

    def __init__(
        self,
        *,
        memory: int = MEMORY,
        deadline: float = DEADLINE,
        max_pixels: int = MAX_PIXELS,
        passwords: Sequence[str] = (),
    ) -> None:
        self.memory, self.deadline, self.max_pixels = memory, deadline, max_pixels
        self.passwords = list(passwords)
        self.respawns = 0
        self.page_count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._inherited = 0
        self._channel: socket.socket | None = None
        self._opened: Path | None = None
        self._served = 0
        self._cpu = 0.0
        self._patience = deadline

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def close(self) -> None:
        """End the child process."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._channel = self._opened = None

    def open(self, path: Path) -> int:
        """Make `path` the document that is read and return its number of pages.

        Raises PdfError with reason missing, not_file, unreadable, empty, too_large, not_pdf, password, damaged,
        timeout, memory or crash.
        """
        check_file(path)
        if self._served > _PAGES_PER_CHILD:
            self.close()
        before, self._opened = self._used(), None
        count = self._reopen(path)
        self._patience = self.deadline - (self._cpu - before)
        return count

    def pages(self, path: Path, dpi: float = 200.0) -> Iterator[RenderedPage | PageFailure]:
        """Every page of a PDF in order, one in memory at a time. Raises PdfError where `open` does.

        When the pages that failed took `deadline` seconds in sum, the rest get a second each, and after the next one
        that fails the iterator ends, with a PageFailure for the first page not tried (reason "gave_up").
        """
        total = self.open(path)
        for index in range(total):
            last_try = self._patience <= 0
            if index % _PAGES_PER_OPEN == _PAGES_PER_OPEN - 1:
                self._opened = None
            try:
                yield self.page(path, index, dpi)
            except PdfError as error:
                yield PageFailure(index, error.reason, str(error))
                if last_try and index + 1 < total:
                    left = f"the {total - index - 1} pages from here on were not tried"
                    cost = f"those that failed took {self.deadline:g} s of CPU time"
                    yield PageFailure(index + 1, "gave_up", f"{left}: {cost}")
                    return

    def page(self, path: Path, index: int, dpi: float = 200.0) -> RenderedPage:
        """One page of the document as an image with its words. Raises PdfError."""
        from PIL import Image

        header, body = self._ask_about(path, do="page", index=index, dpi=dpi, max_pixels=self.max_pixels)
        size = int(header["width"]), int(header["height"])
        if size[0] * size[1] > self.max_pixels or len(body) != size[0] * size[1] * 3:
            self.close()
            raise PdfError("the PDF process answered with an image of another size", reason="crash")
        image = Image.frombuffer("RGB", size, body, "raw", "RGB", 0, 1)
        return RenderedPage(**_text_fields(index, header), image=image)

    def text(self, path: Path, index: int) -> PageText:
        """The words of one page of the document, without an image. Raises PdfError."""
        header, _ = self._ask_about(path, do="text", index=index)
        return PageText(**_text_fields(index, header))

    def clip(self, path: Path, index: int, box: Box) -> bytes:
        """A PDF of one page that shows only `box` (points); the rest is hidden, not removed. Raises PdfError."""
        _, body = self._ask_about(path, do="clip", index=index, box=list(box))
        return bytes(body)

    def _ask_about(self, path: Path, **request: Any) -> tuple[dict[str, Any], bytearray]:
        """Ask about the open document; what an answer that fails has cost is taken off its patience."""
        before = self._used()
        try:
            if self._opened != path:
                self._reopen(path)
            self._served += 1
            return self._ask(request, max(min(self.deadline, self._patience), min(_LEAST_SECONDS, self.deadline)))
        except PdfError:
            self._patience -= self._cpu - before
            raise

    def _reopen(self, path: Path) -> int:
        header, _ = self._ask({"do": "open", "path": str(path), "passwords": self.passwords}, self.deadline)
        self._opened = path
        self.page_count = int(header["pages"])
        return self.page_count

    def _ask(self, request: dict[str, Any], seconds: float) -> tuple[dict[str, Any], bytearray]:
        if self._process is None:
            self._start()
            self._await_start()
        end = time.monotonic() + _ON_THE_CLOCK * seconds
        try:
            self._send({**request, "seconds": seconds})
            header_size, body_size = FRAME.unpack(self._receive(FRAME.size, end))
            if header_size > MAX_HEADER or body_size > max(self.max_pixels * 3, self.memory):
                raise EOFError
            header = json.loads(self._receive(header_size, end))
            body = self._receive(body_size, end)
            cpu = float(header.pop("cpu"))
        except TimeoutError:
            self.close()
            self.respawns += 1
            self._cpu += seconds  # none of it was used, and all of it was waited for
            message = f"did not answer within {_ON_THE_CLOCK * seconds:.1f} s"
            raise PdfError(message, reason="timeout") from None
        except (EOFError, OSError, ValueError, KeyError):
            raise self._death(seconds) from None
        self._cpu = cpu
        if "reason" in header:
            raise PdfError(str(header["message"]), reason=str(header["reason"]))
        return header, body

    def _used(self) -> float:
        """Seconds of CPU time the running child has used, as far as it has told."""
        return self._cpu if self._process else 0.0

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", str(Path(__file__).with_name("child.py")), str(self.memory)]
        # a child's peak is counted from what its parent held when it started
        self._inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with theirs:
            quiet = subprocess.DEVNULL
            self._process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=quiet, stderr=quiet, start_new_session=True
            )
        self._channel, self._served, self._cpu = ours, 0, 0.0

    def _await_start(self) -> None:
        """Wait until the child has loaded PDFium: that takes its time on a busy machine and is no document's fault."""
        try:
            self._receive(FRAME.size, time.monotonic() + _START_SECONDS)
        except (EOFError, OSError):
            self.close()
            raise PdfError("the process that runs PDFium does not start", reason="no_start") from None

    def _send(self, request: dict[str, Any]) -> None:
        assert self._channel is not None
        text = json.dumps(request).encode()
        self._channel.settimeout(_START_SECONDS)
        self._channel.sendall(FRAME.pack(len(text), 0) + text)

    def _receive(self, count: int, end: float) -> bytearray:
        assert self._channel is not None
        data = bytearray(count)
        view = memoryview(data)
        while view:
            self._channel.settimeout(max(end - time.monotonic(), 0.001))
            got = self._channel.recv_into(view)
            if not got:
                raise EOFError
            view = view[got:]
        return data

    def _death(self, seconds: float) -> PdfError:
        """The error for a child that died within so many seconds: by its peak memory and its signal."""
        process = self._process
        assert process is not None
        self._channel.close()  # type: ignore[union-attr]
        os.kill(process.pid, signal.SIGKILL)  # not process.kill(), which would collect the status itself
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self._process = self._channel = self._opened = None
        self.respawns += 1
        self._cpu = usage.ru_utime + usage.ru_stime
        code = process.returncode
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if code == -signal.SIGPROF:
            return PdfError(f"takes more than {seconds:.1f} s of CPU time", reason="timeout")
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        if peak > self.memory * 0.6 and usage.ru_maxrss > self._inherited:
            return PdfError(f"needs more than {self.memory / 2**20:.0f} MiB of memory", reason="memory")
        return PdfError(f"PDFium crashed on it ({name})", reason="crash")


def render_pages(
    path: Path | str,
    dpi: float = 200.0,
    *,
    deadline: float = DEADLINE,
    passwords: Sequence[str] = (),
    failures: list[PageFailure] | None = None,
) -> Iterator[RenderedPage]:
    """The pages of a PDF as RGB images with their words, one in memory at a time; see `PdfReader`.

    Pages that cannot be read are appended to `failures`; without that list the first one raises PdfError.
    """
    with PdfReader(deadline=deadline, passwords=passwords) as reader:
        for page in reader.pages(Path(path), dpi):
            if isinstance(page, RenderedPage):
                yield page
            elif failures is not None:
                failures.append(page)
            else:
                raise PdfError(f"{path}: page {page.index + 1}: {page.message}", reason=page.reason)


def check_file(path: Path) -> None:
    """Raise PdfError for what is not a readable regular file of a size we read."""
    try:
        if path.is_dir():
            raise PdfError(f"{path}: is a folder, not a file", reason="not_file")
        if not path.exists():
            raise PdfError(f"{path}: no such file", reason="missing")
        if not path.is_file():
            raise PdfError(f"{path}: is not a regular file", reason="not_file")
        size = path.stat().st_size
    except OSError as error:
        raise PdfError(f"{path}: cannot be read ({error.strerror})", reason="unreadable") from None
    if not os.access(path, os.R_OK):
        raise PdfError(f"{path}: may not be read (permissions)", reason="unreadable")
    if size > MAX_BYTES:
        raise PdfError(f"{path}: has {size:,} bytes; at most {MAX_BYTES:,} are read", reason="too_large")


def _text_fields(index: int, header: dict[str, Any]) -> dict[str, Any]:
    words = tuple(
        Word(str(text), Box(x1, y1, x2, y2), (x, y), size, angle, line)
        for text, x1, y1, x2, y2, x, y, size, angle, line in header["words"]
    )
    return {
        "index": index,
        "width_pt": float(header["width_pt"]),
        "height_pt": float(header["height_pt"]),
        "rotation": int(header["rotation"]),
        "words": words,
        "text_cut": bool(header["text_cut"]),
    }
