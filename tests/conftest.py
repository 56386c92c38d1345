"""Fixtures every test may use."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent

# Time says nothing on a machine that does other work as well.
settings.register_profile("florentune", deadline=None)
settings.load_profile("florentune")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pages and broken inputs beside a checkout; tests that need it skip where it is missing."""
    folder = Path(os.environ.get("FLORENTUNE_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no folder of real data at {folder} (set FLORENTUNE_SHARED)")
    return folder
