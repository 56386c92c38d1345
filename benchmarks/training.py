"""Fine-tuning beside what people use: the same model, pages, batch and machine, one after the other, in one run.

    python benchmarks/training.py [--only full frozen limit nano memory losses] [--steps 7] [--batch 2] [--size base]

Peers: "plain" is the recipe everybody copies (transformers in fp32, one thread of control, the processor called in the
collator at each step, pads in the loss); "Trainer" is transformers' own Trainer in bf16 with two worker processes and
masked pads. "base" has Florence-2-base's size and random weights, "nano" is the model of this package at 512 x 512.
Every contender is a process of its own, so its peak memory is its own (read from /proc: Linux only). Pages are
generated ones rendered at 100 dpi.

Seconds are medians of the steps after the first three, in which a process gets its memory from the system, and include
the wait for pages. Repeats (`--repeats`) interleave the contenders, and each takes its fastest repeat. `--size nano`
puts nano in base's place: a rehearsal of the program.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from florentune.model.checkpoint import open_checkpoint
from florentune.model.florence import build_model, load_model, save_checkpoint
from florentune.model.sizes import size_config
from florentune.synth import Settings, synthesize
from florentune.training import load_config, train
from florentune.training.batches import AnswerEncoder, Schedule, prompt_ids
from florentune.training.datasets import load_data
from florentune.training.objective import AnswerLoss

Job = dict[str, Any]
LEARNING_RATE = 1e-5
ROWS = ("full", "frozen", "limit", "nano", "memory", "losses")
WARM_UP = 3  # steps that are not counted


# the contenders: each is called in a process of its own and returns seconds and losses by step -----------------------


def florentune(job: Job) -> Job:
    """`train` as it is, without validation."""
    train(_config(job))
    lines = [json.loads(line) for line in (Path(job["output"]) / "metrics.jsonl").read_text().splitlines()]
    return {
        "seconds": [job["batch"] / line["pages_per_second"] for line in lines],
        "losses": [line["loss"] for line in lines],
        "waiting": [line["waiting"] for line in lines],
    }


def plain(job: Job) -> Job:
    """The loop of the blog posts: DataLoader, processor in the collator, fp32, AdamW, pads in the loss."""
    from torch.utils.data import DataLoader
    from transformers import Florence2ForConditionalGeneration, get_scheduler

    model = Florence2ForConditionalGeneration.from_pretrained(job["model"], dtype=torch.float32).train()
    _freeze(model, job)
    collate = Collator(job, masked=False)
    loader = DataLoader(_rows(job), batch_size=job["batch"], collate_fn=collate)
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=LEARNING_RATE)
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=job["steps"])
    seconds, losses, began = [], [], time.perf_counter()
    for batch in loader:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(float(loss))
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return {"seconds": seconds, "losses": losses}


def trainer(job: Job) -> Job:
    """transformers' Trainer, told the order of the pages; everything else is its own."""
    from torch.utils.data import SequentialSampler
    from transformers import Florence2ForConditionalGeneration, Trainer, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began, self.seconds = time.perf_counter(), []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            now = time.perf_counter()
            self.seconds.append(now - self.began)
            self.began = now

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> SequentialSampler:
            return SequentialSampler(self.train_dataset)

    model = Florence2ForConditionalGeneration.from_pretrained(job["model"], dtype=torch.float32)
    _freeze(model, job)
    clock = Clock()
    settings = TrainingArguments(
        output_dir=job["output"],
        per_device_train_batch_size=job["batch"],
        learning_rate=LEARNING_RATE,
        max_steps=job["steps"],
        bf16=job["bf16"],
        gradient_checkpointing=job["checkpointing"],
        use_cpu=True,
        dataloader_num_workers=2,
        remove_unused_columns=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    run = InOrder(
        model, settings, train_dataset=_rows(job), data_collator=Collator(job, masked=True), callbacks=[clock]
    )
    run.train()
    losses = [line["loss"] for line in run.state.log_history if "loss" in line]
    return {"seconds": clock.seconds, "losses": losses}


class Collator:
    """Images and answers to the model's arguments through the processor, at every step."""

    def __init__(self, job: Job, *, masked: bool) -> None:
        from transformers import Florence2Processor

        self._processor, self._masked = Florence2Processor.from_pretrained(job["model"]), masked

    def __call__(self, rows: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
        images = [Image.open(path).convert("RGB") for path, _ in rows]
        batch = self._processor(text=["<OD>"] * len(rows), images=images, return_tensors="pt", padding=True)
        tokens = self._processor.tokenizer([answer for _, answer in rows], return_tensors="pt", padding=True)
        labels = tokens["input_ids"]
        if self._masked:
            labels = labels.masked_fill(tokens["attention_mask"] == 0, -100)
        return {**batch, "labels": labels}


def _freeze(model: Any, job: Job) -> None:
    if job["frozen"]:
        model.model.vision_tower.requires_grad_(False)


def _config(job: Job) -> Any:
    values = {
        "model_name_or_path": job["model"],
        "dataset": job["dataset"],
        "images": job["images"],
        "output_dir": job["output"],
        "per_device_train_batch_size": job["batch"],
        "learning_rate": LEARNING_RATE,
        "max_steps": job["steps"],
        "freeze_vision_tower": job["frozen"],
        "bf16": job["bf16"],
        "gradient_checkpointing": job["checkpointing"],
        "logging_steps": 1,
        "save_steps": 10**6,
        "plot_loss": False,
        "report_to": "none",
        "use_cpu": True,
    }
    return load_config(None, values)


def _rows(job: Job) -> list[tuple[str, str]]:
    """(image file, answer text) in the order in which florentune trains on them."""
    config = _config(job)
    data = load_data(config)
    tokenizer = open_checkpoint(job["model"]).tokenizer()
    encode = AnswerEncoder(tokenizer, data.labels, config.order)
    schedule = Schedule(len(data.train), job["batch"], config.seed)
    rows = []
    for batch in schedule.batches(0, job["steps"]):
        for _, index in batch:
            page = data.train[index].page
            ids = encode(page.regions, page.width, page.height)
            rows.append((str(Path(job["images"]) / page.image), tokenizer.decode(ids, skip_special_tokens=False)[3:-4]))
    return rows


CONTENDERS: dict[str, Callable[[Job], Job]] = {"florentune": florentune, "plain": plain, "trainer": trainer}


# the rows of the table -----------------------------------------------------------------------------------------------


class Bench:
    """Jobs over the same pages, and what came of them."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work, self.count = options, work, 0
        synthesize(work / "set", Settings(pages=options.pages, seed=3))

    def model(self, size: str) -> Path:
        """base: random weights and nano's tokenizer in front of base's vocabulary; nano: its weights at 512 x 512."""
        folder = self.work / size
        if not folder.exists():
            nano = open_checkpoint("nano")
            torch.manual_seed(0)
            config = size_config(size)
            side = 512 if size == "nano" else config.pop("image_size")
            model = load_model(nano) if size == "nano" else build_model(config)
            save_checkpoint(
                model,
                folder,
                tokenizer=nano.tokenizer(),
                image_size=(side, side),
                labels=nano.labels,
                max_new_tokens=64,
            )
        return folder

    def run(self, contender: str, size: str, *, steps: int, batch: int, **changes: bool) -> Job:
        """One contender in a process of its own; `changes` are frozen, bf16 and checkpointing."""
        self.count += 1
        job = {
            "contender": contender,
            "model": str(self.model(size)),
            "dataset": str(self.work / "set" / "annotations.json"),
            "images": str(self.work / "set" / "images"),
            "output": str(self.work / f"run-{self.count}"),
            "steps": steps,
            "batch": batch,
            **{"frozen": False, "bf16": True, "checkpointing": False, **changes},
        }
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.options.threads), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, __file__, "--job", json.dumps(job)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            sys.exit(f"{contender}: {done.stderr[-3000:]}")
        found: Job = json.loads(done.stdout.splitlines()[-1])
        print(f"  {contender:<11} {size} {_about(found, job['frozen'])}", file=sys.stderr, flush=True)
        return found

    def paces(self, size: str, *, epoch: int = 0, **changes: bool) -> dict[str, float]:
        """Pages a second of each contender, florentune's without its first `epoch` steps."""
        best: dict[str, float] = {}
        for _ in range(self.options.repeats):
            for name in CONTENDERS:
                pace = self.pace(name, size, epoch=epoch if name == "florentune" else 0, **changes)
                best[name] = max(pace, best.get(name, 0.0))
        return best

    def pace(self, contender: str, size: str, *, epoch: int = 0, **changes: bool) -> float:
        """Pages a second after `epoch` steps and the warm-up."""
        steps, batch = epoch + self.options.steps, self.options.batch
        found = self.run(contender, size, steps=steps, batch=batch, **changes)
        return batch / float(statistics.median(found["seconds"][epoch + WARM_UP :]))


def _about(found: Job, frozen: bool) -> str:
    shown = " ".join(f"{seconds:.2f}" for seconds in found["seconds"][:12])
    return f"{'frozen ' if frozen else ''}peak {found['peak'] / 1e9:.2f} GB, seconds a step {shown}"


def row_full(bench: Bench) -> Iterator[str]:
    """Full fine-tune, base size; florentune a second time with gradient checkpointing, the peers as they are."""
    size, goals = bench.options.size, (2.5, 1.2)
    pace = bench.paces(size)
    yield _ratios(f"full fine-tune, {size}", pace, goals)
    pace["florentune"] = bench.pace("florentune", size, checkpointing=True)
    yield _ratios("the same, florentune with gradient_checkpointing", pace, goals)


def row_frozen(bench: Bench) -> Iterator[str]:
    """Frozen tower, base size, from the second epoch on; the peers freeze the same tower."""
    options = bench.options
    epoch = -(-options.frozen_pages // options.batch)
    bench = Bench(argparse.Namespace(**{**vars(options), "pages": options.frozen_pages}), bench.work / "frozen")
    pace = bench.paces(options.size, epoch=epoch, frozen=True)
    yield _ratios(f"frozen tower, {options.size}, epoch 2 and on", pace, (20, 10))


def row_limit(bench: Bench) -> Iterator[str]:
    """How fast the frozen row could be at most: its matrix products at the pace of one of 4,096, and nothing else."""
    options = bench.options
    torch.set_num_threads(options.threads)
    checkpoint = open_checkpoint(bench.model(options.size))
    model = load_model(checkpoint).train()
    model.model.vision_tower.requires_grad_(False)
    objective = AnswerLoss(model, prompt_ids(checkpoint))
    height, width = checkpoint.image_size
    with torch.no_grad():
        maps = objective.tower(torch.zeros(options.batch, 3, height, width))
    with FlopCounterMode(display=False) as counter:
        objective(None, maps, torch.full((options.batch, 24), 5)).sum().backward()
    square = torch.randn(4096, 4096, dtype=torch.bfloat16)
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        square @ square
        seconds.append(time.perf_counter() - began)
    work, peak = counter.get_total_flops(), 2 * 4096**3 / min(seconds)
    yield (
        f"| the same at most: {work / 1e9:.0f} GFLOP a step in bf16 at {peak / 1e9:.0f} GFLOP/s, pages/s "
        f"| {options.batch * peak / work:.3f} | | | |"
    )


def row_nano(bench: Bench) -> Iterator[str]:
    """nano at 512 pixels, and how long it waits for its pages."""
    steps = 5 * bench.options.steps
    found = [bench.run("florentune", "nano", steps=steps, batch=8) for _ in range(bench.options.repeats)]
    pace = max(8 / statistics.median(run["seconds"][WARM_UP:]) for run in found)
    waiting = min(statistics.mean(run["waiting"][WARM_UP:]) for run in found)
    yield f"| nano, 512 x 512, batch 8, pages/s | {pace:.2f} | | | >= 8 |"
    yield f"| share of step time in waiting for data | {waiting:.1%} | | | <= 3 % |"


def row_memory(bench: Bench) -> Iterator[str]:
    """Peak resident memory, base size, batch 1, of all steps; the moments exist from the second one on."""
    size = bench.options.size

    def peak(name: str, checkpointing: bool) -> float:
        return bench.run(name, size, steps=4, batch=1, checkpointing=checkpointing)["peak"] / 1e9

    ours, theirs = peak("florentune", False), peak("trainer", False)
    yield f"| peak memory, {size}, batch 1, GB | {ours:.2f} | | {theirs:.2f} ({ours / theirs:.2f}x) | <= 0.8x |"
    ours, checkpointed = peak("florentune", True), peak("trainer", True)
    yield (
        f"| the same, florentune with gradient_checkpointing | {ours:.2f} | | {theirs:.2f} ({ours / theirs:.2f}x), "
        f"with it {checkpointed:.2f} ({ours / checkpointed:.2f}x) | <= 0.8x |"
    )


def row_losses(bench: Bench) -> Iterator[str]:
    """The first 50 losses of nano, in fp32 and in bf16, against Trainer's."""
    for bf16, name in ((False, "fp32"), (True, "bf16")):
        ours, theirs = (
            bench.run(who, "nano", steps=bench.options.loss_steps, batch=4, bf16=bf16)["losses"]
            for who in ("florentune", "trainer")
        )
        worst = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))
        yield f"| largest difference of {len(ours)} losses, nano, {name} | {worst:.2%} | | (Trainer) | they agree |"


def _ratios(what: str, pace: dict[str, float], goals: tuple[float, float]) -> str:
    ours = pace["florentune"]
    peers = [f"{pace[name]:.3f} ({ours / pace[name]:.1f}x)" for name in ("plain", "trainer")]
    return f"| {what}, pages/s | {ours:.3f} | {' | '.join(peers)} | >= {goals[0]}x, >= {goals[1]}x |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--steps", type=int, default=7, help=f"steps of a contender, {WARM_UP} of them not counted")
    parser.add_argument("--batch", type=int, default=2, help="pages a step, base size")
    parser.add_argument("--size", choices=("base", "large", "nano"), default="base")
    parser.add_argument("--pages", type=int, default=32)
    parser.add_argument("--frozen-pages", type=int, default=8)
    parser.add_argument("--loss-steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        job = json.loads(options.job)
        found = CONTENDERS[job["contender"]](job)
        # of this program alone: ru_maxrss begins with what the process that started it held
        found["peak"] = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(options, Path(place))
        print(f"batch {options.batch}, {options.threads} threads, torch {torch.__version__}\n")
        print("| | florentune | plain | Trainer bf16 | goal |\n|---|---|---|---|---|")
        for row in options.only:
            for line in globals()[f"row_{row}"](bench):
                print(line, flush=True)


if __name__ == "__main__":
    main()
