"""How well Pages match Pages: COCO average precision, page success, false alarms, confusion, calibration."""

from __future__ import annotations

from ..scores import Scale
from .calibration import calibrate, choose_thresholds, fit_scale
from .compare import Difference, compare
from .evaluate import align, evaluate
from .predictions import category_names, read_predictions
from .results import (
    SUCCESS_IOUS,
    Calibration,
    Confusion,
    Curve,
    DocumentScores,
    Evaluation,
    Interval,
    LabelScores,
    PageResult,
    Problem,
)

__all__ = [
    "SUCCESS_IOUS",
    "Calibration",
    "Confusion",
    "Curve",
    "Difference",
    "DocumentScores",
    "Evaluation",
    "Interval",
    "LabelScores",
    "PageResult",
    "Problem",
    "Scale",
    "align",
    "calibrate",
    "category_names",
    "choose_thresholds",
    "compare",
    "evaluate",
    "fit_scale",
    "read_predictions",
]
