"""Fine-tune Florence-2 into a detector for documents, and run it anywhere.

The public names are loaded when they are first used, so `import florentune` is light.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Box": "regions",
    "Region": "regions",
    "Page": "regions",
    "FlorentuneError": "errors",
    "Detector": "detector",
    "Prediction": "detector",
    "load_detector": "detector",
    "read": "formats",
    "write": "formats",
    "evaluate": "evaluation",
    "train": "training",
    "load_config": "training",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
