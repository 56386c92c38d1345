"""Turn a pickle of weights (`.bin`, `.pt`) into safetensors, in a child process that can do nothing else.

A pickle is a program. torch's restricted loader (weights_only) runs it with an allow-list; should that ever fail, the
child has no network, no child processes of its own, limited memory and time, and may write one file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, MissingExtraError
from . import layouts
from .folders import umask
from .weights import WEIGHTS, read_headers

_SECONDS = 600
_REFUSED_EVENTS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "shutil.rmtree",
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "ctypes.dlopen",
    "import",
)


def import_weights(pickle: Path, folder: Path) -> Path:
    """Write `folder/model.safetensors` from a state dictionary pickled by torch; returns its path.

    Tensors that share memory are written once under the embedding's first name; lm_head is always written. Raises
    CheckpointError when the file holds anything but tensors, or no Florence-2, or when the child is stopped.
    """
    if not pickle.is_file():
        raise CheckpointError(f"{pickle}: no such file", reason="missing")
    if (folder / WEIGHTS).exists():
        raise CheckpointError(f"{folder / WEIGHTS}: exists already; remove it or name another folder")
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError("torch", "train") from None
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{WEIGHTS}.{os.getpid()}.tmp"
    try:
        _run_child(pickle.absolute(), temporary.absolute())
        tensors = read_headers((temporary,))
        if layouts.layout_of(tensors) is None:
            raise CheckpointError(f"{pickle}: its weights have none of Florence-2's names")
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, folder / WEIGHTS)
    finally:
        temporary.unlink(missing_ok=True)
    return folder / WEIGHTS


def _run_child(pickle: Path, out: Path) -> None:
    environment = {"PATH": os.defpath, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [
        sys.executable,
        "-c",
        "from florentune.model.import_weights import child; child()",
        str(pickle),
        str(out),
    ]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"{pickle}: was not read within {_SECONDS} seconds and was given up") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        why = lines[-1][:300] if lines else f"the child process ended with {done.returncode}"
        raise CheckpointError(f"{pickle}: refused: {why}")


def child() -> None:
    """The body of the sandboxed process: argv is the pickle and the file to write."""
    pickle, out = sys.argv[1:3]
    import torch
    from safetensors.torch import save_file

    _limit(Path(pickle).stat().st_size)
    _warm_up(out)
    _confine(out)
    try:
        found = torch.load(pickle, map_location="cpu", weights_only=True)
        save_file(_tensors(found), out, metadata={"format": "pt"})
    except Exception as error:  # noqa: BLE001 - whatever a pickle raises is one line for the parent
        text = " ".join(str(error).split())
        print(f"{type(error).__name__}: {_short(text)}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)


def _short(text: str) -> str:
    """torch's message about a refused pickle is a page long; what it refused is what matters."""
    found = re.search(r"(Unsupported|Trying to load unsupported) .{0,120}?(?= Check the| whose|$)", text)
    return found[0] if found else text[:200]


def _warm_up(out: str) -> None:
    """Load and save a harmless state dictionary, so that all that torch imports late is there before it is refused."""
    import io

    import torch
    from safetensors.torch import save_file

    for zipped in (True, False):
        stream = io.BytesIO()
        torch.save({"a": torch.zeros(1), "b": torch.zeros(1).bfloat16()}, stream, _use_new_zipfile_serialization=zipped)
        stream.seek(0)
        save_file(_tensors(torch.load(stream, map_location="cpu", weights_only=True)), out)


def _limit(size: int) -> None:
    try:
        import resource
    except ImportError:  # not on this system; the audit hook and weights_only remain
        return
    with open("/proc/self/statm", "rb") as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 4 * size + (1 << 30),) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * size + (1 << 20),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _confine(out: str) -> None:
    """From here on no process, connection, import or file for writing but `out`; nothing can lift an audit hook."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and _writes(arguments) and os.fsdecode(arguments[0]) != out:
            os.write(2, b"the pickle tried to write a file\n")
            os._exit(3)
        if event in _REFUSED_EVENTS:
            os.write(2, f"the pickle tried {event} {arguments!s:.80}\n".encode())
            os._exit(3)

    sys.addaudithook(hook)


def _writes(arguments: tuple[Any, ...]) -> bool:
    path, mode, flags = (*arguments, None, None)[:3]
    written = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    return isinstance(path, str | bytes) and bool((flags or 0) & written or set(str(mode or "")) & set("wax+"))


def _tensors(found: Any) -> dict[str, Any]:
    """The state dictionary inside what was loaded, with one name for the embedding and no shared memory."""
    import torch

    for key in ("state_dict", "model", "module"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found:
        raise ValueError("holds no dictionary of tensors")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(f"{str(name)[:80]!r} is not a named tensor")
    tensors = {name.removeprefix("module."): value for name, value in found.items()}
    aliases = [names for names in _aliases() if names[0] in tensors]
    for first, *others in aliases:
        for other in others:
            if other in tensors and torch.equal(tensors[other], tensors[first]):
                del tensors[other]
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}


def _aliases() -> tuple[tuple[str, ...], ...]:
    theirs = tuple(layouts.to_microsoft(name) or name for name in layouts.EMBEDDING_ALIASES)
    return layouts.EMBEDDING_ALIASES, theirs
