"""`florentune extract`: tables and figures with their captions out of PDFs."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..pdf import DEADLINE
from ..regions import counted
from .predict import Deadline, Passwords

if TYPE_CHECKING:
    from ..extraction.batch import Progress
    from ..extraction.inputs import Job
    from ..extraction.pools import Pool
    from ..extraction.work import Factory, Settings

_LOG_SECONDS = 30.0


def command(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="PDFs, images, folders, globs, tar files, URLs; - reads a list from stdin.", show_default=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder for the results; a run goes on where it stopped.")] = Path(
        "extracted"
    ),
    model: Annotated[str, typer.Option(help="nano, a checkpoint folder or a hub id.")] = "nano",
    engine: Annotated[str, typer.Option(help="auto, torch or onnx.")] = "auto",
    workers: Annotated[
        int, typer.Option(help="Processes, or Ray actors; 0 means one a core, of the cluster with --ray.")
    ] = 0,
    dpi: Annotated[float, typer.Option(min=36, max=1200, help="Resolution of the pages and crops.")] = 200.0,
    crops: Annotated[bool, typer.Option("--crops/--no-crops", help="Write PNG crops.")] = True,
    clips: Annotated[bool, typer.Option("--clips", help="Write each region as a vector PDF too.")] = False,
    shard: Annotated[str | None, typer.Option(help="I/N: only the I-th of N parts, counted from 0.")] = None,
    ray: Annotated[str | None, typer.Option(help="Ray cluster: host:port, auto, or local.")] = None,
    retry: Annotated[
        str | None, typer.Option(help="Do documents again: failed, partial, or either with a reason (failed:timeout).")
    ] = None,
    deadline: Deadline = DEADLINE,
    silence: Annotated[float, typer.Option(help="Seconds without a page after which a worker is replaced.")] = 300.0,
    password: Passwords = None,
    finalize: Annotated[bool, typer.Option("--finalize", help="Only gather the tables of a sharded run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a document, then a summary.")] = False,
) -> None:
    """Take the tables and figures out of PDFs, with captions.

    Each has its kind, number, caption, place and crop. Every document gets a folder OUT/<id[:2]>/<id> with
    document.json, figures.json (the fields of pdffigures2) and the crops. At the end OUT/documents.jsonl,
    figures.parquet (figures.jsonl without pyarrow) and summary.json list them all. Exit code 1 means that some
    document was not read completely; OUT/documents.jsonl says why.

    Examples:

        florentune extract paper.pdf --out figures

        florentune extract papers/ more.tar --out corpus --workers 8 --json

        florentune extract papers/ --out corpus --shard 3/64     # then once: florentune extract --finalize --out corpus

        florentune extract papers/ --out corpus --retry failed:timeout --deadline 60
    """
    from ..extraction.inputs import collect, parse_shard
    from ..extraction.ledger import finalize as gather

    if finalize:
        _finish(out, gather(out), as_json)
    if not inputs:
        raise typer.BadParameter("name at least one PDF, folder or archive, or --finalize")
    part = parse_shard(shard) if shard else None
    collected = collect(inputs, sys.stdin, part)
    if collected.ignored:
        typer.echo(f"{collected.ignored} files that are no PDF were left out", err=True)
    settings = _settings(out, model, engine, dpi, crops, clips, deadline, password or [])
    progress = _run(collected.jobs, settings, model, engine, workers, ray, retry, silence, as_json)
    if len(collected.jobs) == 1 and not as_json:
        _list(out, collected.jobs[0])
    if part is None:
        _finish(out, gather(out), as_json)
    if set(progress.status) - {"ok"}:
        raise typer.Exit(1)


def _settings(
    out: Path, model: str, engine: str, dpi: float, crops: bool, clips: bool, deadline: float, passwords: list[str]
) -> Settings:
    from .. import __version__
    from ..errors import InputError
    from ..extraction.document import Options
    from ..extraction.work import Settings, config_of, identity

    if re.match(r"[a-zA-Z][\w+.-]+:/", str(out)):
        raise InputError(f"--out {out} is a URL, but results are renamed into place, which needs a file system")
    options = Options(dpi=dpi, crops=crops, clips=clips)
    config = config_of(f"{identity(model)} {engine}", options, __version__)
    return Settings(str(out), config, options, deadline, passwords)


def _run(
    jobs: Sequence[Job],
    settings: Settings,
    model: str,
    engine: str,
    workers: int,
    ray: str | None,
    retry: str | None,
    silence: float,
    as_json: bool,
) -> Progress:
    from rich.console import Console

    from ..detector import load_detector
    from ..extraction.batch import run_batch
    from ..extraction.pools import LocalPool, RayPool

    count = min(workers or os.cpu_count() or 1, max(len(jobs), 1))
    threads = 1 if ray else max((os.cpu_count() or 1) // count, 1)
    factory: Factory = partial(load_detector, model, engine=engine, threads=threads)
    pool: Pool = RayPool(workers, factory, settings, ray) if ray else LocalPool(count, factory, settings)
    console, told = Console(stderr=True), 0.0
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    with console.status("starting") as status:

        def report(record: dict[str, Any], progress: Progress) -> None:
            if as_json:
                typer.echo(json.dumps({"event": "document", **record}))
            elif record["status"] != "ok":
                say(f"{record['source']}: {record['status']}: {record['message']}")
            status.update(progress.line())
            nonlocal told
            if not console.is_terminal and progress.seconds - told > _LOG_SECONDS:  # a log of a job, not a bar
                told = progress.seconds
                say(progress.line())

        progress = run_batch(
            jobs,
            pool,
            settings,
            model=model,
            silence=silence,
            retry=_retry(retry),
            on_document=report,
            on_page=lambda progress: status.update(progress.line()),
        )
    say(progress.line())
    return progress


def _retry(choice: str | None) -> Any:
    """Which records of an earlier run are done again."""
    from ..errors import InputError

    if choice is None:
        return lambda record: False
    status, _, reason = choice.partition(":")
    if status not in ("failed", "partial"):
        raise InputError(f"--retry {choice} is not failed, failed:REASON, partial or partial:REASON")
    return lambda record: record["status"] == status and reason in ("", record["reason"])


def _list(out: Path, job: Job) -> None:
    """Print what was found in a document, one line each."""
    from ..extraction.ledger import read_record

    record = read_record(out, job) or {"figures": [], "captions_without_box": []}
    for entry in record["figures"]:
        name = entry["label"] or f"{entry['kind']} without caption"
        typer.echo(f"page {entry['page'] + 1}: {name}: {job.folder(out) / (entry['crop'] or '')}")
    for caption in record["captions_without_box"]:
        typer.echo(f"page {caption['page'] + 1}: {caption['label']}: only its caption was found")


def _finish(out: Path, summary: dict[str, Any], as_json: bool) -> None:
    """Print the summary; exit 1 when a document was not read completely."""
    if as_json:
        typer.echo(json.dumps({"event": "summary", **summary}))
    else:
        typer.echo(
            f"{counted(summary['documents'], 'document')}, "
            f"{summary['pages_done']:,} of {counted(summary['pages'], 'page')}: {counted(summary['tables'], 'table')}, "
            f"{counted(summary['figures'], 'figure')}, listed in {out / summary['table_of_figures']}"
        )
    raise typer.Exit(0 if set(summary["status"]) <= {"ok"} else 1)
