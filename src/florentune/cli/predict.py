"""`florentune predict`: boxes on images, folders and PDFs."""

from __future__ import annotations

import glob
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FlorentuneError, InputError, PdfError
from ..pdf import DEADLINE

if TYPE_CHECKING:
    from PIL import Image

    from ..detector import Detector, Prediction
    from ..regions import Page

SETTINGS = {"no_args_is_help": True}

Deadline = Annotated[float, typer.Option(min=0.1, help="Seconds of CPU time PDFium may take for a page.")]
Passwords = Annotated[
    list[str] | None,
    typer.Option("--password", envvar="FLORENTUNE_PDF_PASSWORD", help="Tried on encrypted PDFs; repeatable."),
]


class Format(StrEnum):
    """How results are printed."""

    florence = "florence"
    regions = "regions"


def command(
    inputs: Annotated[list[str], typer.Argument(help="Images, PDFs, folders, or glob patterns in quotes.")],
    model: Annotated[str, typer.Option("--model", "-m", help="nano, a checkpoint folder, or a hub id.")] = "nano",
    out: Annotated[Path | None, typer.Option(help="Write each page with its boxes drawn into this folder.")] = None,
    crops: Annotated[bool, typer.Option("--crops", help="Write each box as an image of its own into --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each page.")] = False,
    format: Annotated[
        Format, typer.Option(help="florence: the raw answer and the reference's dictionary; regions: a line a box.")
    ] = Format.florence,
    conf: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least score kept; the model's own thresholds if not given.")
    ] = None,
    task: Annotated[str, typer.Option(help="A task of Florence-2, with its words where it takes some.")] = "<OD>",
    free: Annotated[
        bool, typer.Option("--free", help="Decode without the grammar and parse as the reference does: no scores.")
    ] = False,
    beams: Annotated[int, typer.Option(min=1, max=16, help="With --free: beams of the torch engine.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Pages a model run; bounds the memory.")] = 4,
    dpi: Annotated[float, typer.Option(min=20, max=600, help="Resolution PDFs are rendered at.")] = 200.0,
    deadline: Deadline = DEADLINE,
    password: Passwords = None,
    engine: Annotated[str, typer.Option(help="torch, onnx or auto.")] = "auto",
    dtype: Annotated[
        str | None,
        typer.Option(help="fp32, fp16, int8 (onnx) or bf16 (torch); the engine's first choice if not given."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 (torch).")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a model run; all cores if not given.")] = None,
    base: Annotated[str | None, typer.Option(help="The base model of bare weights or of an adapter.")] = None,
) -> None:
    """Find tables and figures, or what the model was trained on.

    Every input page ends in exactly one result; one that cannot be read is named with a reason and the rest goes on.
    Exit code 1 when some pages failed, the failure's own code when it was the only page.

    \b
    florentune predict page.png
    florentune predict scans/ paper.pdf --json > boxes.jsonl
    florentune predict 'pages/*.png' --model runs/tables/best --out drawn --crops
    florentune predict page.png --model owner/model --free --beams 3
    florentune predict page.png --task '<DENSE_REGION_CAPTION>'
    """
    from ..detector import load_detector

    if beams > 1 and not free:
        raise InputError("--beams is beam search without the grammar: add --free")
    if crops and out is None:
        raise InputError("--crops needs --out, the folder to write them to")
    paths = find_inputs(inputs)
    detector = load_detector(model, engine=engine, dtype=dtype, device=device, threads=threads, base=base)
    options = {"batch": batch, "conf": conf, "task": task, "free": free, "beams": beams}
    pages = _Pages(detector, options, dpi, deadline, password or (), keep=out is not None)
    writer = _Writer(out, crops, detector.labels or ()) if out is not None else None
    failures: list[FlorentuneError] = []
    count = 0
    for prediction in with_progress(pages.predict(paths), len(paths)):
        count += 1
        if prediction.error is not None:
            failures.append(prediction.error)
        _print(prediction, detector.name, format, as_json)
        if writer is not None and prediction.page is not None:
            writer.write(prediction.page, pages.image(prediction))
    _finish(failures, count)


@dataclass
class _Pages:
    """The predictions for a list of files; images of PDF pages are kept until they were drawn."""

    detector: Detector
    options: dict[str, Any]
    dpi: float
    deadline: float
    passwords: Sequence[str]
    keep: bool
    rendered: dict[str, Image.Image] = field(default_factory=dict)

    def predict(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        for is_pdf, group in itertools.groupby(paths, lambda path: path.suffix.lower() == ".pdf"):
            if is_pdf:
                for path in group:
                    yield from self._pdf(path)
            else:
                yield from self.detector.predict(group, **self.options)

    def image(self, prediction: Prediction) -> Image.Image:
        """The image a prediction is about; a file is opened again."""
        from ..images import open_image

        return self.rendered.pop(prediction.image, None) or open_image(prediction.image)

    def _pdf(self, path: Path) -> Iterator[Prediction]:
        from ..detector import Prediction
        from ..pdf import PageFailure, PdfReader

        failed: list[Prediction] = []

        def images(reader: PdfReader) -> Iterator[tuple[str, Image.Image]]:
            for page in reader.pages(path, dpi=self.dpi):
                name = f"{path}#page={page.index + 1}"
                if isinstance(page, PageFailure):
                    failed.append(Prediction(name, error=PdfError(f"{name}: {page.message}", reason=page.reason)))
                    continue
                if self.keep:
                    self.rendered[name] = page.image
                yield name, page.image

        try:
            with PdfReader(deadline=self.deadline, passwords=self.passwords) as reader:
                yield from self.detector.predict(images(reader), **self.options)
        except PdfError as error:
            message = str(error) if str(path) in str(error) else f"{path}: {error}"
            failed.append(Prediction(str(path), error=PdfError(message, reason=error.reason)))
        yield from failed


def find_inputs(inputs: Sequence[str]) -> list[Path]:
    """Files for the arguments: a file as it is, the images and PDFs of a folder, the matches of a pattern.

    Raises InputError for a folder or a pattern that holds nothing. A file that does not exist is kept, so that it gets
    its record like every other input.
    """
    from ..images import SUFFIXES

    found: list[Path] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            inside = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES | {".pdf"})
            files = sorted(file for file in inside if file.is_file() and not file.name.startswith("."))
            if not files:
                raise InputError(f"{name}: the folder has no images and no PDFs", reason="empty")
        elif not path.exists() and glob.has_magic(name):
            files = sorted(Path(match) for match in glob.glob(name, recursive=True) if Path(match).is_file())
            if not files:
                raise InputError(f"{name}: no file matches the pattern", reason="empty")
        else:
            files = [path]
        found += files
    return found


def _print(prediction: Prediction, model: str, format: Format, as_json: bool) -> None:
    page = prediction.page
    if as_json:
        typer.echo(json.dumps(record(prediction, model)))
    elif page is None:
        typer.echo(f"failed: {prediction.error}", err=True)
    elif format is Format.florence:
        typer.echo(f"{prediction.image}\n{prediction.text}\n{prediction.answer}")
    else:
        for region in page.regions:
            score = "" if region.score is None else f"{region.score:.3f}"
            box = " ".join(f"{value:.1f}" for value in region.box)
            typer.echo(f"{prediction.image}\t{region.label}\t{score}\t{box}")


def record(prediction: Prediction, model: str) -> dict[str, Any]:
    """One JSON object for one page: what was found and by which model, or the reason code and message of a failure."""
    error = prediction.error
    if error is not None:
        reason = error.reason if isinstance(error, InputError) else "generation"
        return {
            "image": prediction.image,
            "model": model,
            "status": "failed",
            "reason": reason,
            "message": str(error),
        }
    found = prediction.page.as_dict() if prediction.page is not None else {"image": prediction.image}
    answer = next(iter((prediction.answer or {}).values()), None)
    is_boxes = isinstance(answer, dict) and answer.keys() == {"bboxes", "labels"}
    return {**found, "model": model, "status": "ok", **({} if is_boxes else {"answer": answer})}


class _Writer:
    """Writes drawn pages and crops; pages of one name from different folders are numbered."""

    def __init__(self, folder: Path, crops: bool, labels: Sequence[str]) -> None:
        self.folder, self.crops, self.labels = folder, crops, labels
        self.taken: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, page: Page, image: Image.Image) -> None:
        from ..detector import crop
        from ..report.plots import draw

        name = self._name(page.image)
        draw(page, image, labels=self.labels).save(self.folder / f"{name}.png")
        for index, region in enumerate(page.regions if self.crops else (), start=1):
            label = "".join(sign if sign.isalnum() else "-" for sign in region.label)[:40]
            crop(image, region.box).save(self.folder / f"{name}.{index}.{label or 'region'}.png")

    def _name(self, image: str) -> str:
        path, _, page = image.partition("#page=")
        first = Path(path).stem + (f".{page}" if page else "")
        names = (first if count == 1 else f"{first}-{count}" for count in itertools.count(1))
        name = next(name for name in names if name not in self.taken)
        self.taken.add(name)
        return name


def with_progress(predictions: Iterator[Prediction], total: int) -> Iterator[Prediction]:
    """The predictions as they come, with a bar on a terminal where there is more than one."""
    if total < 2 or not sys.stderr.isatty():
        yield from predictions
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("pages", total=total)
        for prediction in predictions:
            bar.advance(task)
            yield prediction


def _finish(failures: Sequence[FlorentuneError], count: int) -> None:
    if not failures:
        return
    if count == 1:
        raise typer.Exit(failures[0].exit_code)
    typer.echo(f"{len(failures)} of {count} pages failed", err=True)
    raise typer.Exit(1)
