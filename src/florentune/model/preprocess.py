"""From an image and a task to the arrays a model reads: the same for training and for every engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import CheckpointError
from .checkpoint import Checkpoint
from .tasks import prompt_for


class Preprocessor:
    """What the processor of a checkpoint does, in numpy: resize, rescale, normalise; tokenise the prompt.

    Pillow's bicubic resize to the checkpoint's square (the aspect ratio is not kept), division by 255, then the mean
    and standard deviation of the checkpoint. Bit for bit what transformers' Pillow image processor computes.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.height, self.width = checkpoint.image_size
        self.tokenizer = checkpoint.tokenizer()
        levels = np.arange(256, dtype=np.float32) / np.float32(255)
        mean = np.asarray(checkpoint.image_mean, dtype=np.float32)
        std = np.asarray(checkpoint.image_std, dtype=np.float32)
        # Every step acts on one 8-bit value at a time, so a table of 256 results a channel is exact and quick.
        self._levels = (levels - mean[:, None]) / std[:, None]

    def pixels(self, image: Image.Image) -> NDArray[np.float32]:
        """An image as float32 (3, height, width), normalised; any mode is converted to RGB first."""
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        small = np.asarray(rgb.resize((self.width, self.height), Image.Resampling.BICUBIC))
        out = np.empty((3, self.height, self.width), dtype=np.float32)
        for channel, levels in enumerate(self._levels):
            np.take(levels, small[..., channel], out=out[channel])
        return out

    def prompt_ids(self, task: str) -> list[int]:
        """The token ids of a task's prompt, `<s>` prompt `</s>`, without image tokens."""
        start, end = self.tokenizer.token_to_id("<s>"), self.tokenizer.token_to_id("</s>")
        if start is None or end is None:
            raise CheckpointError("the tokenizer has no <s> or </s>: it is not a Florence-2 tokenizer")
        words = self.tokenizer.encode(prompt_for(task), add_special_tokens=False)
        return [start, *words.ids, end]
