"""Divide a data set into parts without tearing a document apart, the same way for the same seed."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from ..errors import InputError
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
    keys = _keys(dataset, group_by)
    sizes = Counter(keys)
    if len(sizes) < len(names):
        raise InputError(f"{len(sizes)} groups of pages cannot fill {len(names)} parts: change --group-by or --split")
    order = _shuffled(sizes, seed)
    part_of = dict.fromkeys(sizes, names[0])
    for index in range(len(names) - 1, 0, -1):
        taken = _take(order, sizes, fractions[index] * len(dataset.pages), spare=index)
        part_of.update(dict.fromkeys(taken, names[index]))
    by_image = {id(page): part_of[key] for page, key in zip(dataset.pages, keys, strict=True)}
    return {name: dataset.with_pages(p for p in dataset.pages if by_image[id(p)] == name) for name in names}


def hold_out(keys: Sequence[str], wanted: float, seed: int) -> set[str]:
    """The groups to keep aside, given the group of every page: together they come closest to `wanted` pages."""
    sizes = Counter(keys)
    return set(_take(_shuffled(sizes, seed), sizes, wanted, spare=1)) if wanted else set()


def documents(names: Sequence[str], group_by: str | None) -> list[str | None]:
    """The document of every image.

    With `group_by`, a regular expression, it is the first group (or whole match) in the image's name; InputError where
    one does not match. Otherwise it is guessed from names that end in a page number, None where nothing can be guessed:
    also when all names look like one document, which IMG_1, IMG_2, ... do.
    """
    if group_by is None:
        guesses = [_match(_LIKELY_DOCUMENT, name) for name in names]
        return guesses if len({guess for guess in guesses if guess}) > 1 else [None] * len(names)
    try:
        expression = re.compile(group_by)
    except re.error as error:
        raise InputError(f"group_by: {group_by!r} is not a regular expression ({error})") from None
    found = [_match(expression, name) for name in names]
    missed = [name for name, document in zip(names, found, strict=True) if document is None]
    if missed:
        raise InputError(
            f"group_by: {group_by!r} does not match {len(missed):,} of {len(names):,} image names, for example "
            f"{missed[0]!r}; its match, or its first group, must be what the names of a document share"
        )
    return found


def _keys(dataset: DataSet, group_by: str | None) -> list[str]:
    """The group of every page; without `group_by` each page is one."""
    images = [page.image for page in dataset.pages]
    if group_by is None:
        return images
    return [document or "" for document in documents(images, group_by)]


def _shuffled(groups: Mapping[str, int], seed: int) -> list[str]:
    return sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())


def _take(order: list[str], sizes: Mapping[str, int], wanted: float, spare: int) -> list[str]:
    """Take groups off the end of `order`: one, then as many as come closest to `wanted` pages; `spare` are left."""
    taken: list[str] = []
    pages = 0
    while not taken or (len(order) > spare and pages + sizes[order[-1]] / 2 <= wanted):
        taken.append(order.pop())
        pages += sizes[taken[-1]]
    return taken


def _match(expression: re.Pattern[str], name: str) -> str | None:
    match = expression.search(name)
    if match is None:
        return None
    return match.group(1) if expression.groups else match.group()


def leaks(parts: Mapping[str, DataSet], group_by: str | None = None) -> list[Issue]:
    """Images and documents that are in two parts at once.

    Without `group_by` documents are guessed from names that end in a page number, and the findings are warnings.
    """
    issues: list[Issue] = []
    names = {part: _document_names(dataset, group_by) for part, dataset in parts.items()}
    for first, second in combinations(parts, 2):
        source = parts[second].source
        images = {page.image for page in parts[first].pages} & {page.image for page in parts[second].pages}
        for name in sorted(images):
            issues.append(Issue("split_image", source, f"image {name!r}", f"is in {first} and in {second}"))
        code = "split_group" if group_by else "split_likely_group"
        for name in sorted(names[first] & names[second]):
            issues.append(Issue(code, source, f"document {name!r}", f"has pages in {first} and in {second}"))
    return issues


def _document_names(dataset: DataSet, group_by: str | None) -> set[str]:
    return {name for name in documents([page.image for page in dataset.pages], group_by) if name is not None}


def by_part(dataset: DataSet) -> dict[str, DataSet]:
    """The parts a data set came with (extra["split"]), as in YOLO; empty when it has none."""
    names = dict.fromkeys(page.extra.get("split") for page in dataset.pages)
    if None in names:
        return {}
    return {name: dataset.with_pages(p for p in dataset.pages if p.extra["split"] == name) for name in names if name}
