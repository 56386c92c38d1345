"""What makes a step on a CPU shorter. GPUs do this well themselves."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_BITS = 16
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # as glibc's malloc.h numbers them


class QuickDropout(TorchFunctionMode):
    """Dropout inside draws 16 random bits a value; torch's own takes a fifth of a step of the text model."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_dropout if func is nn.functional.dropout else func)(*args, **(kwargs or {}))


def _dropout(values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`nn.functional.dropout` with p rounded to 1/65536, by torch's own generator."""
    limit = round(p * (1 << _BITS))
    if not training or inplace or not 0 < limit < 1 << _BITS:
        return nn.functional.dropout(values, p, training, inplace)
    words = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    kept = words.view(torch.int16)[: values.numel()].ge_(limit - (1 << (_BITS - 1)))
    return values * kept.view(values.shape).to(values.dtype).div_(1 - limit / (1 << _BITS))


def checkpoint_contexts() -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
    """The contexts of a checkpointed layer's two computations: PyTorch has left a step's own before the second."""
    return contextlib.nullcontext(), QuickDropout()


def has_bf16() -> bool:
    """Whether PyTorch multiplies bf16 well on this CPU, or cannot tell; its way without is far slower than fp32."""
    known = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return known is None or bool(known())


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Inside, freed memory stays with the process: the next step needs it again, and fresh pages cost a fifth of one.

    Only glibc can be asked to. Afterwards it goes back to the system, with the limits glibc arrives at by itself.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "gnu_get_libc_version"):
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, 1 << 16)
        libc.mallopt(_MMAP_THRESHOLD, 1 << 25)
        libc.mallopt(_TRIM_THRESHOLD, 1 << 26)
        libc.malloc_trim(0)
