"""The training loop: one optimizer step after the other, saved so that it can end at any moment.

Nothing in it depends on hidden state: the pages of a step follow from (seed, step), dropout is reseeded for every
micro-batch, the learning rate is a function of the step. So a checkpoint holds weights, moments and a few counters,
and a resumed run repeats the interrupted one bit for bit (on the same machine, with the same number of threads).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, NonFiniteError, OutOfMemoryError
from ..regions import counted
from .augment import generator
from .batches import Example, PageReader, padded_answers, read_ahead
from .console import Console, JsonLines, describe
from .cpu import QuickDropout
from .learner import Learner
from .metrics import Metrics
from .objective import AnswerLoss
from .optimizer import Average, Optimizer, copy_weights
from .plan import Plan
from .processes import Processes
from .state import Progress, save_state

_DROPOUT = 3
_BAD_IN_A_ROW = 3
_HALVINGS = 3
ADVICE = "use gradient_checkpointing: true, freeze_vision_tower: true or finetuning_type: lora"


class Loop:
    """The moving parts of a run: weights, optimizer, averages, counters."""

    def __init__(
        self, plan: Plan, learner: Learner, progress: Progress, processes: Processes, console: Console
    ) -> None:
        self.plan, self.learner, self.progress = plan, learner, progress
        self.config, self.processes, self.console = plan.config, processes, console
        self.objective = AnswerLoss(learner.model, plan.prompt).to(processes.device)
        processes.copy_first(self.objective.state_dict().values())
        self.optimizer = Optimizer(learner.model, self.config, plan.total_steps)
        self.average = Average(self.optimizer.weights, self.config.ema) if self.config.ema else None
        self.metrics = Metrics(self.config, console, silent=not processes.is_first)
        self.features = learner.feature_store() if self._cacheable() else None
        self.reader = PageReader(
            plan.usable.train,
            plan.checkpoint,
            plan.encode,
            vary=self.config.augment,
            seed=self.config.seed,
            features=self.features,
        )
        self._tick = _Tick()

    def _cacheable(self) -> bool:
        config = self.config
        return config.freeze_vision_tower and config.cache_features and not config.augment

    # state -----------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint of this moment (first process only); the others wait until it is complete.

        Raises NonFiniteError, and writes nothing, when a weight is not finite.
        """
        weights = self.optimizer.weights
        if not _all_finite(list(weights.values())):
            raise NonFiniteError(f"step {self.progress.step}: a weight is not finite; the last checkpoint is kept")
        if self.processes.is_first:
            tensors: dict[str, dict[str, Tensor]] = {"model": weights, "optimizer": self.optimizer.state()}
            if self.average:
                tensors["average"] = self.average.values
            folder = self.config.output_dir / "checkpoints"
            save_state(folder, self.progress, tensors, keep=self.config.save_total_limit)
        self.processes.wait()

    def restore(self, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Take over the tensors of a checkpoint. Raises CheckpointError when they belong to another model."""
        copy_weights(self.optimizer.weights, tensors.get("model", {}))
        self.optimizer.restore(tensors.get("optimizer", {}))
        if self.average:
            if "average" not in tensors:
                raise CheckpointError("the checkpoint has no averaged weights; resume with ema: 0")
            copy_weights(self.average.values, tensors["average"])

    @contextlib.contextmanager
    def shipped_weights(self) -> Iterator[None]:
        """The weights that are validated and shipped, the averaged ones if there are any, in place; dropout is off."""
        with self.average.in_place() if self.average else contextlib.nullcontext():
            self.learner.model.eval()
            yield
        self.learner.train()

    # steps -----------------------------------------------------------------------------------------------------------

    def steps(self) -> Iterator[int]:
        """Train; yields the number of finished steps after each one. The caller may stop between two."""
        self.learner.train()
        start, total = self.progress.step, self.plan.total_steps
        batches = list(self.plan.schedule.batches(start, total))
        examples = self._examples(batches)
        with contextlib.closing(examples):
            for batch in batches:
                began = time.monotonic()
                mine = [next(examples) for _ in self._share(batch)]
                self._tick.waited += time.monotonic() - began
                self._step(self.progress.step, batch, mine)
                self.progress.step += 1
                self.progress.pages += len(batch)
                self._report(batch)
                yield self.progress.step

    def rehearse(self, places: Sequence[tuple[int, int]]) -> float:
        """One forward and backward pass over some pages, without an update; seconds of computing."""
        mine = [self.reader(place) for place in places]
        self.learner.train()
        began = time.monotonic()
        self._gradients(0, mine, sum(len(example.answer) for example in mine))
        self.optimizer.clear()
        return time.monotonic() - began

    def _examples(self, batches: Sequence[Sequence[tuple[int, int]]]) -> Generator[Example]:
        places = (place for batch in batches for place in self._share(batch))
        ahead = max(2 * self.progress.micro_batch, 8)
        return read_ahead(self.reader, places, self.config.dataloader_num_workers, ahead)

    def _share(self, batch: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        """The pages of a global batch that this process computes: every n-th, which keeps the order."""
        return batch[self.processes.rank :: self.processes.count]

    def _step(self, step: int, batch: Sequence[tuple[int, int]], mine: list[Example]) -> None:
        """One optimizer step, or none when its loss or gradients are not finite."""
        tokens = sum(self.plan.usable.answer_tokens[index] for _, index in batch)
        for example in mine:
            if example.problem:
                self._skip_page(example)
        sums = self._gradients(step, mine, tokens)
        self.processes.add_up(self.optimizer.gradients())
        norm = self.optimizer.clip()
        loss, bad = self.processes.total(float(sums.sum())), ~torch.isfinite(sums)
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimizer.apply(step)
            if self.average:
                self.average.update()
            self.progress.bad_in_a_row = 0
            self.progress.window_loss += loss
            self.progress.window_tokens += tokens
        else:
            self._skip_step(step, loss, norm, [e for e, is_bad in zip(mine, bad.tolist(), strict=True) if is_bad])
        self.optimizer.clear()
        self._tick.norm = norm

    def _gradients(self, step: int, mine: Sequence[Example], tokens: int) -> Tensor:
        """`_backward` of this process's pages, in micro-batches that fit into the memory of every process."""
        while True:
            sums, failure = None, ""
            try:
                sums = self._backward(step, mine, tokens)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failure = str(error)  # the error itself would keep the tensors of its frames alive
            if not self.processes.any(sums is None) and sums is not None:
                return sums
            self._halve(failure)

    def _backward(self, step: int, mine: Sequence[Example], tokens: int) -> Tensor:
        """This process's part of the gradients of the mean cross-entropy over all `tokens` of the global batch.

        Returns the summed cross-entropy of each page. The processes do not talk in here, so one that runs out of memory
        leaves nobody waiting. One that has no page computes a blank one, to have a gradient of nothing to add.
        """
        self.optimizer.clear()
        micro = self.progress.micro_batch
        sums = []
        for turn in range(max(math.ceil(len(mine) / micro), 1)):
            part = mine[turn * micro : (turn + 1) * micro]
            torch.manual_seed(
                int(generator(_DROPOUT, self.config.seed, step, turn, self.processes.rank).integers(1 << 62))
            )
            with QuickDropout() if self.processes.device.type == "cpu" else contextlib.nullcontext():
                found = self._losses(part)
            torch.autograd.backward(found.sum() / tokens)
            sums.append(found.detach()[: len(part)])
        return torch.cat(sums).cpu()

    def _losses(self, part: Sequence[Example]) -> Tensor:
        """The summed cross-entropy of each page of a micro-batch; a page without pixels counts nothing."""
        answers = torch.from_numpy(padded_answers([e.answer for e in part] or [[0]]))
        for row, example in enumerate(part):
            if example.problem:
                answers[row] = -100
        if not part:
            answers[:] = -100
        pixels = features = None
        if self.features:
            features = torch.stack([self._feature(example) for example in part] or [self._blank_feature()])
        else:
            pixels = torch.stack([self._pixels(example) for example in part] or [self._blank()])
        device = self.processes.device
        # every weight is used once, so casts need not be kept
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.bf16, cache_enabled=False):
            found: Tensor = self.objective(
                pixels.to(device) if pixels is not None else None,
                features.to(device) if features is not None else None,
                answers.to(device),
            )
        return found

    def _blank(self) -> Tensor:
        return torch.zeros((3, *self.plan.checkpoint.image_size))

    def _pixels(self, example: Example) -> Tensor:
        return self._blank() if example.pixels is None else torch.from_numpy(example.pixels)

    def _blank_feature(self) -> Tensor:
        return self._through_tower(self._blank())

    def _feature(self, example: Example) -> Tensor:
        """The frozen tower's map of a page: as kept, or computed and kept. Alone, so that a batch changes no bit."""
        if example.features is not None:
            return example.features
        if not self.features or not example.image_digest:
            return self._through_tower(self._pixels(example))
        found = self.features.get(example.image_digest)  # a page read ahead may have been computed since
        if found is None:
            found = self._through_tower(self._pixels(example))
            self.features.put(example.image_digest, found)
        return found

    @torch.no_grad()
    def _through_tower(self, pixels: Tensor) -> Tensor:
        device = self.processes.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.bf16):
            return self.objective.tower(pixels[None].to(device))[0].cpu()

    # what goes wrong -------------------------------------------------------------------------------------------------

    def _halve(self, failure: str) -> None:
        """Go on with half the micro-batch after a process ran out of memory; `failure` is empty in the others."""
        self.optimizer.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        micro = self.progress.micro_batch
        if micro == 1 or self.progress.halvings >= _HALVINGS:
            raise OutOfMemoryError(
                f"a micro-batch of {counted(micro, 'page')} does not fit into memory"
                f"{failure and f' ({failure})'}; {ADVICE}"
            )
        self.progress.micro_batch = math.ceil(micro / 2)
        self.progress.halvings += 1
        self.console.warn(
            f"out of memory with {counted(micro, 'page')}; going on with micro-batches of {self.progress.micro_batch} "
            f"(the global batch stays {self.plan.schedule.global_batch})"
        )

    def _skip_step(self, step: int, loss: float, norm: float, bad: Sequence[Example]) -> None:
        """Leave the weights as they are after a loss or gradient that is not finite; stop at the third in a row."""
        self.progress.bad_in_a_row += 1
        names = [self.plan.usable.train[example.index].page.image for example in bad]
        shown = loss if not math.isfinite(loss) else norm
        what = "loss" if not math.isfinite(loss) else "gradient"
        where = f"; pages: {', '.join(names)}" if names else ""
        self.console.warn(f"step {step + 1}: the {what} is {shown}; the step is skipped{where}")
        self.metrics.write({"step": step + 1, "event": "skipped", "loss": loss, "grad_norm": norm, "pages": names})
        if self.progress.bad_in_a_row >= _BAD_IN_A_ROW:
            raise NonFiniteError(
                f"step {step + 1}: the {what} was not finite {_BAD_IN_A_ROW} times in a row; the last checkpoint is "
                "kept; lower learning_rate, or look at the pages named above"
            )

    def _skip_page(self, example: Example) -> None:
        """List a page that could be read at the start and cannot be read now."""
        sample = self.plan.usable.train[example.index]
        lines = JsonLines(self.config.output_dir / "skipped.jsonl")
        record = {"page": sample.page.image, "source": sample.source, "reason": example.problem}
        if record not in lines.read():
            self.console.warn(f"{example.problem}; the page is left out")
            lines.write(record)

    # what is told ----------------------------------------------------------------------------------------------------

    def _report(self, batch: Sequence[tuple[int, int]]) -> None:
        """Move the bar and, at logging steps, write the record of the steps since the last one."""
        progress, tick = self.progress, self._tick
        tick.pages += len(batch)
        total = self.plan.total_steps
        record = self._record()
        self.console.advance(progress.step, describe(record))
        if progress.step % self.config.logging_steps and progress.step != total:
            return
        progress.window_loss = progress.window_tokens = 0
        self._tick = _Tick()
        self.metrics.write(record)
        self.console.step_line(record, progress.step, total)

    def exclude(self, seconds: float) -> None:
        """Leave time spent on something else out of the pages per second."""
        self._tick.began += seconds

    def _record(self) -> dict[str, Any]:
        progress, tick = self.progress, self._tick
        seconds = time.monotonic() - tick.began
        loss = progress.window_loss / progress.window_tokens if progress.window_tokens else math.nan
        return {
            "step": progress.step,
            "epoch": round(progress.step / self.plan.schedule.steps_per_epoch, 4),
            "loss": loss,
            "learning_rate": self.optimizer.learning_rate(progress.step - 1),
            "grad_norm": tick.norm,
            "pages": progress.pages,
            "pages_per_second": round(tick.pages / max(seconds, 1e-9), 3),
            "waiting": round(tick.waited / max(seconds, 1e-9), 4),
        }

    @torch.no_grad()
    def validation_loss(self, advance: Any) -> float:
        """Mean cross-entropy per answer token over the validation pages, with the weights in place."""
        samples = self.plan.usable.validation
        reader = PageReader(samples, self.plan.checkpoint, self.plan.encode, vary=False, seed=0)
        kept, self.features = self.features, None
        total, tokens = 0.0, 0
        try:
            size = self.config.per_device_eval_batch_size
            for first in range(0, len(samples), size):
                part = [reader((0, index)) for index in range(first, min(first + size, len(samples)))]
                total += float(self._losses(part).sum())
                tokens += sum(len(example.answer) for example in part if not example.problem)
                advance(first + len(part))
        finally:
            self.features = kept
        return total / max(tokens, 1)


class _Tick:
    """What happened since the last record."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.waited = 0.0
        self.pages = 0
        self.norm = 0.0


def _all_finite(weights: list[Tensor]) -> bool:
    norms = torch.stack([norm.cpu() for norm in torch._foreach_norm([w.detach() for w in weights], math.inf)])
    return bool(torch.isfinite(norms).all())


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of torch or Python means that memory, of the device or the machine, did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error).lower()
