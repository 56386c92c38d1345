"""Draw curve.png from the logs of the runs: page success on the held-out papers, and the location loss.

python recipes/nano/curve.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

HERE = Path(__file__).parent
LOGS = ("log.jsonl", "log_second.jsonl", "log_third.jsonl", "log_fourth.jsonl")
BATCH = 32


def records() -> list[list[dict[str, Any]]]:
    """The records of each run, with `pages` seen since the start of the first."""
    runs, seen = [], 0
    for name in LOGS:
        run = [json.loads(line) for line in (HERE / name).read_text().splitlines()]
        run = [{**record, "pages": seen + record["step"] * BATCH} for record in run]
        seen = run[-1]["pages"]
        runs.append(run)
    return runs


def main() -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    success, loss = figure.subplots(1, 2)
    for number, run in enumerate(records(), start=1):
        watched = [record for record in run if "success_0.7" in record]
        style = {"color": str(0.8 - 0.2 * number), "linestyle": ("-", "--", "-.", ":")[number - 1]}
        label = f"run {number}, {run[-1]['side']} pixels at its end"
        success.plot([r["pages"] for r in watched], [r["success_0.7"] for r in watched], label=label, **style)
        loss.plot([r["pages"] for r in run], [r["location"] for r in run], label=label, **style)
    success.set(xlabel="pages seen", ylabel="page success at IoU .7, held-out papers", ylim=(0, 1))
    loss.set(xlabel="pages seen", ylabel="location loss")
    success.legend(fontsize=8)
    figure.savefig(HERE / "curve.png", dpi=110)


if __name__ == "__main__":
    main()
