"""`florentune label`: boxes to start annotating from."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FlorentuneError, InputError, PdfError
from ..pdf import DEADLINE
from ..regions import counted
from .predict import Deadline, Passwords

if TYPE_CHECKING:
    from PIL import Image

    from ..pdf import RenderedPage

    Render = Callable[..., Iterator[RenderedPage]]

SETTINGS = {"no_args_is_help": True}


def command(
    source: Annotated[Path, typer.Argument(help="A folder of images and PDFs, one image, or one PDF.")],
    out: Annotated[Path, typer.Option(help="The COCO file to write.")],
    model: Annotated[str, typer.Option("--model", "-m", help="nano, a checkpoint folder, or a hub id.")] = "nano",
    conf: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least score kept; the model's own thresholds if not given.")
    ] = None,
    pages: Annotated[
        Path | None, typer.Option(help="Folder for the pages of PDFs; `images` beside --out if not given.")
    ] = None,
    dpi: Annotated[float, typer.Option(min=20, max=600, help="Resolution PDFs are rendered at.")] = 200.0,
    deadline: Deadline = DEADLINE,
    password: Passwords = None,
    batch: Annotated[int, typer.Option(min=1, help="Pages a model run; bounds the memory.")] = 4,
    engine: Annotated[str, typer.Option(help="torch, onnx or auto.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 (torch).")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a model run; all cores if not given.")] = None,
    base: Annotated[str | None, typer.Option(help="The base model of bare weights or of an adapter.")] = None,
) -> None:
    """Let a model draw the first boxes of a data set.

    Writes a COCO file for CVAT, Label Studio or training. Names in the file are relative to the folder, and every
    annotation has its score. With PDFs, their pages are rendered into --pages and images are copied there too, so
    that one folder holds all. What cannot be read is left out and named; exit code 1 when there was any.

    \b
    florentune label scans/ --out boxes.json
    florentune label paper.pdf --out paper/boxes.json
    florentune label scans/ --out boxes.json --model runs/tables/best --conf 0.3
    """
    from ..detector import load_detector
    from ..formats import DataSet, write
    from ..pdf import render_pages
    from .predict import find_inputs, with_progress

    files = find_inputs([str(source)])
    root = source if source.is_dir() else source.parent
    if pages is None and any(_is_pdf(file) for file in files):
        pages = out.parent / "images"
    detector = load_detector(model, engine=engine, device=device, threads=threads, base=base)
    failures: list[FlorentuneError] = []
    found = []
    render = partial(render_pages, dpi=dpi, deadline=deadline, passwords=password or ())
    images = _images(files, root, pages, render, failures)
    for prediction in with_progress(detector.predict(images, batch=batch, conf=conf), len(files)):
        if prediction.page is not None:
            found.append(prediction.page)
        elif prediction.error is not None:
            failures.append(prediction.error)
    labels = detector.labels or tuple(sorted({region.label for page in found for region in page.regions}))
    write(DataSet(found, labels), out, format="coco")
    for failure in failures:
        typer.echo(f"left out: {failure}", err=True)
    boxes = sum(len(page.regions) for page in found)
    rest = f"; {len(failures)} left out" if failures else ""
    where = f" in {pages}" if pages else ""
    typer.echo(f"wrote {out}: {counted(len(found), 'page')}{where}, {counted(boxes, 'box')}{rest}")
    raise typer.Exit(1 if failures else 0)


def _images(
    files: list[Path], root: Path, pages: Path | None, render: Render, failures: list[FlorentuneError]
) -> Iterator[tuple[str, Path | Image.Image]]:
    """Names and images of all files; with `pages` every image is written there under its name."""
    taken: set[str] = set()
    for file in files:
        name = file.relative_to(root).as_posix()
        if _is_pdf(file):
            yield from _pdf_pages(file, name, pages or root, render, failures, taken)
            continue
        _claim(name, file, taken)
        if pages is not None and file.is_file():
            target = pages / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.resolve() != file.resolve():
                shutil.copyfile(file, target)
        yield name, file


def _pdf_pages(
    file: Path, name: str, pages: Path, render: Render, failures: list[FlorentuneError], taken: set[str]
) -> Iterator[tuple[str, Image.Image]]:
    """The pages of a PDF, each written to `pages` as NAME_INDEX.png, counted from 0."""
    from ..files import written_whole
    from ..pdf import PageFailure

    failed: list[PageFailure] = []
    try:
        for page in render(file, failures=failed):
            image = f"{Path(name).with_suffix('').as_posix()}_{page.index}.png"
            _claim(image, file, taken)
            with written_whole(pages / image, "wb") as stream:
                page.image.save(stream, format="PNG", compress_level=1)
            yield image, page.image
    except PdfError as error:
        named = str(error) if str(file) in str(error) else f"{file}: {error}"
        failures.append(PdfError(named, reason=error.reason))
    failures += [PdfError(f"{file}: page {bad.index + 1}: {bad.message}", reason=bad.reason) for bad in failed]


def _claim(name: str, file: Path, taken: set[str]) -> None:
    if name in taken:
        raise InputError(f"{file}: there are two pages called {name}; rename this file")
    taken.add(name)


def _is_pdf(file: Path) -> bool:
    return file.suffix.lower() == ".pdf"
