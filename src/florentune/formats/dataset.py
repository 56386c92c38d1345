"""A data set in memory: pages, labels, where the images are, and what was wrong with the files it came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from ..locations import sorted_regions
from ..regions import Page, Region, counted
from .folder import ImageFolder

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
Order = Literal["label", "category", "file"]


class Kind(NamedTuple):
    """What one kind of issue means for the data set and what to do about it."""

    severity: Severity
    effect: str
    remedy: str


KINDS = {
    # An image that cannot be used
    "bad_image_entry": Kind("error", "image left out", "give the image an object with id, file_name, width and height"),
    "bad_file_name": Kind("error", "image left out", "name a file inside the image folder, without '..' or a root"),
    "duplicate_image_id": Kind("error", "both images left out", "give every image its own id"),
    "file_name_conflict": Kind("error", "image left out", "one file has one size: correct width and height"),
    "missing_image": Kind("error", "image left out", "put the file into the image folder or remove the entry"),
    "unreadable_image": Kind("error", "image left out", "replace the file; it must decode completely"),
    "unknown_size": Kind("error", "image left out", "write width and height in pixels, or pass the image folder"),
    # An annotation that cannot be used
    "bad_annotation": Kind("error", "box left out", "write an object with image_id, category_id and bbox"),
    "bad_bbox": Kind("error", "box left out", "write four finite numbers [x, y, width, height] in pixels"),
    "zero_area": Kind("error", "box left out", "width and height must be more than 0"),
    "outside": Kind("error", "box left out", "the box lies outside of the image: correct it or the image's size"),
    "normalised": Kind("error", "box left out", "coordinates are pixels, not fractions of the page"),
    "looks_like_xyxy": Kind("error", "box left out", "bbox is [x, y, width, height], not [x1, y1, x2, y2]"),
    "orphan": Kind("error", "box left out", "add the image or remove the annotation"),
    "on_skipped_image": Kind("error", "box left out", "see what is wrong with its image"),
    "unknown_category": Kind("error", "box left out", "add the category or correct category_id"),
    "unreadable_answer": Kind("error", "text left out", "write label<loc_x1><loc_y1><loc_x2><loc_y2>, bins 0 to 999"),
    "bad_row": Kind("error", "row left out", "write the keys the format asks for (docs/formats.md)"),
    # Kept, but different from the file
    "clipped": Kind("warning", "box cut at the border", "draw the box inside the image"),
    "duplicate_annotation_id": Kind("warning", "both kept", "give every annotation its own id"),
    "duplicate_category": Kind("warning", "merged into one label", "give every category its own name"),
    "duplicate_file_name": Kind("warning", "boxes merged onto one page", "list every file once"),
    "renamed_label": Kind("warning", "blanks and line breaks became one blank", "use the shorter name in the file"),
    "id_type": Kind("warning", "matched by its text", "write image_id with the type that the image's id has"),
    "polygon": Kind("warning", "its bounding box is used", "nothing, if boxes are what you want"),
    # Left out on purpose
    "ignored_category": Kind("note", "boxes left out by name", "pass another list of names to ignore to keep them"),
    "crowd": Kind("note", "kept apart, no target", "nothing: regions marked iscrowd or ignore are never learned"),
    "other_task": Kind("note", "row left out", "nothing: only rows that ask <OD> hold boxes"),
    # Found by check
    "size_mismatch": Kind("error", "boxes would land elsewhere", "correct width and height, or use the original image"),
    "other_resolution": Kind("note", "boxes scale with the page", "nothing: the proportions agree"),
    "exif_rotated": Kind("warning", "shown upright here", "draw the boxes on the upright image, or save it upright"),
    "too_many_boxes": Kind("error", "the answer would be cut", "split the page or raise the decoder's limit"),
    "duplicate_box": Kind("warning", "learned twice", "remove one of the two boxes"),
    "near_duplicate_box": Kind("warning", "two boxes for one object", "remove one of the two boxes"),
    "blank_box": Kind("warning", "nothing is drawn in it", "remove the box, or see whether it belongs to this page"),
    "cut_ink": Kind("warning", "what is in the box goes on outside", "move the edge to where the page is blank"),
    "near_duplicate_page": Kind("warning", "one page counts twice", "keep one of the two"),
    "split_near_duplicate": Kind("error", "the page is in two parts", "keep both in one part, or remove one"),
    "thin_box": Kind("warning", "no extent on the 1000 x 1000 grid", "remove the box or enlarge it"),
    "non_ascii_label": Kind("warning", "the reference parser drops these letters", "use ASCII if others will parse"),
    "similar_labels": Kind("warning", "learned as different classes", "use one spelling for one class"),
    "unused_label": Kind("note", "no box has it", "nothing, or remove the category"),
    "same_file": Kind("error", "two names, one image file", "keep files of one name in folders of their own"),
    "images_unchecked": Kind("note", "no image was opened", "pass the image folder or zip"),
    "split_group": Kind("error", "validation pages leak into training", "split with --group-by"),
    "split_likely_group": Kind("warning", "validation pages may leak into training", "split with --group-by"),
    "split_image": Kind("error", "the page is in two parts", "keep every image in one part"),
}


@dataclass(frozen=True, slots=True)
class Issue:
    """One finding: its kind (a key of KINDS), the file, what it is about ("annotation 7", "image 'a.png'"), details."""

    code: str
    file: str
    id: str
    message: str

    @property
    def severity(self) -> Severity:
        return KINDS[self.code].severity

    @property
    def remedy(self) -> str:
        return KINDS[self.code].remedy

    def as_dict(self) -> dict[str, str]:
        """{"severity", "code", "file", "id", "message", "effect", "remedy"}."""
        kind = KINDS[self.code]
        return {
            "severity": kind.severity,
            "code": self.code,
            "file": self.file,
            "id": self.id,
            "message": self.message,
            "effect": kind.effect,
            "remedy": kind.remedy,
        }

    def __str__(self) -> str:
        return f"{self.file}: {self.id}: {self.message} ({KINDS[self.code].effect})"


@dataclass(slots=True)
class DataSet:
    """Pages with their regions; `labels` in the order of the file, `images` where the pages' files are (if known).

    `issues` holds everything that was left out, changed or merged while reading, so that nothing is lost in silence;
    `source` is the file's name for messages.
    """

    pages: list[Page]
    labels: tuple[str, ...]
    images: ImageFolder | None = None
    issues: list[Issue] = field(default_factory=list)
    source: str = ""

    def all_labels(self) -> tuple[str, ...]:
        """`labels`, then those that only regions have."""
        return tuple(dict.fromkeys([*self.labels, *(region.label for page in self.pages for region in page.regions)]))

    def counts(self) -> dict[str, int]:
        """The number of regions of each label, labels without regions included."""
        found = Counter(region.label for page in self.pages for region in page.regions)
        return {label: found[label] for label in self.all_labels()}

    def with_pages(self, pages: Iterable[Page]) -> DataSet:
        """The same data set with other pages."""
        return replace(self, pages=list(pages))

    def ordered(self, order: Order) -> DataSet:
        """Regions ordered by label, then top to bottom, left to right ("label"), by label only, keeping the file's
        order within one ("category"), or as in the file ("file")."""
        if order == "file":
            return self
        if order == "label":
            return self.with_pages(
                replace(page, regions=tuple(sorted_regions(page.regions, self.labels))) for page in self.pages
            )
        rank = {label: index for index, label in enumerate(self.all_labels())}

        def by_category(region: Region) -> int:
            return rank[region.label]

        return self.with_pages(
            replace(page, regions=tuple(sorted(page.regions, key=by_category))) for page in self.pages
        )

    def without_empty(self) -> DataSet:
        """Only the pages that have regions."""
        return self.with_pages(page for page in self.pages if page.regions)

    def describe(self) -> str:
        """Counts in one line for people."""
        empty = sum(not page.regions for page in self.pages)
        counts = ", ".join(f"{label:.40} {count:,}" for label, count in self.counts().items())
        return f"{counted(len(self.pages), 'page')}, {empty:,} of them empty; {counts or 'no boxes'}"

    def summary(self) -> dict[str, Any]:
        """{"pages", "empty_pages", "boxes", "labels": {label: boxes}, "issues": {code: count}}, ready for JSON."""
        counts = self.counts()
        return {
            "pages": len(self.pages),
            "empty_pages": sum(not page.regions for page in self.pages),
            "boxes": sum(counts.values()),
            "labels": counts,
            "issues": dict(Counter(issue.code for issue in self.issues)),
        }
