"""Divide a data set into parts without tearing a document apart, the same way for the same seed."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations

from ..errors import InputError
from ..regions import Page
from .dataset import DataSet, Issue

PART_NAMES = {2: ("train", "val"), 3: ("train", "val", "test")}
# Names like arxiv_2407_02687_7.png: what comes before the last number is most likely the document.
_LIKELY_DOCUMENT = re.compile(r"^(.+)[_-]p?\d+\.\w+$")


def parse_shares(text: str) -> tuple[float, ...]:
    """The shares of "85/15" or "80/10/10" as fractions; InputError for anything else."""
    try:
        numbers = [float(part) for part in text.split("/")]
    except ValueError:
        numbers = []
    if len(numbers) not in PART_NAMES or not all(0 < number < float("inf") for number in numbers):
        raise InputError(f"--split {text!r} must be two or three shares such as 85/15 (train/val) or 80/10/10")
    return tuple(number / sum(numbers) for number in numbers)


def split(dataset: DataSet, shares: str, *, group_by: str | None = None, seed: int = 0) -> dict[str, DataSet]:
    """The data set in parts "train", "val" (and "test"), pages in their old order.

    `group_by` is a regular expression on the image name: pages for which its first group (or whole match) is the same
    stay together. Groups are ordered by a hash of seed and group, so the parts depend on nothing else. Without it every
    page is its own group. Raises InputError for too few groups or a name that the expression does not match.
    """
    fractions = parse_shares(shares)
    names = PART_NAMES[len(fractions)]
    groups: dict[str, list[Page]] = defaultdict(list)
    for page, group in zip(dataset.pages, _groups(dataset, group_by), strict=True):
        groups[group].append(page)
    if len(groups) < len(names):
        raise InputError(f"{len(groups)} groups of pages cannot fill {len(names)} parts: change --group-by or --split")
    order = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    part_of: dict[str, str] = {}
    for index in range(len(names) - 1, 0, -1):
        want, taken = fractions[index] * len(dataset.pages), 0
        # At least one group, then as many as come closest to the share, leaving one for every part to come.
        while taken == 0 or (len(order) > index and taken + len(groups[order[-1]]) / 2 <= want):
            group = order.pop()
            part_of[group] = names[index]
            taken += len(groups[group])
    part_of.update(dict.fromkeys(order, names[0]))
    by_image = {id(page): part_of[group] for group, pages in groups.items() for page in pages}
    return {name: dataset.with_pages(p for p in dataset.pages if by_image[id(p)] == name) for name in names}


def _groups(dataset: DataSet, pattern: str | None) -> list[str]:
    """The group of every page; without a pattern the image name."""
    if pattern is None:
        return [page.image for page in dataset.pages]
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--group-by {pattern!r} is not a regular expression ({error})") from None
    found = [_group(expression, page.image) for page in dataset.pages]
    missed = [page.image for page, group in zip(dataset.pages, found, strict=True) if group is None]
    if missed:
        raise InputError(
            f"--group-by {pattern!r} does not match {len(missed):,} of {len(found):,} image names, "
            f"for example {missed[0]!r}"
        )
    return [group for group in found if group is not None]


def _group(expression: re.Pattern[str], name: str) -> str | None:
    match = expression.search(name)
    if match is None:
        return None
    return match.group(1) if expression.groups else match.group()


def leaks(parts: Mapping[str, DataSet], group_by: str | None = None) -> list[Issue]:
    """Images and documents that are in two parts at once.

    Without `group_by` documents are guessed from names that end in a page number, and the findings are warnings.
    """
    issues: list[Issue] = []
    documents = {part: _documents(dataset, group_by) for part, dataset in parts.items()}
    for first, second in combinations(parts, 2):
        source = parts[second].source
        images = {page.image for page in parts[first].pages} & {page.image for page in parts[second].pages}
        for name in sorted(images):
            issues.append(Issue("split_image", source, f"image {name!r}", f"is in {first} and in {second}"))
        code = "split_group" if group_by else "split_likely_group"
        for name in sorted(documents[first] & documents[second]):
            issues.append(Issue(code, source, f"document {name!r}", f"has pages in {first} and in {second}"))
    return issues


def _documents(dataset: DataSet, group_by: str | None) -> set[str]:
    if group_by:
        return set(_groups(dataset, group_by))
    found = {_group(_LIKELY_DOCUMENT, page.image) for page in dataset.pages}
    # A single name for everything (IMG_1, IMG_2, ...) tells nothing about documents.
    return {name for name in found if name} if len(found) > 1 else set()


def by_part(dataset: DataSet) -> dict[str, DataSet]:
    """The parts a data set came with (extra["split"]), as in YOLO; empty when it has none."""
    names = dict.fromkeys(page.extra.get("split") for page in dataset.pages)
    if None in names:
        return {}
    return {name: dataset.with_pages(p for p in dataset.pages if p.extra["split"] == name) for name in names if name}
