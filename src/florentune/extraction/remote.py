"""Documents behind URLs, through fsspec (extra [fsspec]): object stores, web servers, members of zip files.

A URL may be chained as fsspec writes it: `zip://*.pdf::s3://bucket/papers.zip` is every PDF at the top of that zip.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..errors import InputError, MissingExtraError, PdfError

_URL = re.compile(r"([a-z][a-z0-9+.-]*::)?[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_WEB = ("http://", "https://")  # `?` is a part of these, and a web server has no folders
_VERSION = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "date_time", "created")


def is_url(name: str) -> bool:
    """Whether a name is a URL for fsspec rather than a path."""
    return bool(_URL.match(name))


def listed(url: str) -> list[tuple[str, int, str]]:
    """(URL, bytes, what changes when it is replaced) of the file, of all files below the folder, or of the glob.

    A single file keeps the URL that was given. Raises InputError where it cannot be listed or nothing matches,
    MissingExtraError where fsspec is not installed.
    """
    fsspec = _fsspec(url)
    try:
        system, path = fsspec.core.url_to_fs(url)
        found = _found(system, path, url)
    except Exception as error:  # noqa: BLE001 - every store has errors of its own
        raise InputError(f"{url}: cannot be listed ({_told(error)})") from None
    if not found:
        raise InputError(f"{url}: there is no file")
    return [(name, info.get("size") or 0, _version(info)) for name, info in sorted(found.items())]


def chunks(url: str, size: int) -> Iterator[bytes]:
    """The bytes of a file, in parts of up to `size`. Raises PdfError with reason missing or unreadable."""
    fsspec = _fsspec(url)
    try:
        with fsspec.open(url, "rb") as stream:
            while chunk := stream.read(size):
                yield chunk
    except FileNotFoundError:
        raise PdfError(f"{url}: no such file", reason="missing") from None
    except Exception as error:  # noqa: BLE001 - every store has errors of its own
        raise PdfError(f"{url}: cannot be read ({_told(error)})", reason="unreadable") from None


def _fsspec(url: str) -> Any:
    try:
        import fsspec
        import fsspec.core
    except ImportError:
        raise MissingExtraError(f"{url}: fsspec", "fsspec") from None
    return fsspec


def _found(system: Any, path: str, url: str) -> dict[str, dict[str, Any]]:
    """What the store says of the files that a URL stands for, by their URLs."""
    head, chained, rest = url.partition("::")
    web = head.lower().startswith(_WEB)
    if any(sign in head for sign in "*?[") and not web:
        found = system.glob(path, detail=True)
    elif not web and not head.lower().endswith(".pdf") and system.isdir(path):
        found = system.find(path, detail=True)
    else:
        try:
            return {url: system.info(path)}
        except FileNotFoundError:  # it is found missing when it is read, as a path would be
            return {url: {"size": -1}}
    chain = chained + rest if "://" in head else ""
    return {system.unstrip_protocol(name) + chain: info for name, info in found.items() if info["type"] == "file"}


def _version(info: dict[str, Any]) -> str:
    return str(next((info[key] for key in _VERSION if info.get(key)), 0))


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
