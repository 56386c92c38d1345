"""The process that holds the model: batches of image files in, pages out. Whatever kills it, the server lives on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
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

    def predict(
        self, images: Iterable[tuple[str, Path]], *, batch: int = 8, conf: float | None = None
    ) -> Iterator[Prediction]: ...


Factory = Callable[[], Predictor]


def serve(channel: Connection, factory: Factory) -> None:
    """Load the model, say "ready", then answer {"images": [{"name", "path"}], "conf"} until the server is gone.

    Events are ready (name, labels, thresholds), done (results: a page or an error for every image, in order) and
    fatal (message, exit_code), after which the process ends.
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
    while True:
        request = heard(channel)
        tell(channel, event="done", results=_results(detector, request["images"], request["conf"]))


def _results(detector: Predictor, images: list[dict[str, str]], conf: float | None) -> list[dict[str, Any]]:
    named = [(image["name"], Path(image["path"])) for image in images]
    try:
        predictions = list(detector.predict(named, batch=len(named), conf=conf))
    except Exception as error:  # noqa: BLE001 - one image must not end the process that serves all others
        return [_failure("error", f"{type(error).__name__} in the model", image) for image in images]
    return [_result(prediction, image) for prediction, image in zip(predictions, images, strict=True)]


def _result(prediction: Prediction, image: dict[str, str]) -> dict[str, Any]:
    if prediction.page is not None:
        return {"page": prediction.page.as_dict()}
    error = prediction.error
    reason = error.reason if isinstance(error, InputError) else "detector"
    return _failure(reason, str(error), image)


def _failure(reason: str, message: str, image: dict[str, str]) -> dict[str, Any]:
    """The error under the client's name of the file, not under the server's path."""
    return {"error": {"reason": reason, "message": message.replace(image["path"], image["name"])}}
