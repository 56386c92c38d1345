"""PDFs as pages: images and words, read by PDFium in a process that may die without harm."""

from .reader import PageFailure, PageText, PdfReader, RenderedPage, Word, check_file, render_pages

__all__ = ["PageFailure", "PageText", "PdfReader", "RenderedPage", "Word", "check_file", "render_pages"]
