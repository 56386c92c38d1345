"""Score predictions against the truth of a data set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np

from ..errors import InputError
from ..formats.split import documents
from ..regions import Box, Page, Region
from ..scores import DEFAULT_THRESHOLD
from . import bootstrap
from .calibration import IOU, Scored, kept, reliability, scored
from .coco import AveragePrecision, CocoScores
from .matching import Judged, Pairing, crowd_regions, iou_matrix, judge_all, pair_up
from .results import (
    SUCCESS_IOUS,
    Calibration,
    Confusion,
    Curve,
    DocumentScores,
    Evaluation,
    LabelScores,
    PageResult,
    Problem,
)

LOOSE_IOU = 0.7
CURVE_POINTS = 200
_SIZE_SLACK = 1  # pixels two renderings of one page may differ by
_ASPECT_SLACK = 0.01


def evaluate(
    truth: Sequence[Page],
    predictions: Sequence[Page],
    labels: Sequence[str],
    *,
    thresholds: float | Mapping[str, float] = DEFAULT_THRESHOLD,
    group_by: str | None = None,
    coco: bool = True,
    intervals: bool = True,
    problems: Sequence[Problem] = (),
) -> Evaluation:
    """Compare predictions, at every score, with the truth; pages belong together by `Page.image`.

    `thresholds` is the score from which a box counts, for all labels or by label; average precision, curves and
    calibration look at every score. `group_by` says which pages are of one document (see `formats.split.documents`); a
    page whose document its name does not tell is one of its own. `coco=False` leaves average precision out and needs
    only numpy; `intervals=False` leaves the bootstrap out (training). `problems` are those found while the predictions
    were read; what cannot be matched here is added to them.

    Raises InputError for truth without pages, two pages of truth of one name, a threshold outside 0..1 or a bad
    `group_by`, and MissingExtraError where faster-coco-eval is not installed.
    """
    limits = _thresholds(labels, thresholds)
    paired, found = align(truth, predictions, labels)
    average = CocoScores(truth, paired, labels) if coco else None
    names = documents([page.image for page in truth], group_by)
    pages = [
        judge(page, kept(guess, limits), name or PurePath(page.image).stem)
        for page, guess, name in zip(truth, paired, names, strict=True)
    ]
    judged = judge_all(truth, paired, labels)
    return _summary(labels, limits, pages, judged, average, intervals, [*problems, *found])


def align(
    truth: Sequence[Page], predictions: Sequence[Page], labels: Sequence[str]
) -> tuple[list[Page], list[Problem]]:
    """The prediction for every page of truth, in its order, and what does not fit, named.

    A page nobody predicted is an empty prediction; one predicted at another resolution is scaled. Left out of the
    score: predictions for unknown images, a second page of one image, pages of other proportions, boxes of a label the
    truth does not have. Raises InputError (see `evaluate`).
    """
    if not truth:
        raise InputError("there is no page to evaluate on")
    if len({page.image for page in truth}) < len(truth):
        twice = [name for name, count in Counter(page.image for page in truth).items() if count > 1]
        raise InputError(f"{len(twice)} images occur more than once in the truth, first {twice[0]}: merge their boxes")
    if foreign := {region.label for page in truth for region in page.regions} - set(labels):
        raise InputError(f"the truth has labels that were not asked for: {', '.join(sorted(foreign))}")
    pages = {page.image: page for page in truth}
    by_image: dict[str, Page] = {}
    problems: list[Problem] = []
    for page in predictions:
        fitted, problem = _fitted(page, pages.get(page.image), page.image in by_image)
        problems += [problem] if problem else []
        if fitted is not None:
            problems += _odd_regions(fitted, set(labels))
            regions = tuple(region for region in fitted.regions if region.label in labels)
            by_image[page.image] = replace(fitted, regions=regions)
    mentioned = {page.image for page in predictions}
    problems += [
        Problem("missing_page", page.image, "the predictions do not mention this image; it counts as an empty page")
        for page in truth
        if page.image not in mentioned
    ]
    return [by_image.get(page.image, Page(page.image, page.width, page.height)) for page in truth], problems


def judge(page: Page, predicted: Sequence[Region], document: str) -> PageResult:
    """One page against the predictions that are kept."""
    crowd = crowd_regions(page)
    ious = iou_matrix([region.box for region in page.regions], [region.box for region in predicted])
    pairings = {limit: pair_up(page.regions, predicted, crowd, limit, ious) for limit in SUCCESS_IOUS}
    pairing = pairings[IOU]
    return PageResult(
        image=page.image,
        document=document,
        correct=[page.regions[row].label for row, _ in pairing.correct],
        success={limit: _complete(found) for limit, found in pairings.items()},
        missed=[page.regions[row].label for row in pairing.missed],
        invented=[predicted[column].label for column in pairing.invented],
        confused=[(page.regions[row].label, predicted[column].label) for row, column in pairing.confused],
        loose=[page.regions[row].label for row, column in pairing.correct if ious[row, column] < LOOSE_IOU],
    )


def _summary(
    labels: Sequence[str],
    thresholds: dict[str, float],
    pages: list[PageResult],
    judged: Judged,
    average: CocoScores | None,
    intervals: bool,
    problems: list[Problem],
) -> Evaluation:
    confusion = _confusion(pages, labels)
    correct = sum(len(page.correct) for page in pages)
    truth, predicted = sum(page.truth for page in pages), sum(page.predicted for page in pages)
    empty = [page for page in pages if page.truth == 0]
    alarms = sum(page.predicted > 0 for page in empty)
    overall = average.overall if average else AveragePrecision(None, None, None, {})
    spread = bootstrap.replicated(pages, judged if average else None) if intervals else {}
    every = scored(judged)
    precision, recall, f1 = _rates(correct, predicted, truth)
    return Evaluation(
        labels=tuple(labels),
        thresholds=thresholds,
        pages=len(pages),
        documents=len({page.document for page in pages}),
        empty_pages=len(empty),
        truth=truth,
        predicted=predicted,
        map=overall.ap,
        ap50=overall.ap50,
        ap75=overall.ap75,
        by_size=overall.by_size,
        precision=precision,
        recall=recall,
        f1=f1,
        page_success=_success(pages),
        page_success_with_objects=_success([page for page in pages if page.truth]),
        false_alarms=alarms,
        false_alarm_rate=alarms / len(empty) if empty else None,
        per_label={label: _label_scores(index, label, pages, confusion, average) for index, label in enumerate(labels)},
        confusion=confusion,
        curves={label: _curve(every, index, int(judged.truth[:, index].sum())) for index, label in enumerate(labels)},
        calibration=Calibration(*reliability(every.scores, every.correct)),
        per_document=_per_document(pages),
        per_page=pages,
        intervals={name: found for name, values in spread.items() if (found := bootstrap.interval(values))},
        problems=problems,
    )


def _thresholds(labels: Sequence[str], wanted: float | Mapping[str, float]) -> dict[str, float]:
    given = dict(wanted) if isinstance(wanted, Mapping) else dict.fromkeys(labels, float(wanted))
    limits = {label: float(given.get(label, DEFAULT_THRESHOLD)) for label in labels}
    for label, limit in limits.items():
        if not 0.0 <= limit <= 1.0:
            raise InputError(f"the confidence threshold {limit} of {label!r} is outside 0..1")
    return limits


def _fitted(page: Page, truth: Page | None, seen: bool) -> tuple[Page | None, Problem | None]:
    """A page of predictions in the pixels of its truth, None when it cannot be scored, and what is odd about it."""
    name = page.image
    if truth is None:
        return None, Problem("unknown_image", name, "the truth has no image of this name; its predictions are left out")
    if seen:
        return None, Problem("duplicate_page", name, "predicted twice; only the first page of predictions is scored")
    x, y = truth.width / page.width, truth.height / page.height
    if max(abs(page.width - truth.width), abs(page.height - truth.height)) <= _SIZE_SLACK:
        return page, None
    sizes = f"predicted on {page.width} x {page.height} pixels, the truth is {truth.width} x {truth.height}"
    if abs(x / y - 1) > _ASPECT_SLACK:
        return None, Problem("other_size", name, f"{sizes}: not the same page; its predictions are left out")
    regions = tuple(replace(r, box=Box(r.box.x1 * x, r.box.y1 * y, r.box.x2 * x, r.box.y2 * y)) for r in page.regions)
    scaled = replace(page, width=truth.width, height=truth.height, regions=regions)
    return scaled, Problem("scaled", name, f"{sizes}; the boxes were scaled")


def _odd_regions(page: Page, known: set[str]) -> Iterator[Problem]:
    """Boxes without score (they count as 1) and boxes of labels that are not scored."""
    unscored = sum(region.score is None for region in page.regions)
    if unscored:
        yield Problem("no_score", page.image, f"boxes without a score, which count as 1: {unscored}")
    for label, count in Counter(region.label for region in page.regions if region.label not in known).items():
        yield Problem("unknown_label", page.image, f"boxes of {label!r}, a label the truth does not have: {count}")


def _complete(pairing: Pairing) -> bool:
    return not (pairing.missed or pairing.invented or pairing.confused)


def _success(pages: Sequence[PageResult]) -> dict[float, float | None]:
    """The share of pages that are right at each IoU; None without pages."""
    return {limit: sum(page.success[limit] for page in pages) / len(pages) if pages else None for limit in SUCCESS_IOUS}


def _rates(correct: int, predicted: int, truth: int) -> tuple[float | None, float | None, float | None]:
    """Precision, recall and F1; None where nothing was predicted, or nothing is there."""
    return (
        correct / predicted if predicted else None,
        correct / truth if truth else None,
        2 * correct / (predicted + truth) if predicted + truth else None,
    )


def _confusion(pages: Sequence[PageResult], labels: Sequence[str]) -> Confusion:
    index = {label: position for position, label in enumerate(labels)}
    nothing = len(labels)
    matrix = np.zeros((nothing + 1, nothing + 1), dtype=int)
    for page in pages:
        for label in page.correct:
            matrix[index[label], index[label]] += 1
        for label, other in page.confused:
            matrix[index[label], index[other]] += 1
        for label in page.missed:
            matrix[index[label], nothing] += 1
        for label in page.invented:
            matrix[nothing, index[label]] += 1
    return Confusion(tuple(labels), matrix.tolist())


def _label_scores(
    index: int, label: str, pages: Sequence[PageResult], confusion: Confusion, average: CocoScores | None
) -> LabelScores:
    matrix = np.array(confusion.matrix)
    correct, truth, predicted = int(matrix[index, index]), int(matrix[index].sum()), int(matrix[:, index].sum())
    precision, recall, f1 = _rates(correct, predicted, truth)
    errors = [abs(page.surplus(label)) for page in pages]
    found = average.per_label[label] if average else AveragePrecision(None, None, None, {})
    return LabelScores(
        truth=truth,
        predicted=predicted,
        correct=correct,
        precision=precision,
        recall=recall,
        f1=f1,
        count_error=sum(errors) / len(errors),
        count_right=errors.count(0) / len(errors),
        ap=found.ap,
        ap50=found.ap50,
        ap75=found.ap75,
        by_size=found.by_size,
    )


def _curve(every: Scored, index: int, truth: int) -> Curve:
    """Precision and recall of one label over falling confidence, thinned to `CURVE_POINTS` points."""
    mine = every.labels == index
    order = np.argsort(-every.scores[mine], kind="stable")
    scores, correct = every.scores[mine][order], every.correct[mine][order]
    ends = np.flatnonzero(np.append(np.diff(scores) != 0, True)) if len(scores) else np.array([], dtype=int)
    if len(ends) > CURVE_POINTS:
        ends = ends[np.linspace(0, len(ends) - 1, CURVE_POINTS).round().astype(int)]
    hits = np.cumsum(correct)[ends]
    recall = hits / truth if truth else np.zeros(len(ends))
    return Curve(scores[ends].tolist(), (hits / (ends + 1)).tolist(), recall.tolist())


def _per_document(pages: Sequence[PageResult]) -> list[DocumentScores]:
    groups: dict[str, list[PageResult]] = defaultdict(list)
    for page in pages:
        groups[page.document].append(page)
    return [
        DocumentScores(
            document=name,
            pages=len(group),
            truth=sum(page.truth for page in group),
            predicted=sum(page.predicted for page in group),
            correct=sum(len(page.correct) for page in group),
            page_success=_success(group),
        )
        for name, group in groups.items()
    ]
