"""Images to model workers: a bounded queue, batches as large as the load makes them, workers that may die.

A worker that is free takes what waits, up to a batch, so a lone request never waits for others. When a worker dies
or is killed because an image is over its deadline, the other images of its batch are tried again one by one: the
image that does it is the only one to fail.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FlorentuneError
from .children import Child, Event
from .limits import Limits
from .metrics import Metrics
from .model_worker import Factory, serve
from .problems import Problem, overloaded, problem_of

_LONGEST_PAUSE = 30.0


@dataclass(eq=False, slots=True)
class _Request:
    name: str
    path: str
    conf: float | None
    answer: asyncio.Future[dict[str, Any]]
    timer: asyncio.TimerHandle | None = None
    alone: bool = False

    def fail(self, problem: Problem) -> None:
        if not self.answer.done():
            self.answer.set_exception(problem)


@dataclass(eq=False, slots=True)
class _Seat:
    child: Child | None = None
    ready: bool = False
    running: list[_Request] = field(default_factory=list)
    bad_starts: int = 0
    restart: asyncio.TimerHandle | None = None


class ModelPool:
    """`workers` processes of one model. `model` is None until the first one is ready."""

    def __init__(self, factory: Factory, workers: int, limits: Limits, metrics: Metrics) -> None:
        self._factory, self._limits, self._metrics = factory, limits, metrics
        self._seats = [_Seat() for _ in range(workers)]
        self._queue: deque[_Request] = deque()
        self.model: dict[str, Any] | None = None
        self.failure: FlorentuneError | None = None
        self.on_ready: Callable[[], None] = lambda: None

    @property
    def ready(self) -> bool:
        """Whether a worker has loaded and warmed its model."""
        return any(seat.ready for seat in self._seats)

    @property
    def load(self) -> int:
        """Images that wait or are being worked on."""
        return len(self._queue) + sum(len(seat.running) for seat in self._seats)

    @property
    def full(self) -> bool:
        """Whether a batch for every worker and the queue behind them are taken."""
        return self.load >= len(self._seats) * (self._limits.batch + self._limits.waiting)

    @property
    def pids(self) -> list[int]:
        """The worker processes."""
        return [seat.child.pid for seat in self._seats if seat.child and seat.child.pid]

    def start(self) -> None:
        for seat in self._seats:
            self._spawn(seat)

    def stop(self) -> None:
        """End all workers; what still waits fails."""
        for seat in self._seats:
            if seat.restart:
                seat.restart.cancel()
            if seat.child:
                seat.child.kill()
            self._queue.extend(seat.running)
            seat.ready, seat.running = False, []
        while self._queue:
            self._done(self._queue.popleft()).fail(problem_of("worker_died", "the server has stopped"))

    async def detect(
        self, path: Path, name: str, conf: float | None, seconds: float, *, bounded: bool = True
    ) -> dict[str, Any]:
        """The page (`Page.as_dict`) of an image file; raises Problem.

        `bounded` is False for the pages of documents, whose number is bounded where they are accepted.
        """
        if bounded and self.full:
            raise overloaded()
        loop = asyncio.get_running_loop()
        request = _Request(name, str(path), conf, loop.create_future())
        request.timer = loop.call_later(seconds, self._expire, request)
        self._queue.append(request)
        self._dispatch()
        try:
            return await request.answer
        finally:
            if request in self._queue:  # the client is gone
                self._queue.remove(self._done(request))

    def _done(self, request: _Request) -> _Request:
        if request.timer:
            request.timer.cancel()
        return request

    def _dispatch(self) -> None:
        for seat in self._seats:
            if seat.ready and not seat.running and self._queue:
                assert seat.child is not None
                seat.running = self._next_batch()
                self._metrics.batches.observe(len(seat.running))
                images = [{"name": request.name, "path": request.path} for request in seat.running]
                seat.child.send(images=images, conf=seat.running[0].conf)

    def _next_batch(self) -> list[_Request]:
        """The oldest request, and those behind it that can share its run of the model."""
        first = self._queue[0]
        mates = [r for r in self._queue if r is first or (r.conf == first.conf and not r.alone and not first.alone)]
        batch = mates[: self._limits.batch]
        self._queue = deque(request for request in self._queue if request not in batch)
        return batch

    def _expire(self, request: _Request) -> None:
        """Past its deadline: out of the queue, or the worker that is at it is replaced."""
        request.fail(problem_of("timeout", f"{request.name}: took longer than the deadline"))
        if request in self._queue:
            self._queue.remove(request)
        for seat in self._seats:
            if request in seat.running and seat.child:
                seat.child.kill()
                self._bury(seat)

    def _spawn(self, seat: _Seat) -> None:
        seat.restart = None
        seat.child = Child(serve, (self._factory,), lambda event: self._hear(seat, event), lambda: self._bury(seat))

    def _hear(self, seat: _Seat, event: Event) -> None:
        if event["event"] == "ready":
            seat.ready, seat.bad_starts = True, 0
            self.model = {"name": event["name"], "labels": event["labels"], "thresholds": event["thresholds"]}
            self.on_ready()
        elif event["event"] == "fatal":
            self.failure = FlorentuneError(event["message"])
            self.failure.exit_code = event["exit_code"]
        else:
            running, seat.running = seat.running, []
            for request, result in zip(running, event["results"], strict=True):
                self._answer(self._done(request), result)
        self._dispatch()

    def _answer(self, request: _Request, result: dict[str, Any]) -> None:
        if "error" in result:
            request.fail(problem_of(result["error"]["reason"], result["error"]["message"]))
        elif not request.answer.done():
            self._metrics.pages.inc()
            request.answer.set_result(result["page"])

    def _bury(self, seat: _Seat) -> None:
        """After a worker's death: the only image it had fails, of several each is tried alone; then a new worker."""
        self._metrics.deaths.labels("model").inc()
        running, was_ready = seat.running, seat.ready
        seat.ready, seat.running, seat.child = False, [], None
        if len(running) == 1:
            self._done(running[0]).fail(problem_of("worker_died", "the model process died; it is being restarted"))
        else:
            waiting = [request for request in running if not request.answer.done()]
            for request in waiting:
                request.alone = True
            self._queue.extendleft(reversed(waiting))
        seat.bad_starts = 0 if was_ready else seat.bad_starts + 1
        pause = min(2.0**seat.bad_starts, _LONGEST_PAUSE) if seat.bad_starts else 0.0
        seat.restart = asyncio.get_running_loop().call_later(pause, self._spawn, seat)
