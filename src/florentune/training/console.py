"""What a run tells people and files: a progress bar on a terminal, plain lines elsewhere, metrics.jsonl always."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Console:
    """Messages and progress on stderr; silent on processes other than the first."""

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self._rich = RichConsole(file=sys.stderr, quiet=silent, highlight=False)
        self._bar: Progress | None = None
        self._started = 0.0
        self._first = 0

    def say(self, text: str = "") -> None:
        """A line for people: folded between words on a terminal, whole elsewhere."""
        self._rich.print(text, markup=False, soft_wrap=not self._rich.is_terminal)

    def warn(self, text: str) -> None:
        """A line about something that is not as it should be."""
        self.say(f"warning: {text}")

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Begin a progress bar; without a terminal there is none."""
        self._started, self._first = time.monotonic(), done
        if self._rich.is_terminal and not self._silent:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}"),
                console=self._rich,
                transient=True,
            )
            self._bar.add_task(what, total=total, completed=done, detail="")
            self._bar.start()

    def advance(self, done: int, detail: str = "") -> None:
        """Move the bar to `done`."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, detail=detail)

    def stop(self) -> None:
        """End the progress bar."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def step_line(self, record: Mapping[str, Any], step: int, total: int) -> None:
        """The plain line of a logging step; on a terminal the bar shows it already."""
        if self._bar is None:
            spent = time.monotonic() - self._started
            left = spent / max(step - self._first, 1) * (total - step)
            self.say(f"step {step}/{total}  {describe(record)}  eta {clock(left)}")


def describe(record: Mapping[str, Any]) -> str:
    """Loss, learning rate and speed of a metrics record in a few words."""
    loss = record["loss"]
    shown = loss if isinstance(loss, str) else f"{loss:.4f}"
    return f"loss {shown}  lr {record['learning_rate']:.2e}  {record['pages_per_second']:.2f} pages/s"


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns of text."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def clock(seconds: float) -> str:
    """Seconds as hours:minutes:seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


class JsonLines:
    """A file of JSON objects, one a line, appended to as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def restart(self, step: int) -> None:
        """Keep the whole lines up to `step` and drop what an interrupted run wrote after its last checkpoint."""
        kept = [line for line in self.read() if line.get("step", 0) <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        if text:
            from ..files import written_whole

            with written_whole(self.path) as stream:
                stream.write(text)
        else:
            self.path.unlink(missing_ok=True)

    def read(self) -> list[dict[str, Any]]:
        """The objects in the file; a torn last line is left out."""
        found: list[dict[str, Any]] = []
        if not self.path.is_file():
            return found
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                found.append(value)
        return found

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one object; a number that is not finite becomes the text "nan" or "inf"."""
        plain = {
            key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n")
