"""What an evaluation says: plain frozen dataclasses, in fractions 0..1 unless a name says otherwise."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .calibration import Bin

SUCCESS_IOUS = (0.5, 0.7, 0.8)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something odd in the predictions: a stable `kind`, the image, and what was done about it."""

    kind: str
    image: str
    message: str

    @property
    def is_note(self) -> bool:
        """Whether it may well be meant: labels the truth does not have, pages at another resolution."""
        return self.kind in ("unknown_label", "scaled")


@dataclass(frozen=True, slots=True)
class Interval:
    """A bootstrap 95 % interval, resampled by document."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LabelScores:
    """One label: COCO's average precision, and precision, recall and counts at its threshold and IoU 0.5.

    `count_error` is the mean of |boxes found - boxes there| a page; `count_right` the share of pages where it is 0.
    """

    truth: int
    predicted: int
    correct: int
    precision: float | None
    recall: float | None
    f1: float | None
    count_error: float
    count_right: float
    ap: float | None = None
    ap50: float | None = None
    ap75: float | None = None
    by_size: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Confusion:
    """`matrix[i][j]`: boxes of truth `labels[i]` predicted as `labels[j]` at IoU 0.5, at the thresholds.

    The last column counts missed truth, the last row invented predictions.
    """

    labels: tuple[str, ...]
    matrix: list[list[int]]


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and recall at IoU 0.5 when predictions from `confidence` up are kept, confidence falling."""

    confidence: list[float]
    precision: list[float]
    recall: list[float]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Expected calibration error of all predictions with a score, judged at IoU 0.5, and its bins."""

    ece: float | None
    bins: list[Bin]


@dataclass(frozen=True, slots=True)
class PageResult:
    """One page at the thresholds: is it right at each IoU, and which labels are what at IoU 0.5.

    `confused` holds pairs of (truth, predicted) labels; `loose` the correct ones whose IoU is below 0.7.
    """

    image: str
    document: str
    success: dict[float, bool]
    correct: list[str]
    confused: list[tuple[str, str]]
    missed: list[str]
    invented: list[str]
    loose: list[str]

    @property
    def truth(self) -> int:
        """Boxes that are there."""
        return len(self.correct) + len(self.confused) + len(self.missed)

    @property
    def predicted(self) -> int:
        """Boxes that were predicted and count."""
        return len(self.correct) + len(self.confused) + len(self.invented)

    @property
    def errors(self) -> int:
        """How many boxes are wrong, for ranking pages; a loose box counts too."""
        return len(self.missed) + len(self.invented) + len(self.confused) + len(self.loose)

    def surplus(self, label: str) -> int:
        """Boxes of a label that were predicted minus those that are there."""
        confused = sum((other == label) - (mine == label) for mine, other in self.confused)
        return self.invented.count(label) - self.missed.count(label) + confused


@dataclass(frozen=True, slots=True)
class DocumentScores:
    """The pages of one document: counts, and the share of pages that are right at each IoU."""

    document: str
    pages: int
    truth: int
    predicted: int
    correct: int
    page_success: dict[float, float | None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well predictions match the truth; see docs/evaluation.md for what each number means.

    `map`, `ap50`, `ap75`, `by_size` are COCO's, over all scores; everything else is at `thresholds`. `intervals` holds
    95 % intervals by name of the number ("map", "page_success_0.7", ...), empty with fewer than two documents.
    """

    labels: tuple[str, ...]
    thresholds: dict[str, float]
    pages: int
    documents: int
    empty_pages: int
    truth: int
    predicted: int
    map: float | None
    ap50: float | None
    ap75: float | None
    by_size: dict[str, float | None]
    precision: float | None
    recall: float | None
    f1: float | None
    page_success: dict[float, float | None]
    page_success_with_objects: dict[float, float | None]
    false_alarms: int
    false_alarm_rate: float | None
    per_label: dict[str, LabelScores]
    confusion: Confusion
    curves: dict[str, Curve]
    calibration: Calibration
    per_document: list[DocumentScores]
    per_page: list[PageResult]
    intervals: dict[str, Interval]
    problems: list[Problem]

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON values; keys of IoU are text ("0.7")."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def _plain(value: Any) -> Any:
    """The value with text keys and lists, as JSON wants it."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
