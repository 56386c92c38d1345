"""What runs a model. Engines compute logits; `decode` chooses tokens; neither knows of images or files of users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Decoding(Protocol):
    """A batch of answers being written, with its caches."""

    def step(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read tokens (rows, k) after those before and give the logits (rows, n) of the token after the last.

        n is the number of token ids the decoding was started for, in their order.
        """

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order."""


class Engine(Protocol):
    """A loaded model. Not to be used from two threads at once unless an engine says so."""

    name: str
    """What it runs on, for people: `torch cpu float32`, `onnx int8`, ..."""

    start_id: int
    """The token every decoder input starts with."""

    vocabulary: int
    """The number of logits a full step gives."""

    max_positions: int
    """How many tokens a decoder can read."""

    def start(
        self, pixels: NDArray[np.float32], prompt: Sequence[int], tokens: NDArray[np.int64] | None = None
    ) -> Decoding:
        """Encode images (rows, 3, height, width) with one prompt; logits are wanted for `tokens` (None: for all)."""
