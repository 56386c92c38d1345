"""Many documents: give jobs to workers, replace workers that die or hang, lose no document.

Every result is on disk before the next document starts, so a run that is killed goes on where it was: done documents
are skipped, those that were in flight are done again, and the bytes are those of a run that was never interrupted.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FlorentuneError
from .inputs import Job
from .ledger import Ledger
from .pools import Pool
from .work import Settings, failed, short

RECYCLE = 500
_START_SECONDS = 600.0
_MAX_BAD_STARTS = 3


@dataclass(slots=True)
class Progress:
    """How a run stands; `reasons` counts the documents that are not ok, `under_way` pages of those not done yet."""

    total: int
    skipped: int = 0
    done: int = 0
    pages: int = 0
    under_way: int = 0
    status: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self.started, 1e-6)

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the documents done in this run; None before the first and after the last."""
        left = self.total - self.skipped - self.done
        return left * self.seconds / self.done if self.done and left else None

    def line(self) -> str:
        """One line for people."""
        left = f", {_duration(self.seconds_left)} left" if self.seconds_left else ""
        bad = "".join(f", {count} {reason}" for reason, count in sorted(self.reasons.items()))
        pages = self.pages + self.under_way
        rates = f"{self.done / self.seconds:.2f} documents/s, {pages / self.seconds:.2f} pages/s"
        return f"{self.skipped + self.done}/{self.total} documents, {pages} pages, {rates}{left}{bad}"


@dataclass(slots=True)
class _Slot:
    job: Job | None = None
    ready: bool = False
    since: float = field(default_factory=time.monotonic)
    pages: int = 0
    served: int = 0
    bad_starts: int = 0


def run_batch(
    jobs: Sequence[Job],
    pool: Pool,
    settings: Settings,
    *,
    model: str,
    silence: float = 300.0,
    retry: Callable[[dict[str, Any]], bool] = lambda record: False,
    on_document: Callable[[dict[str, Any], Progress], None] = lambda record, progress: None,
    on_page: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Do all jobs that are not done yet. `on_document` and `on_page` hear of what is done.

    A worker that says nothing for `silence` seconds is replaced and its document recorded as failed ("timeout"). A
    document whose worker died is tried again, and recorded as "quarantined" after three deaths. `retry` says of a
    record of an earlier run whether to do the document again. Raises FlorentuneError for what concerns the whole
    run: the disk is full, a package or the model is missing.
    """
    run = _Run(pool, Ledger(Path(settings.out), settings.config), settings, model, silence, on_document, on_page)
    return run.all(jobs, retry)


def _duration(seconds: float) -> str:
    """Such as 45 s, 12 min, 3.5 h or 2.1 days."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


class _Run:
    """The scheduler's state while `run_batch` runs."""

    def __init__(
        self,
        pool: Pool,
        ledger: Ledger,
        settings: Settings,
        model: str,
        silence: float,
        on_document: Callable[[dict[str, Any], Progress], None],
        on_page: Callable[[Progress], None],
    ) -> None:
        self.pool, self.ledger, self.settings, self.model = pool, ledger, settings, model
        self.silence, self.on_document, self.on_page = silence, on_document, on_page
        self.queue: deque[Job] = deque()
        self.slots: dict[int, _Slot] = {}
        self.lost: set[int] = set()
        self.progress = Progress(0)

    def all(self, jobs: Sequence[Job], retry: Callable[[dict[str, Any]], bool]) -> Progress:
        self.ledger.plan(jobs)
        self.progress.total = len(jobs)
        for job in jobs:
            record = self.ledger.record(job)
            if record is None or retry(record):
                self.queue.append(job)
            else:
                self._count(record)
                self.progress.skipped += 1
        self.progress.started = time.monotonic()
        try:
            while self.queue or any(slot.job for slot in self.slots.values()):
                self._feed()
                for number, event in self.pool.wait(self._patience()):
                    self._handle(number, event)
                self._replace_silent()
        except KeyboardInterrupt:
            for slot in self.slots.values():
                if slot.job:
                    self.ledger.interrupted(slot.job)
            raise
        finally:
            self.pool.close()
        return self.progress

    def _feed(self) -> None:
        """Start workers as far as there is work and give documents to those that are free."""
        for number in range(self.pool.count):
            if number not in self.slots and number not in self.lost and self.queue:
                self.pool.start(number)
                self.slots[number] = _Slot()
        for number, slot in self.slots.items():
            while slot.ready and slot.job is None and self.queue:
                job = self.queue.popleft()
                if self.ledger.start(job):
                    slot.job, slot.since, slot.pages = job, time.monotonic(), 0
                    self.pool.submit(number, job)
                else:
                    self._give_up(job, "quarantined", "the worker died each time it was tried")

    def _handle(self, number: int, event: dict[str, Any]) -> None:
        slot = self.slots[number]
        slot.since = time.monotonic()
        match event["event"]:
            case "ready":
                slot.ready, slot.bad_starts = True, 0
            case "page":
                slot.pages = event["page"] + 1
                self._count_pages()
                self.on_page(self.progress)
            case "done":
                assert slot.job is not None
                job, slot.job, slot.served = slot.job, None, slot.served + 1
                self._finish(job, event["record"])
                if slot.served >= RECYCLE:  # whatever leaked in a worker goes with it
                    self.pool.kill(number)
                    self._restart(number)
            case "fatal":
                error = FlorentuneError(event["message"])
                error.exit_code = event["exit_code"]
                raise error
            case "died":
                self._bury(number, slot, event["message"])

    def _bury(self, number: int, slot: _Slot, message: str) -> None:
        """After a worker's death: its document goes back into the queue, or is given up.

        A place where workers die as often as they start is left alone, and the run ends when there is no other.
        """
        bad_starts = 0 if slot.ready else slot.bad_starts + 1
        if slot.job is not None:
            self.ledger.died(slot.job)
            self.queue.append(slot.job)
        if bad_starts < _MAX_BAD_STARTS:
            self._restart(number, bad_starts)
            return
        del self.slots[number]
        self.lost.add(number)
        if len(self.lost) == self.pool.count:
            raise FlorentuneError(f"the workers die while they load the model ({message}): try `florentune doctor`")

    def _restart(self, number: int, bad_starts: int = 0) -> None:
        if self.queue:
            self.pool.start(number)
            self.slots[number] = _Slot(bad_starts=bad_starts)
        else:
            del self.slots[number]

    def _patience(self) -> float:
        """Seconds until the next worker would have been silent for too long."""
        ends = [slot.since + self._limit(slot) for slot in self.slots.values() if slot.job or not slot.ready]
        return max(min(ends, default=0.0) - time.monotonic(), 0.0)

    def _limit(self, slot: _Slot) -> float:
        return self.silence if slot.ready else _START_SECONDS

    def _replace_silent(self) -> None:
        now = time.monotonic()
        for number, slot in list(self.slots.items()):
            if (slot.job or not slot.ready) and now - slot.since >= self._limit(slot):
                self.pool.kill(number)
                if slot.job is None:
                    self._bury(number, slot, f"no sign of life for {self._limit(slot):g} s")
                    continue
                job, slot.job = slot.job, None
                self._give_up(job, "timeout", f"no page was done for {self.silence:g} s")
                self._restart(number)

    def _give_up(self, job: Job, reason: str, message: str) -> None:
        self._finish(job, short(failed(job, self.settings, self.model, reason, message)))

    def _finish(self, job: Job, record: dict[str, Any]) -> None:
        self.ledger.finished(job)
        self.progress.done += 1
        self.progress.pages += record["pages_done"]
        self._count_pages()
        self._count(record)
        self.on_document({"id": job.id, **record}, self.progress)

    def _count_pages(self) -> None:
        self.progress.under_way = sum(slot.pages for slot in self.slots.values() if slot.job)

    def _count(self, record: dict[str, Any]) -> None:
        self.progress.status[record["status"]] += 1
        self.progress.reasons.update([record["reason"]] if record["reason"] else [])
