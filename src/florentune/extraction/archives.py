"""Tar archives, opened so that what they claim costs little: no large header, no flood of bytes out of a small file."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

_MAGIC: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_LARGEST_READ = 2**20
"""Headers are read at once and documents in chunks; whatever asks for more is a header that lies."""
_MOST_TIMES, _ALWAYS = 100, 2**26
"""An archive may unpack to so many times its size, and to 64 MiB whatever its size."""

FAULTS = (OSError, EOFError, MemoryError, RecursionError, lzma.LZMAError, zlib.error, tarfile.TarError)
"""What a broken or hostile archive raises. Headers that precede headers without an end exceed Python's recursion."""


def unpacked(path: str) -> IO[bytes]:
    """The bytes of a tar without its compression. Raises FAULTS, also when they are far more than it takes on disk."""
    with open(path, "rb") as stream:
        start = stream.read(6)
    unpack = next((unpack for magic, unpack in _MAGIC.items() if start.startswith(magic)), None)
    if unpack is None:
        return cast("IO[bytes]", _Bounded(open(path, "rb"), None))
    limit = max(_MOST_TIMES * os.path.getsize(path), _ALWAYS)
    return cast("IO[bytes]", _Bounded(unpack(path), limit))


@contextlib.contextmanager
def members(path: str) -> Iterator[Iterator[tarfile.TarInfo]]:
    """The members of a tar, one after the other and never all in memory, until its end. Raises FAULTS."""
    with contextlib.closing(unpacked(path)) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        yield _members(archive)


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        archive.members = []  # type: ignore[attr-defined] # else each of a million members would be kept
        yield member
    # tarfile takes a broken header for the end as well; zeros mark the real one.
    stream = cast("IO[bytes]", archive.fileobj)
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("unexpected end of data")


class _Bounded:
    """A stream that is read in small pieces, up to a place that it may not pass."""

    def __init__(self, stream: IO[bytes], limit: int | None) -> None:
        self.stream, self.limit = stream, limit
        self.close, self.tell = stream.close, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_READ:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self._check(self.stream.tell() + size)
        return self.stream.read(size)

    def seek(self, place: int) -> int:
        self._check(place)
        return self.stream.seek(place)

    def _check(self, place: int) -> None:
        if self.limit is not None and place > self.limit:
            raise tarfile.ReadError(f"it unpacks to over {self.limit:,} bytes, far more than it takes")
