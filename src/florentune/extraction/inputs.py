"""What to extract from: files, folders, globs, tar archives, URLs and a list on standard input, as a list of jobs."""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, TextIO

from ..errors import InputError, PdfError
from ..files import written_whole
from . import archives, remote

Shard = tuple[int, int]

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_MAX_BYTES = 2**30
_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Job:
    """One document to do.

    `source` is its name in records: the path or URL as it was given, or "archive.tar!member". `path` is what to read
    (the archive for a member); a member is `size` bytes from `start` of the unpacked archive, and `start` is None
    where it is no regular file. `id` is a hash of the name, size and modification time, so a file that is replaced is
    a new document, and planning reads no contents.
    """

    id: str
    source: str
    path: str
    member: str | None = None
    start: int | None = None
    size: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def folder(self, out: Path) -> Path:
        """Where the document's files go: OUT/ab/ab12.../."""
        return out / self.id[:2] / self.id


@dataclass(frozen=True, slots=True)
class Collected:
    """The jobs, and how many files of other kinds the folders and archives hold.

    Jobs are in the order of their paths, and members in that of their archive, in which it unpacks.
    """

    jobs: tuple[Job, ...]
    ignored: int


def collect(inputs: Iterable[str], stdin: TextIO | None = None, shard: Shard | None = None) -> Collected:
    """The jobs behind the inputs, each document once; with a shard (I, N) only those of that part.

    A folder means its PDF files, at any depth; an archive its PDF members; "-" the inputs on standard input, one a
    line; a name with `*`, `?` or `[` that is no file is a glob; a URL a file, folder or glob for fsspec. A path that
    does not exist is a job too, and so is an archive that breaks off, beside its good members: their records say so.
    Raises InputError for inputs that hold no PDF at all and for URLs that cannot be listed.
    """
    found = _Collection(shard)
    for name in _expanded(inputs, stdin):
        found.add(name)
    if not found.named:
        raise InputError("there is no PDF among the inputs: name PDF files, folders that hold some, or a tar of them")
    ordered = sorted(found.jobs.values(), key=lambda job: (job.path, job.start or 0, job.source))
    return Collected(tuple(ordered), found.ignored)


@contextlib.contextmanager
def opened(job: Job) -> Iterator[Path]:
    """The job's document as a file; what is in an archive or behind a URL is copied, never to a path it names.

    Raises PdfError with reason not_file, missing, unreadable or too_large.
    """
    if job.member is None and not remote.is_url(job.path):
        if _is_tar(job.path):
            what = "the tar archive breaks off or is damaged, or unpacks to far more than its size"
            raise PdfError(f"{job.path}: {what}", reason="unreadable")
        yield Path(job.path)
        return
    with tempfile.TemporaryDirectory(prefix="florentune-") as folder:
        target = Path(folder) / ("document" + Path(job.member or job.path).suffix.lower()[:8])
        with written_whole(target, "wb") as stream:  # for what it says when the disk is full
            for chunk in _chunks(job):
                if stream.tell() + len(chunk) > _MAX_BYTES:
                    raise PdfError(f"{job.source}: has more than {_MAX_BYTES:,} bytes", reason="too_large")
                stream.write(chunk)
        yield target


def parse_shard(text: str) -> Shard:
    """(I, N) of "I/N" with 0 <= I < N. Raises InputError."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise InputError(f"--shard {text} is not I/N with 0 <= I < N, such as 0/8 for the first of eight")
    return int(index), int(count)


class _Collection:
    """The jobs found so far. Documents of other shards are counted as `named` and not looked at."""

    def __init__(self, shard: Shard | None) -> None:
        self.shard = shard
        self.jobs: dict[str, Job] = {}
        self.ignored = self.named = 0

    def add(self, name: str) -> None:
        """Add whatever an input stands for."""
        if remote.is_url(name):
            self._url(name)
        elif os.path.isdir(name):
            self._folder(name)
        elif _is_tar(name) and os.path.exists(name):
            self._archive(name)
        else:
            self._file(name)

    def _wants(self, source: str) -> bool:
        self.named += 1
        if self.shard is None:
            return True
        index, count = self.shard
        return int.from_bytes(_hash(source)[-8:]) % count == index

    def _keep(self, source: str, version: tuple[object, object], path: str, **member: Any) -> None:
        identity = _hash("\n".join(map(str, (source, *version)))).hex()[:24]
        self.jobs[identity] = Job(identity, source, path, **member)

    def _file(self, path: str) -> None:
        if not self._wants(path):
            return
        try:
            stat = os.stat(path)
            self._keep(path, (stat.st_size, stat.st_mtime_ns), path)
        except (OSError, ValueError):
            self._keep(path, (-1, 0), path)

    def _folder(self, name: str) -> None:
        """What is called .pdf but is a folder is a job as well, whose record will say so."""
        for parent, folders, files in os.walk(name):
            folders.sort()
            for entry in sorted(files + [folder for folder in folders if _is_pdf(folder)]):
                if _is_pdf(entry):
                    self._file(os.path.join(parent, entry))
                else:
                    self.ignored += 1

    def _archive(self, name: str) -> None:
        try:
            with archives.members(name) as members:
                for member in members:
                    self._member(name, member)
        except archives.FAULTS:
            self._file(name)  # its record will say that it is damaged

    def _member(self, name: str, member: tarfile.TarInfo) -> None:
        source = f"{name}!{member.name}"
        if member.isdir():
            return
        if not _is_pdf(member.name):
            self.ignored += 1
        elif self._wants(source):
            start = member.offset_data if member.isreg() and not member.issparse() else None
            version = member.size, int(member.mtime * 10**9)
            self._keep(source, version, name, member=member.name, start=start, size=member.size)

    def _url(self, name: str) -> None:
        for url, size, modified in remote.listed(name):
            if not _is_pdf(url.partition("::")[0]) and url != name:
                self.ignored += 1
            elif self._wants(url):
                self._keep(url, (size, modified), url)


def _chunks(job: Job) -> Iterator[bytes]:
    """The bytes of a member or of what a URL names."""
    if job.member is None:
        yield from remote.chunks(job.path, _CHUNK)
        return
    if job.start is None:
        raise PdfError(f"{job.source}: is no regular file", reason="not_file")
    try:
        stream = _unpacked(job.path)
        stream.seek(job.start)
        left = job.size
        while left:
            chunk = stream.read(min(left, _CHUNK))
            if not chunk:
                raise EOFError("it breaks off")
            left -= len(chunk)
            yield chunk
    except archives.FAULTS as error:
        _unpacked.cache_clear()
        raise PdfError(f"{job.source}: cannot be read from the archive ({error})", reason="unreadable") from None


@functools.lru_cache(maxsize=1)
def _unpacked(path: str) -> IO[bytes]:
    """The bytes of a tar without its compression; kept open, since each new one would unpack from the start again."""
    return archives.unpacked(path)


def _expanded(inputs: Iterable[str], stdin: TextIO | None) -> Iterator[str]:
    for name in inputs:
        if name == "-" and stdin is not None:
            yield from _expanded((line.rstrip("\r\n") for line in stdin if line.strip()), None)
        elif any(sign in name for sign in "*?[") and not remote.is_url(name) and not os.path.lexists(name):
            matches = sorted(glob.glob(name, recursive=True))
            if not matches:
                raise InputError(f"{name}: no file matches; quote it so that the shell leaves it alone")
            yield from matches
        else:
            yield name


def _is_pdf(name: str) -> bool:
    return name.lower().endswith(".pdf")


def _is_tar(name: str) -> bool:
    return name.lower().endswith(_TAR)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
