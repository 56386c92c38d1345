"""The broken inputs beside a checkout, as test parameters."""

import csv
import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("FLORENTUNE_SHARED", Path(__file__).parent.parent.parent / "shared"))


def manifest_rows(prefix):
    """(file, what is expected of us) of the files of MANIFEST.tsv below `prefix`; one skipped case without it."""
    path = SHARED / "bad_inputs/MANIFEST.tsv"
    if not path.is_file():
        return [pytest.param("", "", marks=pytest.mark.skip(reason=f"no broken inputs at {path}"))]
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t")
        found = [(row["file"], row["expected_of_our_tool"]) for row in rows if row["file"].startswith(prefix)]
    return [pytest.param(*row, id=row[0]) for row in found]
