"""Fine-tuning: configuration, data, the loop, its checkpoints. Reading a configuration needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import TrainConfig, load_config

if TYPE_CHECKING:
    from .run import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "load_config", "train"]


def __getattr__(name: str) -> Any:
    """`train` and TrainResult on first use: they import torch."""
    if name in ("train", "TrainResult"):
        from . import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
