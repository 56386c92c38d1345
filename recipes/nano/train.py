"""Train nano from nothing.

    torchrun --nproc-per-node 2 recipes/nano/train.py --real DIR --synth DIR --out RUN [--resume]

One process a core, each with one thread: two threads of one process wait for each other whenever the machine is busy.

Writes RUN/log.jsonl, RUN/state.safetensors (resumable) and RUN/weights.safetensors (the moving average, what ships).
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import LAYOUT, MEAN, OBJECTS, STD, Pages, Sample, collate, dense_targets, read_source
from network import Nano, greedy
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from florentune.model.tasks import prompt_for

HERE = Path(__file__).parent
TASKS = {"od": "<OD>", "layout": "<DENSE_REGION_CAPTION>"}


def optimizers(net: Nano, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for everything else."""
    matrices, rest = [], []
    for name, parameter in net.named_parameters():
        inner = parameter.ndim == 2 and not any(part in name for part in ("embed", "shared", "lm_head", "_head"))
        (matrices if inner else rest).append(parameter)
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return [muon, adam]


def stages_of(text: str) -> list[tuple[int, int]]:
    """`0:224,1350:448` as (first step, image side) pairs."""
    return [(int(first), int(side)) for first, side in (part.split(":") for part in text.split(","))]


def stage_of(step: int, stages: list[tuple[int, int]]) -> int:
    """The image side in pixels at a step; stages are (first step, side)."""
    return next(side for first, side in reversed(stages) if step >= first)


def rate_at(step: int, steps: int) -> float:
    """Warm-up over an eighth of the steps, at most 300, then cosine to one hundredth."""
    warmup = min(300, steps // 8)
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(steps - warmup, 1), 1)))


def losses_of(net: Nano, batch: dict[str, Any], grid: int, sigma: float) -> dict[str, torch.Tensor]:
    """Every loss of a batch by name."""
    target = dense_targets(batch["boxes"], grid)
    with torch.autocast("cpu", torch.bfloat16):
        cells, tokens = net.see(batch["pixels"])
        read = net.read(tokens, "od")
        logits = net.say(read, batch["od"])
        extra = net.say(net.read(tokens[::2], "layout"), batch["layout"][::2])
    losses = dict(zip(("tower_class", "tower_box"), net.tower_head.loss(cells, target), strict=True))
    image = read[:, 1 : 1 + grid * grid]
    losses |= dict(zip(("encoder_class", "encoder_box"), net.encoder_head.loss(image, target), strict=True))
    losses |= net.token_loss(logits, batch["od"], sigma)
    spoken = net.token_loss(extra, batch["layout"][::2], sigma)
    losses |= {f"layout_{name}": value for name, value in spoken.items()}
    return losses


WEIGHTS = {
    "tower_class": 1.0,
    "tower_box": 1.0,
    "encoder_class": 0.5,
    "encoder_box": 0.5,
    "label": 2.0,
    "location": 1.0,
    "l1": 10.0,
    "layout_label": 0.5,
    "layout_location": 0.5,
    "layout_l1": 5.0,
}


FREE_SHARE = 0.4  # of the turns of a page of --real


def place() -> tuple[int, int]:
    """(rank, world size) of this process."""
    if torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def share_gradients(net: Nano) -> None:
    """Average the gradients of all processes."""
    world = place()[1]
    if world > 1:
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients]) / world
        torch.distributed.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


class Average:
    """Exponential moving average of the weights that ship."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.values = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def update(self, model: torch.nn.Module, decay: float) -> None:
        for name, value in model.state_dict().items():
            self.values[name].lerp_(value, 1 - decay) if value.is_floating_point() else self.values[name].copy_(value)


def score(net: Nano, average: Average, samples: list[Sample], tokenizer: Tokenizer, side: int) -> dict[str, float]:
    """Page success of the averaged weights on held-out pages, decoded as the product does."""
    kept = {name: value.detach().clone() for name, value in net.florence.state_dict().items()}
    net.florence.load_state_dict(average.values)
    net.eval()
    names = {tokenizer.token_to_id(label): label for label in OBJECTS}
    hits = {0.5: 0, 0.7: 0, 0.8: 0}
    for start in range(0, len(samples), 16):
        part = samples[start : start + 16]
        images = [
            Image.open(io.BytesIO(s.jpeg)).convert("RGB").resize((side, side), Image.Resampling.BICUBIC) for s in part
        ]
        pixels = np.stack([((np.asarray(i, np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1) for i in images])
        with torch.autocast("cpu", torch.bfloat16):
            found = greedy(net, torch.from_numpy(pixels), names)
        for sample, answer in zip(part, found, strict=True):
            for level in hits:
                hits[level] += matches(sample.objects, answer, level)
    net.florence.load_state_dict(kept)
    net.train()
    return {f"success_{level}": hit / len(samples) for level, hit in hits.items()}


def matches(truth: list[tuple[str, np.ndarray]], found: list[tuple[str, np.ndarray]], level: float) -> bool:
    """Whether the boxes pair one to one by label at that IoU (greedy pairing; boxes of a page hardly overlap)."""
    left = list(found)
    for kind, box in truth:
        for other in left:
            size = np.clip(np.minimum(box[2:], other[1][2:]) - np.maximum(box[:2], other[1][:2]), 0, None).prod()
            union = (box[2:] - box[:2]).prod() + (other[1][2:] - other[1][:2]).prod() - size
            if other[0] == kind and size / union >= level:
                left = [o for o in left if o is not other]
                break
        else:
            return False
    return not left


def save(path: Path, net: Nano, average: Average, opts: list[torch.optim.Optimizer], step: int) -> None:
    """Everything a resume needs, as one safetensors file, whole or not at all."""
    tensors = {f"net.{name}": value for name, value in net.state_dict().items() if "lm_head" not in name}
    tensors |= {f"ema.{name}": value for name, value in average.values.items() if "lm_head" not in name}
    for number, opt in enumerate(opts):
        for index, state in opt.state_dict()["state"].items():
            tensors |= {f"opt.{number}.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    shared = {name: value.contiguous().clone() for name, value in tensors.items()}
    save_file(shared, path.with_suffix(".tmp"), metadata={"step": str(step)})
    path.with_suffix(".tmp").replace(path)


def narrowed(tensors: dict[str, torch.Tensor], text: Any) -> dict[str, torch.Tensor]:
    """The weights with feed-forward layers cut to the configured widths: the hidden units of the smallest norm go."""
    kept = dict(tensors)
    for name, value in tensors.items():
        if ".fc1.weight" in name and "language_model" in name:
            stem, width = name.removesuffix("fc1.weight"), text.encoder_ffn_dim
            width = text.decoder_ffn_dim if ".decoder." in name else width
            size = value.norm(dim=1) * tensors[stem + "fc2.weight"].norm(dim=0)
            units = size.topk(min(width, len(size))).indices.sort().values
            kept[name], kept[stem + "fc1.bias"] = value[units], tensors[stem + "fc1.bias"][units]
            kept[stem + "fc2.weight"] = tensors[stem + "fc2.weight"][:, units]
    return kept


def restore(path: Path, net: Nano, average: Average, opts: list[torch.optim.Optimizer], *, weights_only: bool) -> int:
    """Load what `save` wrote; returns the step to go on with."""
    tensors = load_file(path)
    if not any(name.startswith("net.") for name in tensors):  # a shipped model: weights alone, no heads
        tensors = {
            f"{part}{name}": value.float() for name, value in tensors.items() for part in ("net.florence.", "ema.")
        }
    with safe_open(path, "pt") as file:
        step = int((file.metadata() or {}).get("step", 0))
    tensors = narrowed(tensors, net.florence.config.text_config)
    net.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("net.")}, strict=False)
    net.florence.tie_weights()
    for name, value in tensors.items():
        if name.startswith("ema."):
            average.values[name[4:]].copy_(value)
    if "lm_head.weight" in average.values:
        average.values["lm_head.weight"] = average.values["model.language_model.shared.weight"]
    if weights_only:
        return 0
    for number, opt in enumerate(opts):
        states: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(f"opt.{number}."):
                _, _, index, key = name.split(".", 3)
                states.setdefault(int(index), {})[key] = value
        opt.load_state_dict({"state": states, "param_groups": opt.state_dict()["param_groups"]})
    return step


def watched_papers(papers: set[str]) -> set[str]:
    """Every tenth paper, held out to watch the run and to calibrate."""
    return set(sorted(papers)[::10])


def watched_pages(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """(image name, record) of the held-out pages of a source folder."""
    records = [json.loads(line) for line in (folder / "pages.jsonl").read_text().splitlines()]
    kept = [(record["image"], record) for record in records if not record["drop"] and "objects" in record]
    papers = watched_papers({name.rpartition("_")[0] for name, _ in kept})
    return [(name, record) for name, record in kept if name.rpartition("_")[0] in papers]


def read_samples(options: argparse.Namespace) -> tuple[list[Sample], list[Sample]]:
    """Training samples, and the pages of every tenth real paper, held out to watch the run."""
    real = [sample for folder in options.real for sample in read_source(folder, real=True)]
    watched = watched_papers({sample.paper for sample in real})
    held = [sample for sample in real if sample.paper in watched]
    real = [sample for sample in real if sample.paper not in watched]
    real += [sample for folder in options.free for sample in read_source(folder, real=True, share=FREE_SHARE)]
    made = [sample for folder in options.synth for sample in read_source(folder, real=False)]
    return real + made, held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, nargs="*", default=[])
    parser.add_argument("--free", type=Path, nargs="*", default=[], help="real pages of papers unlike those of --real")
    parser.add_argument("--synth", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--stages", default="0:224,1100:448", help="first step:image side, ...")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--sigma", type=float, default=2.0, help="bins round a location that count as right, at the end"
    )
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--real-share", type=float, default=0.5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument(
        "--start-from",
        type=Path,
        help="state.safetensors of a run, or a shipped model.safetensors: its weights, a new schedule",
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    prompts = {name: tokenizer.encode(prompt_for(task)).ids for name, task in TASKS.items()}
    stages = stages_of(options.stages)
    net = Nano(tokenizer, len(LAYOUT), prompts)
    side = stages[0][1]
    net.prepare(side // 32)
    net.florence.set_attn_implementation("eager")  # SDPA's backward is slower on a CPU
    average = Average(net.florence)
    opts = optimizers(net, options.rate)
    state, step = options.out / "state.safetensors", 0
    if options.resume and state.exists():
        step = restore(state, net, average, opts, weights_only=False)
        side = stage_of(max(step - 1, 0), stages)
    elif options.start_from:
        restore(options.start_from, net, average, opts, weights_only=True)
    samples, held = read_samples(options)
    print(
        f"{len(samples)} pages, {len(held)} to watch, {sum(p.numel() for p in net.florence.parameters()):,} weights",
        flush=True,
    )
    run(net, average, opts, samples, held, tokenizer, options, side, step)


def loader_from(samples: list[Sample], tokenizer: Tokenizer, side: int, options: argparse.Namespace, step: int) -> Any:
    """Batches from a step on."""
    pages = Pages(samples, tokenizer, side, seed=options.seed, real_share=options.real_share)
    rank, world = place()
    sampler = range(step * options.batch + rank, options.steps * options.batch, world)
    return iter(
        torch.utils.data.DataLoader(
            pages,
            options.batch // world,
            sampler=sampler,
            num_workers=options.workers,
            collate_fn=collate,
            prefetch_factor=3,
        )
    )


class Log:
    """Means of the losses over some steps, and the speed."""

    def __init__(self, path: Path) -> None:
        self.file, self.sums, self.clock = path.open("a"), {}, time.time()

    def add(self, values: dict[str, torch.Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())

    def record(self, step: int, side: int, batch: int, every: int) -> dict[str, Any]:
        """The means since the last record, which they are then counted from."""
        means = {name: round(value / every, 4) for name, value in self.sums.items()}
        speed = round(every * batch / (time.time() - self.clock), 1)
        self.sums, self.clock = {}, time.time()
        return {"step": step, "side": side, **means, "pages_per_s": speed}

    def write(self, record: dict[str, Any]) -> None:
        print(json.dumps(record), flush=True)
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        self.clock = time.time()


def update(net: Nano, average: Average, opts: list[torch.optim.Optimizer], rate: float, step: int) -> torch.Tensor:
    """One optimizer step from the gradients of all processes; left out where they are not finite. Their norm."""
    share_gradients(net)
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    finite = bool(torch.isfinite(norm))
    if not finite:
        print(f"step {step}: the gradient is not finite; the batch is left out", flush=True)
    for opt in opts:
        for group in opt.param_groups:
            group["lr"] = rate
        if finite:
            opt.step()
        opt.zero_grad()
    average.update(net.florence, min(0.999, (step + 1) / (step + 10)))
    return norm


def grown(net: Nano, average: Average, old: int, new: int) -> None:
    """Go on with larger images; the average starts anew."""
    net.regrid(old // 32, new // 32)
    average.values = {name: value.detach().clone() for name, value in net.florence.state_dict().items()}


def run(
    net: Nano,
    average: Average,
    opts: list[torch.optim.Optimizer],
    samples: list[Sample],
    held: list[Sample],
    tokenizer: Tokenizer,
    options: argparse.Namespace,
    side: int,
    first: int,
) -> None:
    """The loop, from step `first` on, at first with images of `side` pixels."""
    log, stages, loader = Log(options.out / "log.jsonl"), stages_of(options.stages), None
    encoder_places = net.florence.model.language_model.encoder.embed_positions.weight
    for step in range(first, options.steps):
        wanted = stage_of(step, stages)
        if wanted != side:
            grown(net, average, side, wanted)
        if wanted != side or loader is None:
            side, loader = wanted, loader_from(samples, tokenizer, wanted, options, step)
        encoder_places.requires_grad_(side == stages[-1][1])
        wide = 0.0 if options.start_from else 20.0 * (1 - step / (0.4 * options.steps))
        sigma = max(options.sigma, wide)
        losses = losses_of(net, next(loader), side // 32, sigma)
        sum(WEIGHTS[name] * value for name, value in losses.items()).backward()
        norm = update(net, average, opts, options.rate * rate_at(step, options.steps), step)
        log.add({**losses, "norm": norm})
        if (step + 1) % 50 == 0 and place()[0] == 0:
            record = log.record(step + 1, side, options.batch, 50)
            if (step + 1) % options.save_every == 0:
                save(options.out / "state.safetensors", net, average, opts, step + 1)
                record |= score(net, average, held, tokenizer, side)
            log.write(record)
    if place()[0] == 0:
        save(options.out / "state.safetensors", net, average, opts, options.steps)
        weights = {name: value.clone() for name, value in average.values.items() if name != "lm_head.weight"}
        save_file(weights, options.out / "weights.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
