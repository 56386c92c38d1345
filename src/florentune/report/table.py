"""An evaluation as one plain table that fits 80 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..evaluation import Difference, Evaluation, Interval, Problem
from ..regions import counted

WIDTH = 80


def summary_lines(evaluation: Evaluation) -> list[str]:
    """The lines of the table: totals with their 95 % intervals, one line a label, the confusion matrix."""
    return [*_header(evaluation), "", *_totals(evaluation), "", *_labels(evaluation), "", *_confusion(evaluation)]


def difference_lines(rows: Iterable[Difference], first: str, second: str) -> list[str]:
    """The lines of a comparison: both numbers, second minus first, its interval, and whether it is clear of 0."""
    lines = [f"first:  {first}", f"second: {second}", ""]
    lines.append(f"{'':24}{'first':>8}{'second':>8}{'change':>9}   95 % interval")
    for row in rows:
        clear = "clear" if row.clear else "not clear" if row.interval else "one document: no interval"
        change = "-" if row.difference is None else f"{row.difference:+.3f}"
        spread = f"{_signed(row.interval):18}" if row.interval else ""
        lines.append(
            f"{title_of(row.name):24}{number(row.first):>8}{number(row.second):>8}{change:>9}   {spread}{clear}"
        )
    return lines


def problem_lines(problems: Sequence[Problem], shown: int = 3) -> list[str]:
    """Every kind of problem with its count and the first few of it."""
    lines = []
    for kind, count in Counter(problem.kind for problem in problems).most_common():
        examples = [problem for problem in problems if problem.kind == kind][:shown]
        lines.append(f"{count:,} x {kind}" + (" (not scored, maybe meant)" if examples[0].is_note else ""))
        lines += [f"    {problem.image}: {problem.message}" for problem in examples]
        lines += [f"    and {count - shown:,} more"] if count > shown else []
    return lines


def number(value: float | None) -> str:
    """A fraction with three decimals, "-" where there is none."""
    return "-" if value is None else f"{value:.3f}"


def title_of(name: str) -> str:
    """The name of a number as people read it."""
    if name.startswith("page_success_"):
        return f"page success, IoU {name.removeprefix('page_success_')}"
    return {"map": "mAP .50:.95", "ap50": "AP50", "ap75": "AP75", "f1": "F1"}.get(name, name.replace("_", " "))


def _header(found: Evaluation) -> list[str]:
    limits = ", ".join(f"{label} {limit:g}" for label, limit in found.thresholds.items())
    pages, documents = counted(found.pages, "page"), counted(found.documents, "document")
    return [
        f"{pages} of {documents}, {found.empty_pages:,} of them empty; {counted(found.truth, 'box')} there",
        *_wrapped(f"{counted(found.predicted, 'box')} found at confidence {limits}"),
    ]


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= WIDTH:
            lines.append(" ")
        lines[-1] += (" " if lines[-1].strip() else "") + word
    return lines


def _totals(found: Evaluation) -> list[str]:
    rows: list[tuple[str, float | None, str]] = []
    for iou, value in found.page_success.items():
        rows.append((f"page_success_{iou}", value, f"with objects {number(found.page_success_with_objects[iou])}"))
    sizes = ", ".join(f"{size} {number(value)}" for size, value in found.by_size.items())
    rows += [("map", found.map, sizes), ("ap50", found.ap50, ""), ("ap75", found.ap75, "")]
    rows += [("precision", found.precision, ""), ("recall", found.recall, ""), ("f1", found.f1, "")]
    alarms = f"{found.false_alarms:,} of {found.empty_pages:,} empty pages"
    rows.append(("false_alarm_rate", found.false_alarm_rate, alarms))
    rows.append(("ECE of scores", found.calibration.ece, ""))
    lines = [f"{'':24}{'value':>7}   95 % interval"]
    for name, value, note in rows:
        spread = _range(found.intervals.get(name))
        lines.append(f"{title_of(name):24}{number(value):>7}   {spread:16}{note}".rstrip())
    return lines


def _labels(found: Evaluation) -> list[str]:
    width = min(max(len(label) for label in found.labels), 20) if found.labels else 5
    head = f"{'label':{width}}{'there':>7}{'found':>7}{'precision':>11}{'recall':>8}{'AP':>7}{'AP50':>7}"
    rows = [
        f"{label[:width]:{width}}{of.truth:>7,}{of.predicted:>7,}{number(of.precision):>11}{number(of.recall):>8}"
        f"{number(of.ap):>7}{number(of.ap50):>7}{number(of.count_right):>13}"
        for label, of in found.per_label.items()
    ]
    return [head + f"{'count right':>13}", *rows]


def _confusion(found: Evaluation) -> list[str]:
    """The matrix at IoU 0.5; for many labels only the cells that are wrong, the most frequent first."""
    names = [*found.confusion.labels, "missed"]
    if len(names) > 6:
        return ["wrong at IoU 0.5, most frequent first", *_worst_cells(found)]
    lines = ["there \\ found at IoU 0.5 " + "".join(f"{name[:9]:>10}" for name in names)]
    for index, row in enumerate(found.confusion.matrix):
        title = names[index][:20] if index < len(found.confusion.labels) else "invented"
        last = index == len(found.confusion.labels)
        lines.append(f"{title:25}" + "".join(f"{count:>10,}" for count in (row[:-1] if last else row)))
    return lines


def _worst_cells(found: Evaluation, shown: int = 8) -> list[str]:
    labels = found.confusion.labels
    cells = []
    for i, row in enumerate(found.confusion.matrix):
        for j, count in enumerate(row):
            if i != j and count:
                there = labels[i] if i < len(labels) else "nothing"
                seen = labels[j] if j < len(labels) else "missed"
                cells.append((count, f"{count:>7,}  {there} -> {seen}"))
    return [text for _, text in sorted(cells, reverse=True)[:shown]] or ["    none"]


def _range(interval: Interval | None) -> str:
    return f"{interval.low:.3f} - {interval.high:.3f}" if interval else ""


def _signed(interval: Interval) -> str:
    return f"{interval.low:+.3f} .. {interval.high:+.3f}"
