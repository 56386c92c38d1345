"""`florentune repair`: make a saved checkpoint load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..regions import counted


def command(
    checkpoint: Annotated[Path, typer.Argument(help="A model folder, native or Microsoft's.")],
    check: Annotated[bool, typer.Option("--check", help="Only list what is wrong; exit 1 if anything is.")] = False,
    code: Annotated[
        Path | None, typer.Option(help="A folder with Microsoft's three .py files, to copy where they are missing.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Find and mend what keeps a checkpoint from loading.

    That is what save_pretrained and trainers leave wrong: auto_map, the model types in config.json, generic fields,
    the processor's and tokenizer's settings, lm_head. Originals are kept in repair-backup; repairing twice changes
    nothing.

    \b
    florentune repair runs/old --check
    florentune repair runs/old
    """
    from ..model.repair import repair

    report = repair(checkpoint, check=check, code=code)
    if as_json:
        backup = str(report.backup) if report.backup else None
        typer.echo(json.dumps({"problems": report.problems, "advice": report.advice, "backup": backup}, indent=2))
    else:
        _print(report.problems, report.advice, report.backup, check)
    raise typer.Exit(1 if report.advice or (check and report.problems) else 0)


def _print(problems: list[str], advice: list[str], backup: Path | None, check: bool) -> None:
    for problem in problems:
        typer.echo(problem)
    if not problems:
        typer.echo("nothing to repair")
    elif check:
        typer.echo(f"{counted(len(problems), 'problem')}; run florentune repair without --check to mend them")
    elif backup is not None:
        typer.echo(f"repaired; the originals are in {backup}")
    for line in advice:
        typer.echo(f"still to do: {line}", err=True)
