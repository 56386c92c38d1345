"""Files of weights, judged by their headers: what is in them is known before a byte of it is loaded.

Only safetensors are read (format: 8 bytes of header length, a JSON header, the tensors). Pickles (`.bin`, `.pt`, ...)
are never opened here; `florentune import-weights` turns one into safetensors inside a sandbox.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..files import read_json, written_whole
from . import layouts
from .layouts import Shape

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack")
_MAX_HEADER = 32 * 1024 * 1024
_MAX_JSON = 64 * 1024 * 1024
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_MAGIC = {
    b"PK\x03\x04": "a zip archive (a pickle saved by torch)",
    b"\x80": "a pickle",
    b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer; run git lfs pull",
}


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies: its file, its dtype as safetensors names it, its shape and its bytes [start, end)."""

    file: Path
    dtype: str
    shape: Shape
    start: int
    end: int


def safe_file(folder: Path, name: str, *, max_bytes: int | None = _MAX_JSON) -> Path | None:
    """`folder/name` when it is a regular file inside the folder; None when there is none.

    Raises CheckpointError for a link that leaves the folder, for devices and pipes, and for a file too large to be
    what it claims. The snapshots of a Hugging Face cache may link into their own `blobs` folder.
    """
    path = folder / name
    if not path.is_symlink() and not path.exists():
        return None
    real = Path(os.path.realpath(path))
    root = Path(os.path.realpath(folder))
    roots = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    if not any(real.is_relative_to(allowed) for allowed in roots):
        raise CheckpointError(f"{path}: leads out of the model folder to {real}; copy the file into the folder")
    try:
        found = real.stat()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path}: is not a regular file")
    if max_bytes is not None and found.st_size > max_bytes:
        raise CheckpointError(f"{path}: has {found.st_size:,} bytes, more than the {max_bytes:,} such a file can need")
    return path


def read_object(folder: Path, name: str) -> dict[str, Any] | None:
    """The JSON object in `folder/name`, None when there is no such file; CheckpointError when it is anything else."""
    path = safe_file(folder, name)
    if path is None:
        return None
    value = read_json(path, CheckpointError)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold a JSON object, not {type(value).__name__}")
    return value


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a model folder (one, or the shards its index names); empty when it has none."""
    index = read_object(folder, INDEX)
    if index is None:
        path = safe_file(folder, WEIGHTS, max_bytes=None)
        return (path,) if path else ()
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{folder / INDEX}: has no weight_map from names to files")
    return tuple(_shard(folder, name) for name in sorted(set(shards.values())))


def _shard(folder: Path, name: str) -> Path:
    if Path(name).name != name or not name.endswith(".safetensors"):
        raise CheckpointError(f"{folder / INDEX}: {name!r} is not the name of a safetensors file in the folder")
    path = safe_file(folder, name, max_bytes=None)
    if path is None:
        raise CheckpointError(f"{folder / INDEX}: names {name}, which is missing; the download is incomplete")
    return path


def pickles_in(folder: Path) -> list[str]:
    """Names of the files in a folder that are pickles or may be, by their suffix."""
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in PICKLE_SUFFIXES)


def read_headers(files: tuple[Path, ...]) -> dict[str, Tensor]:
    """Every tensor of the files by name; CheckpointError when a header lies or a name occurs twice."""
    found: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in _read_header(file):
            if name in found:
                raise CheckpointError(f"{file}: holds {name!r}, which {found[name].file.name} holds too")
            found[name] = tensor
    return found


def _read_header(file: Path) -> Iterator[tuple[str, Tensor]]:
    size = file.stat().st_size
    with open(file, "rb") as stream:
        start = stream.read(32)
        length = int.from_bytes(start[:8], "little")
        if len(start) < 8 or not 2 <= length <= min(_MAX_HEADER, size - 8):
            kinds = [kind for magic, kind in _MAGIC.items() if start.startswith(magic)]
            raise CheckpointError(f"{file}: is not whole safetensors but {(*kinds, 'cut off or something else')[0]}")
        stream.seek(8)
        header = _parsed(stream.read(length), file)
    used = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        tensor = _tensor(entry, name, file, 8 + length)
        used.append((tensor.start, tensor.end))
        yield name, tensor
    edges = [8 + length, *(edge for span in sorted(used) for edge in span), size]
    if any(first != second for first, second in zip(edges[::2], edges[1::2], strict=True)):
        raise CheckpointError(f"{file}: its tensors do not fill the file exactly; it is cut off or was tampered with")


def _parsed(header: bytes, file: Path) -> dict[str, Any]:
    try:
        found = json.loads(header)
    except (ValueError, RecursionError):
        raise CheckpointError(f"{file}: its safetensors header is not valid JSON") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: its safetensors header is not a JSON object")
    return found


def _tensor(entry: Any, name: str, file: Path, offset: int) -> Tensor:
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise CheckpointError(f"{file}: the header entry of {name[:80]!r} is not one of a tensor") from None
    numbers = (*shape, start, end)
    if not all(isinstance(number, int) and number >= 0 for number in numbers) or len(shape) > 8:
        raise CheckpointError(f"{file}: the header entry of {name[:80]!r} has an impossible shape or offset")
    if dtype not in _BYTES:
        raise CheckpointError(f"{file}: {name[:80]!r} is of type {str(dtype)[:20]}; only {', '.join(_BYTES)} are read")
    if end - start != math.prod(shape) * _BYTES[dtype]:
        raise CheckpointError(f"{file}: {name[:80]!r} has {end - start:,} bytes, which shape {shape} cannot have")
    return Tensor(file, dtype, shape, offset + start, offset + end)


def check_weights(tensors: Mapping[str, Tensor], config: Mapping[str, Any], where: Path) -> str:
    """The layout ("native" or "microsoft") of weights that fit the configuration exactly.

    The word embedding may have any of its names and lm_head may be missing (it is tied then). Raises CheckpointError
    naming the first weights that are missing, unknown or of another shape than config.json says.
    """
    layout = layouts.layout_of(tensors)
    if layout is None:
        raise CheckpointError(f"{where}: its weights have none of Florence-2's names")
    shapes = layouts.microsoft_shapes if layout == "microsoft" else layouts.native_shapes
    expected = shapes({**config, "tie_word_embeddings": False})
    aliases, optional = optional_names(layout)
    for alias in aliases:
        expected[alias] = expected[aliases[0]]
    if not any(alias in tensors for alias in aliases) and optional[0] in tensors:
        aliases = (*aliases, optional[0])
    missing = sorted(expected.keys() - tensors.keys() - set(aliases) - set(optional))
    if not any(alias in tensors for alias in aliases):
        missing.insert(0, aliases[0])
    problems = [f"{name} is missing" for name in missing]
    problems += [f"{name} is unknown" for name in sorted(tensors.keys() - expected.keys())]
    problems += [
        f"{name} is {tensors[name].shape}, not {shape}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{where}: the weights do not fit config.json: {'; '.join(problems[:3])}{more}")
    return layout


def optional_names(layout: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names the word embedding may have, and the names a file may lack (lm_head first), in a layout."""
    if layout == "native":
        return layouts.EMBEDDING_ALIASES, (layouts.HEAD,)
    aliases = tuple(layouts.to_microsoft(name) or name for name in layouts.EMBEDDING_ALIASES)
    return aliases, (layouts.MICROSOFT_HEAD, layouts.MICROSOFT_BIAS)


def head_is_tied(tensors: Mapping[str, Tensor]) -> bool:
    """Whether lm_head is the word embedding: it is missing, or the same bytes. Then, and only then, it may be tied."""
    aliases, optional = optional_names(layouts.layout_of(tensors) or "native")
    head = tensors.get(optional[0])
    embedding = next((tensors[name] for name in aliases if name in tensors), head)
    if head is None or embedding is None or head == embedding:
        return True
    if head.dtype != embedding.dtype or head.shape != embedding.shape:
        return False
    return all(first == second for first, second in zip(_chunks(head), _chunks(embedding), strict=True))


@dataclass(frozen=True)
class Rewritten:
    """A tensor to be written: its dtype, its shape, and the parts of files whose bytes follow each other in it."""

    dtype: str
    shape: Shape
    parts: tuple[Tensor, ...]


def rewrite(path: Path, tensors: Mapping[str, Rewritten]) -> None:
    """Write a safetensors file from bytes of other files (`path` may be one of them), whole or not at all."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        length = sum(part.end - part.start for part in tensor.parts)
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (offset, offset + length)}
        offset += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with written_whole(path, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            for part in tensor.parts:
                for chunk in _chunks(part):
                    stream.write(chunk)


def unchanged(tensor: Tensor) -> Rewritten:
    """A tensor written as it is."""
    return Rewritten(tensor.dtype, tensor.shape, (tensor,))


def with_more_rows(tensor: Tensor, rows: int, model_row: int = 3) -> Rewritten:
    """A matrix with rows added at its end until it has `rows`; each repeats row `model_row` (3 is `<unk>`)."""
    size = (tensor.end - tensor.start) // tensor.shape[0]
    start = tensor.start + model_row * size
    row = replace(tensor, shape=(1, *tensor.shape[1:]), start=start, end=start + size)
    more = (row,) * max(rows - tensor.shape[0], 0)
    return Rewritten(tensor.dtype, (tensor.shape[0] + len(more), *tensor.shape[1:]), (tensor, *more))


def _chunks(tensor: Tensor, size: int = 1 << 22) -> Iterator[bytes]:
    with open(tensor.file, "rb") as stream:
        stream.seek(tensor.start)
        for start in range(tensor.start, tensor.end, size):
            yield stream.read(min(size, tensor.end - start))
