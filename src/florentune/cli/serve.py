"""`florentune serve`: the detector over HTTP, and a page to drop a PDF on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer


def command(
    model: Annotated[str, typer.Option(help="nano, a checkpoint folder or a hub id.")] = "nano",
    engine: Annotated[str, typer.Option(help="auto, torch or onnx.")] = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Model processes; each holds the model.")] = 1,
    batch: Annotated[int, typer.Option(min=1, max=64, help="Images a model run may hold.")] = 4,
    max_body: Annotated[float, typer.Option(min=0.01, help="Megabytes a request may have.")] = 20.0,
    max_pages: Annotated[int, typer.Option(min=1, help="Pages a PDF may have.")] = 50,
    deadline: Annotated[float, typer.Option(min=0.1, help="Seconds a request may take.")] = 60.0,
    job_deadline: Annotated[float, typer.Option(min=0.1, help="Seconds a job may take.")] = 600.0,
    keep: Annotated[float, typer.Option(min=1, help="Seconds the result of a job is kept.")] = 3600.0,
    grace: Annotated[float, typer.Option(min=0, help="Seconds a stop may take to finish accepted work.")] = 20.0,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Host name to answer to besides localhost; repeatable.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token clients must send; or set FLORENTUNE_TOKEN.")
    ] = None,
) -> None:
    """Serve the detector over HTTP, with a page for people.

    POST /v1/detect, POST /v1/extract, and the page at /. Without a token it can be reached from this machine only.
    The token is read from FLORENTUNE_TOKEN or a file, never from the command line, where other users could see it.
    SIGTERM finishes what was accepted, within --grace.

    Examples:

        florentune serve

        curl --data-binary @page.png http://127.0.0.1:8000/v1/detect

        FLORENTUNE_TOKEN=$(openssl rand -hex 24) florentune serve --host 0.0.0.0 --model my-checkpoint
    """
    from ..errors import MissingExtraError
    from ..model.checkpoint import open_checkpoint

    try:
        from ..server import Limits, create_app, serve
        from ..server.run import check_exposure
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "server") from error
    token = _token(token_file)
    hosts = check_exposure(host, token, allow_host or [])
    open_checkpoint(model)  # what is wrong with it is said here, before a port is taken
    limits = replace(
        Limits(),
        body=int(max_body * 2**20),
        pages=max_pages,
        deadline=deadline,
        job_deadline=job_deadline,
        keep=keep,
        grace=grace,
        batch=batch,
    )
    app = create_app(model, engine=engine, workers=workers, limits=limits, token=token, hosts=hosts)
    serve(app, host, port, lambda address: typer.echo(f"florentune serves {model} on {address} (Ctrl+C ends it)"))


def _token(path: Path | None) -> str | None:
    import os

    from ..errors import InputError

    if path is None:
        return os.environ.get("FLORENTUNE_TOKEN") or None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {path}: cannot be read ({error})") from None
    if not token:
        raise InputError(f"--token-file {path}: is empty")
    return token
