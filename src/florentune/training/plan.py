"""Everything about a run that is known before its first step."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..formats.split import documents
from ..model.checkpoint import Checkpoint, open_checkpoint
from ..regions import counted
from .batches import AnswerEncoder, Schedule, prompt_ids
from .checks import Usable, data_report, usable_pages
from .config import TrainConfig
from .console import Console, JsonLines, table
from .datasets import Sample, TrainingData, load_data

_LEAST_NEW_TOKENS = 64


@dataclass(frozen=True)
class Plan:
    """The pages, the order they are trained in, and the checkpoint the run starts from."""

    config: TrainConfig
    checkpoint: Checkpoint
    encode: AnswerEncoder
    prompt: list[int]
    usable: Usable
    labels: tuple[str, ...]
    schedule: Schedule
    total_steps: int
    max_new_tokens: int
    report: dict[str, Any]

    @property
    def validates(self) -> bool:
        """Whether there is anything to validate on, and a wish to."""
        return bool(self.usable.validation) and self.config.eval_strategy != "no"

    def validation_due(self, step: int) -> bool:
        """Whether the model is validated after `step` steps (0: before training)."""
        if not self.validates:
            return False
        if step in (0, self.total_steps):
            return True
        every = self.config.eval_steps if self.config.eval_strategy == "steps" else self.schedule.steps_per_epoch
        return step % every == 0

    def inputs(self) -> dict[str, Any]:
        """What must not change when a run is resumed: the pages, their order and what is trained."""
        config = self.config
        return {
            "pages": _digest(self.usable.train),
            "labels": list(self.labels),
            "model_name_or_path": config.model_name_or_path,
            "finetuning_type": config.finetuning_type,
            "freeze_vision_tower": config.freeze_vision_tower,
            "seed": config.seed,
            "order": config.order,
            "augment": config.augment,
            "ema": config.ema,
        }


def make_plan(config: TrainConfig, processes: int, console: Console) -> Plan:
    """Read the data and the checkpoint's headers, check the pages, count the steps. No weight is loaded."""
    checkpoint = open_checkpoint(config.model_name_or_path, base=config.base)
    data = load_data(config)
    _warn_of_torn_documents(data, config, console)
    encode = AnswerEncoder(checkpoint.tokenizer(), data.labels, config.order)
    prompt = prompt_ids(checkpoint)
    positions = int(checkpoint.config["text_config"]["max_position_embeddings"])
    if checkpoint.image_tokens + len(prompt) > positions:
        raise ConfigError(
            f"{checkpoint.path}: {checkpoint.image_tokens} image tokens and the prompt do not fit {positions} positions"
        )
    longest = min(positions, config.cutoff_len - len(prompt))
    usable = usable_pages(data, encode, longest, config, console)
    if not usable.train:
        raise ConfigError("no page is left to train on")
    skipped = JsonLines(config.output_dir / "skipped.jsonl")
    skipped.path.unlink(missing_ok=True)
    for item in usable.skipped:
        skipped.write(item.as_dict())
    schedule = Schedule(
        len(usable.train),
        config.per_device_train_batch_size * config.gradient_accumulation_steps * processes,
        config.seed,
    )
    return Plan(
        config=config,
        checkpoint=checkpoint,
        encode=encode,
        prompt=prompt,
        usable=usable,
        labels=data.labels,
        schedule=schedule,
        total_steps=count_steps(config, schedule),
        max_new_tokens=min(max(_LEAST_NEW_TOKENS, 2 * usable.longest_answer), positions),
        report=data_report(usable, data.labels, config.output_dir),
    )


def _warn_of_torn_documents(data: TrainingData, config: TrainConfig, console: Console) -> None:
    """Pages of one document look alike: on both sides they make a validation look better than it is."""
    names = [sample.page.image for sample in (*data.train, *data.validation)]
    if not data.validation or config.group_by:
        return
    known = documents(names, None)
    if config.val_size and not any(known):
        console.warn(
            "val_size: image names do not tell which pages are one document, so they are split page by page; "
            "group_by says it"
        )
    shared = {name for name in known[: len(data.train)] if name} & set(known[len(data.train) :])
    if shared:
        console.warn(
            f"{len(shared)} documents, for example {min(shared)!r}, have pages in dataset and in eval_dataset; "
            "validation will look better than it is"
        )


def count_steps(config: TrainConfig, schedule: Schedule) -> int:
    """Optimizer steps of the whole run."""
    if config.max_steps is not None:
        return config.max_steps
    return max(math.ceil(config.num_train_epochs * schedule.steps_per_epoch), 1)


def summary(plan: Plan, weights: int, trained: int) -> str:
    """What is about to happen, for people; `weights` and `trained` are counts of parameters."""
    config, report = plan.config, plan.report
    rows = [("model", f"{config.model_name_or_path} ({weights:,} weights, {trained:,} trained)")]
    for name in ("train", "validation"):
        part = report[name]
        boxes = ", ".join(f"{count} {label}" for label, count in part["boxes"].items()) or "none"
        rows.append((name, f"{counted(part['pages'], 'page')}, {part['empty_pages']} of them empty; boxes: {boxes}"))
    tokens = report["answer_tokens"]
    rows += [
        ("left out", f"{report['skipped']} (skipped.jsonl)" if report["skipped"] else "nothing"),
        ("answers", f"{tokens['median']} tokens in the median, {tokens['longest']} at most"),
        (
            "steps",
            f"{plan.total_steps} of {counted(plan.schedule.global_batch, 'page')}"
            f" ({plan.total_steps / plan.schedule.steps_per_epoch:.3g} epochs)",
        ),
        (
            "memory",
            f"{_memory(weights, trained, config) / 1e9:.2f} GB for weights, gradients and AdamW, plus the batch",
        ),
        ("output", str(config.output_dir)),
    ]
    return table(rows)


def _memory(weights: int, trained: int, config: TrainConfig) -> int:
    """Bytes of fp32 weights, gradients, two moments and, if asked for, the averaged weights."""
    return 4 * weights + 4 * trained * (4 if config.ema else 3)


def _digest(samples: Sequence[Sample]) -> str:
    """SHA-256 of the training pages: image names, sizes and boxes, in order."""
    digest = hashlib.sha256()
    for sample in samples:
        page = sample.page
        boxes = [[region.label, *region.box] for region in page.regions]
        digest.update(json.dumps([page.image, page.width, page.height, boxes]).encode())
    return digest.hexdigest()
