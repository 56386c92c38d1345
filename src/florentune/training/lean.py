"""Steps on a CPU that keep and compute less, to the same end.

What is cheap to compute (layer norms, GELU, dropout, weights cast to bf16) is not kept for the backward pass but
computed again from what is kept anyway, bit for bit. Dropout, which takes a fifth of a step of the text model in torch,
draws 16 random bits for a value. GPUs do all this well themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_CHEAP = (nn.functional.gelu, nn.functional.layer_norm)
_BITS = 16
_TRIM_EVERY = 100  # values that are kept or taken up: many times a step


@contextlib.contextmanager
def lean_step() -> Iterator[None]:
    """Forward and backward passes inside are lean; gradients are those of torch's own functions.

    It pays for large models: a small one's steps get longer by what is computed again. Not for layers that are
    checkpointed: PyTorch leaves the mode during the backward pass, so what they compute a second time would have
    another dropout.
    """
    calls = itertools.count(1)

    def pack(value: Tensor) -> Tensor | _Again:
        _trim_at(next(calls))
        return _pack(value)

    def unpack(kept: Tensor | _Again) -> Tensor:
        _trim_at(next(calls))
        return kept() if isinstance(kept, _Again) else kept

    with _LeanFunctions(), torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


def trim() -> None:
    """Give the system back the holes that freed memory leaves between live tensors; only glibc can be asked to."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim:
        malloc_trim(0)


def _trim_at(call: int) -> None:
    if call % _TRIM_EVERY == 0:
        trim()


class _LeanFunctions(TorchFunctionMode):
    """Dropout with few random bits, and a note on each cheap value of how to compute it again."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.dropout:
            return _dropout(*args, **kwargs)
        found = func(*args, **kwargs)
        if func in _CHEAP:
            found.again = partial(func, *args, **kwargs)
        return found


def _dropout(values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`nn.functional.dropout` with p rounded to 1/65536, by torch's own generator."""
    limit = round(p * (1 << _BITS))
    if not training or inplace or not 0 < limit < 1 << _BITS:
        return nn.functional.dropout(values, p, training, inplace)
    words = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    kept = words.view(torch.int16)[: values.numel()].ge_(limit - (1 << (_BITS - 1)))
    factors = kept.view(values.shape).to(values.dtype).div_(1 - limit / (1 << _BITS))
    found: Any = values * factors
    again = getattr(values, "again", values.detach)
    found.again = lambda: again() * factors
    return found  # type: ignore[no-any-return]


class _Again:
    """In place of a value that the backward pass needs: how to compute it, and which view of it is meant."""

    def __init__(self, compute: Callable[[], Tensor], view: Tensor) -> None:
        self._compute, self._view = compute, (view.size(), view.stride(), view.storage_offset())

    @torch.no_grad()
    def __call__(self) -> Tensor:
        return self._compute().as_strided(*self._view)


def _pack(value: Tensor) -> Tensor | _Again:
    whole = value._base if value._is_view() and value._base is not None else value
    compute = getattr(whole, "again", None) or _cast_of_weight(whole)
    return _Again(compute, value) if compute else value


def _cast_of_weight(value: Tensor) -> Callable[[], Tensor] | None:
    """How to cast a weight to the type of `value` again, if that is what `value` is."""
    node = value.grad_fn
    if node is None or node.name() != "ToCopyBackward0":
        return None
    weight = getattr(node.next_functions[0][0], "variable", None)
    return None if weight is None else partial(weight.detach().to, value.dtype)
