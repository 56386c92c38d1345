"""HTTP over the detector, and one web page. Needs the extra [server].

The public names are loaded when they are first used: a worker process imports this package too, and speaks no HTTP.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import create_app
    from .limits import Limits
    from .run import serve

__all__ = ["Limits", "create_app", "serve"]
_HOMES = {"Limits": "limits", "create_app": "app", "serve": "run"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
