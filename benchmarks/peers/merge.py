"""Layout detectors box every panel; the truth is one box a figure. Join panels to figures, drop icons and repeats.

The rule knows only boxes, no text: figure boxes that face each other across a small gap are one figure, as long as the
box round them touches no table. Sizes are shares of the page, so any resolution gives the same answer.
"""

from __future__ import annotations

from dataclasses import replace

from florentune.regions import Box, Page, Region

GAP_ACROSS, GAP_DOWN = 0.03, 0.02
LEAST_AREA = 0.004
FACING = 0.5
INSIDE = 0.7


def merged(page: Page) -> Page:
    """The page with panels joined; a joined figure has the score of its best panel."""
    regions = _without_repeats(page)
    tables = [region for region in regions if region.label != "figure"]
    figures = [region for region in regions if region.label == "figure"]
    figures = _joined(figures, tables, page)
    large = [region for region in figures if region.box.area >= LEAST_AREA * page.width * page.height]
    return replace(page, regions=(*tables, *large))


def _without_repeats(page: Page) -> list[Region]:
    """Best first, without boxes that lie in a better one of any label or hold it."""
    kept: list[Region] = []
    for region in sorted(page.regions, key=lambda region: -(region.score or 0.0)):
        if all(max(_inside(region.box, k.box), _inside(k.box, region.box)) < INSIDE for k in kept):
            kept.append(region)
    return kept


def _joined(figures: list[Region], tables: list[Region], page: Page) -> list[Region]:
    """Join pairs until no pair is left; only panels of a like score, so that a doubtful box spoils no good one."""
    figures = list(figures)
    index = 0
    while index < len(figures):
        first = figures[index]
        partner = next((f for f in figures[index + 1 :] if _belong(first, f, tables, page)), None)
        if partner is None:
            index += 1
            continue
        figures.remove(partner)
        score = max(first.score or 0.0, partner.score or 0.0)
        figures[index] = Region("figure", _round(first.box, partner.box), score)
        index = 0
    return figures


def _belong(first: Region, second: Region, tables: list[Region], page: Page) -> bool:
    a, b = first.box, second.box
    if min(first.score or 0.0, second.score or 0.0) < 0.3 * max(first.score or 0.0, second.score or 0.0):
        return False
    if any(_inside(table.box, _round(a, b)) > 0.1 for table in tables):
        return False
    down = max(a.y1, b.y1) - min(a.y2, b.y2)
    across = max(a.x1, b.x1) - min(a.x2, b.x2)
    side_by_side = -down > FACING * min(a.height, b.height) and across < GAP_ACROSS * page.width
    stacked = -across > FACING * min(a.width, b.width) and down < GAP_DOWN * page.height
    return side_by_side or stacked


def _round(a: Box, b: Box) -> Box:
    return Box(min(a.x1, b.x1), min(a.y1, b.y1), max(a.x2, b.x2), max(a.y2, b.y2))


def _inside(inner: Box, outer: Box) -> float:
    """Share of `inner` that lies in `outer`."""
    width = max(0.0, min(inner.x2, outer.x2) - max(inner.x1, outer.x1))
    height = max(0.0, min(inner.y2, outer.y2) - max(inner.y1, outer.y1))
    return width * height / inner.area if inner.area > 0 else 0.0
