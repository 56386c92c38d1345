"""`florentune check`: what is wrong with a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .convert import Format


def command(
    data: Annotated[
        list[Path], typer.Argument(help="Annotation files or folders; several are the parts of one split.")
    ],
    images: Annotated[Path | None, typer.Option(help="Folder or zip of the images.")] = None,
    format: Annotated[Format | None, typer.Option(help="Format of DATA; recognised if not given.")] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Regular expression on image names whose first group is the document.")
    ] = None,
    headers_only: Annotated[
        bool, typer.Option("--headers-only", help="Do not decode the images: faster, misses truncated files.")
    ] = False,
    max_tokens: Annotated[int, typer.Option(min=8, help="How many tokens the decoder can write for a page.")] = 1024,
    examples: Annotated[int, typer.Option(min=0, help="How many findings of a kind to print.")] = 3,
    report: Annotated[
        Path | None, typer.Option(help="Folder for index.html: counts, heat maps, contact sheet, findings.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print counts and all findings as JSON.")] = False,
) -> None:
    """Say what is wrong with a data set.

    Every defect is named with its file, its place and a remedy. Exit code 1 when there are errors, 2 when a file
    cannot be read at all; warnings and notes are no errors.

    Examples:

        florentune check data/annotations.json --images data/images

        florentune check data/annotations.json --report out/data

        florentune check data/train.json data/val.json --group-by '^(arxiv_\\d+_\\d+)_'
    """
    from rich.console import Console
    from rich.progress import Progress

    from ..formats import read
    from ..formats.check import check_parts, describe

    parts = {str(path): read(path, images=images, format=format.value if format else None) for path in data}
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("images", total=sum(len(dataset.pages) for dataset in parts.values()))
        issues = check_parts(
            parts,
            group_by=group_by,
            decode=not headers_only,
            max_tokens=max_tokens,
            on_page=lambda: bar.advance(task),
        )
    written = None
    if report is not None:
        from ..report.data import write_data_report

        written = write_data_report(report, parts, issues)
    failed = any(issue.severity == "error" for issue in issues)
    if as_json:
        summaries = {name: dataset.summary() for name, dataset in parts.items()}
        typer.echo(json.dumps({"ok": not failed, "data": summaries, "issues": [issue.as_dict() for issue in issues]}))
    else:
        for name, dataset in parts.items():
            typer.echo(f"{name}: {dataset.describe()}")
        for line in describe(issues, examples=examples):
            typer.echo(line)
        if written is not None:
            typer.echo(f"report: {written}")
        typer.echo("errors found" if failed else "no errors")
    raise typer.Exit(1 if failed else 0)
