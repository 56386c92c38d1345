"""What makes a step on a CPU shorter, and smaller with gradient checkpointing. GPUs do this well themselves."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_BITS = 16


class QuickDropout(TorchFunctionMode):
    """Dropout inside draws 16 random bits a value; torch's own takes a fifth of a step of the text model.

    Not for layers that are checkpointed: PyTorch leaves the mode during the backward pass, so what they compute a
    second time would have another dropout.
    """

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


def trim() -> None:
    """Give the system back the holes that freed memory leaves between live tensors; only glibc can be asked to."""
    if sys.platform == "linux" and (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        malloc_trim(0)
