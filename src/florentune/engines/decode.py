"""Batched decoding: every row walks its own grammar, and one call of the engine serves all rows that still walk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import GenerationError
from . import Decoding


class Walk(Protocol):
    """One answer in the making (grammar.RegionWalk, or FreeWalk where any token may follow)."""

    ids: list[int]
    done: bool

    def advance(self, logits: NDArray[np.float32]) -> list[int]:
        """Choose from the logits of the next token; the token ids to feed next, none when done."""


class FreeWalk:
    """Greedy decoding without a grammar, with the reference's rule that no run of three tokens comes twice.

    `ids` begins with the forced `<s>`; the answer ends with `</s>` or after `max_new_tokens` tokens.
    """

    def __init__(self, start: int, end: int, max_new_tokens: int, *, no_repeat: int = 3) -> None:
        self.ids = [start]
        self.done = max_new_tokens <= 1
        self._end, self._limit, self._no_repeat = end, max_new_tokens, no_repeat

    def advance(self, logits: NDArray[np.float32]) -> list[int]:
        """Choose from logits (vocabulary,) and return the token to feed next; raises GenerationError for NaN."""
        if np.isnan(logits).any():
            raise GenerationError("the model's logits are NaN: its weights are damaged or its numbers overflowed")
        if len(self.ids) == self._limit - 1:
            token = self._end  # forced_eos_token_id of the reference
        else:
            allowed = logits.copy()
            allowed[self._repeats()] = -np.inf
            token = int(allowed.argmax())
        self.ids.append(token)
        self.done = token == self._end or len(self.ids) >= self._limit
        return [] if self.done else [token]

    def _repeats(self) -> list[int]:
        """The tokens that would complete a run of `no_repeat` tokens already written."""
        size = self._no_repeat - 1
        if not size or len(self.ids) < size:
            return []
        tail = self.ids[-size:]
        return [self.ids[at + size] for at in range(len(self.ids) - size) if self.ids[at : at + size] == tail]


def decode(decoding: Decoding, walks: Sequence[Walk], start_id: int) -> list[GenerationError | None]:
    """Lead every walk to its end; what went wrong with each, or None.

    Rows advance by different numbers of tokens, since tokens without a choice need no step of their own: each step
    feeds as many tokens as the row with the fewest waiting has, and rows that are done leave the batch.
    """
    failures: list[GenerationError | None] = [None] * len(walks)
    waiting = {row: [start_id, *walk.ids] for row, walk in enumerate(walks) if not walk.done}
    if len(waiting) < len(walks):
        decoding.keep(list(waiting))
    while waiting:
        width = min(len(tokens) for tokens in waiting.values())
        logits = decoding.step(np.array([tokens[:width] for tokens in waiting.values()], dtype=np.int64))
        staying = []
        for place, row in enumerate(list(waiting)):
            del waiting[row][:width]
            if not waiting[row]:
                try:
                    waiting[row] = walks[row].advance(logits[place])
                except GenerationError as error:
                    failures[row] = error
            if waiting[row]:
                staying.append(place)
            else:
                del waiting[row]
        if waiting and len(staying) < len(logits):
            decoding.keep(staying)
    return failures
