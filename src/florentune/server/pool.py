"""Images to model workers: a bounded queue, batches as large as the load makes them, workers that may die.

A worker gets images as they come, up to two batches: it opens the ones while the model runs over the others, and a lone
request never waits for company. When a worker dies or is killed because an image is over its deadline, the other images
it had are tried again one by one, with the whole of their deadline before them: the image that does it is the only one
to fail.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
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
from .problems import Problem, no_model, overloaded, problem_of, stopping

_LONGEST_PAUSE = 30.0
_BAD_STARTS = 3
_LOG = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Request:
    name: str
    path: str
    conf: float | None
    seconds: float
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
    working: dict[int, _Request] = field(default_factory=dict)
    bad_starts: int = 0
    restart: asyncio.TimerHandle | None = None

    def takes(self, request: _Request, most: int) -> bool:
        """Whether the worker may have this request now; one that has to be alone gets and keeps a worker to itself."""
        if request.alone or any(other.alone for other in self.working.values()):
            return self.ready and not self.working
        return self.ready and len(self.working) < most


class ModelPool:
    """`workers` processes of one model. `model` is None until the first one is ready.

    `on_change` is called when a worker is ready, and when none can be had.
    """

    def __init__(self, factory: Factory, workers: int, limits: Limits, metrics: Metrics) -> None:
        self._factory, self._limits, self._metrics = factory, limits, metrics
        self._seats = [_Seat() for _ in range(workers)]
        self._queue: deque[_Request] = deque()
        self._numbers = itertools.count()
        self.model: dict[str, Any] | None = None
        self.failure: FlorentuneError | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._stopped = False

    @property
    def ready(self) -> bool:
        """Whether a worker has loaded and warmed its model."""
        return any(seat.ready for seat in self._seats)

    @property
    def failing(self) -> bool:
        """Whether every worker died at its last three starts, without having been ready; they are tried again."""
        return all(seat.bad_starts >= _BAD_STARTS for seat in self._seats)

    @property
    def load(self) -> int:
        """Images that wait or are being worked on."""
        return len(self._queue) + sum(len(seat.working) for seat in self._seats)

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
        self._stopped = True
        for seat in self._seats:
            if seat.restart:
                seat.restart.cancel()
            if seat.child:
                seat.child.kill()
            self._queue.extend(seat.working.values())
            seat.ready, seat.working = False, {}
        while self._queue:
            self._done(self._queue.popleft()).fail(stopping())

    async def detect(
        self, path: Path, name: str, conf: float | None, seconds: float, *, bounded: bool = True
    ) -> dict[str, Any]:
        """The page (`Page.as_dict`) of an image file; raises Problem.

        `bounded` is False for the pages of documents, whose number is bounded where they are accepted.
        """
        if self._stopped:
            raise stopping()
        if self.failing:
            raise no_model()
        if bounded and self.full:
            raise overloaded()
        request = _Request(name, str(path), conf, seconds, asyncio.get_running_loop().create_future())
        self._begin_deadline(request)
        self._queue.append(request)
        self._dispatch()
        try:
            return await request.answer
        finally:
            if request in self._queue:  # the client is gone
                self._queue.remove(self._done(request))

    def _begin_deadline(self, request: _Request) -> None:
        self._done(request).timer = asyncio.get_running_loop().call_later(request.seconds, self._expire, request)

    def _done(self, request: _Request) -> _Request:
        """The request, whose deadline counts no more."""
        if request.timer:
            request.timer.cancel()
        return request

    def _dispatch(self) -> None:
        """Hand out what waits, in order, each to the worker with the least work."""
        while self._queue:
            free = [seat for seat in self._seats if seat.takes(self._queue[0], 2 * self._limits.batch)]
            if not free:
                return
            seat, request, number = min(free, key=lambda s: len(s.working)), self._queue.popleft(), next(self._numbers)
            assert seat.child is not None
            seat.working[number] = request
            seat.child.send(number=number, name=request.name, path=request.path, conf=request.conf)

    def _expire(self, request: _Request) -> None:
        """Past its deadline: out of the queue, or the worker that is at it is replaced."""
        request.fail(problem_of("timeout", f"{request.name}: took longer than the deadline"))
        if request in self._queue:
            self._queue.remove(request)
        for seat in self._seats:
            if request in seat.working.values() and seat.child:
                seat.child.kill()
                self._bury(seat)

    def _spawn(self, seat: _Seat) -> None:
        seat.restart = None
        seat.child = Child(
            serve, (self._factory, self._limits.batch), lambda event: self._hear(seat, event), lambda: self._bury(seat)
        )

    def _hear(self, seat: _Seat, event: Event) -> None:
        if event["event"] == "ready":
            seat.ready, seat.bad_starts = True, 0
            self.model = {"name": event["name"], "labels": event["labels"], "thresholds": event["thresholds"]}
            self.on_change()
        elif event["event"] == "fatal":
            self.failure = FlorentuneError(event["message"])
            self.failure.exit_code = event["exit_code"]
        else:
            self._metrics.batches.observe(len(event["results"]))
            for result in event["results"]:
                self._answer(self._done(seat.working.pop(result["number"])), result)
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
        working, was_ready = list(seat.working.values()), seat.ready
        seat.ready, seat.working, seat.child = False, {}, None
        if len(working) == 1:
            self._done(working[0]).fail(problem_of("worker_died", "the model process died; it is being restarted"))
        else:
            waiting = [request for request in working if not request.answer.done()]
            for request in waiting:
                request.alone = True
                self._begin_deadline(request)
            self._queue.extendleft(reversed(waiting))
        seat.bad_starts = 0 if was_ready else seat.bad_starts + 1
        pause = min(2.0**seat.bad_starts, _LONGEST_PAUSE) if seat.bad_starts else 0.0
        if seat.bad_starts:
            _LOG.warning("a model process died at its start; the next one is started in %g s", pause)
        if self.failing:
            while self._queue:
                self._done(self._queue.popleft()).fail(no_model())
            self.on_change()
        seat.restart = asyncio.get_running_loop().call_later(pause, self._spawn, seat)
