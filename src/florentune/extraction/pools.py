"""Where workers run: as processes here, or as actors of a Ray cluster. Both do the same for the scheduler.

A pool has `count` slots. `start(slot)` gives a slot a fresh worker, `submit(slot, job)` a document, `kill(slot)` ends
its worker at once, and `wait(seconds)` returns what happened: (slot, event) with the event's name under "event":
"ready", "page", "done" (with "record"), "fatal" (with "message" and "exit_code") or "died" (with "message").
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from ..errors import FlorentuneError, MissingExtraError
from .inputs import Job
from .work import Factory, Settings, Worker, serve

Event = tuple[int, dict[str, Any]]

_BEAT_SECONDS = 1.0
_KNOCK_SECONDS = 10.0


class Pool(Protocol):
    """See the module's text."""

    count: int

    def start(self, slot: int) -> None: ...
    def submit(self, slot: int, job: Job) -> None: ...
    def kill(self, slot: int) -> None: ...
    def wait(self, seconds: float) -> list[Event]: ...
    def close(self) -> None: ...


class LocalPool:
    """Worker processes on this machine. They end by themselves when the driver is gone."""

    def __init__(self, count: int, factory: Factory, settings: Settings) -> None:
        self.count, self._factory, self._settings = count, factory, settings
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[int, tuple[BaseProcess, Connection]] = {}

    def start(self, slot: int) -> None:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._factory, self._settings)
        process = self._context.Process(target=serve, args=arguments, daemon=True, name=f"extract-{slot}")
        process.start()
        theirs.close()
        self._workers[slot] = process, ours

    def submit(self, slot: int, job: Job) -> None:
        try:
            self._workers[slot][1].send_bytes(json.dumps(job.as_dict()).encode())
        except OSError:  # it has just died: `wait` will say so
            return

    def kill(self, slot: int) -> None:
        process, channel = self._workers.pop(slot)
        process.kill()
        process.join()
        channel.close()

    def wait(self, seconds: float) -> list[Event]:
        slots = {channel: slot for slot, (_, channel) in self._workers.items()}
        events: list[Event] = []
        for channel in wait(list(slots), seconds):
            assert isinstance(channel, Connection)
            slot = slots[channel]
            try:
                events.append((slot, json.loads(channel.recv_bytes())))
            except (EOFError, OSError):
                self.kill(slot)
                events.append((slot, {"event": "died", "message": "the process ended"}))
        return events

    def close(self) -> None:
        for slot in list(self._workers):
            self.kill(slot)


class RayPool:
    """Actors of a Ray cluster ("auto" or host:port; "local" starts Ray here). Needs the extra [ray].

    `count` 0 means one a CPU of the cluster. OUT must be a folder that every node sees, because workers write their
    documents themselves. Raises FlorentuneError when the cluster cannot be reached.
    """

    def __init__(self, count: int, factory: Factory, settings: Settings, address: str) -> None:
        try:
            import ray
        except ImportError:
            raise MissingExtraError("ray", "ray") from None
        _knock(address)
        options: dict[str, Any] = {"address": address}
        if address == "local":
            options |= {"num_cpus": count or os.cpu_count() or 1, "include_dashboard": False}
        try:
            ray.init(log_to_driver=False, ignore_reinit_error=True, **options)
        except Exception as error:  # noqa: BLE001 - Ray raises bare Exception too
            ray.shutdown()
            raise FlorentuneError(f"--ray {address}: Ray does not start or answer ({error})") from None
        self._ray, self.count = ray, count or int(ray.cluster_resources().get("CPU", 1))
        self._arguments = factory, settings
        # a second thread answers `beat` while the first one works; Ray itself never restarts or retries
        self._actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0, max_concurrency=2)(_Actor)
        self._actors: dict[int, Any] = {}
        self._calls: dict[int, tuple[str, Any]] = {}
        self._beats: dict[int, int] = {}
        self._asked = time.monotonic()

    def start(self, slot: int) -> None:
        self._actors[slot] = self._actor.remote(*self._arguments)
        self._calls[slot] = "ready", self._actors[slot].load.remote()

    def submit(self, slot: int, job: Job) -> None:
        self._beats[slot] = 0
        self._calls[slot] = "done", self._actors[slot].run.remote(job.as_dict())

    def kill(self, slot: int) -> None:
        self._calls.pop(slot, None)
        self._ray.kill(self._actors.pop(slot))

    def wait(self, seconds: float) -> list[Event]:
        slots = {call: slot for slot, (_, call) in self._calls.items()}
        if not slots:
            time.sleep(min(seconds, 0.05))
            return []
        ready, running = self._ray.wait(list(slots), num_returns=1, timeout=min(seconds, _BEAT_SECONDS))
        events = [(slots[call], self._answer(slots[call], call)) for call in ready]
        return events + self._pages([slots[call] for call in running])

    def close(self) -> None:
        for slot in list(self._actors):
            self.kill(slot)
        self._ray.shutdown()

    def _answer(self, slot: int, call: Any) -> dict[str, Any]:
        name, _ = self._calls.pop(slot)
        try:
            found: dict[str, Any] = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            self.kill(slot)
            return {"event": "died", "message": str(error).strip().splitlines()[-1]}
        return found if "event" in found else {"event": name, "record": found}

    def _pages(self, slots: Sequence[int]) -> list[Event]:
        """Which of the working actors have gone on by a page since they were asked last, a while ago."""
        events: list[Event] = []
        if time.monotonic() - self._asked < _BEAT_SECONDS:
            return events
        self._asked = time.monotonic()
        beats = {slot: self._actors[slot].beat.remote() for slot in slots if self._calls[slot][0] == "done"}
        answered, _ = self._ray.wait(list(beats.values()), num_returns=len(beats), timeout=1.0) if beats else ([], [])
        for slot, beat in beats.items():
            try:
                count = self._ray.get(beat) if beat in answered else self._beats[slot]
            except self._ray.exceptions.RayError:
                continue
            if count > self._beats[slot]:
                self._beats[slot] = count
                events.append((slot, {"event": "page", "page": count - 1}))
        return events


def _knock(address: str) -> None:
    """Raise FlorentuneError where nothing listens at host:port; Ray itself would try for a quarter of an hour."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()
    except (OSError, ValueError) as error:
        raise FlorentuneError(f"--ray {address}: nothing answers there ({error})") from None


class _Actor:
    """A worker as a Ray actor."""

    def __init__(self, factory: Factory, settings: Settings) -> None:
        self._arguments = factory, settings
        self._worker: Worker | None = None
        self._count = 0

    def load(self) -> dict[str, Any]:
        from ..errors import FlorentuneError

        try:
            self._worker = Worker(*self._arguments)
        except FlorentuneError as error:
            return {"event": "fatal", "message": str(error), "exit_code": error.exit_code}
        return {"event": "ready"}

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        from ..errors import FlorentuneError

        assert self._worker is not None
        self._count = 0
        try:
            return self._worker.run(Job(**job), self._page)
        except FlorentuneError as error:
            return {"event": "fatal", "message": str(error), "exit_code": error.exit_code}

    def beat(self) -> int:
        """How many pages of the current document are done."""
        return self._count

    def _page(self, index: int) -> None:
        self._count += 1
