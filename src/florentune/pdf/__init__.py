"""PDFs as pages: images and words, read by PDFium in a process that may die without harm."""

from .reader import DEADLINE, PageFailure, PageText, PdfReader, RenderedPage, Word, check_file, render_pages

__all__ = ["DEADLINE", "PageFailure", "PageText", "PdfReader", "RenderedPage", "Word", "check_file", "render_pages"]
