"""The process that holds the model: image files in, pages out. Whatever kills it, the server lives on.

Images are opened in threads as they come; a model that is free takes those that are there, up to a batch. So what comes
next is opened while the model runs, and no image waits for a batch to fill.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from ..detector import Prediction
from ..errors import FlorentuneError, InputError
from .children import heard, ignore_signals, tell


class Predictor(Protocol):
    """What finds the boxes: `florentune.detector.Detector`, or anything with these members."""

    name: str

    @property
    def labels(self) -> Sequence[str] | None: ...

    @property
    def thresholds(self) -> Mapping[str, float]: ...

    def warm_up(self) -> None: ...

    def open(self, name: str, source: Path) -> Any:
        """Called in threads."""

    def run(self, opened: Sequence[Any], *, conf: float | None = None) -> list[Prediction]: ...


Factory = Callable[[], Predictor]


@dataclass(frozen=True, slots=True)
class _Work:
    number: int
    name: str
    path: str
    conf: float | None
    opened: Future[Any]


def serve(channel: Connection, factory: Factory, batch: int) -> None:
    """Load the model, say "ready", then answer {"number", "name", "path", "conf"} until the server is gone.

    Events are ready (name, labels, thresholds), done (results: number and page or error, for every image of one run of
    the model) and fatal (message, exit_code), after which the process ends.
    """
    ignore_signals()
    try:
        detector = factory()
        detector.warm_up()
    except FlorentuneError as error:
        tell(channel, event="fatal", message=str(error), exit_code=error.exit_code)
        return
    labels = list(detector.labels) if detector.labels is not None else None
    tell(channel, event="ready", name=detector.name, labels=labels, thresholds=dict(detector.thresholds))
    inbox: SimpleQueue[_Work] = SimpleQueue()
    threading.Thread(target=_receive, args=(channel, detector, inbox, batch), daemon=True).start()
    waiting = [inbox.get()]
    while True:
        ready = _ready(waiting, inbox, batch)
        tell(channel, event="done", results=_results(detector, ready))
        waiting = waiting or [inbox.get()]


def _receive(channel: Connection, detector: Predictor, inbox: SimpleQueue[_Work], batch: int) -> None:
    """Start to open every image as soon as the server names it; end the process with the server."""
    with ThreadPoolExecutor(min(batch, os.cpu_count() or 1), thread_name_prefix="images") as pool:
        try:
            while True:
                image = heard(channel)
                inbox.put(_Work(**image, opened=pool.submit(detector.open, image["name"], Path(image["path"]))))
        except SystemExit:
            os._exit(0)


def _ready(waiting: list[_Work], inbox: SimpleQueue[_Work], batch: int) -> list[_Work]:
    """The oldest image, and those that came until it was open and can share its run; all open, out of `waiting`.

    An image whose opening failed in a way that nobody foresaw has no company.
    """
    first = waiting[0]
    is_alone = first.opened.exception() is not None
    while not inbox.empty():
        waiting.append(inbox.get())
    mates = [first] if is_alone else [work for work in waiting if work.conf == first.conf][:batch]
    mates = [work for work in mates if work is first or work.opened.exception() is None]
    waiting[:] = [work for work in waiting if work not in mates]
    return mates


def _results(detector: Predictor, works: list[_Work]) -> list[dict[str, Any]]:
    try:
        predictions = detector.run([work.opened.result() for work in works], conf=works[0].conf)
    except Exception as error:  # noqa: BLE001 - one image must not end the process that serves all others
        return [_failure("error", f"{type(error).__name__} in the model", work) for work in works]
    return [_result(prediction, work) for prediction, work in zip(predictions, works, strict=True)]


def _result(prediction: Prediction, work: _Work) -> dict[str, Any]:
    if prediction.page is not None:
        return {"number": work.number, "page": prediction.page.as_dict()}
    error = prediction.error
    reason = error.reason if isinstance(error, InputError) else "detector"
    return _failure(reason, str(error), work)


def _failure(reason: str, message: str, work: _Work) -> dict[str, Any]:
    """The error under the client's name of the file, not under the server's path."""
    return {"number": work.number, "error": {"reason": reason, "message": message.replace(work.path, work.name)}}
