"""`florentune synth`: generated papers as a COCO data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[Path, typer.Argument(help="A new or empty folder for the data set.", show_default=False)],
    pages: Annotated[int, typer.Option(help="How many pages to write.")] = 200,
    seed: Annotated[int, typer.Option(help="One seed gives the same bytes every time.")] = 0,
    captions: Annotated[bool, typer.Option("--captions", help="Boxes include the caption.")] = False,
    dpi: Annotated[float, typer.Option(help="Resolution of the page images.")] = 100.0,
    pdf: Annotated[bool, typer.Option("--pdf", help="Keep the papers' PDF files too, in OUT/pdfs.")] = False,
    workers: Annotated[int, typer.Option(help="Processes; the result does not depend on it.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Write generated pages of papers with exact boxes.

    Writes OUT/images/paper_XXXXX_P.png, OUT/annotations.json (COCO, table and figure), OUT/layout.json (COCO, every
    layout region) and OUT/captions.json (each object's caption).

    Examples:

        florentune synth data/papers --pages 1000 --seed 1 --workers 2

        florentune synth data/with-captions --pages 200 --captions --dpi 144 --pdf
    """
    from rich.console import Console
    from rich.progress import Progress

    from ..regions import counted
    from ..synth import Settings, synthesize

    settings = Settings(pages=pages, seed=seed, dpi=dpi, captions=captions, pdf=pdf)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("pages", total=max(pages, 1))
        counts = synthesize(out, settings, workers=workers, progress=lambda done: bar.advance(task, done))
    if as_json:
        typer.echo(json.dumps(counts))
        return
    typer.echo(
        f"{out}: {counted(counts['pages'], 'page')} of {counted(counts['papers'], 'paper')}, "
        f"{counted(counts['table'], 'table')}, {counted(counts['figure'], 'figure')}, "
        f"{counted(counts['empty_pages'], 'page')} without either"
    )
