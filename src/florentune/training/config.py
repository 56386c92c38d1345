"""The training configuration: every key, its type and its limits, in one dataclass.

A YAML (or JSON) file plus `key=value` overrides become a TrainConfig; every problem of both is reported at once.
The keys of LLaMA-Factory that mean something here keep their names and meanings.
"""

from __future__ import annotations

import difflib
import importlib.util
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from ..regions import counted
from .foreign_keys import NO_EFFECT, RENAMED, UNSUPPORTED, switched_off

METRICS = ("page_success", "map", "loss")
TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio", "swanlab", "comet_ml", "clearml", "aim", "dvclive")


def _key(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A field with the help text, the allowed values and the inclusive limits of a key."""
    return field(default=default, metadata={"help": text, "choices": choices, "low": low, "high": high})


@dataclass(frozen=True)
class TrainConfig:
    """What `florentune train` does; each field is a key of the YAML file."""

    # model
    model_name_or_path: str = _key("nano", "checkpoint to start from: nano, a folder of any layout, or a hub id")
    base: str | None = _key(None, "model that lends a bare weights folder its configuration")
    # method
    finetuning_type: str = _key("full", "what is trained", choices=("full", "lora"))
    freeze_vision_tower: bool = _key(
        False, "keep the vision tower as it is; if not given, only with finetuning_type: lora"
    )
    lora_rank: int = _key(8, "rank of the LoRA matrices", low=1)
    lora_alpha: int | None = _key(None, "LoRA scale; twice the rank where not given", low=1)
    lora_dropout: float = _key(0.0, "dropout in front of the LoRA matrices", low=0, high=0.99)
    lora_target: tuple[str, ...] = _key(("all",), "linear layers that get LoRA: all, or names such as q_proj,v_proj")
    # data
    dataset: tuple[str, ...] = _key((), "names in dataset_info.json or annotation files, comma separated")
    dataset_dir: Path = _key(Path("data"), "folder of dataset_info.json")  # noqa: RUF009
    media_dir: Path | None = _key(None, "folder of the images of named data sets; dataset_dir if not given")  # noqa: RUF009
    images: Path | None = _key(None, "folder or zip of the images; beside the annotation file if not given")  # noqa: RUF009
    eval_dataset: tuple[str, ...] = _key((), "validation data sets, as dataset")
    val_size: float = _key(0.0, "pages kept for validation: a count above 1, otherwise a share", low=0)
    group_by: str | None = _key(
        None,
        "regular expression whose match in an image's name is its document; guessed from page numbers if not given",
    )
    max_samples: int | None = _key(None, "use at most the first N pages of each data set", low=1)
    mix_strategy: str = _key(
        "concat",
        "how several data sets are mixed",
        choices=("concat", "interleave_under", "interleave_over"),
    )
    interleave_probs: tuple[float, ...] = _key((), "share of each data set when they are interleaved")
    order: str = _key("sorted", "order of the boxes in an answer", choices=("sorted", "file"))
    cutoff_len: int = _key(1024, "pages whose prompt and answer have more tokens are left out", low=16)
    max_bad_share: float = _key(0.01, "refuse to start when a larger share of the pages is unusable", low=0, high=1)
    check_images: bool = _key(True, "decode every image once before the first step")
    augment: bool = _key(False, "vary the training pages: crop, scale, brightness, noise; never mirrored")
    dataloader_num_workers: int = _key(2, "threads that read pages ahead; 0 reads them in the main thread", low=0)
    # optimisation
    per_device_train_batch_size: int = _key(8, "pages per micro-batch and process", low=1)
    gradient_accumulation_steps: int = _key(1, "micro-batches per optimizer step", low=1)
    learning_rate: float = _key(5e-5, "peak learning rate", low=0)
    vision_lr_scale: float = _key(1.0, "factor on the learning rate of the vision tower", low=0)
    layer_lr_decay: float = _key(1.0, "factor on the learning rate from each layer to the one below it", low=0, high=1)
    num_train_epochs: float = _key(3.0, "passes over the training pages", low=0)
    max_steps: int | None = _key(None, "optimizer steps; overrides num_train_epochs", low=1)
    lr_scheduler_type: str = _key(
        "linear",
        "course of the learning rate after the warm-up",
        choices=("linear", "cosine", "constant", "constant_with_warmup"),
    )
    warmup_ratio: float = _key(0.0, "share of the steps in which the learning rate rises", low=0, high=1)
    warmup_steps: int | None = _key(None, "the same as a count of steps; overrides warmup_ratio", low=0)
    weight_decay: float = _key(0.0, "AdamW weight decay; not on biases and norms", low=0)
    adam_beta1: float = _key(0.9, "AdamW beta 1", low=0, high=0.99999)
    adam_beta2: float = _key(0.999, "AdamW beta 2", low=0, high=0.99999)
    adam_epsilon: float = _key(1e-8, "AdamW epsilon", low=0)
    max_grad_norm: float = _key(1.0, "gradients are clipped to this norm; 0 switches clipping off", low=0)
    ema: float = _key(
        0.0, "decay of the averaged weights that are validated and shipped; 0 is off", low=0, high=0.99999
    )
    bf16: bool = _key(False, "bf16 arithmetic with fp32 weights")
    gradient_checkpointing: bool = _key(False, "compute layers twice to save memory")
    cache_features: bool = _key(True, "with a frozen tower and no augmentation: run pages through the tower only once")
    feature_cache_gb: float = _key(20.0, "limit of the tower features on disk", low=0)
    seed: int = _key(42, "seed of the page order, the augmentation and dropout", low=0)
    use_cpu: bool = _key(False, "train on the CPU even where there is a GPU")
    ddp_timeout: int = _key(1800, "seconds processes wait for each other", low=1)
    # output
    output_dir: Path = _key(Path("runs/train"), "folder of the run; runs/<name of the YAML file> if not given")  # noqa: RUF009
    overwrite_output_dir: bool = _key(False, "start anew even where output_dir holds a run")
    resume_from_checkpoint: str | None = _key(None, "auto (or true), or a folder of checkpoints/")
    logging_steps: int = _key(10, "steps between lines of metrics.jsonl", low=1)
    save_steps: int = _key(500, "steps between checkpoints", low=1)
    save_total_limit: int = _key(2, "checkpoints that are kept", low=1)
    plot_loss: bool = _key(True, "draw training_loss.png")
    report_to: tuple[str, ...] = _key(
        ("auto",), f"trackers of accelerate: {', '.join(TRACKERS)}; none; auto is tensorboard where it is installed"
    )
    # validation
    eval_strategy: str = _key("epoch", "when to validate, if there are pages for it", choices=("no", "steps", "epoch"))
    eval_steps: int = _key(500, "steps between validations", low=1)
    per_device_eval_batch_size: int = _key(8, "pages decoded at once in validation", low=1)
    best_by: str = _key("page_success", "measure that chooses best/", choices=METRICS)
    early_stopping: int = _key(0, "stop after this many validations without a better best_by; 0 is off", low=0)

    notes: tuple[str, ...] = field(default=(), metadata={"internal": True})

    def trackers(self) -> tuple[str, ...]:
        """The names of `report_to`, with `auto` resolved."""
        automatic = ("tensorboard",) if _has_tracker("tensorboard") else ()
        named = tuple(name for name in self.report_to if name != "auto")
        return tuple(dict.fromkeys((*named, *automatic))) if "auto" in self.report_to else named

    def as_dict(self) -> dict[str, Any]:
        """Every key with a plain value, as written to the run's config.yaml."""
        plain = {}
        for key in KEYS:
            value = getattr(self, key)
            plain[key] = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        return plain


KEYS = {item.name: item for item in fields(TrainConfig) if not item.metadata.get("internal")}
_TYPES = typing.get_type_hints(TrainConfig)


def load_config(path: str | Path | None, overrides: Sequence[str] | Mapping[str, Any] = ()) -> TrainConfig:
    """The configuration of a YAML or JSON file (none: defaults) with overrides, `key=value` strings or a mapping.

    Raises ConfigError with one line for every problem: unknown keys (with the closest known one), wrong types,
    values out of range, keys that contradict each other, data sets that do not exist.
    """
    problems: list[str] = []
    notes: list[str] = []
    source = Path(path) if path is not None else None
    given = _read_yaml(source) if source else {}
    given.update(overrides if isinstance(overrides, Mapping) else _parse_overrides(overrides, problems))
    if source:
        given.setdefault("output_dir", f"runs/{source.stem}")
    values = _known(given, problems, notes)
    values = _aliases(values, given)
    parsed = {key: _parse(key, value, problems) for key, value in values.items() if value is not None}
    if parsed.get("finetuning_type", "full") != "lora":
        notes += [f"{key}: no effect: finetuning_type is full" for key in sorted(values) if key.startswith("lora_")]
    parsed.setdefault("freeze_vision_tower", parsed.get("finetuning_type") == "lora")
    config = TrainConfig(**parsed, notes=tuple(notes))
    problems += _contradictions(config, given) + _tracker_problems(config)
    if not any(line.startswith(("dataset", "eval_dataset", "images", "media_dir")) for line in problems):
        from .datasets import source_problems

        problems += source_problems(config)
    if problems:
        count = counted(len(problems), "problem")
        place = f"{path or 'configuration'}{', with the keys given beside it' if path and overrides else ''}"
        raise ConfigError(f"{place}: {count}\n" + "\n".join(f"  - {line}" for line in problems))
    return config


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, where PyYAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key if isinstance(key, str) else id(key_node))
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    try:
        given = yaml.load(text, Loader=_Loader)  # derived from SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from None
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: must hold `key: value` lines, not a {type(given).__name__}")
    return {str(key): value for key, value in given.items()}


def _parse_overrides(overrides: Sequence[str], problems: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            problems.append(f"{override!r}: an override is written key=value")
            continue
        try:
            given[key.lstrip("-")] = yaml.safe_load(text)
        except yaml.YAMLError:
            given[key.lstrip("-")] = text
    return given


def _known(given: Mapping[str, Any], problems: list[str], notes: list[str]) -> dict[str, Any]:
    """The keys of ours among the given ones; the others become a note or a problem."""
    values = {}
    for key, value in given.items():
        if key in KEYS or key == "disable_gradient_checkpointing":
            values[key] = value
        elif key in NO_EFFECT:
            notes.append(f"{key}: no effect here: {NO_EFFECT[key]}")
        elif key in UNSUPPORTED:
            if not switched_off(key, value):
                problems.append(f"{key}: {value}: {UNSUPPORTED[key][1]}")
        elif key in RENAMED:
            problems.append(f"{key}: unknown key; did you mean {RENAMED[key]!r}?")
        else:
            problems.append(f"{key}: unknown key{did_you_mean(key, KEYS)}")
    return values


def did_you_mean(word: str, known: typing.Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known word closest to `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _aliases(values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve spellings that mean a value of another key."""
    if "disable_gradient_checkpointing" in values:
        values["gradient_checkpointing"] = not values.pop("disable_gradient_checkpointing")
    resume = values.get("resume_from_checkpoint")
    if isinstance(resume, bool):
        values["resume_from_checkpoint"] = "auto" if resume else None
    if given.get("max_steps") == -1:
        values["max_steps"] = None
    if values.get("save_total_limit", 1) is None:
        del values["save_total_limit"]
    if values.get("report_to") in ("none", ["none"]):
        values["report_to"] = []
    return values


def _parse(key: str, value: Any, problems: list[str]) -> Any:
    """The value in the key's type; the default (and a problem) where it is of another type or out of range."""
    default = KEYS[key].default
    if value is False and "no" in (KEYS[key].metadata["choices"] or ()):
        value = "no"  # YAML 1.1 reads a bare no as false
    try:
        parsed = _convert(value, _TYPES[key])
    except ValueError as error:
        problems.append(f"{key}: {value!r} is not {error}")
        return default
    meta = KEYS[key].metadata
    if meta["choices"] and parsed not in meta["choices"]:
        hint = did_you_mean(str(parsed), meta["choices"])
        problems.append(f"{key}: {parsed!r} is not one of {', '.join(meta['choices'])}{hint}")
        return default
    low, high = meta["low"], meta["high"]
    if isinstance(parsed, int | float) and not _within(parsed, low, high):
        limits = f"at least {low}" if high is None else f"between {low} and {high}"
        problems.append(f"{key}: {parsed} must be {limits}")
        return default
    return parsed


def _within(value: float, low: float | None, high: float | None) -> bool:
    return math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)


def _convert(value: Any, kind: Any) -> Any:
    """`value` as the annotated type; ValueError says what it should have been."""
    if isinstance(kind, types.UnionType):
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(part.strip() if isinstance(part, str) else part, item) for part in parts)
    if kind is Path:
        return Path(_to_str(value))
    return _CONVERTERS[kind](value)


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("true or false")


def _to_int(value: Any) -> int:
    number = _to_float(value, "a whole number")
    if not math.isfinite(number) or number != int(number):
        raise ValueError("a whole number")
    return int(number)


def _to_float(value: Any, wanted: str = "a number") -> float:
    # YAML 1.1 reads 5e-6, without a point, as text
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(wanted)
    try:
        return float(value)
    except ValueError:
        raise ValueError(wanted) from None


def _to_str(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError("text")


_CONVERTERS: dict[Any, Callable[[Any], Any]] = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str}


def _contradictions(config: TrainConfig, given: Mapping[str, Any]) -> list[str]:
    """Keys whose values cannot hold together."""
    validates = bool(config.val_size or config.eval_dataset) and config.eval_strategy != "no"
    rules = [
        (not config.dataset, "dataset: name a data set of dataset_info.json or an annotation file"),
        (bool(config.val_size and config.eval_dataset), "val_size and eval_dataset: give only one of them"),
        (
            bool(config.interleave_probs) and config.mix_strategy == "concat",
            "interleave_probs: has a meaning only with mix_strategy: interleave_under or interleave_over",
        ),
        (
            bool(config.interleave_probs) and len(config.interleave_probs) != len(config.dataset),
            f"interleave_probs: needs one share for each of the {len(config.dataset)} data sets",
        ),
        (
            bool(config.interleave_probs) and min(config.interleave_probs, default=1) <= 0,
            "interleave_probs: every share must be above 0",
        ),
        (
            config.early_stopping > 0 and not validates,
            "early_stopping: needs validation pages (val_size or eval_dataset) and eval_strategy steps or epoch",
        ),
        ("best_by" in given and not validates, "best_by: needs validation pages (val_size or eval_dataset)"),
        (config.val_size > 1 and config.val_size != int(config.val_size), "val_size: a count must be a whole number"),
        (config.val_size == 1, "val_size: 1 would be all pages; give a share below 1, or a count above 1"),
        (config.num_train_epochs <= 0 and config.max_steps is None, "num_train_epochs: must be above 0"),
        (_bad_pattern(config.group_by), f"group_by: {config.group_by!r} is not a regular expression"),
    ]
    return [text for broken, text in rules if broken]


def _tracker_problems(config: TrainConfig) -> list[str]:
    problems = []
    for name in config.report_to:
        if name not in (*TRACKERS, "auto"):
            known = ("none", "auto", *TRACKERS)
            problems.append(f"report_to: {name!r} is not one of {', '.join(known)}{did_you_mean(name, known)}")
        elif name != "auto" and not _has_tracker(name):
            problems.append(f"report_to: {name} is not installed; pip install {name.replace('_', '-')}")
    return problems


def _has_tracker(name: str) -> bool:
    packages = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
    return any(importlib.util.find_spec(package) is not None for package in packages)


def _bad_pattern(pattern: str | None) -> bool:
    import re

    try:
        re.compile(pattern or "")
    except re.error:
        return True
    return False
