"""What a page costs apart from the model: CPU of PDFium's child, of the worker, of the scheduler; memory; bytes.

    .venv/bin/python benchmarks/extraction_cost.py ../shared/data/papers_unlabelled --papers 10

The detector is replaced by one that puts a box on every fifth page, so a crop and a linked caption are part of the
cost. CPU seconds hold on a busy machine too; wall seconds are not reported.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from florentune.extraction.batch import run_batch
from florentune.extraction.document import Options
from florentune.extraction.inputs import collect
from florentune.extraction.pools import LocalPool
from florentune.extraction.work import Settings, Worker
from florentune.regions import Box, Page, Region


class EveryFifth:
    """A box on every fifth page."""

    name = "every-fifth"

    def detect(self, images: Iterable[tuple[str, Image.Image]], *, batch: int = 8) -> Iterator[Page]:
        for name, image in images:
            width, height = image.size
            region = Region("figure", Box(0.1 * width, 0.1 * height, 0.9 * width, 0.4 * height), 0.9)
            fifth = int(name.removeprefix("page-")) % 5 == 1
            yield Page(name, width, height, (region,) if fifth else ())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("papers", type=Path)
    parser.add_argument("--papers", dest="count", type=int, default=10)
    parser.add_argument("--dpi", type=float, default=200)
    options = parser.parse_args()
    chosen = [str(path) for path in sorted(options.papers.glob("*.pdf"))[: options.count]]
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(folder, "benchmark", Options(dpi=options.dpi))
        worker = Worker(EveryFifth, settings)
        before, pages = _cpu(resource.RUSAGE_SELF), 0
        for job in collect(chosen).jobs:
            pages += worker.run(job, lambda index: None)["pages_done"]
        after = _cpu(resource.RUSAGE_SELF)
        worker.reader.close()
        pdfium = _cpu(resource.RUSAGE_CHILDREN)
        written = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        child_memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(folder, "benchmark", Options(dpi=options.dpi))
        pool, start = LocalPool(1, EveryFifth, settings), _cpu(resource.RUSAGE_SELF)
        run_batch(collect(chosen).jobs, pool, settings, model="every-fifth")
        driver = _cpu(resource.RUSAGE_SELF) - start
    read = sum(Path(path).stat().st_size for path in chosen)
    figures = {
        "papers": len(chosen),
        "pages": pages,
        "dpi": options.dpi,
        "pdfium_cpu_ms_a_page": round(1000 * pdfium / pages, 1),
        "worker_cpu_ms_a_page": round(1000 * (after - before) / pages, 1),
        "scheduler_cpu_ms_a_page": round(1000 * driver / pages, 2),
        "worker_peak_mib": round(memory),
        "pdfium_peak_mib": round(child_memory),
        "read_kib_a_page": round(read / 1024 / pages),
        "written_kib_a_page": round(written / 1024 / pages),
    }
    print(json.dumps(figures))


def _cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
