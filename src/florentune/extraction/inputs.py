"""What to extract from: files, folders, globs, a list on standard input and tar archives, as a list of jobs."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from ..errors import InputError, PdfError

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_MAX_MEMBER = 2**30


@dataclass(frozen=True, slots=True)
class Job:
    """One document to do.

    `source` is its name in records: the path as it was given, or "archive.tar!member". `path` is the file to read
    (the archive for a member). `id` is a hash of the name, size and modification time, so a file that is replaced
    is a new document, and planning reads no contents.
    """

    id: str
    source: str
    path: str
    member: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def folder(self, out: Path) -> Path:
        """Where the document's files go: OUT/ab/ab12.../."""
        return out / self.id[:2] / self.id


@dataclass(frozen=True, slots=True)
class Collected:
    """The jobs in the order of their sources, and how many files of other kinds the folders and archives hold."""

    jobs: tuple[Job, ...]
    ignored: int


def collect(inputs: Iterable[str], stdin: TextIO | None = None) -> Collected:
    """The jobs behind the inputs, each file once.

    A folder means its PDF files, at any depth; an archive its PDF members; "-" the paths on standard input, one a
    line; a name with `*`, `?` or `[` that is no file is a glob. A path that does not exist is a job too: its record
    says so. Raises InputError for a glob or folder that holds no PDF, and for a broken archive.
    """
    jobs: dict[str, Job] = {}
    ignored = 0
    for name in _expanded(inputs, stdin):
        if os.path.isdir(name):
            found, others = _folder(name)
        elif name.lower().endswith(_TAR):
            found, others = _archive(name)
        else:
            found, others = [_job(name)], 0
        ignored += others
        jobs.update({job.id: job for job in found})
    if not jobs:
        raise InputError("there is no PDF among the inputs: name PDF files, folders that hold some, or a tar of them")
    return Collected(tuple(sorted(jobs.values(), key=lambda job: (job.source, job.id))), ignored)


@contextlib.contextmanager
def opened(job: Job) -> Iterator[Path]:
    """The job's file on disk; a member of an archive is copied to a temporary file, never to a path it names."""
    if job.member is None:
        yield Path(job.path)
        return
    with tempfile.TemporaryDirectory(prefix="florentune-") as folder:
        target = Path(folder) / ("member" + Path(job.member).suffix.lower()[:8])
        try:
            with tarfile.open(job.path) as archive, target.open("wb") as stream:
                member = archive.getmember(job.member)
                source = archive.extractfile(member) if member.isreg() and member.size <= _MAX_MEMBER else None
                if source is None:
                    raise PdfError(f"{job.source}: is no regular file of up to 1 GiB", reason="not_file")
                shutil.copyfileobj(source, stream)
        except (OSError, EOFError, KeyError, tarfile.TarError) as error:
            raise PdfError(f"{job.source}: cannot be read from the archive ({error})", reason="unreadable") from None
        yield target


def parse_shard(text: str) -> tuple[int, int]:
    """(I, N) of "I/N" with 0 <= I < N. Raises InputError."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise InputError(f"--shard {text} is not I/N with 0 <= I < N, such as 0/8 for the first of eight")
    return int(index), int(count)


def in_shard(job: Job, shard: tuple[int, int] | None) -> bool:
    """Whether a job belongs to shard (I, N): its id modulo N is I."""
    return shard is None or int(job.id, 16) % shard[1] == shard[0]


def _expanded(inputs: Iterable[str], stdin: TextIO | None) -> Iterator[str]:
    for name in inputs:
        if name == "-" and stdin is not None:
            yield from (line.rstrip("\r\n") for line in stdin if line.strip())
        elif any(sign in name for sign in "*?[") and not os.path.lexists(name):
            matches = sorted(glob.glob(name, recursive=True))
            if not matches:
                raise InputError(f"{name}: no file matches; quote it so that the shell leaves it alone")
            yield from matches
        else:
            yield name


def _folder(name: str) -> tuple[list[Job], int]:
    """The PDFs below a folder; what is called .pdf but is a folder is a job as well, whose record will say so."""
    jobs, others = [], 0
    for parent, folders, files in os.walk(name):
        folders.sort()
        paths = [os.path.join(parent, entry) for entry in sorted(files + [f for f in folders if _is_pdf(f)])]
        jobs += [_job(path) for path in paths if _is_pdf(path)]
        others += sum(not _is_pdf(path) for path in paths)
    return jobs, others


def _archive(name: str) -> tuple[list[Job], int]:
    try:
        with tarfile.open(name) as archive:
            members = [member for member in archive if not member.isdir()]
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"{name}: cannot be read as a tar archive ({error})") from None
    chosen = [member for member in members if _is_pdf(member.name)]
    jobs = []
    for member in chosen:
        source = f"{name}!{member.name}"
        jobs.append(Job(_id(source, member.size, int(member.mtime * 10**9)), source, name, member.name))
    return jobs, len(members) - len(chosen)


def _is_pdf(name: str) -> bool:
    return name.lower().endswith(".pdf")


def _job(path: str) -> Job:
    try:
        stat = os.stat(path)
        return Job(_id(path, stat.st_size, stat.st_mtime_ns), path, path)
    except (OSError, ValueError):
        return Job(_id(path, -1, 0), path, path)


def _id(name: str, size: int, mtime: int) -> str:
    data = f"{name}\n{size}\n{mtime}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(data).hexdigest()[:24]
