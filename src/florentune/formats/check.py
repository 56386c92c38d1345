"""What is wrong with a data set, beyond what reading it has found."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from ..errors import ImageError
from ..images import ImageHeader
from ..locations import Bins, box_to_bins
from ..regions import Page, counted, iou
from .dataset import KINDS, SEVERITIES, DataSet, Issue
from .folder import ImageFolder
from .looks import Fingerprint, Look, look, near_duplicates
from .split import by_part, leaks

MAX_TOKENS = 1024
_SAME_SHAPE = 0.01
_SAME_OBJECT = 0.9


class Inspection(NamedTuple):
    """What check found in one data set, and the fingerprint of every page (None where no image was decoded)."""

    issues: list[Issue]
    fingerprints: list[Fingerprint | None]


def check(
    dataset: DataSet,
    *,
    decode: bool = True,
    max_tokens: int = MAX_TOKENS,
    count_tokens: Callable[[str], int] | None = None,
    on_page: Callable[[], None] | None = None,
) -> list[Issue]:
    """Every issue of a data set: those of reading it and those of its labels, boxes, answers and images.

    `decode` decodes every image completely and looks at its pixels, else only headers are read. `max_tokens` is what
    the decoder can write; `count_tokens` gives the tokens of a label (without it a label counts as one, which may be
    too few). `on_page` is called after every image. Raises nothing: a broken image is an issue.
    """
    issues, fingerprints = _inspect(dataset, decode, max_tokens, count_tokens or _one_token, on_page)
    names = [page.image for page in dataset.pages]
    return issues + _twins(names, fingerprints, [""] * len(names), dataset.source)


def check_parts(
    parts: Mapping[str, DataSet],
    *,
    group_by: str | None = None,
    decode: bool = True,
    max_tokens: int = MAX_TOKENS,
    on_page: Callable[[], None] | None = None,
) -> list[Issue]:
    """The issues of every part and what leaks between them, also between the parts inside of one YOLO data set.

    `group_by` is a regular expression on image names whose first group is the document. Raises InputError when it
    does not match.
    """
    issues: list[Issue] = []
    names: list[str] = []
    places: list[str] = []
    fingerprints: list[Fingerprint | None] = []
    for part, dataset in parts.items():
        found = _inspect(dataset, decode, max_tokens, _one_token, on_page)
        issues += found.issues + leaks(by_part(dataset), group_by)
        fingerprints += found.fingerprints
        names += [page.image for page in dataset.pages]
        places += [f"{part} {page.extra.get('split', '')}".strip() for page in dataset.pages]
    return issues + leaks(parts, group_by) + _twins(names, fingerprints, places, ", ".join(parts))


def _inspect(
    dataset: DataSet,
    decode: bool,
    max_tokens: int,
    count_tokens: Callable[[str], int],
    on_page: Callable[[], None] | None,
) -> Inspection:
    issues = [*dataset.issues, *_check_labels(dataset)]
    for page in dataset.pages:
        issues.extend(_check_page(page, dataset.source, max_tokens, count_tokens))
    found = _check_images(dataset, decode, on_page)
    return Inspection(issues + found.issues, found.fingerprints)


def _twins(
    names: Sequence[str], fingerprints: Sequence[Fingerprint | None], places: Sequence[str], source: str
) -> list[Issue]:
    """Pages that look the same; worse when they are in different parts."""
    issues = []
    for first, second, bits in near_duplicates(fingerprints):
        if names[first] != names[second]:
            code = "near_duplicate_page" if places[first] == places[second] else "split_near_duplicate"
            where = f" of {places[first]}" if places[first] else ""
            text = f"looks like {names[first]!r}{where} ({bits} of 256 bits differ)"
            issues.append(Issue(code, source, f"image {names[second]!r}", text))
    return issues


def _one_token(_label: str) -> int:
    return 1


def _check_labels(dataset: DataSet) -> Iterator[Issue]:
    counts = dataset.counts()
    spellings: dict[str, str] = {}
    for label, count in counts.items():
        about = f"label {label!r:.80}"
        if count == 0:
            yield Issue("unused_label", dataset.source, about, "0 boxes")
        if not label.isascii():
            yield Issue("non_ascii_label", dataset.source, about, "has letters outside of ASCII")
        twin = spellings.setdefault(label.casefold(), label)
        if twin != label:
            yield Issue("similar_labels", dataset.source, about, f"differs from {twin!r:.80} only in case")


def _check_page(page: Page, source: str, max_tokens: int, count: Callable[[str], int]) -> Iterator[Issue]:
    about = f"image {page.image!r}"
    tokens = 2 + sum(4 + count(region.label) for region in page.regions)
    if tokens > max_tokens:
        message = f"{len(page.regions)} boxes need {tokens:,} tokens, the decoder writes {max_tokens:,}"
        yield Issue("too_many_boxes", source, about, message)
    seen: set[tuple[str, Bins]] = set()
    for index, region in enumerate(page.regions):
        bins = box_to_bins(region.box, page.width, page.height)
        text = f"{region.label!r:.80} at {[round(value, 1) for value in region.box]}"
        if bins[0] == bins[2] or bins[1] == bins[3]:
            yield Issue("thin_box", source, about, text)
        if (region.label, bins) in seen:
            yield Issue("duplicate_box", source, about, text)
        elif any(iou(region.box, other.box) > _SAME_OBJECT for other in page.regions[:index]):
            yield Issue("near_duplicate_box", source, about, text)
        seen.add((region.label, bins))


def _check_images(dataset: DataSet, decode: bool, on_page: Callable[[], None] | None) -> Inspection:
    if dataset.images is None:
        about = counted(len(dataset.pages), "image")
        issue = Issue("images_unchecked", dataset.source, about, "no image folder is known")
        return Inspection([issue], [None] * len(dataset.pages))
    found = Inspection(list(_shared_files(dataset, dataset.images)), [])
    check_one = partial(_check_image, dataset.images, dataset.source, decode)
    # Decoders release Python's lock, so threads use every core.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for fingerprint, issues in pool.map(check_one, dataset.pages):
            found.issues.extend(issues)
            found.fingerprints.append(fingerprint)
            if on_page is not None:
                on_page()
    return found


def _shared_files(dataset: DataSet, folder: ImageFolder) -> Iterator[Issue]:
    files: dict[str, set[str]] = defaultdict(set)
    for page in dataset.pages:
        files[folder.locate(page.image) or page.image].add(page.image)
    for file, names in files.items():
        if len(names) > 1:
            yield Issue("same_file", dataset.source, f"file {file!r}", f"is meant by {sorted(names)}")


def _check_image(folder: ImageFolder, source: str, decode: bool, page: Page) -> Look:
    try:
        header = folder.header(page.image)
        image = folder.open(page.image) if decode else None
    except ImageError as error:
        code = "missing_image" if error.reason == "missing" else "unreadable_image"
        return Look(None, [Issue(code, source, f"image {page.image!r}", str(error))])
    issue = _compare(page, header, source)
    if image is None or (issue and issue.severity == "error"):
        return Look(None, [issue] if issue else [])
    found = look(page, image, source)
    return Look(found.fingerprint, [*([issue] if issue else []), *found.issues])


def _compare(page: Page, header: ImageHeader, source: str) -> Issue | None:
    """Whether the image is as large, and as upright, as its annotations say."""
    about = f"image {page.image!r}"
    text = f"annotated as {page.width} x {page.height} pixels, the file shows {header.width} x {header.height}"
    turned = header.orientation != 1
    if (page.width, page.height) == (header.width, header.height):
        message = f"stored with EXIF orientation {header.orientation}; {text}"
        return Issue("exif_rotated", source, about, message) if turned else None
    if turned:
        return Issue("size_mismatch", source, about, f"{text} (EXIF orientation {header.orientation})")
    stretch = (page.width * header.height) / (page.height * header.width)
    same_shape = abs(stretch - 1) <= _SAME_SHAPE
    return Issue("other_resolution" if same_shape else "size_mismatch", source, about, text)


def describe(issues: Sequence[Issue], *, examples: int = 3) -> list[str]:
    """Lines for people: every kind with its count, effect and remedy, errors first, and the first few of each."""
    kinds: dict[str, list[Issue]] = defaultdict(list)
    for issue in issues:
        kinds[issue.code].append(issue)
    lines = []
    for code in sorted(kinds, key=lambda code: (SEVERITIES.index(KINDS[code].severity), -len(kinds[code]))):
        kind, found = KINDS[code], kinds[code]
        lines.append(f"{kind.severity}: {code}: {len(found):,} ({kind.effect}). Remedy: {kind.remedy}.")
        lines.extend(f"    {issue.file}: {issue.id}: {issue.message}" for issue in found[:examples])
        if len(found) > examples:
            lines.append(f"    ... and {len(found) - examples:,} more")
    return lines
