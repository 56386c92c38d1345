"""Write a model folder whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import CheckpointError
from ..files import disk_full


@contextlib.contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder` that takes its place when the block ends without an error.

    A model folder that is there already is replaced; a folder of anything else is refused with CheckpointError, so
    that a mistyped path destroys nothing. Raises DiskFullError when there is no room.
    """
    folder = folder.absolute()
    if folder.is_symlink() or folder.is_file():
        raise CheckpointError(f"{folder}: is a {'link' if folder.is_symlink() else 'file'}; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: holds files but no model; name a new or empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name[:40]}.", suffix=".tmp", dir=folder.parent))
    try:
        os.chmod(work, 0o777 & ~umask())
        yield work
        _put(work, folder)
    except Exception as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise disk_full(folder.parent) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _put(work: Path, folder: Path) -> None:
    old = None
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name[:40]}.", suffix=".old", dir=folder.parent))
        os.replace(folder, old / folder.name)
    try:
        os.replace(work, folder)
    except OSError:
        if old is not None:
            os.replace(old / folder.name, folder)
        raise
    finally:
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)


def umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
