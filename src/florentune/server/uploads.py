"""Receive one file, raw or as multipart/form-data, straight to disk."""

from __future__ import annotations

import contextlib
import errno
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from .limits import Limits
from .problems import Problem, problem_of

_HEAD = 1024
_NAME = 120
_FIELDS = 8
_CHUNK = 2**18


@dataclass(frozen=True, slots=True)
class Upload:
    """A received file: where it lies, ending in .pdf or .png by what is in it, and what the client calls it."""

    path: Path
    name: str


class Uploads:
    """The folder in which bodies are received, and how many may be received at once."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits, self.open = folder, limits, 0

    @contextlib.asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[Upload]:
        """The file of a request, removed at the end where it still is. Raises Problem."""
        if self.open >= self._limits.uploads:
            raise Problem(503, "overloaded", "too many uploads at once; try again in a moment")
        path = self._folder / secrets.token_hex(8)
        self.open += 1
        try:
            name = await _stored(request, path)
            final = path.with_suffix(_suffix(path))
            path = path.rename(final)
            yield Upload(path, name)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE):
                raise Problem(507, "disk_full", f"the server cannot store the upload: {error.strerror}") from error
            raise
        finally:
            self.open -= 1
            path.unlink(missing_ok=True)


async def _stored(request: Request, path: Path) -> str:
    """Write the file of a request to `path` and return its name."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # application/x-www-form-urlencoded is what curl --data-binary says of a file, so it is read as one
    if kind == "application/json" or kind.startswith("text/"):
        raise problem_of("format", f"send the file itself, not {kind}; addresses are never fetched")
    if kind == "multipart/form-data":
        async with _part(request) as part:
            await _write(path, _chunks(part))
            return printable_name(part.filename or "")
    await _write(path, request.stream())
    return "upload"


async def _write(path: Path, chunks: AsyncIterator[bytes]) -> None:
    with path.open("wb") as stream:
        async for chunk in chunks:
            stream.write(chunk)
        if stream.tell() == 0:
            raise problem_of("empty", "the file is empty; send the bytes of an image or a PDF")


class _Parser(MultiPartParser):
    spool_max_size = 2**16  # a file moves to disk early: fifty forms at once are not fifty megabytes of memory


@contextlib.asynccontextmanager
async def _part(request: Request) -> AsyncIterator[UploadFile]:
    """The file of a form."""
    parser = _Parser(request.headers, request.stream(), max_files=1, max_fields=_FIELDS, max_part_size=2**16)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem(400, "bad_input", f"the form cannot be read: {error.message}") from error
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise problem_of("empty", "the form has no file; add one as a part with a file name")
        yield files[0]
    finally:
        await form.close()


async def _chunks(part: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await part.read(_CHUNK):
        yield chunk


def printable_name(name: str) -> str:
    """The last part of a file name as one short line of text; it is only ever shown, never opened."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(sign for sign in last if sign.isprintable())[:_NAME] or "upload"


def _suffix(path: Path) -> str:
    """Images by their first bytes; everything else is for the PDF reader to judge."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    signs = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM", b"GIF8")
    is_image = (head.startswith(signs) or head[4:8] == b"ftyp") and b"%PDF-" not in head[:8]
    return ".png" if is_image else ".pdf"
