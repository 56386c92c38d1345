"""A worker process seen from the event loop: JSON messages over a pipe, and death as an event."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

Event = dict[str, Any]


class Child:
    """A spawned process running `target(channel, *arguments)`.

    `on_event` hears every message, `on_death` the end of a process that was not ended by `kill`.
    """

    def __init__(
        self,
        target: Callable[..., None],
        arguments: tuple[Any, ...],
        on_event: Callable[[Event], None],
        on_death: Callable[[], None],
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._channel, theirs = context.Pipe()
        self._on_event, self._on_death = on_event, on_death
        self._process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._channel.fileno(), self._read)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def send(self, **message: Any) -> None:
        """Send a message; where the process has just died, `on_death` will say so."""
        with contextlib.suppress(OSError):
            self._channel.send_bytes(json.dumps(message).encode())

    def kill(self) -> None:
        """End the process at once; neither callback is called any more."""
        if not self._channel.closed:
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()
            self._process.kill()
            self._process.join()
            self._process.close()

    def _read(self) -> None:
        try:
            event = json.loads(self._channel.recv_bytes())
        except (EOFError, OSError, ValueError):
            self.kill()
            self._on_death()
        else:
            self._on_event(event)


def ignore_signals() -> None:
    """In a worker: leave SIGINT and SIGTERM to the server, which ends its workers when their work is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def tell(channel: Connection, **event: Any) -> None:
    """In a worker: send an event; end the process when the server is gone."""
    try:
        channel.send_bytes(json.dumps(event).encode())
    except OSError:
        raise SystemExit(0) from None


def heard(channel: Connection) -> dict[str, Any]:
    """In a worker: the next message; end the process when the server is gone."""
    try:
        message: dict[str, Any] = json.loads(channel.recv_bytes())
    except (EOFError, OSError):
        raise SystemExit(0) from None
    return message
