"""Fixtures every test may use."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pages and broken inputs beside a checkout; tests that need it skip where it is missing."""
    folder = Path(os.environ.get("FLORENTUNE_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no folder of real data at {folder} (set FLORENTUNE_SHARED)")
    return folder
