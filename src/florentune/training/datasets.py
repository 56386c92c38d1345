"""From the data keys of a configuration to the pages to train and to validate on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..errors import ConfigError, InputError
from ..files import read_json
from ..formats.split import documents, hold_out
from ..regions import Page
from .config import TrainConfig, did_you_mean

if TYPE_CHECKING:
    from ..formats import DataSet, ImageFolder

INFO = "dataset_info.json"


@dataclass(frozen=True, slots=True)
class Sample:
    """A page and where its image is opened."""

    page: Page
    images: ImageFolder
    source: str

    def open(self) -> Image.Image:
        """The page's image as RGB. Raises ImageError."""
        return self.images.open(self.page.image)

    def read(self) -> bytes:
        """The bytes of the image file. Raises ImageError or OSError."""
        return self.images.read(self.page.image)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A page, or part of one, that is not trained on, and why."""

    page: str
    source: str
    reason: str
    whole_page: bool = True

    def as_dict(self) -> dict[str, str]:
        """{"page", "source", "reason"}, a line of skipped.jsonl."""
        return {"page": self.page, "source": self.source, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The pages of a run, in a fixed order, and what was left out of them."""

    train: list[Sample]
    validation: list[Sample]
    labels: tuple[str, ...]
    skipped: list[Skipped]


def source_problems(config: TrainConfig) -> list[str]:
    """What is wrong with the data keys: data sets, files and folders that do not exist."""
    problems = []
    for key, names in (("dataset", config.dataset), ("eval_dataset", config.eval_dataset)):
        for name in names:
            try:
                _registered(name, config)
            except InputError as error:
                problems.append(f"{key}: {error}")
    for key in ("images", "media_dir"):
        path = getattr(config, key)
        if path is not None and not path.exists():
            problems.append(f"{key}: {path}: no such file or folder")
    return list(dict.fromkeys(problems))


def load_data(config: TrainConfig) -> TrainingData:
    """Read, mix and split the data sets. Raises AnnotationError or ConfigError when no page is left to train on."""
    skipped: list[Skipped] = []
    sets = [_read(name, config, skipped) for name in config.dataset]
    labels = _labels(dataset for _, dataset in sets)
    groups = [_samples(name, dataset, config) for name, dataset in sets]
    mixed = mix(groups, config.mix_strategy, config.interleave_probs, config.seed)
    if config.eval_dataset:
        others = [_read(name, config, skipped) for name in config.eval_dataset]
        validation = [sample for name, dataset in others for sample in _samples(name, dataset, config)]
        train = mixed
    else:
        train, validation = split(mixed, config.val_size, config.group_by, config.seed)
    if not train:
        raise ConfigError(f"{', '.join(config.dataset)}: no page is left to train on (val_size: {config.val_size:g})")
    return TrainingData(train, validation, labels, skipped)


def mix(groups: Sequence[Sequence[Sample]], strategy: str, shares: Sequence[float], seed: int) -> list[Sample]:
    """Several data sets as one list: concatenated, or drawn in turn (or by `shares`) until one or all are used up.

    interleave_under stops when the first data set is used up, interleave_over when all are; a data set that is used up
    before starts again.
    """
    groups = [group for group in groups if group]
    if strategy == "concat" or len(groups) < 2:
        return [sample for group in groups for sample in group]
    enough = any if strategy == "interleave_under" else all
    taken = [0] * len(groups)
    mixed = []
    for index in _turns(len(groups), shares, seed):
        mixed.append(groups[index][taken[index] % len(groups[index])])
        taken[index] += 1
        if enough(count >= len(group) for count, group in zip(taken, groups, strict=True)):
            break
    return mixed


def _turns(count: int, shares: Sequence[float], seed: int) -> Iterable[int]:
    if not shares:
        return itertools.cycle(range(count))
    rng = np.random.Generator(np.random.PCG64(seed))
    weights = np.asarray(shares) / sum(shares)
    return (int(rng.choice(count, p=weights)) for _ in itertools.count())


def split(samples: Sequence[Sample], size: float, group_by: str | None, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Training and validation pages; `size` above 1 is a count of pages, otherwise a share (rounded up).

    A document is never on both sides. Documents are what `group_by` says, or what the image names suggest; a page
    whose name suggests none stands alone. So the number of validation pages is the one closest to `size` that whole
    documents allow. Which they are depends on the seed alone. Raises InputError where `group_by` does not match.
    """
    wanted = int(size) if size > 1 else math.ceil(size * len(samples))
    keys = document_keys(samples, group_by)
    held = hold_out(keys, wanted, seed)
    train = [sample for sample, key in zip(samples, keys, strict=True) if key not in held]
    return train, [sample for sample, key in zip(samples, keys, strict=True) if key in held]


def document_keys(samples: Sequence[Sample], group_by: str | None) -> list[str]:
    """What stays on one side of a split, for every page: its document, or the page itself where none is known."""
    found = documents([sample.page.image for sample in samples], group_by)
    return [name or f"{sample.source}:{sample.page.image}" for sample, name in zip(samples, found, strict=True)]


def _labels(sets: Iterable[DataSet]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for dataset in sets for label in dataset.labels))


def _samples(name: str, dataset: DataSet, config: TrainConfig) -> list[Sample]:
    if dataset.images is None:
        raise ConfigError(f"{name}: where are its images? give `images: FOLDER` (or a zip)")
    return [Sample(page, dataset.images, name) for page in dataset.pages[: config.max_samples]]


def _registered(name: str, config: TrainConfig) -> bool:
    """Whether a data set is an entry of dataset_info.json; otherwise it is an annotation file or folder.

    Raises ConfigError when it is neither, or when the file of the entry does not exist.
    """
    registry = config.dataset_dir / INFO
    known = read_json(registry, ConfigError) if registry.is_file() else {}
    entry = known.get(name) if isinstance(known, dict) else None
    if entry is not None:
        file = entry.get("file_name") if isinstance(entry, dict) else None
        if isinstance(file, str) and not (config.dataset_dir / file).exists():
            raise ConfigError(f"{config.dataset_dir / file}: no such file (entry {name!r} of {registry})")
        return True
    if Path(name).exists():
        return False
    where = f"{registry} has no such entry" if known else f"there is no {registry}"
    raise ConfigError(f"{name}: no such file, and {where}{did_you_mean(name, known)}")


def _is_box(code: str) -> bool:
    from ..formats.dataset import KINDS

    return KINDS[code].effect.startswith(("box", "text"))


def _read(name: str, config: TrainConfig, skipped: list[Skipped]) -> tuple[str, DataSet]:
    from .. import formats
    from ..formats.dataset import KINDS

    if _registered(name, config):
        dataset = formats.read_registered(config.dataset_dir / INFO, name, media_dir=config.media_dir)
    else:
        dataset = formats.read(Path(name), images=config.images)
    skipped += [
        Skipped(issue.id, name, f"{issue.message} ({KINDS[issue.code].effect})", not _is_box(issue.code))
        for issue in dataset.issues
        if issue.severity == "error"
    ]
    return name, dataset
