"""Documents to document workers: a bounded queue, progress, deadlines and a cancel that ends the work at once.

A job's folder holds `images/` (the pages as PNG), `out/` (what `process_document` writes) and the upload; it goes
when the job is forgotten. Jobs live as long as the server: a restart forgets them all.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .children import Child, Event
from .document_worker import DOCUMENT, serve
from .limits import Limits
from .metrics import Metrics
from .pool import ModelPool
from .problems import Problem, overloaded, stopping

_PAUSE = 1.0  # before a worker that died without work is started again
Status = Literal["queued", "running", "ok", "partial", "failed", "cancelled"]


@dataclass(eq=False, slots=True)
class Job:
    """One document. `pages` holds what the model saw, by page number from 0, as soon as it has seen it."""

    id: str
    folder: Path
    upload: Path
    source: str
    conf: float | None
    dpi: float
    status: Status = "queued"
    reason: str = ""
    message: str = ""
    total: int | None = None
    pages: dict[int, dict[str, Any]] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at: float = 0.0
    fetched: bool = False
    ends_by: float = 0.0
    timer: asyncio.TimerHandle | None = None

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def document(self) -> Path:
        return self.out / DOCUMENT

    def as_dict(self) -> dict[str, Any]:
        """What GET /v1/jobs/{id} answers."""
        return {
            "id": self.id,
            "source": self.source,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "progress": {"done": len(self.pages), "total": self.total},
            "pages": [{"index": index, **page} for index, page in sorted(self.pages.items())],
        }


@dataclass(eq=False, slots=True)
class _Seat:
    child: Child | None = None
    job: Job | None = None
    asking: asyncio.Task[None] | None = None


class Documents:
    """All jobs of a server, and the `workers` processes that do them."""

    def __init__(self, folder: Path, pool: ModelPool, workers: int, limits: Limits, metrics: Metrics) -> None:
        self._folder, self._pool, self._limits, self._metrics = folder, pool, limits, metrics
        self._seats = [_Seat() for _ in range(workers)]
        self._queue: deque[Job] = deque()
        self._jobs: dict[str, Job] = {}
        self._stopped = False

    @property
    def load(self) -> int:
        """Documents that wait or are being worked on."""
        return len(self._queue) + sum(seat.job is not None for seat in self._seats)

    @property
    def full(self) -> bool:
        return self.load >= len(self._seats) * (1 + self._limits.waiting)

    def submit(self, upload: Path, source: str, conf: float | None, dpi: float, seconds: float) -> Job:
        """Queue a document; its upload is moved into the job's folder. Raises Problem when the queue is full."""
        if self._stopped:
            raise stopping()
        if self.full:
            raise overloaded()
        self.sweep()
        name = secrets.token_urlsafe(16)
        job = Job(name, self._folder / name, self._folder / name / upload.name, source, conf, dpi)
        job.images.mkdir(parents=True)
        os.replace(upload, job.upload)
        job.ends_by = time.monotonic() + seconds
        job.timer = asyncio.get_running_loop().call_later(seconds, self._expire, job)
        self._jobs[name] = job
        self._queue.append(job)
        self.dispatch()
        return job

    def start(self) -> None:
        """Start the workers, so that no document pays for it."""
        for seat in self._seats:
            self._spawn(seat)

    def find(self, name: str) -> Job | None:
        return self._jobs.get(name)

    def cancel(self, job: Job) -> None:
        """End the work on a job at once; one that has ended stays as it is."""
        self._abandon(job, "cancelled", "cancelled", "was cancelled")

    def forget(self, job: Job) -> None:
        """Cancel a job and remove everything there is of it."""
        self.cancel(job)
        self._jobs.pop(job.id, None)
        shutil.rmtree(job.folder, ignore_errors=True)

    def unfetched(self, since: float) -> int:
        """Jobs that ended after `since` (monotonic) and whose result nobody has asked for."""
        return sum(job.ended_at >= since and not job.fetched for job in self._jobs.values())

    def sweep(self) -> None:
        """Forget jobs that ended long ago, and the oldest ones of too many."""
        ended = sorted((job for job in self._jobs.values() if job.ended.is_set()), key=lambda job: job.ended_at)
        surplus = len(ended) - self._limits.kept_jobs
        for place, job in enumerate(ended):
            if place < surplus or time.monotonic() - job.ended_at > self._limits.keep:
                self.forget(job)

    def stop(self) -> None:
        """Give up all jobs and end all workers."""
        self._stopped = True
        for job in list(self._jobs.values()):
            self._abandon(job, "failed", "stopping", "the server stopped before the document was done")
        for seat in self._seats:
            if seat.child:
                seat.child.kill()

    def dispatch(self) -> None:
        """Give waiting documents to free workers, once the model answers them, be it that there is none."""
        for seat in self._seats:
            if seat.child and seat.job is None and self._queue and (self._pool.model or self._pool.failing):
                seat.job = self._queue.popleft()
                self._begin(seat, seat.job)

    def _begin(self, seat: _Seat, job: Job) -> None:
        assert seat.child is not None
        job.status = "running"
        model = self._pool.model["name"] if self._pool.model else ""
        names = {"path": str(job.upload), "source": job.source, "out": str(job.out), "images": str(job.images)}
        seat.child.send(**names, dpi=job.dpi, pages=self._limits.pages, model=model)

    def _hear(self, seat: _Seat, event: Event) -> None:
        job = seat.job
        if job is None:
            return
        if event["event"] == "opened":
            job.total = event["pages"]
        elif event["event"] == "detect":
            seat.asking = asyncio.get_running_loop().create_task(self._ask(seat, job, event["names"]))
        else:
            seat.job = None
            self._end(job, event["status"], event["reason"], event["message"])
            self.dispatch()

    async def _ask(self, seat: _Seat, job: Job, names: list[str]) -> None:
        """What the model sees on some pages of a job, sent to its worker."""
        left = max(min(job.ends_by - time.monotonic(), self._limits.deadline), 0.0)
        questions = [
            self._pool.detect(job.images / f"{name}.png", name, job.conf, left, bounded=False) for name in names
        ]
        answers = await asyncio.gather(*questions, return_exceptions=True)
        pages: list[dict[str, Any]] = []
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, Problem):
                if seat.child and seat.job is job:
                    seat.child.send(error={"reason": answer.reason, "message": answer.detail})
                return
            if isinstance(answer, BaseException):
                raise answer
            pages.append(answer)
            job.pages[int(name.rpartition("-")[2]) - 1] = answer
        if seat.child and seat.job is job:
            seat.child.send(pages=pages)

    def _expire(self, job: Job) -> None:
        self._abandon(job, "failed", "timeout", f"{job.source}: took longer than the deadline")

    def _abandon(self, job: Job, status: Status, reason: str, message: str) -> None:
        """End a job that has not ended: its worker process is killed, and with it PDFium and the model's queue."""
        if job.ended.is_set():
            return
        if job in self._queue:
            self._queue.remove(job)
        for seat in self._seats:
            if seat.job is job:
                self._clear(seat)
        self._end(job, status, reason, message)

    def _clear(self, seat: _Seat, pause: float = 0.0) -> None:
        if seat.asking:
            seat.asking.cancel()
        if seat.child:
            seat.child.kill()
        seat.child = seat.job = seat.asking = None
        asyncio.get_running_loop().call_later(pause, self._spawn, seat)

    def _spawn(self, seat: _Seat) -> None:
        if self._stopped:
            return
        seat.child = Child(serve, (), lambda event: self._hear(seat, event), lambda: self._bury(seat))
        self.dispatch()

    def _bury(self, seat: _Seat) -> None:
        """After a worker's death."""
        self._metrics.deaths.labels("document").inc()
        job = seat.job
        self._clear(seat, 0.0 if job else _PAUSE)
        if job is not None:
            self._end(job, "failed", "worker_died", f"{job.source}: the process that read it died")

    def _end(self, job: Job, status: Status, reason: str, message: str) -> None:
        if job.timer:
            job.timer.cancel()
        job.status, job.reason, job.message = status, reason, message
        job.ended_at = time.monotonic()
        job.ended.set()
        job.upload.unlink(missing_ok=True)
        self._metrics.documents.labels(status).inc()
