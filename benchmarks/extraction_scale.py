"""Many documents, long documents, hostile documents: what `florentune extract` does with them, model included.

    .venv/bin/python benchmarks/extraction_scale.py speed ../shared/data/papers_unlabelled --papers 12
    .venv/bin/python benchmarks/extraction_scale.py memory --documents 10000
    .venv/bin/python benchmarks/extraction_scale.py long --pages 2000
    .venv/bin/python benchmarks/extraction_scale.py hostile ../shared/bad_inputs

speed    pages a second of the whole run with one worker and with two (wall time: for a quiet machine), starting apart
memory   resident memory of the driver, and of one worker and its PDFium as documents go by; workers are not replaced,
         so that what leaks shows
long     the same for the pages of one PDF
hostile  one document after the other: records, the largest memory of worker and PDFium, and the slowest in CPU time
         of both (which does not depend on what else the machine does) and on the clock

`--model none` leaves the model out (a detector that puts one box on every page). One JSON object is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pypdfium2
from PIL import Image
from pypdfium2 import raw

from florentune.detector import load_detector
from florentune.extraction import batch
from florentune.extraction.document import Options, process_document
from florentune.extraction.inputs import collect
from florentune.extraction.pools import LocalPool
from florentune.extraction.work import Factory, Settings
from florentune.pdf import PdfReader
from florentune.regions import Box, Page, Region

MIB = 2**20


class OneBox:
    """No model: a table in the same place of every page."""

    name = "none"

    def detect(self, images: Iterable[tuple[str, Image.Image]], *, batch: int = 8) -> Iterator[Page]:
        for name, image in images:
            width, height = image.size
            yield Page(
                name, width, height, (Region("table", Box(0.1 * width, 0.2 * height, 0.9 * width, 0.5 * height)),)
            )


def factory_of(model: str) -> Factory:
    return OneBox if model == "none" else partial(load_detector, model, threads=1)


def write_pdf(path: Path, pages: int) -> None:
    """A PDF whose pages hold a caption, a table of 6 x 4 numbers, and a line of text."""
    pdf = pypdfium2.PdfDocument.new()
    font = raw.FPDFText_LoadStandardFont(pdf.raw, b"Helvetica")
    for number in range(pages):
        page = pdf.new_page(300, 400)
        _write(pdf, font, page, 40, 340, f"Table {number + 1}: Numbers of document {path.stem}.")
        for row in range(6):
            for column in range(4):
                _write(pdf, font, page, 40 + 55 * column, 310 - 14 * row, f"{number + row}.{column}")
        _write(pdf, font, page, 40, 180, "A line of text that belongs to nothing.")
        page.gen_content()
        page.close()
    pdf.save(path)


def _write(pdf: Any, font: Any, page: Any, x: float, y: float, text: str) -> None:
    handle = raw.FPDFPageObj_CreateTextObj(pdf.raw, font, 9)
    raw.FPDFText_SetText(handle, (raw.c_ushort * (len(text) + 1))(*map(ord, text), 0))
    raw.FPDFPageObj_Transform(handle, 1, 0, 0, 1, x, y)
    raw.FPDFPage_InsertObject(page.raw, handle)


def speed(options: argparse.Namespace) -> dict[str, Any]:
    paths = sorted(path for path in options.input.glob("*.pdf") if not path.name.startswith("m"))[: options.papers]
    jobs, found = collect(map(str, paths)).jobs, {}
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings(folder, "benchmark", Options(dpi=options.dpi))
            pool, start, marks = LocalPool(workers, factory_of(options.model), settings), time.monotonic(), [0.0]
            cpu = time.process_time()

            def note(record: dict[str, Any], progress: batch.Progress, marks: list[float] = marks) -> None:
                marks.append(time.monotonic())

            progress = batch.run_batch(jobs, pool, settings, model=options.model, on_document=note)
            seconds = time.monotonic() - start
            found[f"{workers} worker"] = {
                "pages": progress.pages,
                "pages_per_second": round(progress.pages / seconds, 2),
                "seconds": round(seconds, 1),
                "scheduler_cpu_ms_a_page": round(1000 * (time.process_time() - cpu) / progress.pages, 2),
            }
    ratio = found["2 worker"]["pages_per_second"] / found["1 worker"]["pages_per_second"]
    return {"papers": len(jobs), "dpi": options.dpi, **found, "two_against_one": round(ratio, 2)}


def memory(options: argparse.Namespace) -> dict[str, Any]:
    batch.RECYCLE = options.documents + 1
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.documents):
            write_pdf(Path(folder, f"{number:06}.pdf"), 1)
        settings = Settings(str(Path(folder, "out")), "benchmark", Options(dpi=options.dpi))
        every, rows = max(options.documents // 10, 1), []

        def note(record: dict[str, Any], progress: batch.Progress) -> None:
            if progress.done % every == 0 or progress.done == every // 2:
                worker = _children(os.getpid())
                rows.append([progress.done, _mib(os.getpid()), *(sum(map(_mib, part)) for part in worker)])

        pool = LocalPool(1, factory_of(options.model), settings)
        progress = batch.run_batch(collect([folder]).jobs, pool, settings, model=options.model, on_document=note)
    first, last = rows[0], rows[-1]
    thousands = (last[0] - first[0]) / 1000
    return {
        "documents": progress.done,
        "status": progress.status,
        "driver_mib": max(row[1] for row in rows),
        "worker_growth_mib_per_1000": round((last[2] - first[2]) / thousands, 2),
        "pdfium_growth_mib_per_1000": round((last[3] - first[3]) / thousands, 2),
        "documents, driver, worker, PDFium": rows,
    }


def long(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, PdfReader() as reader:
        write_pdf(Path(folder, "long.pdf"), options.pages)
        rows: list[list[float]] = []

        def note(index: int) -> None:
            if (index + 1) % max(options.pages // 8, 1) == 0:
                rows.append([index + 1, _mib(os.getpid()), *map(_mib, _children(os.getpid())[0])])

        detector, start = factory_of(options.model)(), time.process_time()
        record = process_document(
            Path(folder, "long.pdf"),
            Path(folder, "out"),
            detector,
            options=Options(dpi=options.dpi),
            reader=reader,
            on_page=note,
        )
    seconds = time.process_time() - start
    found = {"pages": record["pages_done"], "figures": len(record["figures"]), "cpu_seconds": round(seconds, 1)}
    return {**found, "pages, process, PDFium (MiB)": rows}


def hostile(options: argparse.Namespace) -> dict[str, Any]:
    paths = [path for kind in ("pdfs", "images") for path in sorted((options.input / kind).iterdir())]
    detector, records, largest = factory_of(options.model)(), Counter[str](), [0.0, 0.0]
    clock: list[tuple[float, int, str]] = []
    cpu: list[tuple[float, int, str]] = []
    with tempfile.TemporaryDirectory() as folder, PdfReader() as reader:
        for number, path in enumerate(paths):
            _forget_peak()
            start, used, out = time.monotonic(), _cpu_seconds(), Path(folder, str(number))
            record = process_document(path, out, detector, options=Options(dpi=options.dpi), reader=reader)
            clock.append((round(time.monotonic() - start, 1), record["pages"], path.name))
            cpu.append((round(_cpu_seconds() - used, 1), record["pages"], path.name))
            children = _children(os.getpid())[0]
            peaks = [_mib(os.getpid(), "VmHWM"), *(_mib(child, "VmHWM") for child in children)]
            largest = [max(pair) for pair in zip(largest, [*peaks, 0.0], strict=False)]
            found = [json.loads(file.read_text()) for file in out.glob("document.json")]
            records[f"{len(found)} record, {found[0]['status'] if found else ''}"] += 1
    return {
        "files": len(paths),
        "records": records,
        "over_10_s_of_cpu": sum(seconds > 10 for seconds, *_ in cpu),
        "over_10_s_on_the_clock": sum(seconds > 10 for seconds, *_ in clock),
        "slowest in CPU time (s, pages)": sorted(cpu, reverse=True)[:5],
        "slowest on the clock (s, pages)": sorted(clock, reverse=True)[:5],
        "peak_mib_process_and_pdfium": largest,
        "respawns": reader.respawns,
    }


def _cpu_seconds() -> float:
    """CPU time of this process and of its children, dead and alive."""
    own = os.times()
    stats = [Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split() for child in _children_of(os.getpid())]
    alive = sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")
    return own.user + own.system + own.children_user + own.children_system + alive


def _children(pid: int) -> tuple[list[int], list[int]]:
    """The children of a process (without Python's resource tracker), and theirs."""
    found = [
        child for child in _children_of(pid) if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    return found, [grandchild for child in found for grandchild in _children_of(child)]


def _children_of(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in lists for child in file.read_text().split()]


def _mib(pid: int, field: str = "VmRSS") -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith(field)), 0.0)


def _forget_peak() -> None:
    """Let the kernel count this process's peak memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "memory", "long", "hostile"))
    parser.add_argument("input", type=Path, nargs="?", help="the folder of papers or of hostile files")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--dpi", type=float, default=200)
    parser.add_argument("--papers", type=int, default=12)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--pages", type=int, default=2000)
    options = parser.parse_args()
    run = {"speed": speed, "memory": memory, "long": long, "hostile": hostile}[options.what]
    print(json.dumps({"what": options.what, "model": options.model, **run(options)}))


if __name__ == "__main__":
    main()
