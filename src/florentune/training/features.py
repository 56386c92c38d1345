"""Feature maps of a frozen vision tower, kept on disk so that each page goes through the tower once.

A map is found by what it depends on: the tower's weights, the preprocessing, the arithmetic and the bytes of the
image file. Pages that change from epoch to epoch (augmentation) cannot be kept.
"""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..model.checkpoint import Checkpoint
from .state import tensor_bytes, write_tensors


class FeatureStore:
    """Feature maps in one folder, at most `limit` bytes of them; what does not fit is computed again each time."""

    def __init__(self, folder: Path, limit: int, tower: str) -> None:
        self.folder, self._limit = folder / tower[:16], limit
        self.folder.mkdir(parents=True, exist_ok=True)
        self._used = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        self._lock = threading.Lock()

    def get(self, image_digest: str) -> Tensor | None:
        """The map (channels, rows, columns) of an image, or None when it is not there or damaged."""
        path = self._path(image_digest)
        try:
            found: Tensor = load_file(path)["map"]
            return found
        except (OSError, SafetensorError, KeyError):
            path.unlink(missing_ok=True)
            return None

    def put(self, image_digest: str, value: Tensor) -> None:
        """Keep the map of an image, whole or not at all, while there is room."""
        size = value.numel() * value.element_size()
        with self._lock:
            if self._used + size > self._limit:
                return
            self._used += size
        path = self._path(image_digest)
        part = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:8]}")
        path.parent.mkdir(exist_ok=True)
        try:
            write_tensors(part, {"map": value})
            os.replace(part, path)
        except OSError:  # a full disk costs speed here, not the run
            part.unlink(missing_ok=True)
            self._limit = 0

    def _path(self, image_digest: str) -> Path:
        return self.folder / image_digest[:2] / f"{image_digest}.safetensors"


def tower_digest(weights: Mapping[str, Tensor], checkpoint: Checkpoint, *, bf16: bool) -> str:
    """SHA-256 of everything but the image that a feature map depends on."""
    settings = (checkpoint.image_size, checkpoint.image_mean, checkpoint.image_std, bf16, torch.__version__)
    digest = hashlib.sha256(repr(settings).encode())
    for name, weight in weights.items():
        digest.update(name.encode())
        digest.update(tensor_bytes(weight))
    return digest.hexdigest()
