"""Annotation files to pages and back: COCO, YOLO, LLaMA-Factory sharegpt and JSON lines."""

from __future__ import annotations

from pathlib import Path

from ..errors import AnnotationError
from . import coco
from .dataset import DataSet, Issue
from .folder import ImageFolder

__all__ = ["DataSet", "ImageFolder", "Issue", "read"]


def read(path: Path | str, *, images: Path | str | None = None, format: str | None = None) -> DataSet:
    """The data set at `path`."""
    path = Path(path)
    if format not in (None, "coco"):
        raise AnnotationError(f"format {format!r} is unknown")
    return coco.read(path, images=ImageFolder(images) if images else None)
