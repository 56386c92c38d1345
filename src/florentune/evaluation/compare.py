"""Is one predictor better than another on the same pages? Paired, by document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..regions import Page
from . import bootstrap
from .evaluate import align
from .matching import judge_all
from .results import Evaluation, Interval


@dataclass(frozen=True, slots=True)
class Difference:
    """One number for both predictors and second minus first, with its paired 95 % interval by document.

    `interval` is None with fewer than two documents; `clear` says that it does not hold 0.
    """

    name: str
    first: float | None
    second: float | None
    interval: Interval | None

    @property
    def difference(self) -> float | None:
        """Second minus first; None where either has no value."""
        return None if self.first is None or self.second is None else self.second - self.first

    def as_dict(self) -> dict[str, Any]:
        """{"name", "first", "second", "difference", "interval": [low, high], "clear"} as JSON values."""
        interval = [self.interval.low, self.interval.high] if self.interval else None
        both = {"first": self.first, "second": self.second, "difference": self.difference}
        return {"name": self.name, **both, "interval": interval, "clear": self.clear}

    @property
    def clear(self) -> bool:
        """Whether the sign of the difference is not left to chance, as far as these documents tell."""
        return self.interval is not None and (self.interval.low > 0 or self.interval.high < 0)


def compare(
    truth: Sequence[Page], first: tuple[Sequence[Page], Evaluation], second: tuple[Sequence[Page], Evaluation]
) -> list[Difference]:
    """Second minus first for every number that has an interval.

    Each predictor is its predictions and their evaluation on `truth`, with the same labels and documents.
    """
    spreads = []
    for predictions, evaluation in (first, second):
        paired, _ = align(truth, predictions, evaluation.labels)
        judged = judge_all(truth, paired, evaluation.labels) if evaluation.map is not None else None
        spreads.append(bootstrap.replicated(evaluation.per_page, judged))
    before, after = numbers(first[1]), numbers(second[1])
    found = []
    for name in before:
        both = all(name in spread for spread in spreads)
        interval = bootstrap.interval(spreads[1][name] - spreads[0][name]) if both else None
        found.append(Difference(name, before[name], after[name], interval))
    return found


def numbers(evaluation: Evaluation) -> dict[str, float | None]:
    """The numbers that have an interval, by their name in `Evaluation.intervals`."""
    return {
        "map": evaluation.map,
        "ap50": evaluation.ap50,
        **{f"page_success_{iou}": value for iou, value in evaluation.page_success.items()},
        "precision": evaluation.precision,
        "recall": evaluation.recall,
        "f1": evaluation.f1,
        "false_alarm_rate": evaluation.false_alarm_rate,
    }
