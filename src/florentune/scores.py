"""What a score means: the two numbers that calibrate it, and the score from which a box counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

DEFAULT_THRESHOLD = 0.5
"""The least score of a label that has no threshold of its own."""


class Scale(NamedTuple):
    """The two numbers of a calibration: score becomes sigmoid(logit(score) / temperature + shift).

    Monotonic, so no ranking and no average precision changes (Platt 1999; without the shift, temperature scaling). The
    shift matters: a model that spreads a location over neighbouring bins scores below one half even where it is right.
    """

    temperature: float = 1.0
    shift: float = 0.0

    def of(self, scores: ArrayLike) -> NDArray[np.float64]:
        """The calibrated scores, in the shape of `scores`; 0 and 1 stay what they are."""
        raw = np.asarray(scores, dtype=np.float64)
        if self == Scale():
            return raw
        with np.errstate(divide="ignore", over="ignore"):
            odds = np.log(raw) - np.log1p(-raw)
            calibrated: NDArray[np.float64] = 1 / (1 + np.exp(-(odds / self.temperature + self.shift)))
        return calibrated

    def then(self, second: Scale) -> Scale:
        """This scale followed by another, as one."""
        return Scale(self.temperature * second.temperature, self.shift / second.temperature + second.shift)

    def since(self, first: Scale) -> Scale:
        """What turns scores scaled by `first` into scores scaled by this: first.then(self.since(first)) is this."""
        step = self.temperature / first.temperature
        return Scale(step, self.shift - first.shift / step)
