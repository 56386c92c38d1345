"""`florentune label`: boxes to start annotating from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError

SETTINGS = {"no_args_is_help": True}


def command(
    images: Annotated[Path, typer.Argument(help="A folder of images.")],
    out: Annotated[Path, typer.Option(help="The COCO file to write.")],
    model: Annotated[str, typer.Option("--model", "-m", help="nano, a checkpoint folder, or a hub id.")] = "nano",
    conf: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least score kept; the model's own thresholds if not given.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pages a model run; bounds the memory.")] = 4,
    engine: Annotated[str, typer.Option(help="torch, onnx or auto.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 (torch).")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a model run; all cores if not given.")] = None,
    base: Annotated[str | None, typer.Option(help="The base model of bare weights or of an adapter.")] = None,
) -> None:
    """Let a model draw the first boxes of a data set, as a COCO file for CVAT, Label Studio or training.

    Names in the file are relative to the folder, and every annotation has its score. Images that cannot be read are
    left out and named; exit code 1 when there were any.

    \b
    florentune label scans/ --out boxes.json
    florentune label scans/ --out boxes.json --model runs/tables/best --conf 0.3
    """
    from ..detector import load_detector
    from ..formats import DataSet, write
    from ..images import SUFFIXES
    from .predict import find_inputs, with_progress

    if not images.is_dir():
        raise InputError(f"{images}: is not a folder of images")
    files = [file for file in find_inputs([str(images)]) if file.suffix.lower() in SUFFIXES]
    detector = load_detector(model, engine=engine, device=device, threads=threads, base=base)
    named = ((file.relative_to(images).as_posix(), file) for file in files)
    pages, failed = [], 0
    for prediction in with_progress(detector.predict(named, batch=batch, conf=conf), len(files)):
        if prediction.page is not None:
            pages.append(prediction.page)
        else:
            failed += 1
            typer.echo(f"left out: {prediction.error}", err=True)
    write(DataSet(pages, detector.labels or ()), out, format="coco")
    boxes = sum(len(page.regions) for page in pages)
    typer.echo(f"wrote {out}: {len(pages)} pages, {boxes} boxes" + (f"; {failed} images left out" if failed else ""))
    raise typer.Exit(1 if failed else 0)
