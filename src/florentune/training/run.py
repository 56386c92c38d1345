"""`train`: one run in one folder, from the configuration to a checkpoint that just loads."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml

from ..errors import CheckpointError, ConfigError, FlorentuneError, OutOfMemoryError
from ..evaluation import read_predictions
from ..files import read_json, write_json, written_whole
from ..model.florence import load_model
from ..regions import counted
from .config import TrainConfig
from .console import Console, clock
from .cpu import has_bf16, memory_kept
from .interrupt import StopRequest
from .learner import Learner
from .loop import ADVICE, Loop, is_out_of_memory
from .plan import Plan, make_plan, summary
from .processes import Processes
from .state import Progress, find_state, load_state, locked, require_space, sweep, verify
from .validation import Stopped, Validation, Validator, require_metric

_PREDICTIONS = "predictions.jsonl"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended. `stopped_by` is the signal that ended it early; `best` and `last` are checkpoint folders."""

    output_dir: Path
    step: int
    total_steps: int
    stopped_by: int | None = None
    best: Path | None = None
    best_step: int | None = None
    last: Path | None = None
    start_metrics: dict[str, float | None] = field(default_factory=dict)
    best_metrics: dict[str, float | None] = field(default_factory=dict)
    pictures: tuple[Path, ...] = ()
    report: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        found = dataclasses.asdict(self)
        found.update(output_dir=str(self.output_dir), pictures=[str(path) for path in self.pictures])
        found.update({name: found[name] and str(found[name]) for name in ("best", "last", "report")})
        return found


def train(config: TrainConfig, *, dry_run: bool = False) -> TrainResult:
    """Train as configured; with `dry_run`, only say what would happen and try one batch.

    Raises ConfigError, AnnotationError and CheckpointError before the first step; NonFiniteError (exit 4),
    DiskFullError (5) and OutOfMemoryError (6) later, with the last checkpoint intact. SIGTERM and SIGINT save a
    checkpoint and end the run early; `stopped_by` says so.
    """
    require_metric(config.best_by)
    processes = Processes(use_cpu=config.use_cpu, timeout=config.ddp_timeout)
    console = Console(silent=not processes.is_first)
    for note in config.notes:
        console.say(note)
    if config.bf16 and processes.device.type == "cpu" and not has_bf16():
        console.warn("bf16: this CPU is far slower in bf16 than in fp32; computing in fp32")
        config = dataclasses.replace(config, bf16=False)
    transformers.logging.set_verbosity_error()
    config.output_dir.mkdir(parents=True, exist_ok=True)
    hold = locked(config.output_dir) if processes.is_first else contextlib.nullcontext()
    memory = memory_kept() if processes.device.type == "cpu" else contextlib.nullcontext()
    with hold, memory, _deterministic(), StopRequest(console.say) as stop:
        try:
            return _Run(config, processes, console, stop).go(dry_run)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(f"out of memory: {error}; {ADVICE}") from error
        finally:
            console.stop()


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    """Ask torch for algorithms whose result depends on nothing but their input; its state is put back afterwards."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[]):
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            memory.fill_uninitialized_memory = filled


class _Run:
    """The order of events in a run."""

    def __init__(self, config: TrainConfig, processes: Processes, console: Console, stop: StopRequest) -> None:
        self.config, self.processes, self.console, self.stop = config, processes, console, stop
        self.folder = config.output_dir
        self._stale: dict[Path, int] = {}

    def go(self, dry_run: bool) -> TrainResult:
        """Prepare, resume if asked, train, and leave best/ and last/."""
        found = None if dry_run else self._found_state()
        plan = self._plan()
        learner = Learner(plan.checkpoint, self.config, self.processes.device)
        progress, tensors = (self._fresh(plan), {}) if found is None else load_state(found)
        if found is not None:
            plan = self._fit(plan, progress, found)
        weights = [weight for weight in learner.model.parameters()]
        trained = sum(weight.numel() for weight in weights if weight.requires_grad)
        self.console.say(summary(plan, sum(weight.numel() for weight in weights), trained))
        loop = Loop(plan, learner, progress, self.processes, self.console)
        if dry_run:
            self._try_batch(loop)
            return TrainResult(self.folder, 0, plan.total_steps)
        if found is not None:
            loop.restore(tensors)
            self.console.say(f"resuming at step {progress.step} from {found}")
        if self.processes.is_first:
            with written_whole(self.folder / "config.yaml") as stream:
                yaml.safe_dump(self.config.as_dict(), stream, sort_keys=False)
        validator = None
        if plan.validates:
            validator = Validator(plan.usable.validation, plan.checkpoint, plan.labels, plan.max_new_tokens)
        with contextlib.closing(loop.metrics):
            loop.metrics.begin(progress.step)
            self._train(loop, validator)
            return self._finish(loop, validator)

    # before ----------------------------------------------------------------------------------------------------------

    def _plan(self) -> Plan:
        """The first process checks the images; the others find them checked."""
        if self.processes.is_first:
            plan = make_plan(self.config, self.processes.count, self.console)
        self.processes.wait()
        if not self.processes.is_first:
            plan = make_plan(self.config, self.processes.count, self.console)
        self.processes.wait()
        return plan

    def _fresh(self, plan: Plan) -> Progress:
        if self.processes.is_first:
            folders = (self.folder / name for name in ("best", "last", "adapter", "val_predictions", "report"))
            self._stale = {path: path.stat().st_ino for path in folders if path.is_dir()}
        return Progress(
            run=str(self.processes.from_first(uuid.uuid4().hex)),
            global_batch=plan.schedule.global_batch,
            micro_batch=self.config.per_device_train_batch_size,
            inputs=plan.inputs(),
            environment=self._environment(),
        )

    def _environment(self) -> dict[str, Any]:
        return {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "threads": torch.get_num_threads(),
            "device": self.processes.device.type,
            "bf16": self.config.bf16,
            "processes": self.processes.count,
        }

    def _found_state(self) -> Path | None:
        """The checkpoint to resume from: the one named, the newest whole one, or None for a new run."""
        wanted, folder = self.config.resume_from_checkpoint, self.folder / "checkpoints"
        path: str | None = None
        if self.processes.is_first:
            for place in (folder, self.folder):
                sweep(place)
            path = self._named(Path(wanted)) if wanted not in (None, "auto") else self._newest(folder)
        path = self.processes.from_first(path)
        return Path(path) if path else None

    def _named(self, path: Path) -> str:
        problem = verify(path)
        if problem:
            raise CheckpointError(f"resume_from_checkpoint: {path}: {problem}")
        return str(path)

    def _newest(self, folder: Path) -> str | None:
        if self.config.overwrite_output_dir and self.config.resume_from_checkpoint is None:
            return None
        found, warnings = find_state(folder)
        for text in warnings:
            self.console.warn(text)
        if found:
            return str(found)
        if warnings:
            raise CheckpointError(f"{folder}: no checkpoint is whole; start anew with overwrite_output_dir=true")
        if any((self.folder / name / "config.json").is_file() for name in ("best", "last", ".")):
            raise ConfigError(
                f"{self.folder}: holds a model but no checkpoint to resume from; give another output_dir, or "
                "overwrite_output_dir=true"
            )
        if self.config.resume_from_checkpoint:
            self.console.say(f"{folder}: no checkpoint yet; starting at step 0")
        return None

    def _fit(self, plan: Plan, progress: Progress, found: Path) -> Plan:
        """The plan with the checkpoint's global batch. Raises ConfigError when it was another run's."""
        now, then = plan.inputs(), progress.inputs
        changed = [key for key in now if now[key] != then.get(key)]
        if changed:
            raise ConfigError(
                f"{found}: was trained with other {', '.join(changed)}; an exact resume needs the same. Put "
                "them back, or start anew with overwrite_output_dir=true"
            )
        if progress.environment != self._environment():
            self.console.say(f"resumed in another environment ({progress.environment}): equal up to rounding")
            progress.environment = self._environment()
        if progress.global_batch == plan.schedule.global_batch:
            return plan
        self.console.say(f"the global batch stays {counted(progress.global_batch, 'page')}, as the run began")
        schedule = dataclasses.replace(plan.schedule, global_batch=progress.global_batch)
        from .plan import count_steps

        return dataclasses.replace(plan, schedule=schedule, total_steps=count_steps(self.config, schedule))

    def _try_batch(self, loop: Loop) -> None:
        """One forward and backward pass of a micro-batch: that it fits, and how long a run may take."""
        pages = loop.plan.schedule.batch(0)[: self.config.per_device_train_batch_size]
        began = time.monotonic()
        seconds = loop.rehearse(pages)
        reading = time.monotonic() - began - seconds
        steps, share = loop.plan.total_steps, loop.plan.schedule.global_batch / len(pages) / self.processes.count
        if peak := self.processes.peak_memory():
            moments = 8 * sum(weight.numel() for weight in loop.optimizer.weights.values())
            self.console.say(f"  peak        about {(peak + moments) / 1e9:.2f} GB of memory, with AdamW's moments")
        self.console.say(
            f"  time        about {clock(seconds * share * steps)} for {counted(steps, 'step')}, plus validation"
        )
        self.console.say(
            f"  a batch     {seconds:.2f} s to compute and {reading:.2f} s to read {counted(len(pages), 'page')}"
        )

    # during ----------------------------------------------------------------------------------------------------------

    def _train(self, loop: Loop, validator: Validator | None) -> None:
        progress, plan = loop.progress, loop.plan
        if not self._validate(loop, validator):
            return
        self.console.start("training", plan.total_steps, progress.step)
        saved = progress.step
        for step in loop.steps():
            if step % self.config.save_steps == 0 and step != plan.total_steps:
                self._save(loop)
                saved = step
            if self._stopping() or not self._validate(loop, validator):
                break
            if self._patience_is_over(progress):
                self.console.say(
                    f"step {step}: no better {self.config.best_by} in {self.config.early_stopping} validations"
                )
                break
        self.console.stop()
        if saved != progress.step or progress.step == plan.total_steps:
            self._save(loop)

    def _save(self, loop: Loop) -> None:
        """A checkpoint; the first one of a new run also takes the place of what an overwritten run left."""
        loop.save()
        for path, inode in self._stale.items():
            if path.is_dir() and path.stat().st_ino == inode:
                shutil.rmtree(path)
        self._stale = {}

    def _stopping(self) -> bool:
        return self.processes.any(self.stop.received is not None)

    def _patience_is_over(self, progress: Progress) -> bool:
        return 0 < self.config.early_stopping <= progress.validations_without_gain

    def _validate(self, loop: Loop, validator: Validator | None) -> bool:
        """Validate if it is due and was not done before; False when a signal came meanwhile."""
        progress = loop.progress
        if validator is None or progress.validated_step == progress.step:
            return True
        if not loop.plan.validation_due(progress.step):
            return True
        found, began = None, time.monotonic()
        if self.processes.is_first:
            with loop.shipped_weights():
                try:
                    found = self._measure(loop, validator)
                except Stopped:
                    pass
                else:
                    self._note(loop, validator, found)
        loop.exclude(time.monotonic() - began)
        value = self.processes.from_first(found and [found.metrics, found.value(self.config.best_by)])
        if value is None:
            return False
        metrics, measure = value
        progress.validated_step = progress.step
        self._judge(progress, metrics, measure)
        return True

    def _measure(self, loop: Loop, validator: Validator) -> Validation:
        loss = loop.validation_loss(self._advance())
        measured = loss if math.isfinite(loss) else None
        if self.config.best_by == "loss":
            return Validation({"val_loss": measured})
        found = validator.run(loop.learner.model, self.config.per_device_eval_batch_size, self._advance())
        for problem in found.problems:
            self.console.warn(f"validation: {problem}; the page counts as if nothing was found")
        return dataclasses.replace(found, metrics={"val_loss": measured, **found.metrics})

    def _advance(self) -> Callable[[int], None]:
        """What validation calls between pages: it ends when a signal came."""

        def advance(done: int) -> None:
            if self.stop.received is not None:
                raise Stopped

        return advance

    def _note(self, loop: Loop, validator: Validator, found: Validation) -> None:
        """Write the figures down, and the model too when it is the best so far."""
        progress = loop.progress
        loop.metrics.write({"step": progress.step, **found.metrics})
        self.console.say(f"step {progress.step}: {_figures(found.metrics)}")
        if progress.step == 0 or not _is_better(progress, found.value(self.config.best_by), found.metrics):
            return
        self._save_model(loop, self.folder / "best", found.calibration, found.metrics)
        loop.learner.save_adapter(self.folder / "adapter")
        self._show(validator, found)

    def _show(self, validator: Validator, found: Validation) -> None:
        """val_predictions/: what the best model finds on the validation pages, as data and as three pictures."""
        if found.calibration is None:
            return
        folder = self.folder / "val_predictions"
        validator.draw(found.predictions, found.calibration["thresholds"], folder)
        with written_whole(folder / _PREDICTIONS) as stream:
            stream.writelines(json.dumps(page.as_dict()) + "\n" for page in found.predictions)

    def _judge(self, progress: Progress, metrics: Mapping[str, float | None], value: float) -> None:
        """Remember the best; the start model is only what the others are compared with."""
        if progress.step == 0:
            progress.start_metrics = dict(metrics)
        elif _is_better(progress, value, metrics):
            progress.best_value = value
            progress.best_step, progress.best_metrics = progress.step, dict(metrics)
            progress.validations_without_gain = 0
        else:
            progress.validations_without_gain += 1

    def _save_model(
        self, loop: Loop, folder: Path, calibration: Mapping[str, Any] | None, metrics: Mapping[str, float | None]
    ) -> None:
        weights = loop.learner.model.parameters()
        require_space(self.folder, sum(weight.numel() * weight.element_size() for weight in weights))
        loop.learner.save(
            folder,
            labels=loop.plan.labels,
            max_new_tokens=loop.plan.max_new_tokens,
            calibration=calibration,
            card=_card(loop.plan, loop.progress.step, metrics),
        )

    # after -----------------------------------------------------------------------------------------------------------

    def _finish(self, loop: Loop, validator: Validator | None) -> TrainResult:
        progress, report = loop.progress, None
        best, last = self.folder / "best", self.folder / "last"
        validated = validator is None or progress.validated_step == progress.step  # not when a signal came first
        done = (progress.step == loop.plan.total_steps and validated) or self._patience_is_over(progress)
        if self.processes.is_first:
            if done:
                with loop.shipped_weights():
                    self._save_model(loop, last, None, {})
                    if validator is None:
                        loop.learner.save_adapter(self.folder / "adapter")
            if done and validator is not None and progress.best_step is not None:
                report = self._report(loop, validator, best)
            if self.config.plot_loss:
                self._plot()
        self.processes.wait()
        return TrainResult(
            output_dir=self.folder,
            step=progress.step,
            total_steps=loop.plan.total_steps,
            stopped_by=None if done else self.stop.received,
            best=best if progress.best_step is not None else None,
            best_step=progress.best_step,
            last=last if done else None,
            start_metrics=progress.start_metrics,
            best_metrics=progress.best_metrics,
            pictures=tuple(sorted((self.folder / "val_predictions").glob("*.png"))),
            report=report,
        )

    def _report(self, loop: Loop, validator: Validator, best: Path) -> Path:
        """report/: best/ on the validation pages, which are detected here when only losses were measured."""
        if self.config.best_by == "loss":
            model = load_model(best, device=self.processes.device)
            found = validator.run(model, self.config.per_device_eval_batch_size, lambda done: None)
            write_json(best / "calibration.json", found.calibration)
            self._show(validator, found)
        predictions, _ = read_predictions(self.folder / "val_predictions" / _PREDICTIONS, validator.truth)
        thresholds = read_json(best / "calibration.json")["thresholds"]
        return validator.report(predictions, thresholds, self.folder / "report", f"{best}, validation pages")

    def _plot(self) -> None:
        from ..report.plots import plot_loss

        try:
            plot_loss(self.folder / "metrics.jsonl", self.folder / "training_loss.png")
        except FlorentuneError as error:  # no curve is no reason to end a run as failed
            self.console.warn(f"training_loss.png: {error}")


def _is_better(progress: Progress, value: float, metrics: Mapping[str, float | None]) -> bool:
    """Whether a validation beats the best so far; equal measures are told apart by the loss."""
    if progress.best_value is None:
        return True
    loss, best_loss = (found.get("val_loss") or math.inf for found in (metrics, progress.best_metrics))
    return (value, -loss) > (progress.best_value, -best_loss)


def _figures(metrics: Mapping[str, float | None]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if value is not None)


def _card(plan: Plan, step: int, metrics: Mapping[str, float | None]) -> str:
    """README.md of a checkpoint: what it finds, what it was trained on, how good it was there."""
    pages = plan.report["validation"]["pages"]
    figures = "\n".join(f"| {name} | {value:.4f} |" for name, value in metrics.items() if value is not None)
    table = f"\n| on {pages} validation pages | |\n|---|---|\n{figures}\n" if figures else ""
    return (
        "---\nlibrary_name: transformers\npipeline_tag: object-detection\ntags: [florence2, florentune]\n---\n\n"
        f"# A Florence-2 that finds {', '.join(plan.labels)}\n\n"
        f"Fine-tuned with florentune from {plan.config.model_name_or_path} in {counted(step, 'step')} on "
        f"{counted(plan.report['train']['pages'], 'page')} ({', '.join(plan.config.dataset)}).\n{table}\n"
        "Use it with `florentune predict IMAGE --model FOLDER`, or load it with "
        "`Florence2ForConditionalGeneration.from_pretrained` of transformers.\n"
    )
