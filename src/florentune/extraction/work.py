"""What a worker does: load the detector once, then one document after the other. All engines call this."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..errors import DiskFullError, FlorentuneError, InputError, MissingExtraError
from ..pdf import DEADLINE, PdfReader
from .document import Options, PageDetector, counts, failure_record, process_document
from .inputs import Job, opened

Factory = Callable[[], PageDetector]

_MODEL_FILES = (".safetensors", ".onnx", ".json", ".txt")


@dataclass(frozen=True, slots=True)
class Settings:
    """What every worker of a run shares. `config` identifies the run in records; `deadline` is PDFium's, a page."""

    out: str
    config: str
    options: Options
    deadline: float = DEADLINE
    passwords: Sequence[str] = ()


class Worker:
    """A detector and a PDFium child, kept from document to document."""

    def __init__(self, factory: Factory, settings: Settings) -> None:
        self.settings = settings
        self.detector = factory()
        self.reader = PdfReader(deadline=settings.deadline, passwords=settings.passwords)

    def run(self, job: Job, on_page: Callable[[int], None]) -> dict[str, Any]:
        """Process a document and return the short form of its record.

        Raises only what concerns the whole run: a full disk, a missing package.
        """
        settings, folder = self.settings, job.folder(Path(self.settings.out))
        try:
            with opened(job) as path:
                record = process_document(
                    path,
                    folder,
                    self.detector,
                    options=settings.options,
                    reader=self.reader,
                    source=job.source,
                    config=settings.config,
                    on_page=on_page,
                )
        except (DiskFullError, MissingExtraError):
            raise
        except Exception as error:  # noqa: BLE001 - one document must never stop the others
            record = failed(job, settings, self.detector.name, *_why(error))
        return short(record)


def failed(job: Job, settings: Settings, model: str, reason: str, message: str) -> dict[str, Any]:
    """Write and return the record of a document that gave no result."""
    folder = job.folder(Path(settings.out))
    return failure_record(folder, job.source, model, settings.options, settings.config, reason, message)


def short(record: dict[str, Any]) -> dict[str, Any]:
    """What progress needs of a record."""
    kept = ("source", "status", "reason", "message", "pages", "pages_done")
    return {**{name: record[name] for name in kept}, **counts(record)}


def serve(channel: Connection, factory: Factory, settings: Settings) -> None:
    """The main loop of a worker process: jobs come as JSON, events go back as JSON, until the channel closes."""

    def tell(**event: Any) -> None:
        try:
            channel.send_bytes(json.dumps(event).encode())
        except OSError:  # the driver is gone; no `except Exception` may take that for a fault of the document
            raise SystemExit(1) from None

    try:
        try:
            worker = Worker(factory, settings)
            tell(event="ready")
            while True:
                job = Job(**json.loads(channel.recv_bytes()))
                tell(event="done", record=worker.run(job, lambda index: tell(event="page", page=index)))
        except FlorentuneError as error:
            tell(event="fatal", message=str(error), exit_code=error.exit_code)
    except (EOFError, OSError):  # the driver is gone: nothing is left to do
        return


def config_of(model: str, options: Options, version: str) -> str:
    """A short text that differs between runs whose results may differ."""
    return json.dumps({"model": model, "version": version, **asdict(options)}, sort_keys=True)


def identity(model: str) -> str:
    """What tells a model from others: its name, and for a folder a hash of its files, so that new weights are new."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _MODEL_FILES):
        with path.open("rb") as stream:
            digest.update(f"{path.relative_to(folder)}\n{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return f"{folder.name}@{digest.hexdigest()[:16]}"


def _why(error: Exception) -> tuple[str, str]:
    if isinstance(error, InputError):
        return error.reason, str(error)
    if isinstance(error, MemoryError):
        return "memory", "needs more memory than there is"
    return "error", f"{type(error).__name__}: {error}"
