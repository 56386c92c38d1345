"""The command line: parse, call one function, print. Every command is one module with a function `command`."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from typing import Annotated

import typer

from .. import __version__
from ..errors import FlorentuneError

COMMANDS = (
    "doctor",
    "check",
    "convert",
    "synth",
    "train",
    "evaluate",
    "predict",
    "label",
    "extract",
    "export",
    "repair",
    "import-weights",
    "serve",
)

_HELP = """Fine-tune Florence-2 into a detector for documents, and run it anywhere.

COCO boxes in, a checkpoint that just loads out; PDFs in, tables and figures with their captions out.
"""
_EPILOG = (
    "Exit codes: 0 done; 1 done, and something was found wrong; 2 bad input or usage; 3 an optional package is "
    "missing; 4 the loss is not finite; 5 disk full; 6 out of memory; 7 nothing could be decoded; "
    "130/143 interrupted after saving."
)


def build_app() -> typer.Typer:
    """The Typer application with every command, importing none of the heavy packages."""
    app = typer.Typer(
        name="florentune",
        help=_HELP,
        epilog=_EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_options)
    for name in COMMANDS:
        module = import_module(f".{name.replace('-', '_')}", __name__)
        app.command(name, **getattr(module, "SETTINGS", {}))(module.command)
    return app


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"florentune {__version__}")
        raise typer.Exit()


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; every error of ours is one message on stderr and its exit code."""
    # what libraries tell their developers about coming releases is no message for who runs a command
    warnings.simplefilter("ignore", FutureWarning)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        build_app()()
    except FlorentuneError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
