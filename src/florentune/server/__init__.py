"""HTTP over the detector, and one web page. Needs the extra [server]."""

from .app import create_app
from .limits import Limits
from .run import serve

__all__ = ["Limits", "create_app", "serve"]
