"""Generated papers: pages set with Typst, every box known exactly."""

from .dataset import LABELS, LAYOUT_LABELS, Settings, synthesize

__all__ = ["LABELS", "LAYOUT_LABELS", "Settings", "synthesize"]
