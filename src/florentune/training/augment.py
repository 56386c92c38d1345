"""Vary training pages as scans and renderings vary: margins, scale, brightness, contrast, blur, noise.

Every draw comes from a generator made of (seed, epoch, page), so a page looks the same in a resumed run, with any
number of loader threads and of processes. Pages are never mirrored: mirrored text is not text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from ..regions import Box, Region

_CROP = 0.12
_PAD = 0.08


def generator(*numbers: int) -> np.random.Generator:
    """A random generator that depends on these numbers alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(numbers)))


def augment(
    image: Image.Image, regions: Sequence[Region], size: tuple[int, int], rng: np.random.Generator
) -> tuple[Image.Image, list[Region], tuple[float, float]]:
    """A varied page of `size` = (height, width) pixels, its regions, and the (width, height) they are measured in.

    The frame is moved at each side: inwards by up to 12 % of the page, never through a region, or outwards by up to
    8 %, filled with the colour of the paper. Regions keep their order and whole extent.
    """
    frame = _frame(image.size, regions, rng)
    height, width = size
    page = _resized(image, frame, (width, height))
    moved = [
        Region(r.label, Box(r.box.x1 - frame.x1, r.box.y1 - frame.y1, r.box.x2 - frame.x1, r.box.y2 - frame.y1))
        for r in regions
    ]
    return _photographed(page, rng), moved, (frame.width, frame.height)


def _frame(size: tuple[int, int], regions: Sequence[Region], rng: np.random.Generator) -> Box:
    """The part of the plane that becomes the page, in whole pixels of the image."""
    width, height = size
    inner = Box(
        min([r.box.x1 for r in regions], default=width / 2),
        min([r.box.y1 for r in regions], default=height / 2),
        max([r.box.x2 for r in regions], default=width / 2),
        max([r.box.y2 for r in regions], default=height / 2),
    )
    left, top, right, bottom = rng.uniform(-_PAD, _CROP, size=4)
    return Box(
        float(round(min(left * width, inner.x1))) if left > 0 else float(round(left * width)),
        float(round(min(top * height, inner.y1))) if top > 0 else float(round(top * height)),
        float(round(max(width - right * width, inner.x2))) if right > 0 else float(round(width - right * width)),
        float(round(max(height - bottom * height, inner.y2))) if bottom > 0 else float(round(height - bottom * height)),
    )


def _resized(image: Image.Image, frame: Box, size: tuple[int, int]) -> Image.Image:
    """The frame's part of the image at `size` = (width, height); one resize, what lies outside is filled."""
    part = frame.clipped(*image.size)
    scale_x, scale_y = size[0] / frame.width, size[1] / frame.height
    left, top = round((part.x1 - frame.x1) * scale_x), round((part.y1 - frame.y1) * scale_y)
    right, bottom = round((part.x2 - frame.x1) * scale_x), round((part.y2 - frame.y1) * scale_y)
    inside = image.resize((max(right - left, 1), max(bottom - top, 1)), Image.Resampling.BICUBIC, box=part)
    page = Image.new("RGB", size, _paper(image))
    page.paste(inside, (left, top))
    return page


def _paper(image: Image.Image) -> tuple[int, int, int]:
    """The colour of the paper: the median of the four corners."""
    right, bottom = image.width - 1, image.height - 1
    corners = [image.getpixel(place) for place in ((0, 0), (right, 0), (0, bottom), (right, bottom))]
    red, green, blue = np.median(np.asarray(corners), axis=0).astype(int).tolist()
    return red, green, blue


def _photographed(page: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The page with other brightness and contrast and, now and then, blur and noise."""
    contrast, brightness = rng.uniform(0.75, 1.15), rng.uniform(-20, 20)
    blur, noise = rng.uniform(0, 1), rng.uniform(0, 1)
    if blur > 0.8:
        page = page.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.8))))
    pixels = (np.asarray(page, dtype=np.float32) - 128) * np.float32(contrast) + np.float32(128 + brightness)
    if noise > 0.7:
        pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(rng.uniform(2, 10))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
