"""The images of a data set: a folder, or a zip read in place. Nothing outside of it is ever opened."""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from ..errors import ImageError, InputError
from ..images import SUFFIXES, ImageHeader, open_image, read_header
from .values import safe_name

MAX_MEMBER_BYTES = 256 * 1024**2
_FAULTS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
"""What a member of a broken zip raises; RuntimeError is a password or a way of packing that is not known here."""


class ImageFolder:
    """The images below a folder or inside a zip, by their relative names.

    A name is looked up as it is, then by its last part, so "images/a.png" finds "a.png" and, in a zip that has one
    folder inside, "a.png" finds "papers/a.png". Safe to pickle and to use in forked workers.
    Raises InputError when `root` is neither a folder nor a zip.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._archive: zipfile.ZipFile | None = None
        self._owner = 0
        self._members: dict[str, str | None] | None = None
        self.is_zip = self.root.is_file()
        if not self.is_zip and not self.root.is_dir():
            raise InputError(f"{self.root}: no such image folder or zip", reason="missing")
        if self.is_zip:
            self._zip()

    def __repr__(self) -> str:
        return f"ImageFolder({str(self.root)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_archive": None}

    def __contains__(self, name: str) -> bool:
        return self.locate(name) is not None

    def locate(self, name: str) -> str | None:
        """Where the image is: its path below the root, or None. Never outside of the root."""
        try:
            name = safe_name(name)
        except ValueError:
            return None
        base = name.rsplit("/", 1)[-1]
        if self.is_zip:
            members = self._index()
            return members.get(name) or members.get(base)
        return next((found for found in (name, base) if self._is_file(found)), None)

    def open(self, name: str) -> Image.Image:
        """The image as RGB; raises ImageError."""
        return open_image(self._source(name), name=str(self.root / name))

    def header(self, name: str) -> ImageHeader:
        """Size and orientation of the image; raises ImageError."""
        return read_header(self._source(name), name=str(self.root / name))

    def read(self, name: str) -> bytes:
        """The bytes of the file; raises ImageError."""
        source = self._source(name)
        return source if isinstance(source, bytes) else source.read_bytes()

    def names(self) -> Iterator[str]:
        """The relative names of all files that look like images, sorted."""
        if self.is_zip:
            found = [info.filename for info in self._zip().infolist() if not info.is_dir()]
        else:
            found = [path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()]
        yield from sorted(name for name in found if PurePosixPath(name).suffix.lower() in SUFFIXES)

    def _is_file(self, name: str) -> bool:
        try:
            return (self.root / name).is_file()
        except OSError:  # a name longer than the file system allows
            return False

    def _source(self, name: str) -> Path | bytes:
        found = self.locate(name)
        if found is None:
            raise ImageError(f"{self.root / name}: no such image", reason="missing")
        return self._member(found) if self.is_zip else self.root / found

    def _member(self, name: str) -> bytes:
        try:
            info = self._zip().getinfo(name)
            if info.file_size > MAX_MEMBER_BYTES:
                raise ImageError(f"{self.root}: {name} unpacks to {info.file_size:,} bytes", reason="too_large")
            return self._zip().read(info)
        except _FAULTS as error:
            raise ImageError(f"{self.root}: {name} cannot be unpacked ({error})", reason="corrupt") from None

    def _zip(self) -> zipfile.ZipFile:
        """The archive, opened once in each process because a forked worker would share the file's position."""
        if self._archive is None or self._owner != os.getpid():
            try:
                self._archive = zipfile.ZipFile(self.root)
            except (zipfile.BadZipFile, OSError, ValueError) as error:
                raise InputError(f"{self.root}: is not a folder or a zip of images ({error})") from None
            self._owner = os.getpid()
        return self._archive

    def _index(self) -> dict[str, str | None]:
        """Member names by full name and by last part; None where a last part is not unique."""
        if self._members is None:
            full = [info.filename for info in self._zip().infolist() if not info.is_dir()]
            index: dict[str, str | None] = {}
            for name in full:
                base = name.rsplit("/", 1)[-1]
                index[base] = None if base in index else name
            self._members = {**index, **{name: name for name in full}}
        return self._members
