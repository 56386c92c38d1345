"""The page of a data set: what is in it, where its boxes lie, what is odd. One HTML file that works offline."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError
from ..formats import DataSet, Issue
from ..formats.dataset import KINDS, SEVERITIES
from ..regions import Page, counted
from .page import write_page
from .plots import PALETTE

MAX_PICTURES = 200
_SIDE = 320
_GRID = 40
_SHOWN = 50
_IMAGE_ID = re.compile(r"^image '(.*)'$", re.DOTALL)


def write_data_report(
    folder: Path, parts: Mapping[str, DataSet], issues: Sequence[Issue], *, max_pictures: int = MAX_PICTURES
) -> Path:
    """Write `folder`/index.html about one data set or the parts of one, and return its path.

    `issues` are what check_parts found. The contact sheet shows pages with findings first, then others evenly spread,
    at most `max_pictures`, inside of the file as small JPEGs; pages whose image is not there are left out of it.
    """
    labels = tuple(dict.fromkeys(label for dataset in parts.values() for label in dataset.all_labels()))
    pages = [page for dataset in parts.values() for page in dataset.pages]
    values = {
        "title": escape(", ".join(Path(name).name or name for name in parts)),
        "lead": escape(_lead(pages, issues)),
        "counts": _counts(parts, labels),
        "per_page": _bars(Counter(len(page.regions) for page in pages)),
        "maps": "".join(_maps(label, pages) for label in labels),
        "findings": _findings(issues),
        "filters": "".join(f"<option>{escape(label)}</option>" for label in labels),
        "legend": "".join(
            f'<li><span class=legend style="border-color:var(--c{_colour(label, labels)})"></span>{escape(label)}</li>'
            for label in labels
        ),
        "cards": "".join(_cards(parts, labels, issues, max_pictures)),
    }
    return write_page(folder, "data.html", values)


def _colour(label: str, labels: Sequence[str]) -> int:
    return labels.index(label) % len(PALETTE)


def _lead(pages: Sequence[Page], issues: Sequence[Issue]) -> str:
    found = Counter(issue.severity for issue in issues)
    empty = sum(not page.regions for page in pages)
    boxes = counted(sum(len(page.regions) for page in pages), "box")
    counts = ", ".join(f"{severity}s {found[severity]:,}" for severity in SEVERITIES)
    return f"{counted(len(pages), 'page')}, {empty:,} of them without boxes; {boxes}. Findings: {counts}."


def _counts(parts: Mapping[str, DataSet], labels: Sequence[str]) -> str:
    head = "".join(f"<th scope=col>{escape(label)}</th>" for label in labels)
    rows = []
    for name, dataset in parts.items():
        counts = dataset.counts()
        empty = sum(not page.regions for page in dataset.pages)
        cells = [f"{len(dataset.pages):,}", f"{empty:,}", *(f"{counts.get(label, 0):,}" for label in labels)]
        rows.append(f"<tr><th scope=row>{escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return (
        "<div class=scroll><table class=files><caption>Pages and boxes</caption><thead><tr><th scope=col>file</th>"
        f"<th scope=col>pages</th><th scope=col>empty</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _bars(counts: Mapping[int, int]) -> str:
    """How many pages have how many boxes, as rows with a bar."""
    most = max(counts.values(), default=1)
    rows = "".join(
        f"<tr><th scope=row>{boxes:,}</th><td>{count:,}</td>"
        f'<td class=bar><span style="width:{100 * count / most:.1f}%"></span></td></tr>'
        for boxes, count in sorted(counts.items())
    )
    head = "<thead><tr><th scope=col>boxes</th><th scope=col>pages</th><td></td></tr></thead>"
    return f"<table class=bars><caption>Boxes on a page</caption>{head}<tbody>{rows}</tbody></table>"


def _maps(label: str, pages: Sequence[Page]) -> str:
    """Where boxes of a label lie and how large they are, as two heat maps in fractions of the page."""
    boxes = [
        (box.x1 / page.width, box.y1 / page.height, box.x2 / page.width, box.y2 / page.height)
        for page in pages
        for region in page.regions
        if region.label == label
        for box in [region.box]
    ]
    if not boxes:
        return ""
    position = np.zeros((_GRID, _GRID))
    size = np.zeros((_GRID, _GRID))
    for x1, y1, x2, y2 in boxes:
        left, top = int(x1 * _GRID), int(y1 * _GRID)
        position[top : max(int(np.ceil(y2 * _GRID)), top + 1), left : max(int(np.ceil(x2 * _GRID)), left + 1)] += 1
        size[_GRID - 1 - min(int((y2 - y1) * _GRID), _GRID - 1), min(int((x2 - x1) * _GRID), _GRID - 1)] += 1
    name = escape(label)
    return (
        f"<figure><img class=map alt='Heat map of positions' src='{_heat(position)}'>"
        f"<figcaption>{name}: where {len(boxes):,} boxes lie; the darkest cell is in {int(position.max()):,} of them"
        f"</figcaption></figure><figure><img class=map alt='Heat map of sizes' src='{_heat(size)}'>"
        f"<figcaption>{name}: width to the right, height upwards, both up to the whole page</figcaption></figure>"
    )


def _heat(cells: NDArray[np.float64]) -> str:
    """Counts as shades of one blue on transparent, readable in grey too; the square root keeps rare cells visible."""
    share = np.sqrt(cells / max(cells.max(), 1.0))
    pixels = np.zeros((*cells.shape, 4), np.uint8)
    pixels[..., :3] = (0, 60, 120)
    pixels[..., 3] = np.rint(share * 255)
    return _data_uri(Image.fromarray(pixels), "PNG")


def _data_uri(image: Image.Image, format: str) -> str:
    stream = io.BytesIO()
    image.save(stream, format, **({"quality": 70} if format == "JPEG" else {"optimize": True}))
    return f"data:image/{format.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _findings(issues: Sequence[Issue]) -> str:
    """Every kind of issue as a section to open, errors first, with its first entries."""
    if not issues:
        return "<p>Nothing was found.</p>"
    counts = Counter(issue.code for issue in issues)
    codes = sorted(counts, key=lambda code: (SEVERITIES.index(KINDS[code].severity), -counts[code]))
    return "".join(_kind(code, [issue for issue in issues if issue.code == code]) for code in codes)


def _kind(code: str, found: Sequence[Issue]) -> str:
    kind = KINDS[code]
    rows = "".join(f"<li>{escape(issue.id)}: {escape(issue.message)}</li>" for issue in found[:_SHOWN])
    more = f"<p class=hint>... and {len(found) - _SHOWN:,} more</p>" if len(found) > _SHOWN else ""
    return (
        f"<details><summary><span class='severity {kind.severity}'>{kind.severity}</span> {code.replace('_', ' ')}: "
        f"{len(found):,} ({escape(kind.effect)})</summary><p>Remedy: {escape(kind.remedy)}.</p><ul>{rows}</ul>{more}"
        "</details>"
    )


def _cards(parts: Mapping[str, DataSet], labels: Sequence[str], issues: Sequence[Issue], most: int) -> Iterator[str]:
    """The pages of the contact sheet, those with findings first."""
    odd: dict[str, list[str]] = {}
    for issue in issues:
        match = _IMAGE_ID.match(issue.id)
        if match:
            odd.setdefault(match[1], []).append(f"{issue.code.replace('_', ' ')}: {issue.message}")
    every = [(dataset, page) for dataset in parts.values() if dataset.images for page in dataset.pages]
    first = [entry for entry in every if entry[1].image in odd][:most]
    rest = [entry for entry in every if entry[1].image not in odd]
    room = min(most - len(first), len(rest))
    spread = [rest[index * len(rest) // room] for index in range(room)]
    for dataset, page in first + spread:
        card = _card(dataset, page, labels, odd.get(page.image, []))
        if card is not None:
            yield card


def _card(dataset: DataSet, page: Page, labels: Sequence[str], findings: Sequence[str]) -> str | None:
    if dataset.images is None:
        return None
    try:
        image = dataset.images.open(page.image)
    except ImageError:
        return None
    image.thumbnail((_SIDE, _SIDE))
    boxes = "".join(
        f'<rect x="{box.x1:.1f}" y="{box.y1:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" '
        f'style="stroke:var(--c{_colour(region.label, labels)})"/>'
        for region in page.regions
        for box in [region.box]
    )
    kinds = " ".join(dict.fromkeys(region.label for region in page.regions))
    counts = Counter(region.label for region in page.regions)
    text = ", ".join(f"{count} {label}" for label, count in counts.items()) or "empty"
    notes = "".join(f"<div class=odd>{escape(note)}</div>" for note in findings)
    return (
        f'<div class=card data-labels="{escape(chr(10).join(counts))}" data-odd="{len(findings)}">'
        f'<div class=sheet><img loading=lazy alt="{escape(page.image)}: {escape(kinds or "no boxes")}" '
        f'src="{_data_uri(image, "JPEG")}"><svg viewBox="0 0 {page.width} {page.height}" preserveAspectRatio="none" '
        f'aria-hidden="true">{boxes}</svg></div>'
        f"<div class=name>{escape(page.image)}</div><div class=hint>{escape(text)}</div>{notes}</div>"
    )
