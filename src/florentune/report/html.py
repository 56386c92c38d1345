"""The HTML report: one file that works offline, and a folder of page pictures beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from ..errors import ImageError
from ..evaluation import Evaluation, Interval, PageResult, align
from ..evaluation.calibration import IOU
from ..evaluation.matching import crowd_regions, pair_up, score_of
from ..files import written_whole
from ..formats import DataSet
from ..regions import Page, Region, counted
from . import charts
from .page import write_page
from .table import number, title_of

MAX_PAGES = 5000
MAX_PICTURES = 500
_SIDE = 1100


class OpensImages(Protocol):
    """What opens a page's image by its name, as ImageFolder does. Raises ImageError."""

    def open(self, name: str) -> Image.Image: ...


def write_report(
    folder: Path,
    evaluation: Evaluation,
    truth: DataSet,
    predictions: Sequence[Page],
    *,
    title: str,
    images: OpensImages | None = None,
    max_pictures: int = MAX_PICTURES,
) -> Path:
    """Write `folder`/index.html and `folder`/pages/*.jpg and return the path of the first.

    `predictions` are those that were evaluated, at every score. The gallery holds the 5,000 worst pages (`MAX_PAGES`),
    truth and predictions drawn by the browser; the `max_pictures` worst have the picture of the page under them, the
    others show their boxes on white. Without `images` (by default those of `truth`) no page has a picture.
    """
    paired, _ = align(truth.pages, predictions, evaluation.labels)
    rows = list(zip(evaluation.per_page, truth.pages, paired, strict=True))
    rows.sort(key=lambda row: (-row[0].errors, all(row[0].success.values()), row[0].image))
    shown = rows[:MAX_PAGES]
    pictured = min(max_pictures, len(shown)) if images or truth.images else 0
    pages = [
        _page_data(
            *row,
            evaluation,
            _picture(images or truth.images, row[1], folder / "pages", index) if index < pictured else None,
        )
        for index, row in enumerate(shown)
    ]
    data = {"labels": evaluation.labels, "thresholds": evaluation.thresholds, "pages": pages}
    parts = {
        "title": escape(title),
        "lead": _lead(evaluation),
        "tiles": _tiles(evaluation),
        "totals": _totals(evaluation),
        "labels": _labels(evaluation),
        "confusion": _confusion(evaluation),
        "precision_recall": charts.precision_recall(evaluation.curves),
        "reliability": charts.reliability(evaluation.calibration),
        "documents": _documents(evaluation),
        "problems": _problems(evaluation),
        "gallery_note": _gallery_note(len(rows), len(shown), pictured),
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    }
    return write_page(folder, "report.html", parts)


def _picture(images: OpensImages | None, page: Page, folder: Path, index: int) -> str | None:
    """A JPEG of the page of at most 1100 pixels a side; its path from the report, or None where it cannot be read."""
    if images is None:
        return None
    try:
        image = images.open(page.image)
    except ImageError:
        return None
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    target = folder / f"{index:04}.jpg"
    with written_whole(target, "wb") as stream:
        image.save(stream, format="JPEG", quality=80)
    return f"{folder.name}/{target.name}"


def _page_data(
    result: PageResult, page: Page, guess: Page, evaluation: Evaluation, picture: str | None
) -> dict[str, Any]:
    """What the gallery draws of a page: boxes as [label index, x, y, width, height, verdict(, score)] in pixels."""
    kept = [region for region in guess.regions if score_of(region) >= evaluation.thresholds[region.label]]
    low = [region for region in guess.regions if score_of(region) < evaluation.thresholds[region.label]]
    pairing = pair_up(page.regions, kept, crowd_regions(page), IOU)
    confused = {row for row, _ in pairing.confused}, {column for _, column in pairing.confused}
    place = {label: index for index, label in enumerate(evaluation.labels)}

    def verdict(index: int, wrong: list[int], swapped: set[int], name: str) -> str:
        return name if index in wrong else "confused" if index in swapped else "right"

    def drawn(region: Region, verdict: str) -> list[Any]:
        box = region.box
        return [place[region.label], *(round(v, 1) for v in (box.x1, box.y1, box.width, box.height)), verdict]

    truth = [drawn(r, verdict(i, pairing.missed, confused[0], "missed")) for i, r in enumerate(page.regions)]
    found = [
        [*drawn(r, verdict(i, pairing.invented, confused[1], "invented")), round(score_of(r), 3)]
        for i, r in enumerate(kept)
    ]
    found += [[*drawn(region, "below"), round(score_of(region), 3)] for region in low]
    kinds = [kind for kind in ("missed", "invented", "confused", "loose") if getattr(result, kind)]
    return {
        "image": page.image,
        "document": result.document,
        "picture": picture,
        "size": [page.width, page.height],
        "kinds": kinds or ["right"],
        "truth": truth,
        "found": found,
    }


def _lead(found: Evaluation) -> str:
    limits = ", ".join(f"{escape(label)} {limit:g}" for label, limit in found.thresholds.items())
    pages, documents = counted(found.pages, "page"), counted(found.documents, "document")
    return (
        f"{pages} of {documents}, {found.empty_pages:,} of them empty. "
        f"{found.truth:,} boxes are there, {found.predicted:,} were found at confidence {limits}."
    )


def _tiles(found: Evaluation) -> str:
    shown = [
        ("Pages right, IoU 0.7", found.page_success[0.7], found.intervals.get("page_success_0.7")),
        ("mAP .50:.95", found.map, found.intervals.get("map")),
        ("AP50", found.ap50, found.intervals.get("ap50")),
        ("F1, IoU 0.5", found.f1, found.intervals.get("f1")),
        ("False alarms, empty pages", found.false_alarm_rate, found.intervals.get("false_alarm_rate")),
        ("ECE of scores", found.calibration.ece, None),
    ]
    return "".join(
        f"<div class=tile><div class=name>{escape(name)}</div><div class=value>{number(value)}</div>"
        f"<div class=range>{_range(interval)}</div></div>"
        for name, value, interval in shown
    )


def _totals(found: Evaluation) -> str:
    rows: list[list[str]] = []
    for iou, value in found.page_success.items():
        name = f"page_success_{iou}"
        rows.append([title_of(name), number(value), _range(found.intervals.get(name))])
        with_objects = number(found.page_success_with_objects[iou])
        rows.append([f"{title_of(name)}, pages with objects", with_objects, ""])
    for name in ("map", "ap50", "ap75", "precision", "recall", "f1", "false_alarm_rate"):
        rows.append([title_of(name), number(getattr(found, name)), _range(found.intervals.get(name))])
    rows += [[f"mAP of {size} boxes", number(value), ""] for size, value in found.by_size.items()]
    return _table("All numbers, with 95 % intervals by document", ["number", "value", "95 % interval"], rows)


def _labels(found: Evaluation) -> str:
    head = ["label", "there", "found", "precision", "recall", "F1", "AP", "AP50", "AP75", "count right", "count error"]
    rows = [
        [label, f"{of.truth:,}", f"{of.predicted:,}"]
        + [number(v) for v in (of.precision, of.recall, of.f1, of.ap, of.ap50, of.ap75, of.count_right, of.count_error)]
        for label, of in found.per_label.items()
    ]
    return _table("By label, at the thresholds and IoU 0.5", head, rows)


def _confusion(found: Evaluation) -> str:
    """The matrix, each cell shaded by its share of the row; the numbers are there for those who see no shades."""
    names = [*found.confusion.labels, "missed"]
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in names)
    body = []
    for index, row in enumerate(found.confusion.matrix):
        last = index == len(found.confusion.labels)
        title = "invented" if last else names[index]
        total = max(sum(row), 1)
        cells = "".join(
            f'<td style="--share:{100 * count / total:.0f}%" class="{"hit" if i == index else "off"}">{count:,}</td>'
            for i, count in enumerate(row[:-1] if last else row)
        )
        body.append(f"<tr><th scope=row>{escape(title)}</th>{cells}{'<td></td>' if last else ''}</tr>")
    caption = "What is there (rows) and what was found (columns) at IoU 0.5"
    return (
        f"<div class=scroll><table class=confusion><caption>{caption}</caption>"
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _documents(found: Evaluation) -> str:
    head = [
        "document",
        "pages",
        "there",
        "found",
        "right at IoU 0.5",
        *(f"pages right, {i:g}" for i in found.page_success),
    ]
    rows = [
        [of.document, f"{of.pages:,}", f"{of.truth:,}", f"{of.predicted:,}", f"{of.correct:,}"]
        + [number(value) for value in of.page_success.values()]
        for of in sorted(found.per_document, key=lambda of: (of.page_success[0.7] or 0.0, of.document))
    ]
    return _table("By document, the worst first", head, rows, "documents")


def _problems(found: Evaluation) -> str:
    if not found.problems:
        return ""
    rows = [[problem.kind, problem.image, problem.message] for problem in found.problems[:200]]
    more = f"<p>and {len(found.problems) - 200:,} more</p>" if len(found.problems) > 200 else ""
    table = _table(f"{len(found.problems):,} remarks on the predictions", ["kind", "image", "what"], rows, "words")
    return f"<section id=problems><h2>What could not be scored as it is</h2>{table}{more}</section>"


def _gallery_note(pages: int, shown: int, pictured: int) -> str:
    note = f"The {shown:,} worst of {pages:,} pages." if shown < pages else f"All {pages:,} pages, the worst first."
    return note if pictured in (0, shown) else f"{note} The first {pictured:,} have a picture, the others boxes only."


def _table(caption: str, head: Iterable[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    columns = "".join(f"<th scope=col>{escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr><th scope=row>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll {kind}-rows" tabindex=0><table class="{kind}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _range(interval: Interval | None) -> str:
    return f"{interval.low:.3f} – {interval.high:.3f}" if interval else ""
