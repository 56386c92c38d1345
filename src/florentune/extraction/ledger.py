"""What a run has on disk: the plan, which documents are done, how often one was tried, and the tables at the end.

OUT/plan/<hash>.jsonl           the jobs of a run or shard, written once
OUT/<id[:2]>/<id>/document.json a document is done when this is there and names the same configuration
OUT/attempts/<id>.json          starts and worker deaths of a document that is not done
OUT/documents.jsonl, figures.parquet or figures.jsonl, summary.json   by `finalize`, sorted by source
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_json, write_json, written_whole
from .document import DOCUMENT, counts, printable
from .inputs import Job

MAX_DEATHS = 3
MAX_STARTS = 10
"""A document that was started so often without an end took the whole run down with it each time."""

FIGURES = "florentune.figures/1"
_ROWS = 10_000
_FILES = ("crop", "crop_with_caption", "clip", "csv", "words")
_COLUMNS = {
    **dict.fromkeys(("document", "source", "id", "kind", "number", "label", "caption"), "string"),
    "page": "int32",
    **dict.fromkeys(("page_width", "page_height", "x1", "y1", "x2", "y2"), "float64"),
    **dict.fromkeys(("caption_x1", "caption_y1", "caption_x2", "caption_y2", "score"), "float64"),
    "rotation": "int32",
    "text_layer": "bool",
    **dict.fromkeys(("text", *_FILES), "string"),
}
_MISSING: dict[str, Any] = {"status": "missing", "reason": "not_done", "message": "no result yet", "figures": []}


class Ledger:
    """The state of an output folder for one configuration (model, options, version)."""

    def __init__(self, out: Path, config: str) -> None:
        self.out, self.config = out, config

    def plan(self, jobs: Sequence[Job]) -> None:
        """Write the plan of a run; the same jobs always make the same file."""
        lines = "".join(json.dumps(job.as_dict(), ensure_ascii=True) + "\n" for job in jobs)
        name = hashlib.sha256(lines.encode()).hexdigest()[:16]
        path = self.out / "plan" / f"{name}.jsonl"
        if not path.exists():
            with written_whole(path) as stream:
                stream.write(lines)

    def record(self, job: Job) -> dict[str, Any] | None:
        """The record of a document that is done with this configuration, else None."""
        record = read_record(self.out, job)
        return record if record is not None and record.get("config") == self.config else None

    def start(self, job: Job) -> bool:
        """Note that a document is being started; False when it has to be given up instead."""
        tries = self._tries(job)
        if tries["deaths"] >= MAX_DEATHS or tries["starts"] >= MAX_STARTS:
            return False
        self._note(job, {**tries, "starts": tries["starts"] + 1})
        return True

    def died(self, job: Job) -> None:
        """Note that a worker died on a document."""
        tries = self._tries(job)
        self._note(job, {**tries, "deaths": tries["deaths"] + 1})

    def interrupted(self, job: Job) -> None:
        """Take back a start that the user interrupted."""
        tries = self._tries(job)
        self._note(job, {**tries, "starts": max(tries["starts"] - 1, 0)})

    def finished(self, job: Job) -> None:
        self._path(job).unlink(missing_ok=True)

    def _path(self, job: Job) -> Path:
        return self.out / "attempts" / f"{job.id}.json"

    def _tries(self, job: Job) -> dict[str, int]:
        try:
            found = read_json(self._path(job))
            return {"starts": int(found["starts"]), "deaths": int(found["deaths"])}
        except (InputError, KeyError, TypeError, ValueError):
            return {"starts": 0, "deaths": 0}

    def _note(self, job: Job, tries: dict[str, int]) -> None:
        write_json(self._path(job), tries, indent=None)


def read_record(out: Path, job: Job) -> dict[str, Any] | None:
    """The document.json of a job, whatever its configuration; None when there is none that can be read."""
    try:
        record = read_json(job.folder(out) / DOCUMENT)
    except InputError:
        return None
    return record if isinstance(record, dict) else None


def finalize(out: Path) -> dict[str, Any]:
    """Gather all planned documents of an output folder into tables and a summary, and return the summary.

    The bytes depend only on the documents: run it as often as you like. figures.parquet is written where pyarrow is
    installed (extra [parquet]), figures.jsonl elsewhere. Raises InputError when nothing was planned there.
    """
    totals: Counter[str] = Counter()
    status: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with written_whole(out / "documents.jsonl") as stream, _figure_table(out) as (table, write):
        for job in _planned(out):
            record = read_record(out, job) or _MISSING
            line = _document_row(job, record)
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            write(_figure_rows(job, record))
            status[line["status"]] += 1
            reasons.update([line["reason"]] if line["reason"] else [])
            totals.update({name: line[name] for name in ("pages", "pages_done", "tables", "figures")})
    summary = {
        "documents": status.total(),
        "status": dict(sorted(status.items())),
        "reasons": dict(sorted(reasons.items())),
        **{name: totals[name] for name in ("pages", "pages_done", "tables", "figures")},
        "table_of_figures": table,
    }
    write_json(out / "summary.json", summary)
    return summary


def _planned(out: Path) -> list[Job]:
    jobs: dict[str, Job] = {}
    for path in sorted((out / "plan").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            job = Job(**json.loads(line))
            jobs[job.id] = job
    if not jobs:
        raise InputError(f"{out}: no run was planned there; run `florentune extract INPUT --out {out}` first")
    return sorted(jobs.values(), key=lambda job: (job.source, job.id))


def _document_row(job: Job, record: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": job.id,
        "source": printable(job.source),
        **{name: record[name] for name in ("status", "reason", "message")},
        "pages": record.get("pages", 0),
        "pages_done": record.get("pages_done", 0),
        **counts(record),
        "sha256": record.get("sha256"),
    }


def _figure_rows(job: Job, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table of figures, with the columns of _COLUMNS; paths are relative to OUT."""
    place = {"document": job.id, "source": printable(job.source)}
    folder = f"{job.id[:2]}/{job.id}"
    rows = []
    for entry in record["figures"]:
        boxes = {"": entry["bbox"], "caption_": entry["caption_bbox"] or [None] * 4}
        corners = {
            f"{kind}{name}": value
            for kind, box in boxes.items()
            for name, value in zip(("x1", "y1", "x2", "y2"), box, strict=True)
        }
        size = dict(zip(("page_width", "page_height"), entry["page_size"], strict=True))
        files = {name: f"{folder}/{entry[name]}" if entry.get(name) else None for name in _FILES}
        row = {**entry, **place, **size, **corners, **files}
        rows.append({name: row[name] for name in _COLUMNS})
    return rows


@contextlib.contextmanager
def _figure_table(out: Path) -> Iterator[tuple[str, Callable[[list[dict[str, Any]]], None]]]:
    """The name of the table of figures, and what adds rows to it: Parquet where pyarrow is, else JSON lines."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        with written_whole(out / "figures.jsonl") as stream:
            yield (
                "figures.jsonl",
                lambda rows: stream.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in rows),
            )
        return
    columns = [(name, pyarrow.type_for_alias(kind)) for name, kind in _COLUMNS.items()]
    schema = pyarrow.schema(columns, metadata={"schema": FIGURES})
    held: list[dict[str, Any]] = []
    with (
        written_whole(out / "figures.parquet", "wb") as stream,
        pyarrow.parquet.ParquetWriter(stream, schema, compression="zstd") as writer,
    ):

        def write(rows: list[dict[str, Any]], least: int = _ROWS) -> None:
            held.extend(rows)
            if len(held) >= least:
                writer.write_table(pyarrow.Table.from_pylist(held, schema=schema))
                held.clear()

        yield "figures.parquet", write
        write([], least=1)
