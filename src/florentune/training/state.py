"""Checkpoints of a run that survive kill -9, a full disk and bit rot, and resume exactly.

A checkpoint is a folder `checkpoints/step-00000123`: the trained weights, the optimizer's moments and the averaged
weights as safetensors, the counters as state.json, and manifest.json with the size and SHA-256 of each file. It is
written under a temporary name, the manifest last, everything on disk before one rename makes it visible; so a folder
with a plain name is complete, and one whose bytes no longer match its manifest is skipped for the one before.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import struct
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..errors import CheckpointError, InputError
from ..files import disk_full, read_json, write_json

MANIFEST = "manifest.json"
STATE = "state.json"
_TYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}
_SLACK = 1 << 20

Tensors = Mapping[str, torch.Tensor]


@dataclass
class Progress:
    """Where a run stands; everything else about the order of pages follows from seed and step."""

    run: str
    step: int = 0
    pages: int = 0
    global_batch: int = 0
    micro_batch: int = 0
    halvings: int = 0
    bad_in_a_row: int = 0
    window_loss: float = 0.0
    window_tokens: int = 0
    validated_step: int = -1
    best_value: float | None = None
    best_step: int | None = None
    best_metrics: dict[str, float | None] = field(default_factory=dict)
    start_metrics: dict[str, float | None] = field(default_factory=dict)
    validations_without_gain: int = 0
    inputs: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)


def save_state(folder: Path, progress: Progress, tensors: Mapping[str, Tensors], *, keep: int) -> Path:
    """Write one checkpoint below `folder` and delete the oldest beyond `keep`; returns its path.

    `tensors` holds one mapping of named tensors for each file: {"model": ..., "optimizer": ...}. Checkpoints of an
    earlier run in the same folder go once the new one is complete. Raises DiskFullError before anything is deleted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    require_space(folder, sum(_size(group) for group in tensors.values()) + _SLACK)
    final = folder / f"step-{progress.step:08d}"
    part = folder / f"{final.name}.tmp-{uuid.uuid4().hex[:8]}"
    try:
        part.mkdir()
        digests = {f"{name}.safetensors": write_tensors(part / f"{name}.safetensors", t) for name, t in tensors.items()}
        write_json(part / STATE, asdict(progress))
        digests[STATE] = file_digest(part / STATE)
        files = {name: {"bytes": (part / name).stat().st_size, "sha256": digest} for name, digest in digests.items()}
        write_json(
            part / MANIFEST, {"step": progress.step, "run": progress.run, "saved_at": time.time(), "files": files}
        )
        _sync_folder(part)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise disk_full(folder) from error
        raise
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    replace_folder(part, final)
    _prune(folder, progress.run, keep)
    return final


def load_state(path: Path, device: str | torch.device = "cpu") -> tuple[Progress, dict[str, dict[str, torch.Tensor]]]:
    """The progress and the named tensors of a checkpoint that was verified before."""
    try:
        progress = Progress(**read_json(path / STATE, CheckpointError))
    except TypeError as error:
        raise CheckpointError(f"{path / STATE}: was written by another version ({error}); start anew") from None
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, framework="pt", device=str(device)) as stored:
            tensors[file.stem] = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    return progress, tensors


def find_state(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint below `folder` whose bytes match its manifest, and what is wrong with the newer ones."""
    warnings: list[str] = []
    for path in sorted(_complete(folder), key=_age, reverse=True):
        problem = verify(path)
        if problem is None:
            return path, warnings
        warnings.append(f"{path}: {problem}; using the checkpoint before it")
    return None, warnings


def verify(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None: every file of the manifest must have its size and SHA-256."""
    try:
        files = read_json(path / MANIFEST, CheckpointError)["files"]
        listed = {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
    except (InputError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is missing or damaged"
    for name, (size, digest) in listed.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size or file_digest(file) != digest:
            return f"{name} is damaged"
    return None if STATE in listed else f"{STATE} is missing"


def require_space(folder: Path, needed: int) -> None:
    """Raise DiskFullError when the file system of `folder` has less than `needed` bytes free."""
    stats = os.statvfs(folder)
    if stats.f_bavail * stats.f_frsize < needed:
        raise disk_full(folder, needed)


def replace_folder(part: Path, final: Path) -> None:
    """Rename a complete folder to its name; one that has the name is set aside first and deleted afterwards."""
    aside = None
    if final.exists():
        aside = final.with_name(f"{final.name}.old-{uuid.uuid4().hex[:8]}")
        final.rename(aside)
    part.rename(final)
    _sync_folder(final.parent)
    if aside:
        shutil.rmtree(aside, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Delete what an interrupted save left behind; put back a folder that was set aside if its successor is missing."""
    for path in sorted(folder.glob("*.old-*")):
        final = path.with_name(path.name.split(".old-")[0])
        if final.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(final)
    for path in folder.glob("*.tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder for this process; the system frees it even after kill -9. InputError when it is taken."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"{folder}: another training run is writing there; give this one its own output_dir"
            ) from None
        yield


def file_digest(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_tensors(path: Path, tensors: Tensors) -> str:
    """Write a safetensors file, on disk when it returns; its SHA-256.

    The format: 8 bytes of header length (little endian), a JSON header with type, shape and byte range of each
    tensor, then the raw bytes. Written here because the library neither syncs nor tells a full disk from other errors.
    """
    header, offset = {}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for block in _blocks(text, tensors):
            digest.update(block)
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def _blocks(header: bytes, tensors: Tensors) -> Iterator[bytes | memoryview]:
    yield struct.pack("<Q", len(header))
    yield header
    for tensor in tensors.values():
        if tensor.numel():
            yield tensor_bytes(tensor)


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The raw bytes of a tensor's values, in their order."""
    array: Any = tensor.detach().to("cpu").contiguous().view(-1).view(torch.uint8).numpy()
    return memoryview(array)


def _size(tensors: Tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() + 200 for tensor in tensors.values())


def _complete(folder: Path) -> list[Path]:
    return [path for path in folder.glob("step-*") if path.is_dir() and "." not in path.name]


def _age(path: Path) -> tuple[float, str]:
    """Sorts checkpoints by the time they were saved, one without a readable manifest as the newest."""
    try:
        saved_at = float(read_json(path / MANIFEST)["saved_at"])
    except (InputError, KeyError, TypeError, ValueError):
        saved_at = math.inf
    return saved_at, path.name


def _prune(folder: Path, run: str, keep: int) -> None:
    """Delete checkpoints of other runs and all but the newest `keep` of this one."""
    own: list[Path] = []
    other: list[Path] = []
    for path in _complete(folder):
        try:
            same = read_json(path / MANIFEST).get("run") == run
        except (InputError, AttributeError):
            same = False
        (own if same else other).append(path)
    for path in other + sorted(own)[:-keep]:
        # first out of sight under a temporary name, so that a kill leaves no half-deleted checkpoint behind
        doomed = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:8]}")
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
