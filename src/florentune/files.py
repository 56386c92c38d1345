"""Write a file whole or not at all, and read JSON with errors that name the file."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .errors import DiskFullError, InputError


@contextlib.contextmanager
def written_whole(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that replaces `path` when the block ends without an error.

    The data is on disk (fsync) before the rename, so a crash leaves the old file or the new one, never a part.
    `mode` is "w" (UTF-8 text) or "wb". Raises DiskFullError, naming the path and the free bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {"encoding": "utf-8", "newline": "\n"} if "b" not in mode else {}
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, mode, **text) as stream:  # type: ignore[call-overload]
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise disk_full(path) from error
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def disk_full(path: Path, needed: int | None = None) -> DiskFullError:
    """The error for a write that found no room: it names the path, the bytes needed (if known) and the bytes free."""
    stats = os.statvfs(path if path.is_dir() else path.parent)
    want = f"{needed:,} bytes are needed and " if needed is not None else ""
    return DiskFullError(f"{path}: the disk is full; {want}{stats.f_bavail * stats.f_frsize:,} bytes are free")


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write `value` as UTF-8 JSON, whole or not at all; NaN and infinity raise ValueError."""
    with written_whole(path) as stream:
        json.dump(value, stream, ensure_ascii=False, indent=indent, allow_nan=False)
        stream.write("\n")


def read_json(path: Path, error: type[InputError] = InputError, *, unique_keys: bool = False) -> Any:
    """The parsed JSON of a file (a UTF-8 byte order mark is allowed).

    Raises `error` with the file's name when it is missing, not UTF-8, not JSON, or nested beyond Python's limit, and
    with `unique_keys` also when an object names a key twice (where Python would silently keep the last).
    """
    with _named_errors(path, error):
        text = path.read_text(encoding="utf-8-sig")
    return _parsed(text, f"{path}:", error, unique_keys)


def read_json_lines(path: Path, error: type[InputError] = InputError, *, unique_keys: bool = False) -> Iterator[Any]:
    """The values of a file with one JSON value a line, lazily; empty lines are passed over.

    Raises `error` as `read_json` does, naming the line of a value that cannot be read.
    """
    with _named_errors(path, error), path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield _parsed(line, f"{path}: line {number}", error, unique_keys)


@contextlib.contextmanager
def _named_errors(path: Path, error: type[InputError]) -> Iterator[None]:
    """What the operating system and the decoder say of a file, as `error`."""
    try:
        yield
    except FileNotFoundError:
        raise error(f"{path}: no such file", reason="missing") from None
    except IsADirectoryError:
        raise error(f"{path}: is a folder, not a JSON file") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror})") from None
    except UnicodeDecodeError:
        raise error(f"{path}: is not UTF-8 text; save it as UTF-8") from None


def _parsed(text: str, where: str, error: type[InputError], unique_keys: bool) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique_keys if unique_keys else None)
    except RecursionError:
        raise error(f"{where} is nested too deeply to be an annotation or configuration file") from None
    except ValueError as problem:
        raise error(f"{where} is not valid JSON ({problem})") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is given twice in one object")
    return found


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
