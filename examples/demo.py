"""The whole job on your own machine, step by step: `make demo`.

Generates papers, checks and converts them, fine-tunes nano with the LLaMA-Factory YAML, measures before and after, and
finds the tables and figures of pages it never saw. The generated boxes hold the captions, a habit nano does not have,
so that there is something to learn. Every step is a `florentune` command and is printed as such.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "demo"
SHARED = Path(os.environ.get("FLORENTUNE_SHARED", ROOT.parent / "shared"))
LEVELS = ("0.5", "0.7")


def run(*words: object, may_find: bool = False) -> str:
    """Print a florentune command, run it and show its output; exit code 1 is a finding where `may_find` says so."""
    shown = shlex.join(map(str, ("florentune", *words)))
    fold = textwrap.TextWrapper(76, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    print("\n$ " + " \\\n".join(fold.wrap(shown)), flush=True)
    command = [sys.executable, "-m", "florentune", *map(str, words)]
    done = subprocess.run(command, cwd=OUT, text=True, stdout=subprocess.PIPE)
    lines = done.stdout.splitlines()
    print("\n".join(lines if len(lines) <= 24 else [*lines[:20], f"... {len(lines) - 20} more lines"]), flush=True)
    if done.returncode not in ((0, 1) if may_find else (0,)):
        sys.exit(done.returncode)
    return done.stdout


def title(text: str) -> None:
    print(f"\n{'─' * 79}\n{text}\n{'─' * 79}", flush=True)


def step_data() -> None:
    """Generated papers as COCO, checked, split by paper, converted and registered."""
    title("1. Papers whose boxes hold the captions, which nano leaves out")
    run("synth", "papers", "--pages", 160, "--seed", 1, "--workers", 2, "--captions")
    run("check", "papers/annotations.json", "--images", "papers/images")
    paper = r"^(paper_\d+)_"
    run("convert", "papers/annotations.json", "data/demo.json", "--to", "llamafactory", "--images", "papers/images",
        "--split", "80/20", "--group-by", paper, "--register", "data/dataset_info.json")  # fmt: skip
    run("convert", "papers/annotations.json", "data/coco.json", "--to", "coco", "--images", "papers/images",
        "--split", "80/20", "--group-by", paper)  # fmt: skip


def step_train() -> None:
    """The LLaMA-Factory YAML as it is, with smaller numbers."""
    title("2. Fine-tune nano with the LLaMA-Factory YAML")
    shutil.copy(ROOT / "examples" / "florence2_full_sft.yaml", OUT / "florence2_full_sft.yaml")
    run("train", "florence2_full_sft.yaml", "model_name_or_path=nano", "dataset=demo_train", "eval_dataset=demo_val",
        "val_size=0", "dataset_dir=data", "media_dir=papers/images", "output_dir=run", "learning_rate=1e-4",
        "num_train_epochs=3", "per_device_train_batch_size=8", "per_device_eval_batch_size=8", "save_steps=1000",
        "eval_strategy=epoch", "logging_steps=2")  # fmt: skip


def evaluated(name: str, data: Path, images: Path, model: str) -> dict[str, float]:
    """Evaluate and keep the few figures of the closing table."""
    file = OUT / f"{name}.json"
    run("evaluate", data, "--images", images, "--model", model, "--json", file, "--conf", "0.5", may_find=True)
    found = json.loads(file.read_text())
    found = found.get("evaluation", found)
    return {"mAP": found["map"], **{f"right, IoU {level}": found["page_success"][level] for level in LEVELS}}


def step_evaluate() -> dict[str, dict[str, float]]:
    """Held-out generated papers before and after, and real pages where they lie beside the checkout."""
    title("3. Before and after, on papers the run never saw")
    rows = {}
    for when, model in (("before", "nano"), ("after", "run/best")):
        rows[f"generated papers, {when}"] = evaluated(when, OUT / "data/coco_val.json", OUT / "papers/images", model)
    if (SHARED / "data" / "tfid").is_dir():
        pages = OUT / "real"
        script = ROOT / "benchmarks" / "tfid_pages.py"
        subprocess.run([sys.executable, script, "--shared", SHARED, "--out", pages], check=True)
        rows["real arXiv pages, nano"] = evaluated("real", pages / "annotations.json", pages / "images", "nano")
    else:
        print(f"\n(no real pages at {SHARED}; `florentune predict your.pdf` shows nano on yours)")
    return rows


def step_predict() -> None:
    """Boxes drawn on held-out pages."""
    title("4. Boxes on pages")
    held = json.loads((OUT / "data/coco_val.json").read_text())
    boxed = {annotation["image_id"] for annotation in held["annotations"]}
    names = [image["file_name"] for image in held["images"] if image["id"] in boxed][:2]
    pages = (f"papers/images/{Path(name).name}" for name in names)
    # a minute of training leaves the model unsure: its own thresholds would hide most boxes
    run("predict", *pages, "--model", "run/best", "--conf", "0.3", "--out", "boxes")
    if (OUT / "real" / "annotations.json").exists():
        real = json.loads((OUT / "real" / "annotations.json").read_text())
        boxed = {annotation["image_id"] for annotation in real["annotations"]}
        names = [image["file_name"] for image in real["images"] if image["id"] in boxed][:3]
        run("predict", *(f"real/images/{Path(name).name}" for name in names), "--out", "boxes")


def main() -> None:
    started = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    print("The whole job with florentune's own commands, in the folder demo:\n\n$ cd demo")
    step_data()
    step_train()
    rows = step_evaluate()
    step_predict()
    title("What came out")
    print(f"{'':<32}" + "".join(f"{name:>16}" for name in next(iter(rows.values()))))
    for name, row in rows.items():
        print(f"{name:<32}" + "".join(f"{value:>16.3f}" for value in row.values()))
    print('\n"right" is the share of pages with every box right and none extra. To look at:')
    print("    demo/boxes                    boxes drawn on pages")
    print("    demo/run/training_loss.png    the loss")
    print("\nTry next, after `. .venv/bin/activate`:")
    print("    florentune predict PAGE.png --model demo/run/best    what was trained just now")
    print("    florentune extract PAPER.pdf --out out               nano, with captions")
    print("    florentune train examples/tables_and_figures.yaml \\")
    print("        dataset=YOURS.json images=YOUR_PAGES             docs/tutorial.md leads there")
    print(f"\nTook {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
