"""The model of a run: what of it is trained, and how it is saved as a checkpoint that just loads."""

from __future__ import annotations

import copy
import functools
import itertools
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from ..errors import ConfigError, MissingExtraError
from ..model.checkpoint import Checkpoint
from ..model.florence import load_model, save_checkpoint
from .config import TrainConfig, did_you_mean
from .cpu import checkpoint_contexts
from .features import FeatureStore, tower_digest
from .state import replace_folder

_TEXT = "model.language_model."
_TOWER = "model.vision_tower."


class Learner:
    """A Florence-2 with its trainable part marked: everything, everything but the tower, or LoRA matrices."""

    def __init__(self, start: Checkpoint, config: TrainConfig, device: torch.device) -> None:
        self.checkpoint, self._config = start, config
        self.model: Any = load_model(start, dtype=torch.float32, device=str(device))
        if device.type == "cpu":
            # the backward pass of PyTorch's fused attention is slower than plain matrix products there
            self.model.set_attn_implementation("eager")
            _read_rows_sparsely(self.model)
        self._adapted: Any = None
        self._frozen_tower = config.freeze_vision_tower
        if config.finetuning_type == "lora":
            self._adapted = _with_lora(self.model, config)
        if self._frozen_tower:
            self.model.model.vision_tower.requires_grad_(False)
        if config.gradient_checkpointing:
            _checkpoint_layers(self.model, on_cpu=device.type == "cpu")

    def train(self) -> None:
        """Switch dropout on, except in a frozen tower, which computes as it does in inference."""
        self.model.train()
        if self._frozen_tower:
            self.model.model.vision_tower.eval()

    def feature_store(self) -> FeatureStore:
        """The kept feature maps of this tower, below the run's folder."""
        tower = self.model.model.vision_tower.state_dict()
        digest = tower_digest(tower, self.checkpoint, bf16=self._config.bf16)
        return FeatureStore(self._config.output_dir / "features", int(self._config.feature_cache_gb * 1e9), digest)

    def save(
        self,
        folder: Path,
        *,
        labels: Sequence[str],
        max_new_tokens: int,
        card: str,
        calibration: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the model as a whole checkpoint folder, LoRA merged into the weights."""
        model = self.model
        if self._adapted is not None:
            model = copy.deepcopy(self._adapted).merge_and_unload()
        save_checkpoint(
            model,
            folder,
            tokenizer=self.checkpoint.tokenizer(),
            image_size=self.checkpoint.image_size,
            labels=tuple(labels),
            max_new_tokens=max_new_tokens,
            card=card,
            calibration=calibration,
        )

    def save_adapter(self, folder: Path) -> None:
        """Write the LoRA matrices alone, as peft reads them; nothing without LoRA."""
        if self._adapted is not None:
            part = folder.with_name(f"{folder.name}.tmp-{uuid.uuid4().hex[:8]}")
            self._adapted.save_pretrained(part, safe_serialization=True)
            replace_folder(part, folder)


def lora_names(model: Any, targets: Sequence[str], *, tower: bool) -> list[str]:
    """The full names of the linear layers that get LoRA.

    `all` means every linear layer of the text model and, with `tower`, of the vision tower. Names are matched inside
    the text model first: the tower's MLPs are also called fc1 and fc2, and must not be meant by accident.
    """
    linear = [name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)]
    inside = [name for name in linear if name.startswith(_TEXT) or (tower and name.startswith(_TOWER))]
    if "all" in targets:
        return inside
    known = sorted({name.rsplit(".", 1)[-1] for name in inside})
    for target in targets:
        if not any(name.endswith(f".{target}") for name in inside):
            raise ConfigError(
                f"lora_target: no linear layer is called {target!r}{did_you_mean(target, known)}; "
                f"there are {', '.join(known)}"
            )
    return [name for name in inside if any(name.endswith(f".{target}") for target in targets)]


def _read_rows_sparsely(model: Any) -> None:
    """Give the rows that are looked up a sparse gradient, where the output layer's dense one takes it up."""
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.weight is model.lm_head.weight:
            module.sparse = True


def _checkpoint_layers(model: Any, *, on_cpu: bool) -> None:
    """Let the layers of text model and tower keep their input alone for the backward pass."""
    settings: dict[str, Any] = {"use_reentrant": False}
    if on_cpu:
        settings["context_fn"] = checkpoint_contexts
    # transformers is renaming the method
    (getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable)(settings)
    for block in itertools.chain(*model.model.vision_tower.blocks):
        for half in (block.spatial_block, block.channel_block):
            half.forward = functools.partial(checkpoint, half.forward, **settings)


def _with_lora(model: Any, config: TrainConfig) -> Any:
    try:
        import peft
    except ImportError:
        raise MissingExtraError("peft", "train") from None
    names = lora_names(model, config.lora_target, tower=not config.freeze_vision_tower)
    settings = peft.LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or 2 * config.lora_rank,
        lora_dropout=config.lora_dropout,
        target_modules=names,
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return peft.get_peft_model(model, settings)
