"""Tables and figures with their captions: from one document, or from very many."""

from .captions import Caption, find_captions
from .document import Options, process_document

__all__ = ["Caption", "Options", "find_captions", "process_document"]
