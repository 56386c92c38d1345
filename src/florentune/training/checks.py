"""Before the first step: which pages can be trained on, and what the run is going to be."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import AnnotationError, InputError
from ..files import read_json, write_json
from .batches import AnswerEncoder
from .config import TrainConfig
from .console import Console
from .datasets import Sample, Skipped, TrainingData

_CHECKED = "checked.json"


@dataclass(frozen=True, slots=True)
class Usable:
    """The pages that passed, with the length in tokens of each training answer, and those that did not."""

    train: list[Sample]
    validation: list[Sample]
    answer_tokens: list[int]
    longest_answer: int
    skipped: list[Skipped]


def usable_pages(
    data: TrainingData, encode: AnswerEncoder, longest: int, config: TrainConfig, console: Console
) -> Usable:
    """Leave out pages whose answer is longer than `longest` tokens or whose image cannot be decoded.

    Raises AnnotationError when more than max_bad_share of all pages are unusable: a few broken files are an accident,
    many are a wrong path.
    """
    problems = _image_problems([*data.train, *data.validation], config, console)
    skipped = list(data.skipped)
    parts: list[list[Sample]] = []
    lengths: list[list[int]] = []
    for samples in (data.train, data.validation):
        parts.append([])
        lengths.append([])
        for sample in samples:
            tokens = len(encode(sample.page.regions, sample.page.width, sample.page.height))
            problem = problems.get(_key(sample))
            if tokens > longest:
                problem = f"its answer has {tokens} tokens, more than the {longest} that fit (cutoff_len, positions)"
            if problem:
                skipped.append(Skipped(sample.page.image, sample.source, problem))
            else:
                parts[-1].append(sample)
                lengths[-1].append(tokens)
    skipped = list(dict.fromkeys(skipped))
    _refuse_many(
        skipped, len(data.train) + len(data.validation) + sum(item.whole_page for item in data.skipped), config
    )
    return Usable(parts[0], parts[1], lengths[0], max(lengths[0] + lengths[1], default=0), skipped)


def _refuse_many(skipped: Sequence[Skipped], pages: int, config: TrainConfig) -> None:
    skipped = [item for item in skipped if item.whole_page]
    if len(skipped) <= config.max_bad_share * pages:
        return
    listed = "\n".join(f"  - {item.source}: {item.page}: {item.reason}" for item in skipped[:5])
    more = f"\n  ... and {len(skipped) - 5} more" if len(skipped) > 5 else ""
    raise AnnotationError(
        f"{len(skipped)} of {pages} pages cannot be used, more than max_bad_share "
        f"({config.max_bad_share:.1%}) allows:\n{listed}{more}\n"
        "repair them (florentune check lists all), or raise max_bad_share to leave them out"
    )


def _image_problems(samples: Sequence[Sample], config: TrainConfig, console: Console) -> dict[tuple[str, str], str]:
    """Why images cannot be used, by (source, image). Images that passed in this folder before are not read again."""
    record = config.output_dir / _CHECKED
    passed = set(read_json(record)) if record.is_file() else set()
    todo = {_key(sample): sample for sample in samples if not config.check_images or _stamp(sample) not in passed}
    read = _decode if config.check_images else _header
    problems = {}
    console.start("checking images", len(todo))
    with ThreadPoolExecutor(max(config.dataloader_num_workers, 1)) as pool:
        for done, (key, problem) in enumerate(zip(todo, pool.map(read, todo.values()), strict=True)):
            if problem:
                problems[key] = problem
            console.advance(done + 1)
    console.stop()
    if config.check_images and todo:
        good = [_stamp(sample) for sample in samples if _key(sample) not in problems]
        write_json(record, sorted(set(good)), indent=None)
    return problems


def _key(sample: Sample) -> tuple[str, str]:
    return sample.source, sample.page.image


def _decode(sample: Sample) -> str | None:
    try:
        size = sample.open().size
    except (InputError, OSError) as error:
        return str(error)
    return _size_problem(sample, size)


def _header(sample: Sample) -> str | None:
    try:
        header = sample.images.header(sample.page.image)
    except (InputError, OSError) as error:
        return str(error)
    return _size_problem(sample, (header.width, header.height))


def _size_problem(sample: Sample, size: tuple[int, int]) -> str | None:
    """Boxes of a page scale with it, so another resolution is fine; another shape is another page."""
    page = sample.page
    if abs(size[0] * page.height - size[1] * page.width) <= 2 * max(*size, page.width, page.height):
        return None
    return f"the image is {size[0]} x {size[1]} pixels, its boxes are for {page.width} x {page.height}"


def _stamp(sample: Sample) -> str:
    """Name, size and time of an image file: what changes when the file does."""
    images = sample.images
    path = images.root if images.is_zip else images.root / (images.locate(sample.page.image) or sample.page.image)
    try:
        stats = os.stat(path)
    except OSError:
        return ""
    return json.dumps([str(path), sample.page.image, stats.st_size, stats.st_mtime_ns])


def data_report(usable: Usable, labels: Sequence[str], folder: Path) -> dict[str, object]:
    """What the run trains on, as written to data_report.json."""
    report: dict[str, object] = {"labels": list(labels)}
    for name, samples in (("train", usable.train), ("validation", usable.validation)):
        boxes = Counter(region.label for sample in samples for region in sample.page.regions)
        report[name] = {
            "pages": len(samples),
            "empty_pages": sum(not sample.page.regions for sample in samples),
            "boxes": {label: boxes[label] for label in labels},
        }
    ordered = sorted(usable.answer_tokens)
    report["answer_tokens"] = {"median": ordered[len(ordered) // 2], "longest": usable.longest_answer}
    report["skipped"] = len(usable.skipped)
    write_json(folder / "data_report.json", report)
    return report
