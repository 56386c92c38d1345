"""What a run has on disk: the plan, which documents are done, how often one was tried, and the tables at the end.

OUT/plan/<hash>.jsonl           the jobs of a run or shard, written once
OUT/<id[:2]>/<id>/document.json a document is done when this is there and names the same configuration
OUT/attempts/<id>.json          starts and worker deaths of a document that is not done
OUT/documents.jsonl, figures.parquet or figures.jsonl, summary.json   by `finalize`, sorted by source
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_json, write_json, written_whole
from .document import DOCUMENT, printable
from .inputs import Job

MAX_DEATHS = 3
MAX_STARTS = 10
"""A document that was started so often without an end took the whole run down with it each time."""

_ROWS = 10_000


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
    jobs = _planned(out)
    counts: Counter[str] = Counter()
    status: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with written_whole(out / "documents.jsonl") as stream:
        for job in jobs:
            line = _document_row(job, read_record(out, job))
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            status[line["status"]] += 1
            reasons.update([line["reason"]] if line["reason"] else [])
            counts.update({name: line[name] for name in ("pages", "pages_done", "tables", "figures")})
    summary = {
        "documents": len(jobs),
        "status": dict(sorted(status.items())),
        "reasons": dict(sorted(reasons.items())),
        **{name: counts[name] for name in ("pages", "pages_done", "tables", "figures")},
        "table_of_figures": _write_figures(out, jobs),
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


def _document_row(job: Job, record: dict[str, Any] | None) -> dict[str, Any]:
    record = record or {"status": "missing", "reason": "not_done", "message": "no result yet", "figures": []}
    kinds = Counter(entry["kind"] for entry in record["figures"])
    return {
        "id": job.id,
        "source": printable(job.source),
        "status": record["status"],
        "reason": record["reason"],
        "message": record["message"],
        "pages": record.get("pages", 0),
        "pages_done": record.get("pages_done", 0),
        "tables": kinds["table"],
        "figures": kinds["figure"],
        "sha256": record.get("sha256"),
    }


def _figure_rows(out: Path, jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
    for job in jobs:
        for entry in (read_record(out, job) or {"figures": []})["figures"]:
            folder = f"{job.id[:2]}/{job.id}"
            x1, y1, x2, y2 = entry["bbox"]
            yield {
                "document": job.id,
                "source": printable(job.source),
                **{name: entry[name] for name in ("id", "kind", "number", "label", "caption", "page")},
                **{"x1": x1, "y1": y1, "x2": x2, "y2": y2},
                **{name: entry[name] for name in ("score", "rotation", "text_layer", "text")},
                **{name: f"{folder}/{entry[name]}" if entry.get(name) else None for name in ("crop", "clip", "csv")},
            }


def _write_figures(out: Path, jobs: Sequence[Job]) -> str:
    rows = _figure_rows(out, jobs)
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        with written_whole(out / "figures.jsonl") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return "figures.jsonl"
    text = ("document", "source", "id", "kind", "number", "label", "caption", "text", "crop", "clip", "csv")
    types = {
        **dict.fromkeys(text, pyarrow.string()),
        **dict.fromkeys(("x1", "y1", "x2", "y2", "score"), pyarrow.float64()),
        **dict.fromkeys(("page", "rotation"), pyarrow.int32()),
        "text_layer": pyarrow.bool_(),
    }
    schema = pyarrow.schema(sorted(types.items()))
    with (
        written_whole(out / "figures.parquet", "wb") as stream,
        pyarrow.parquet.ParquetWriter(stream, schema, compression="zstd") as writer,
    ):
        while group := [row for _, row in zip(range(_ROWS), rows, strict=False)]:
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
    return "figures.parquet"
