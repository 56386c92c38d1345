"""AdamW over named weights, the course of the learning rate, averaged weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from .config import TrainConfig

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_PARTS = (".vision_tower.", ".multi_modal_projector.", ".language_model.encoder.", ".language_model.decoder.")
_STAGE = re.compile(r"(?:blocks|layers|convs)\.(\d+)(?:\.(\d+))?")


def learning_rate_factor(step: int, total: int, warmup: int, kind: str) -> float:
    """The factor on the peak learning rate in a step counted from 0; the same as transformers' schedules.

    It rises linearly over `warmup` steps, then falls to 0 at `total` along a line or half a cosine, or stays.
    """
    if kind == "constant":
        return 1.0
    if step < warmup:
        return step / warmup
    if kind == "constant_with_warmup":
        return 1.0
    progress = (step - warmup) / max(total - warmup, 1)
    if kind == "linear":
        return max(1.0 - progress, 0.0)
    return max(0.5 * (1.0 + math.cos(math.pi * progress)), 0.0)


def learning_rate_scales(names: Iterable[str], *, tower: float, decay: float) -> dict[str, float]:
    """The factor on the learning rate of each weight: `decay` for every layer above it, `tower` too in the tower.

    From the bottom: the tower's blocks stage by stage, the projector, the encoder's layers, the decoder's. What is no
    part of a layer goes with the first layer of its part; the embedding is the output layer too and is not slowed down.
    """
    places = {name: _place(name) for name in names}
    layers = sorted({place for place in places.values() if place is not None})
    above = {place: len(layers) - 1 - index for index, place in enumerate(layers)}
    return {
        name: (decay ** above[place] if place is not None else 1.0) * (tower if ".vision_tower." in name else 1.0)
        for name, place in places.items()
    }


def _place(name: str) -> tuple[int, ...] | None:
    """Where a weight is from the bottom to the top: (part, layer or stage, block); None for the embedding and head."""
    for part, mark in enumerate(_PARTS):
        _, found, rest = name.partition(mark)
        if found:
            stage = _STAGE.match(rest)
            return (part, *(int(number or 0) for number in stage.groups())) if stage else (part, 0, 0)
    return None


class Optimizer:
    """AdamW over the trainable weights of a model, with state by weight name and a learning rate by step."""

    def __init__(self, model: nn.Module, config: TrainConfig, total_steps: int) -> None:
        self.weights: dict[str, Tensor] = {
            name: weight for name, weight in model.named_parameters() if weight.requires_grad
        }
        self._config, self._total = config, total_steps
        warmup = config.warmup_steps
        self._warmup = math.ceil(config.warmup_ratio * total_steps) if warmup is None else warmup
        self._adamw = torch.optim.AdamW(
            self._groups(),
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            fused=True,
        )

    def _groups(self) -> list[dict[str, object]]:
        """Weights by decay and by learning rate: biases and norms do not decay, lower layers may learn more slowly."""
        scales = learning_rate_scales(
            self.weights, tower=self._config.vision_lr_scale, decay=self._config.layer_lr_decay
        )
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, weight in self.weights.items():
            decay = self._config.weight_decay if weight.ndim > 1 else 0.0
            groups.setdefault((decay, scales[name]), []).append(weight)
        return [{"params": p, "weight_decay": decay, "scale": scale} for (decay, scale), p in groups.items()]

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step counted from 0."""
        kind = self._config.lr_scheduler_type
        return self._config.learning_rate * learning_rate_factor(step, self._total, self._warmup, kind)

    def apply(self, step: int) -> None:
        """One update with the gradients the weights hold."""
        for group in self._adamw.param_groups:
            group["lr"] = self.learning_rate(step) * group["scale"]
        self._adamw.step()

    def clear(self) -> None:
        """Forget the gradients."""
        self._adamw.zero_grad(set_to_none=True)

    def gradients(self) -> list[Tensor]:
        """The gradients there are, in the order of the weights."""
        return [weight.grad for weight in self.weights.values() if weight.grad is not None]

    def clip(self) -> float:
        """Clip the gradients to max_grad_norm (0: not at all) and return their norm before, which may be NaN."""
        limit = self._config.max_grad_norm or math.inf
        return float(nn.utils.clip_grad_norm_(self.weights.values(), limit))

    def state(self) -> dict[str, Tensor]:
        """The moments as `<weight>/<moment>` tensors; empty before the first update."""
        found = {}
        for name, weight in self.weights.items():
            for moment, value in self._adamw.state.get(weight, {}).items():
                found[f"{name}/{moment}"] = value
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave. Raises CheckpointError when it belongs to other weights."""
        for name, weight in self.weights.items():
            values = {moment: tensors.get(f"{name}/{moment}") for moment in _MOMENTS}
            if all(value is None for value in values.values()):
                continue
            moment = values["exp_avg"]
            if moment is None or moment.shape != weight.shape:
                raise CheckpointError(f"the optimizer state in the checkpoint does not fit the weight {name}")
            self._adamw.state[weight] = {
                key: value.to("cpu" if key == "step" and weight.device.type == "cpu" else weight.device)
                for key, value in values.items()
                if value is not None
            }


class Average:
    """Exponential moving average of weights: after each update, average = decay * average + (1 - decay) * weight."""

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self._weights, self._decay = dict(weights), decay
        self.values = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_lerp_(list(self.values.values()), [w.detach() for w in self._weights.values()], 1 - self._decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages stand in for the weights inside the block."""
        kept = {name: weight.detach().clone() for name, weight in self._weights.items()}
        copy_weights(self._weights, self.values)
        try:
            yield
        finally:
            copy_weights(self._weights, kept)


@torch.no_grad()
def copy_weights(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy values into weights by name. Raises CheckpointError where a name is missing or a shape differs."""
    for name, weight in weights.items():
        value = values.get(name)
        if value is None or value.shape != weight.shape:
            raise CheckpointError(f"the checkpoint has no weight {name} of shape {tuple(weight.shape)}")
        weight.copy_(value)
