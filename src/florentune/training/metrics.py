"""The numbers of a run: metrics.jsonl always, and accelerate's trackers where report_to names them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .config import TrainConfig
from .console import Console, JsonLines

_PROJECT = "florentune"
_PROJECT_VARIABLES = {"wandb": "WANDB_PROJECT", "swanlab": "SWANLAB_PROJ_NAME", "comet_ml": "COMET_PROJECT_NAME"}


class Metrics:
    """What a run measures, in the first process; the others are `silent` and keep nothing."""

    def __init__(self, config: TrainConfig, console: Console, *, silent: bool) -> None:
        self._config, self._console, self._silent = config, console, silent
        self._lines = JsonLines(config.output_dir / "metrics.jsonl")
        self._trackers: dict[str, Any] = {}

    def begin(self, step: int) -> None:
        """Drop what was written after `step`, and open the trackers. Raises ConfigError when one does not start."""
        if self._silent:
            return
        self._lines.restart(step or -1)
        settings = {key: _plain(value) for key, value in self._config.as_dict().items() if value is not None}
        for name in self._config.trackers():
            try:
                with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
                    tracker = _open(name, self._config.output_dir)
                    tracker.store_init_configuration(settings)
            except Exception as error:
                raise ConfigError(
                    f"report_to: {name} does not start: {error}\nset it up, or take it out of report_to"
                ) from error
            self._trackers[name] = tracker

    def write(self, record: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl; the numbers of one that is no event go to the trackers, too."""
        if self._silent:
            return
        self._lines.write(record)
        if "event" not in record:
            numbers = {key: value for key, value in record.items() if key != "step" and isinstance(value, int | float)}
            for name in list(self._trackers):
                self._send(name, "log", numbers, step=record["step"])

    def close(self) -> None:
        """Finish the trackers."""
        for name in list(self._trackers):
            self._send(name, "finish")
        self._trackers.clear()

    def _send(self, name: str, what: str, *arguments: Any, **keywords: Any) -> None:
        """Call a tracker; one that fails, for example because its server is gone, is left out from there on."""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                getattr(self._trackers[name], what)(*arguments, **keywords)
        except Exception as error:  # noqa: BLE001 - a log is no reason to lose a run
            self._console.warn(f"{name}: {error}; the run goes on without it, metrics.jsonl has every number")
            del self._trackers[name]


def _open(name: str, folder: Path) -> Any:
    """A started tracker of accelerate: project florentune, the run named as its folder, files inside the folder.

    Environment variables that a tracker reads itself come first.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kind = LOGGER_TYPE_TO_CLASS[name]
    # tensorboard takes the name for a folder: output_dir/tensorboard
    project = name if name == "tensorboard" else os.environ.get(_PROJECT_VARIABLES.get(name, ""), _PROJECT)
    defaults = {  # argument, the environment variable that comes first, value
        "wandb": (("name", "WANDB_NAME", folder.name), ("dir", "WANDB_DIR", str(folder))),
        "mlflow": (("run_name", "", folder.name),),
        "trackio": (("name", "", folder.name),),
        "swanlab": (
            ("experiment_name", "SWANLAB_EXP_NAME", folder.name),
            ("logdir", "SWANLAB_LOG_DIR", str(folder / "swanlog")),
        ),
    }
    given = {key: value for key, variable, value in defaults.get(name, ()) if variable not in os.environ}
    if kind.requires_logging_directory:
        given["logging_dir"] = str(folder)
    tracker = kind(project, **given)
    if hasattr(tracker, "start"):  # older releases start in the constructor
        tracker.start()
    return tracker


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool) else ",".join(map(str, value))
