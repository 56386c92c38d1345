"""What the server makes of its machine: throughput with several clients, the wait of a single one, refusals when full.

    python benchmarks/serving.py [--model nano] [--clients 8] [--requests 120] [--rounds 3]

Three servers take turns on the same pages (generated, 200 dpi, PNG over loopback), each its own process tree:

- one by one: the worker opens a page, runs the model, answers, then takes the next;
- opened ahead: the next page is opened while the model runs, one page a run (`--batch 1`);
- batches: what `florentune serve` does by default.

Then the last one is kept full, and what a refused client waits for its 503 is measured. Clients and servers share the
cores, as they do on a small machine.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from florentune.detector import Prediction, load_detector
from florentune.synth import Settings, synthesize

WAYS = ("one by one", "opened ahead", "batches")


class OneByOne:
    """A detector that opens a page only when its turn has come: a server without batching."""

    def __init__(self, model: str) -> None:
        self._detector = load_detector(model)
        self.name, self.labels, self.thresholds = self._detector.name, self._detector.labels, self._detector.thresholds
        self.warm_up = self._detector.warm_up

    def open(self, name: str, source: Path) -> tuple[str, Path]:
        return name, source

    def run(self, opened: Sequence[tuple[str, Path]], *, conf: float | None = None) -> list[Prediction]:
        return [p for name, path in opened for p in self._detector.run([self._detector.open(name, path)], conf=conf)]


def serve(way: str, model: str) -> None:
    """Be one of the servers, until a signal comes."""
    from florentune.server import Limits, create_app
    from florentune.server import serve as run

    limits = Limits() if way == "batches" else Limits(batch=1, waiting=2 * Limits().waiting)
    app = create_app(partial(OneByOne, model) if way == "one by one" else model, limits=limits)
    run(app, "127.0.0.1", 0, lambda address: print(address.rpartition(":")[2], flush=True))


@contextlib.contextmanager
def server(way: str, model: str) -> Iterator[int]:
    """The port of a server that is ready."""
    command = [sys.executable, __file__, "--serve", way, "--model", model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            while ask(port, "GET", "/readyz")[0] != 200:
                time.sleep(0.2)
            yield port
        finally:
            process.terminate()


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, float]:
    """Status, and seconds from the request to the last byte of the answer, of a new connection."""
    began = time.perf_counter()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request(method, path, body, {"Content-Type": "image/png"} if body else {})
        answer = connection.getresponse()
        answer.read()
    return answer.status, time.perf_counter() - began


def throughput(port: int, pages: list[bytes], clients: int, requests: int) -> float:
    """Pages a second that get an answer; a client asks again when it has one. Refusals would end the run."""
    turns = itertools.islice(itertools.cycle(pages), requests)

    def post(page: bytes) -> None:
        status, _ = ask(port, "POST", "/v1/detect", page)
        assert status == 200, status

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(post, turns))
    return requests / (time.perf_counter() - began)


def refusals(port: int, pages: list[bytes], count: int) -> list[float]:
    """Seconds to the 503 of each of `count` requests while others keep the server full."""
    ended = threading.Event()

    def keep_full() -> None:
        for page in itertools.cycle(pages):
            if ended.is_set():
                return
            ask(port, "POST", "/v1/detect", page)

    with ThreadPoolExecutor(12) as threads:
        for _ in range(12):
            threads.submit(keep_full)
        time.sleep(2)
        found: list[float] = []
        try:
            for page in itertools.cycle(pages):
                status, seconds = ask(port, "POST", "/v1/detect", page)
                found += [seconds] if status == 503 else []
                if len(found) == count:
                    return found
        finally:
            ended.set()
    raise AssertionError


def report(name: str, values: dict[str, list[float]], unit: str, better: Callable[[float, float], float]) -> None:
    base = statistics.median(values[WAYS[0]])
    for way, found in values.items():
        middle = statistics.median(found)
        spread = f"{min(found):.1f}..{max(found):.1f}"
        print(f"{name:<22}{way:<16}{middle:>8.1f} {unit:<10}{spread:<16}{better(middle, base):>+8.2f}")


def measure(options: argparse.Namespace, pages: list[bytes]) -> None:
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    waits: dict[str, list[float]] = {way: [] for way in WAYS}
    with contextlib.ExitStack() as stack:
        ports = {way: stack.enter_context(server(way, options.model)) for way in WAYS}
        for port in ports.values():
            throughput(port, pages, options.clients, len(pages))  # every page once, so that caches are warm
        for _ in range(options.rounds):
            for way, port in ports.items():
                rates[way].append(throughput(port, pages, options.clients, options.requests))
        for page in pages * options.rounds:
            for way, port in ports.items():
                waits[way].append(1000 * ask(port, "POST", "/v1/detect", page)[1])
        refused = sorted(1000 * seconds for seconds in refusals(ports[WAYS[-1]], pages, options.refusals))
    size = sum(map(len, pages)) / len(pages) / 1000
    print(f"{len(pages)} pages of {size:.0f} kB, model {options.model}; medians, range, beside one by one\n")
    report(f"{options.clients} clients", rates, "pages/s", lambda value, base: value / base)
    report("one client, p50", waits, "ms", lambda value, base: value - base)
    middle, late = statistics.median(refused), refused[int(0.99 * (len(refused) - 1))]
    print(f"\nrefused when full: p50 {middle:.0f} ms, p99 {late:.0f} ms, most {refused[-1]:.0f} ms of {len(refused)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--refusals", type=int, default=200)
    parser.add_argument("--serve", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve, options.model)
    with tempfile.TemporaryDirectory() as place:
        synthesize(Path(place) / "set", Settings(pages=options.pages, seed=5, dpi=200))
        pages: list[Any] = [path.read_bytes() for path in sorted((Path(place) / "set" / "images").glob("*.png"))]
    measure(options, pages)


if __name__ == "__main__":
    main()
