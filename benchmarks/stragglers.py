"""How long a corpus takes on many machines: shards of a job array, simulated with stragglers and failures.

    .venv/bin/python benchmarks/stragglers.py ../shared/data/papers_unlabelled --documents 200000 --machines 64

Page counts are drawn from the real papers in the folder, machine speeds from a normal distribution of 10 % (and one
machine in fifty at half speed), machines fail by an exponential law and lose only the documents in flight, one document
in a thousand hangs until its worker is replaced. Reported is the time against the ideal (all pages at the mean speed,
no failures), for one shard a machine and for more shards than machines, which the scheduler of the array hands out.
"""

from __future__ import annotations

import argparse
import heapq
import json
from pathlib import Path

import numpy as np
import pypdfium2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("papers", type=Path)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--machines", type=int, default=64)
    parser.add_argument("--workers", type=int, default=8, help="workers a machine")
    parser.add_argument("--pages-per-second", type=float, default=1.5, help="of one worker")
    parser.add_argument("--hours-between-failures", type=float, default=24, help="of one machine")
    parser.add_argument("--silence", type=float, default=300, help="seconds a hanging document costs")
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    counts = [len(pypdfium2.PdfDocument(path)) for path in sorted(options.papers.glob("*.pdf"))]
    pages = generator.choice(counts, options.documents)
    seconds = pages / options.pages_per_second
    seconds[generator.random(options.documents) < 1e-3] += options.silence
    speeds = np.clip(generator.normal(1, 0.1, options.machines), 0.6, 1.4)
    speeds[::50] *= 0.5
    ideal = float(pages.sum()) / options.pages_per_second / (options.machines * options.workers)
    found = {}
    for factor in (1, 4, 16, 64):
        shards = [seconds[index :: options.machines * factor] for index in range(options.machines * factor)]
        found[f"{factor} shards a machine"] = round(simulate(shards, speeds, options, generator) / ideal, 3)
    print(json.dumps({"ideal_hours": round(ideal / 3600, 2), "time_against_ideal": found}))


def simulate(
    shards: list[np.ndarray], speeds: np.ndarray, options: argparse.Namespace, generator: np.random.Generator
) -> float:
    """Seconds until the last shard is done; machines take the next shard when they are free."""
    free = [(0.0, machine) for machine in range(options.machines)]
    heapq.heapify(free)
    end = 0.0
    for shard in shards:
        start, machine = heapq.heappop(free)
        needed = shard_seconds(shard, options.workers) / speeds[machine]
        failures = generator.poisson(needed / 3600 / options.hours_between_failures)
        in_flight = float(shard.mean()) * 0.5 / speeds[machine]
        finish = start + 60 + needed + failures * (300 + in_flight)  # 60 s to start, 300 s until it is rescheduled
        heapq.heappush(free, (finish, machine))
        end = max(end, finish)
    return end


def shard_seconds(shard: np.ndarray, workers: int) -> float:
    """How long a machine's workers take for a shard when each takes the next document."""
    loads = [0.0] * workers
    for document in shard:
        heapq.heapreplace(loads, loads[0] + float(document))
    return max(loads)


if __name__ == "__main__":
    main()
