"""The child process that runs PDFium: one thread, limited memory and time, no files written.

It is started as a script and imports nothing of the package, so that it starts fast and holds little. It speaks over
the socket that is its standard input. Every message is a big-endian (header bytes: u32, body bytes: u64) pair, a JSON
header and a raw body; the child begins with an empty one when it is ready:

    {"do": "open", "path", "passwords": [...]}     -> {"pages": n}
    {"do": "page", "index", "dpi", "max_pixels"}   -> {"width", "height", "width_pt", "height_pt", "rotation",
                                                       "words", "text_cut"} + RGB bytes
    {"do": "text", "index"}                        -> the same without the image
    {"do": "clip", "index", "box"}                 -> {} + a PDF of one page that shows only the box
    whatever fails                                 -> {"reason", "message"}

Every request has "seconds", the CPU time it may take, and every answer "cpu", what all answers have taken so far.

Coordinates are points (1/72 inch) of the page as it is shown: after crop box and rotation, origin at the top left.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import math
import mmap
import os
import re
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

FRAME = struct.Struct(">IQ")
MAX_CHARS = 200_000
MIN_SIDE, MAX_SIDE = 1.0, 14_400.0
MAX_ASPECT = 50.0
_HEAD = 1024
_PRECISION = 1000
_PASSWORD_ERROR = 4
_SIGNS = {
    b"\x1f\x8b": "a gzip archive",
    b"\x89png": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"pk": "a zip archive",
    b"<html": "an HTML page",
    b"<!doctype html": "an HTML page",
}
_LINE_END_HYPHENS = (0x02, 0xFFFE)
_JUMP = 2.0  # a blank within a word, in sides of its largest character

_Bounds = tuple[float, float, float, float]


class Refused(Exception):
    """A request that cannot be met: a stable reason code and a sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def limit(memory: int) -> None:
    """Bound this process: address space, no core dump, no file written."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def limit_cpu(seconds: float) -> None:
    """End this process (SIGPROF) after that many more seconds of CPU time, even when its parent is gone."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


class Server:
    """Answers requests about one open document at a time."""

    def __init__(self) -> None:
        import pypdfium2
        import pypdfium2.raw

        self.pdfium = pypdfium2
        self.raw = pypdfium2.raw
        self.document: Any = None
        self._doubles = tuple(ctypes.c_double() for _ in range(4))

    def answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        try:
            return getattr(self, f"do_{request.pop('do')}")(**request)  # type: ignore[no-any-return]
        except Refused as refused:
            return {"reason": refused.reason, "message": str(refused)}, b""
        except MemoryError:
            return {"reason": "memory", "message": "needs more memory than the limit allows"}, b""
        except self.pdfium.PdfiumError as error:
            return {"reason": "damaged", "message": str(error)}, b""

    def do_open(self, path: str, passwords: list[str]) -> tuple[dict[str, Any], bytes]:
        self.document = None
        data = _mapped(path)
        for password in [None, *passwords]:
            try:
                self.document = self.pdfium.PdfDocument(data, password=password)
                return {"pages": len(self.document)}, b""
            except self.pdfium.PdfiumError as error:
                if error.err_code != _PASSWORD_ERROR:
                    raise Refused(*_why_not(bytes(data[:_HEAD]), str(error))) from None
        wanted = "none of the passwords given opens it" if passwords else "a password is needed to open it"
        raise Refused("password", f"it is encrypted: {wanted}")

    def do_page(self, index: int, dpi: float, max_pixels: int) -> tuple[dict[str, Any], Any]:
        page = self._page(index)
        width, height = page.get_size()
        scale = min(dpi / 72, math.sqrt(max_pixels / (width * height)))
        if min(width, height) * scale < 1:
            raise Refused("page_size", f"the page of {width:g} x {height:g} points is less than a pixel at {dpi:g} dpi")
        bitmap = self._render(page, max(int(width * scale), 1), max(int(height * scale), 1))
        header = {"width": bitmap.width, "height": bitmap.height, **self._text(page)}
        return header, _packed(bitmap)

    def do_text(self, index: int) -> tuple[dict[str, Any], bytes]:
        return self._text(self._page(index)), b""

    def do_clip(self, index: int, box: list[float]) -> tuple[dict[str, Any], bytes]:
        page = self._page(index)
        inverse = _inverted(self._to_shown(page))
        corners = [_mapped_point(inverse, x, y) for x in box[0::2] for y in box[1::2]]
        (left, bottom), (right, top) = map(min, zip(*corners, strict=True)), map(max, zip(*corners, strict=True))
        part = self.pdfium.PdfDocument.new()
        part.import_pages(self.document, [index])
        part[0].set_mediabox(left, bottom, right, top)
        part[0].set_cropbox(left, bottom, right, top)
        stream = io.BytesIO()
        part.save(stream)
        return {}, _timeless(stream.getvalue())

    def _page(self, index: int) -> Any:
        page = self.document[index]
        if 0 in page.get_size():  # a crop box outside the media box shows nothing: show the media box instead
            page.set_cropbox(*page.get_mediabox())
            page = self.document[index]
        width, height = page.get_size()
        if not (min(width, height) >= MIN_SIDE and max(width, height) <= MAX_SIDE):
            raise Refused(
                "page_size", f"the page is {width:g} x {height:g} points; {MIN_SIDE:g} to {MAX_SIDE:g} are read"
            )
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise Refused("page_aspect", f"the page is {width:g} x {height:g} points, beyond {MAX_ASPECT:g}:1")
        return page

    def _render(self, page: Any, width: int, height: int) -> Any:
        """The page on white as a 24-bit RGB bitmap of exactly that size, with annotations."""
        bitmap = self.pdfium.PdfBitmap.new_native(width, height, self.raw.FPDFBitmap_BGR)
        bitmap.fill_rect((255, 255, 255, 255), 0, 0, width, height)
        flags = self.raw.FPDF_ANNOT | self.raw.FPDF_REVERSE_BYTE_ORDER
        self.raw.FPDF_RenderPageBitmap(bitmap.raw, page.raw, 0, 0, width, height, 0, flags)
        return bitmap

    def _text(self, page: Any) -> dict[str, Any]:
        width, height = page.get_size()
        rotation = page.get_rotation() if self.raw.FPDFPage_GetRotation(page.raw) in range(4) else 0
        words, cut = self._words(page, self._to_shown(page), rotation)
        return {"width_pt": width, "height_pt": height, "rotation": rotation, "words": words, "text_cut": cut}

    def _to_shown(self, page: Any) -> tuple[float, ...]:
        """The affine map (a, b, c, d, e, f) from PDF user space to points as shown: x' = ax + cy + e, y' = bx + dy + f.

        PDFium itself is asked where three points fall, so that crop box, rotation and user unit are its own.
        """
        width, height = page.get_size()
        size = max(int(width * _PRECISION), 1), max(int(height * _PRECISION), 1)
        x, y = ctypes.c_int(), ctypes.c_int()

        def shown(user_x: float, user_y: float) -> tuple[float, float]:
            self.raw.FPDF_PageToDevice(page.raw, 0, 0, *size, 0, user_x, user_y, x, y)
            return x.value * width / size[0], y.value * height / size[1]

        step = max(width, height)
        (e, f), (ax, ay), (cx, cy) = shown(0, 0), shown(step, 0), shown(0, step)
        return (ax - e) / step, (ay - f) / step, (cx - e) / step, (cy - f) / step, e, f

    def _words(self, page: Any, to_shown: tuple[float, ...], rotation: int) -> tuple[list[list[Any]], bool]:
        """[text, x1, y1, x2, y2, x, y, font size, angle, line] of each word in the order of the content stream.

        (x, y) is the origin of the first glyph, on the baseline; `angle` is the direction of reading in degrees
        clockwise as shown (0, 90, 180, 270); `line` counts the line breaks PDFium saw. The second value says whether
        the page holds more than MAX_CHARS characters. Words outside the page as shown are left out.
        """
        get_unicode, textpage = self.raw.FPDFText_GetUnicode, page.get_textpage()
        total = textpage.count_chars()
        words: list[list[Any]] = []
        text, start, line = "", 0, 0
        for index in range(min(total, MAX_CHARS) + 1):
            code = get_unicode(textpage.raw, index) if index < min(total, MAX_CHARS) else 0
            char = "-" if code in _LINE_END_HYPHENS else chr(code) if code <= 0x10FFFF else " "
            blank = not char.isprintable() and not 0xD800 <= code <= 0xDFFF
            if not blank and char != " ":
                start = start if text else index
                text += char
            # PDFium joins the halves of a word hyphenated at a line end; they are on two lines
            if blank or char == " " or code in _LINE_END_HYPHENS:
                for part, placed in self._placed(textpage.raw, start, text, to_shown) if text else ():
                    if placed[0] < page.get_width() and placed[1] < page.get_height():
                        words.append([_clean(part), *placed[:-1], (placed[-1] + rotation) % 360, line])
                line += char == "\n" or code in _LINE_END_HYPHENS
                text = ""
        return words, total > MAX_CHARS

    def _placed(
        self, textpage: Any, start: int, text: str, to_shown: tuple[float, ...]
    ) -> Iterator[tuple[str, list[Any]]]:
        """(text, [x1, y1, x2, y2, x, y, size, angle]) of a run of characters, without what is not on the page.

        PDFium puts no blank where the text jumps back on its line, as from a cell to one on its left: a run is parted
        where a character is far from the one before it.
        """
        boxes = [self._char_box(textpage, index, to_shown) for index in range(start, start + len(text))]
        far = _JUMP * max([1.0, *(max(x2 - x1, y2 - y1) for x1, y1, x2, y2 in filter(None, boxes))])
        first, last = 0, boxes[0]
        for index in range(1, len(text) + 1):
            box = boxes[index] if index < len(text) else None
            if index == len(text) or (box and last and _distance(box, last) > far):
                inside = [box for box in boxes[first:index] if box]
                if inside and (placed := self._bounds(textpage, start + first, inside, to_shown)):
                    yield text[first:index], placed
                first = index
            last = box or last

    def _char_box(self, textpage: Any, index: int, to_shown: tuple[float, ...]) -> _Bounds | None:
        """The box of a character in points as shown; None where it has none."""
        left, right, bottom, top = self._doubles
        if not self.raw.FPDFText_GetCharBox(textpage, index, left, right, bottom, top):
            return None
        x1, y1 = _mapped_point(to_shown, left.value, bottom.value)
        x2, y2 = _mapped_point(to_shown, right.value, top.value)
        return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)

    def _bounds(self, textpage: Any, start: int, boxes: list[_Bounds], to_shown: tuple[float, ...]) -> list[Any] | None:
        """What `_placed` tells of characters that begin at `start`; None when they are not on the page."""
        left, top = self._doubles[:2]
        self.raw.FPDFText_GetCharOrigin(textpage, start, left, top)
        x, y = _mapped_point(to_shown, left.value, top.value)
        x1, y1, x2, y2 = (pick(edge) for pick, edge in zip((min, min, max, max), zip(*boxes, strict=True), strict=True))
        if not math.isfinite(x1 + x2 + y1 + y2 + x + y) or x2 <= 0 or y2 <= 0:
            return None
        turn = round(math.degrees(max(self.raw.FPDFText_GetCharAngle(textpage, start), 0)) / 90) * 90
        matrix = self.raw.FS_MATRIX(1, 0, 0, 1, 0, 0)
        self.raw.FPDFText_GetMatrix(textpage, start, matrix)
        scale = math.hypot(matrix.c, matrix.d) * math.hypot(to_shown[0], to_shown[1])
        size = self.raw.FPDFText_GetFontSize(textpage, start) * scale
        return [*(round(value, 2) for value in (x1, y1, x2, y2, x, y)), round(size, 1), turn]


def _mapped(path: str) -> Any:
    """The file's bytes as a ctypes array over a private map: nothing is read that PDFium does not ask for."""
    with open(path, "rb") as stream:
        if os.fstat(stream.fileno()).st_size == 0:
            raise Refused("empty", "the file is empty")
        pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    return (ctypes.c_char * len(pages)).from_buffer(pages)


def _timeless(pdf: bytes) -> bytes:
    """A PDF that PDFium has just made, without its date and random identifier: the same clip gives the same bytes."""
    pdf = re.sub(rb"(/ID\[<)[0-9A-F]{32}(><)[0-9A-F]{32}(>\])", rb"\g<1>%b\g<2>%b\g<3>" % (b"0" * 32, b"0" * 32), pdf)
    return re.sub(rb"(/CreationDate\(D:)\d{14}", rb"\g<1>19700101000000", pdf, count=1)


def _why_not(head: bytes, message: str) -> tuple[str, str]:
    """Reason and sentence for a file PDFium does not open."""
    if b"%PDF-" in head:
        return "damaged", f"the PDF is damaged beyond repair ({message})"
    start = head.lstrip().lower()
    kind = next((name for sign, name in _SIGNS.items() if start.startswith(sign)), None)
    return "not_pdf", f"the file is {kind}, not a PDF" if kind else "the file does not start as a PDF does"


def _packed(bitmap: Any) -> Any:
    """RGB bytes of a bitmap without the padding at the end of its rows."""
    row, view = bitmap.width * 3, memoryview(bitmap.buffer).cast("B")
    if bitmap.stride == row:
        return view[: row * bitmap.height]
    return b"".join(view[y * bitmap.stride : y * bitmap.stride + row] for y in range(bitmap.height))


def _clean(text: str) -> str:
    """The word with surrogate pairs joined."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _distance(one: _Bounds, two: _Bounds) -> float:
    """The blank between two boxes, across or down, whichever is wider."""
    return max(one[0] - two[2], two[0] - one[2], one[1] - two[3], two[1] - one[3])


def _mapped_point(affine: tuple[float, ...], x: float, y: float) -> tuple[float, float]:
    a, b, c, d, e, f = affine
    return a * x + c * y + e, b * x + d * y + f


def _inverted(affine: tuple[float, ...]) -> tuple[float, ...]:
    a, b, c, d, e, f = affine
    det = a * d - b * c
    if not det:
        raise Refused("page_size", "the page has no extent")
    return d / det, -b / det, -c / det, a / det, (c * f - d * e) / det, (b * e - a * f) / det


def _received(channel: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = channel.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def main() -> None:
    """Answer requests until the parent closes the channel."""
    limit(int(sys.argv[1]))
    channel = socket.socket(fileno=0)
    server = Server()
    start = time.process_time()
    channel.sendall(FRAME.pack(0, 0))  # ready: from now on the parent's deadlines count
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            header, _ = FRAME.unpack(_received(channel, FRAME.size))
            request = json.loads(_received(channel, header))
            limit_cpu(request.pop("seconds"))
            found, body = server.answer(request)
            text = json.dumps({**found, "cpu": time.process_time() - start}).encode()
            channel.sendall(FRAME.pack(len(text), len(body)) + text)
            channel.sendall(body)
    os._exit(0)  # PDFium's own clean-up can hang on what a broken document left behind


if __name__ == "__main__":
    main()
