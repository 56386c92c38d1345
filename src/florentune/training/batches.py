"""Which page is trained when, and how a page becomes arrays.

The order is a permutation of (seed, epoch) that this module computes itself: step k of an epoch is the k-th slice of
it, so a resumed run starts at its step without replaying anything, and the order is the same for any number of
processes, loader threads and micro-batches.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ..errors import CheckpointError, InputError
from ..locations import OD_TASK, regions_to_text, sorted_regions
from ..model.checkpoint import Checkpoint
from ..model.preprocess import Preprocessor
from ..regions import Box, Region
from .augment import augment, generator
from .datasets import Sample

if TYPE_CHECKING:
    from torch import Tensor

    from .features import FeatureStore

IGNORED = -100
_ORDER, _AUGMENT = 1, 2


@dataclass(frozen=True, slots=True)
class Schedule:
    """The global batches of a run: `pages` training pages in batches of `global_batch`."""

    pages: int
    global_batch: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.pages / self.global_batch)

    def batch(self, step: int) -> list[tuple[int, int]]:
        """The (epoch, page index) pairs of a step, counted from 0; the last batch of an epoch may be smaller."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = generator(_ORDER, self.seed, epoch).permutation(self.pages)
        part = order[position * self.global_batch : (position + 1) * self.global_batch]
        return [(epoch, int(index)) for index in part]

    def batches(self, start: int, stop: int) -> Iterator[list[tuple[int, int]]]:
        """The batches of the steps start .. stop - 1, with one permutation an epoch."""
        for epoch, steps in itertools.groupby(range(start, stop), lambda step: step // self.steps_per_epoch):
            order = generator(_ORDER, self.seed, epoch).permutation(self.pages).tolist()
            for step in steps:
                first = step % self.steps_per_epoch * self.global_batch
                yield [(epoch, index) for index in order[first : first + self.global_batch]]


@dataclass(frozen=True, slots=True)
class Example:
    """One page ready for the model: pixels (3, height, width) float32 and the answer's token ids.

    `pixels` is None when the `features` of the frozen tower stand in for them, or when the page could not be read,
    which `problem` then says. `image_digest` is the SHA-256 of the image file where features are kept.
    """

    index: int
    answer: list[int]
    pixels: NDArray[np.float32] | None = None
    features: Tensor | None = None
    image_digest: str | None = None
    problem: str | None = None


class AnswerEncoder:
    """Regions of a page -> the token ids of its answer, `<s>` ... `</s>`; an empty page gives `<s></s>`."""

    def __init__(self, tokenizer: Tokenizer, labels: Sequence[str], order: str = "sorted") -> None:
        self._tokenizer, self._labels, self._order = tokenizer, labels, order
        start, end = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
        if start is None or end is None or tokenizer.token_to_id("<loc_999>") is None:
            raise CheckpointError("the tokenizer has no <s>, </s> or <loc_999>: it is not a Florence-2 tokenizer")
        self._start, self._end = start, end

    def __call__(self, regions: Iterable[Region], width: float, height: float) -> list[int]:
        ordered = sorted_regions(regions, self._labels) if self._order == "sorted" else regions
        text = regions_to_text(ordered, width, height)
        return [self._start, *self._tokenizer.encode(text, add_special_tokens=False).ids, self._end]


class PageReader:
    """Reads a sample as an Example; the same (epoch, index) gives the same bytes in any thread, process or run."""

    def __init__(
        self,
        samples: Sequence[Sample],
        checkpoint: Checkpoint,
        encode: AnswerEncoder,
        *,
        vary: bool,
        seed: int,
        features: FeatureStore | None = None,
    ) -> None:
        self._samples, self._encode, self._vary, self._seed = samples, encode, vary, seed
        self._features = features
        self._preprocessor = Preprocessor(checkpoint)
        self._size = checkpoint.image_size

    def __call__(self, place: tuple[int, int]) -> Example:
        epoch, index = place
        page = self._samples[index].page
        regions: Sequence[Region] = page.regions
        width, height = float(page.width), float(page.height)
        digest = None
        try:
            if self._features:
                digest = hashlib.sha256(self._samples[index].read()).hexdigest()
                kept = self._features.get(digest)
                if kept is not None:
                    return Example(index, self._encode(regions, width, height), features=kept, image_digest=digest)
            image = self._samples[index].open()
        except (InputError, OSError) as error:
            return Example(index, self._encode(regions, width, height), problem=str(error))
        if self._vary:
            regions = scaled(regions, image.width / width, image.height / height)
            rng = generator(_AUGMENT, self._seed, epoch, index)
            image, regions, (width, height) = augment(image, regions, self._size, rng)
        pixels = self._preprocessor.pixels(image)
        return Example(index, self._encode(regions, width, height), pixels, image_digest=digest)


def scaled(regions: Iterable[Region], x: float, y: float) -> list[Region]:
    """Regions in the pixels of an image that is x times as wide and y times as high."""
    return [Region(r.label, Box(r.box.x1 * x, r.box.y1 * y, r.box.x2 * x, r.box.y2 * y)) for r in regions]


def prompt_ids(checkpoint: Checkpoint) -> list[int]:
    """The token ids of the detection prompt, `<s>` ... `</s>`, without image tokens."""
    return Preprocessor(checkpoint).prompt_ids(OD_TASK)


def read_ahead(
    read: Callable[[tuple[int, int]], Example], places: Iterable[tuple[int, int]], threads: int, ahead: int
) -> Generator[Example]:
    """The examples in order, `ahead` of them read by threads while the caller computes; 0 threads reads in place.

    Threads suffice because decoding and resizing run outside Python's lock; there is no worker process to lose.
    """
    if threads == 0:
        yield from map(read, places)
        return
    waiting: deque[Future[Example]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="pages") as pool:
        try:
            for place in places:
                waiting.append(pool.submit(read, place))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def padded_answers(answers: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Answers as one array (pages, longest answer); the padding is -100, which the loss leaves out."""
    out = np.full((len(answers), max(map(len, answers))), IGNORED, dtype=np.int64)
    for row, answer in zip(out, answers, strict=True):
        row[: len(answer)] = answer
    return out
