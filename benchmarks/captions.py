"""How many captions of real papers are found in their text: F1 of (kind, number) against a regex over the raw text.

    .venv/bin/python benchmarks/captions.py ../shared/data/papers_unlabelled [--list]

The reference knows no layout: it reads PDFium's plain text, page by page. A caption is a label followed by a colon or
a bar anywhere in the text, or, at the start of a line, by a full stop or nothing and then a new sentence or the end of
the line. A sentence that ends with "Figure 9." at the start of a line fits that too, but adds nothing to the set of a
paper that captions its Figure 9. The papers are those whose file names do not start with "m".
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from pathlib import Path

import pypdfium2

from florentune.extraction.captions import find_captions, settle
from florentune.pdf import PdfReader

_NAME = r"(?:Extended Data |Supplementary )?(?P<kind>Figure|FIGURE|Fig\.|FIG\.|Table|TABLE|Tab\.)"
_NUMBER = r"\s?(?P<number>[A-Z]?\.?\d+(?:\.\d+)*[a-z]?|[IVX]+)"
_SURE = re.compile(rf"{_NAME}{_NUMBER}\s?[:|]")
_MAYBE = re.compile(rf"^{_NAME}{_NUMBER}(?:\.(?=\s+[A-Z(\"“]|\s*$)|(?=\s*$)|(?=\s+[A-Z]\w+ (?!and\b)))", re.MULTILINE)


def reference(path: Path) -> set[tuple[str, str]]:
    """(kind, number) of the captions the plain text of a PDF shows."""
    sure: set[tuple[str, str]] = set()
    maybe: set[tuple[str, str]] = set()
    document = pypdfium2.PdfDocument(path)
    for page in document:
        text = page.get_textpage().get_text_range().replace("\r", "")
        sure |= {_key(found) for found in _SURE.finditer(text)}
        maybe |= {_key(found) for found in _MAYBE.finditer(text)}
    return sure | maybe


def _key(found: re.Match[str]) -> tuple[str, str]:
    return ("table" if found["kind"][0] == "T" else "figure"), found["number"]


def found_by_us(path: Path, reader: PdfReader) -> set[tuple[str, str]]:
    """(kind, number) of the captions florentune finds in the text of a PDF."""
    captions = [caption for index in range(reader.open(path)) for caption in find_captions(reader.text(path, index))]
    return {(caption.kind, caption.number) for caption in settle(captions)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("papers", type=Path)
    parser.add_argument("--list", action="store_true", help="print what differs")
    parser.add_argument("--all", action="store_true", help="also the papers whose names start with m")
    options = parser.parse_args()
    total: Counter[str] = Counter()
    with PdfReader() as reader:
        for path in sorted(options.papers.glob("*.pdf")):
            if path.name.startswith("m") and not options.all:
                continue
            truth, found = reference(path), found_by_us(path, reader)
            total.update(papers=1, truth=len(truth), found=len(found), both=len(truth & found))
            if options.list and truth != found:
                print(f"{path.name}: missed {sorted(truth - found)}, extra {sorted(found - truth)}")
    precision, recall = total["both"] / total["found"], total["both"] / total["truth"]
    f1 = 2 * precision * recall / (precision + recall)
    print(json.dumps({**total, "precision": round(precision, 4), "recall": round(recall, 4), "f1": round(f1, 4)}))


if __name__ == "__main__":
    main()
