"""`florentune train`."""

from __future__ import annotations

import json
import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..training import TrainResult

SETTINGS = {"context_settings": {"help_option_names": ["-h", "--help"]}}


def command(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG.yaml", help="YAML or JSON file of the run; none where every word is KEY=VALUE."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Keys that override the file's.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, try one batch, say what would happen, and stop.")
    ] = False,
    keys: Annotated[bool, typer.Option("--keys", help="List every key with its default and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Fine-tune a Florence-2 on pages with boxes.

    \b
    florentune train examples/tables_and_figures.yaml
    florentune train my.yaml output_dir=runs/a num_train_epochs=2
    florentune train dataset=boxes.json images=pages val_size=0.1
    florentune train my.yaml resume_from_checkpoint=true
    torchrun --nproc-per-node 8 -m florentune train my.yaml

    Reads LLaMA-Factory's florence2_full_sft.yaml as it is; `--keys` lists what a file may hold. The run folder gets
    checkpoints/ (to resume from), best/ and last/ (to use), metrics.jsonl and training_loss.png. SIGTERM and Ctrl-C
    save a checkpoint first. The same command goes on where a run without overwrite_output_dir ended.
    """
    from ..training import load_config

    if keys:
        typer.echo(_key_table())
        return
    if config is None:
        raise typer.BadParameter("name a configuration file or KEY=VALUE, or give --keys to see what there is")
    words = overrides or []
    if "=" in str(config) and not config.exists():  # no file at all: every word is a key
        config, words = None, [str(config), *words]
    settings = load_config(config, words)
    try:
        from ..training import train
    except ModuleNotFoundError as error:
        from ..errors import MissingExtraError

        raise MissingExtraError(str(error.name), "train") from error
    result = train(settings, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps(result.as_dict(), allow_nan=False))
    elif not dry_run:
        _say(result, settings.best_by, config, words)
    if result.stopped_by is not None:
        raise typer.Exit(128 + result.stopped_by)


def _say(result: TrainResult, best_by: str, config: Path | None, overrides: list[str]) -> None:
    """Where everything is, what came of it, and the command to use it."""
    if result.stopped_by is not None:
        again = [word for word in overrides if not word.startswith(("resume_from_checkpoint", "overwrite_output_dir"))]
        words = ["florentune", "train", *([str(config)] if config else []), *again, "resume_from_checkpoint=true"]
        typer.echo(f"stopped at step {result.step} of {result.total_steps}; go on with\n  {shlex.join(words)}")
        return
    if result.best_step is not None:
        typer.echo(f"  best             step {result.best_step} of {result.total_steps}, by {best_by}")
    for name, value in result.best_metrics.items():
        before = result.start_metrics.get(name)
        change = "" if value is None or before is None else f"  ({value - before:+.4f}; start model {before:.4f})"
        if value is not None:
            typer.echo(f"  {name:<16} {value:.4f}{change}")
    if _start_was_better(result, best_by):
        typer.echo("  the start model was better: try more pages or a lower learning_rate")
    typer.echo(f"  run              {result.output_dir}")
    for path in result.pictures:
        typer.echo(f"  picture          {path}")
    if result.report:
        typer.echo(f"  report           {result.report}")
    use = result.best or result.last
    if use:
        typer.echo(f"use it with\n  {shlex.join(['florentune', 'predict', 'PAGE.png', '--model', str(use)])}")


def _start_was_better(result: TrainResult, best_by: str) -> bool:
    """By the measure that chose best/, equal values told apart by the loss as there; not where one has no value."""
    for name in ("val_loss",) if best_by == "loss" else (best_by, "val_loss"):
        before, after = result.start_metrics.get(name), result.best_metrics.get(name)
        if before is None or after is None:
            return False
        if before != after:
            return (before < after) == (name == "val_loss")
    return False


def _key_table() -> str:
    from ..training.config import KEYS

    lines = []
    for name, item in KEYS.items():
        value = ",".join(item.default) if isinstance(item.default, tuple) else item.default
        shown = "" if value in (None, "") else f" [{str(value).lower() if isinstance(value, bool) else value}]"
        choices = f" ({', '.join(item.metadata['choices'])})" if item.metadata["choices"] else ""
        meaning = f"{item.metadata['help']}{choices}{shown}"
        lines.append(textwrap.fill(meaning, 80, initial_indent=f"{name:<29}", subsequent_indent=" " * 29))
    return "\n".join(lines)
