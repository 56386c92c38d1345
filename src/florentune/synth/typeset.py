"""Typst and PDFium: from one paper's source to its PDF, marker positions and page images."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pypdfium2 as pdfium
from PIL import Image

from ..errors import FlorentuneError, MissingExtraError
from .draft import Paper


@cache
def fonts() -> Any:
    """Typst's own fonts and matplotlib's; never the system's, so that every machine sets a page alike."""
    for package in ("typst", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "synth")
    import typst

    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    return typst.Fonts(
        include_system_fonts=False, font_paths=[str(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf")]
    )


def typeset(paper: Paper) -> tuple[bytes, list[dict[str, Any]]]:
    """The paper's PDF and its markers (see boxes.spans); MissingExtraError without the packages."""
    available = fonts()
    import typst

    with tempfile.TemporaryDirectory(prefix="florentune-synth-") as folder:
        for name, content in paper.files.items():
            Path(folder, name).write_text(content, encoding="utf-8")
        main = Path(folder, "main.typ")
        main.write_text(paper.source, encoding="utf-8")
        compiler = typst.Compiler(str(main), root=folder, font_paths=available, ignore_system_fonts=True)
        try:
            pdf = compiler.compile(format="pdf", pdf_tags=False)
            markers = json.loads(compiler.query("<m>", field="value"))
        except (RuntimeError, typst.TypstError) as problem:
            raise FlorentuneError(
                f"Typst refused a generated paper, which is a defect of florentune: {problem}"
            ) from problem
    assert isinstance(pdf, bytes)
    return pdf, markers


def page_count(pdf: bytes) -> int:
    """The number of pages."""
    document = pdfium.PdfDocument(pdf)
    try:
        return len(document)
    finally:
        document.close()


def page_images(pdf: bytes, pages: int, dpi: float) -> Iterator[Image.Image]:
    """The first `pages` pages as RGB images."""
    document = pdfium.PdfDocument(pdf)
    try:
        for index in range(min(pages, len(document))):
            yield document[index].render(scale=dpi / 72).to_pil().convert("RGB")
    finally:
        document.close()
