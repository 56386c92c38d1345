"""`florentune train`."""

from __future__ import annotations

import typer


def command() -> None:
    """To be written."""
    raise typer.Exit(2)
