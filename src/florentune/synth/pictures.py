"""Raster pictures: scenes, textures, microscopy, medical and satellite look-alikes, spectrograms, and grids of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from .svg import Svg
from .words import Prose

Pixels = npt.NDArray[np.float32]


def _noise(rng: Random, width: int, height: int, channels: int, octaves: tuple[int, ...]) -> Pixels:
    """Smooth noise in 0..1, shape (height, width, channels): octaves of random grids, the coarse ones strongest."""
    source = np.random.default_rng(rng.getrandbits(32))
    total = np.zeros((height, width, channels), np.float32)
    for octave in octaves:
        grid = (source.random((octave, octave, 3), np.float32) * 255).astype(np.uint8)
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(layer, np.float32)[:, :, :channels] / octave**0.6
    low, high = total.min(), total.max()
    scaled: Pixels = (total - low) / np.float32(max(high - low, 1e-6))
    return scaled


def _image(pixels: npt.NDArray[np.floating]) -> Image.Image:
    """An RGB image of values in 0..1; one channel is repeated."""
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def scene(rng: Random, width: int, height: int) -> Image.Image:
    """Sky, ground, hills or houses, with soft objects in front: a photograph at thumbnail size."""
    sky = np.array([rng.uniform(0.3, 0.9), rng.uniform(0.5, 0.9), rng.uniform(0.6, 1.0)], np.float32)
    ground = np.array([rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.6), rng.uniform(0.05, 0.4)], np.float32)
    fade = np.linspace(1.0, 0.65, height, dtype=np.float32)[:, None, None]
    image = _image(sky * fade * np.ones((height, width, 3), np.float32))
    draw = ImageDraw.Draw(image)
    ridge = horizon = height * rng.uniform(0.35, 0.75)
    points = [(0.0, float(height))]
    for left in range(0, width + 1, max(width // 18, 1)):
        ridge = min(max(ridge + rng.uniform(-0.06, 0.06) * height, height * 0.2), height * 0.9)
        points.append((float(left), ridge))
    draw.polygon([*points, (width, height)], fill=_colour(ground))
    draw.rectangle((0, horizon + height * 0.12, width, height), fill=_colour(ground * rng.uniform(0.6, 1.4)))
    for _ in range(rng.randint(1, 9)):
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        x, y = rng.uniform(-0.1, 0.9) * width, rng.uniform(0.2, 0.85) * height
        w, h = rng.uniform(0.05, 0.4) * width, rng.uniform(0.08, 0.45) * height
        (draw.ellipse if rng.random() < 0.55 else draw.rectangle)((x, y, x + w, y + h), fill=colour)
        draw.ellipse((x + w * 0.2, y - h * 0.3, x + w * 0.8, y + h * 0.3), fill=tuple(int(c * 0.8) for c in colour))
    grain = _noise(rng, width, height, 3, (8, 20, 60)) * 0.4 + 0.75
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.6)))
    return _image(np.asarray(image, np.float32) / 255 * grain)


def _colour(values: npt.NDArray[np.float32]) -> tuple[int, int, int]:
    red, green, blue = (int(min(max(value, 0), 1) * 255) for value in values)
    return red, green, blue


def texture(rng: Random, width: int, height: int) -> Image.Image:
    """Coloured clouds, as a close-up or a generated image looks."""
    return _image(_noise(rng, width, height, 3, (2, 4, 9, 20, 45)))


def microscopy(rng: Random, width: int, height: int) -> Image.Image:
    """Bright blobs on black, or dark ones on a pale ground."""
    image = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(10, 90)):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.01, 0.07) * width
        draw.ellipse((x - r, y - r * rng.uniform(0.5, 1), x + r, y + r), fill=rng.randint(90, 255))
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(1.5)), np.float32)[:, :, None] / 255
    tint = np.array([rng.choice((0.1, 1.0)), rng.choice((0.3, 1.0)), rng.choice((0.2, 1.0))], np.float32)
    pixels = pixels * tint + _noise(rng, width, height, 1, (4, 60)) * 0.12
    return _image(1 - pixels * 0.7 if rng.random() < 0.3 else pixels)


def medical(rng: Random, width: int, height: int) -> Image.Image:
    """A grey slice: a bright ring with structure inside, on black."""
    ys, xs = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    wobble = _noise(rng, width, height, 1, (3, 6))[:, :, 0] * 0.35
    radius = np.sqrt(xs**2 * rng.uniform(1, 1.6) + ys**2) + wobble
    body = (radius < 0.95).astype(np.float32) * (0.3 + 0.5 * _noise(rng, width, height, 1, (5, 12, 30))[:, :, 0])
    body[(radius > 0.85) & (radius < 0.95)] = 0.95
    return _image(body[:, :, None])


def satellite(rng: Random, width: int, height: int) -> Image.Image:
    """Fields, a river and roads from above."""
    image = _image(_noise(rng, width, height, 3, (5, 11, 40)) * np.array([0.5, 0.65, 0.4], np.float32))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(3, 16)):
        x, y, w = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.05, 0.2) * width
        draw.rectangle(
            (x, y, x + w, y + w * 0.7), fill=(rng.randint(60, 200), rng.randint(80, 180), rng.randint(40, 120))
        )
    for _ in range(rng.randint(1, 4)):
        ends = (0, rng.uniform(0, height), width, rng.uniform(0, height))
        draw.line(ends, fill=rng.choice(((200, 200, 190), (60, 90, 130))), width=rng.randint(1, 5))
    return image


def spectrogram(rng: Random, width: int, height: int) -> Image.Image:
    """Bands of energy over time in a hot colour map."""
    energy = _noise(rng, width, height, 1, (4, 30, 70))[:, :, 0]
    for _ in range(rng.randint(2, 7)):
        row = int(rng.uniform(0.1, 0.95) * height)
        energy[row : row + max(height // 40, 1)] += 0.4
    stops = np.array([[0, 0, 0.1], [0.5, 0.05, 0.5], [0.95, 0.5, 0.2], [1, 1, 0.7]], np.float32)
    at = np.clip(energy / 1.4, 0, 0.999) * 3
    low = at.astype(int)
    part = (at - low)[:, :, None]
    return _image(stops[low] * (1 - part) + stops[low + 1] * part)


def digits(rng: Random, width: int, height: int) -> Image.Image:
    """A few thick strokes, white on black or the reverse, like handwritten digits or masks."""
    image = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(image)
    points = [(rng.uniform(0.2, 0.8) * width, rng.uniform(0.15, 0.85) * height) for _ in range(rng.randint(3, 6))]
    draw.line(points, fill=255, width=max(width // rng.randint(6, 12), 1), joint="curve")
    if rng.random() < 0.5:
        draw.arc((width * 0.2, height * 0.1, width * 0.8, height * 0.7), 0, 300, fill=255, width=max(width // 9, 1))
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)), np.float32)[:, :, None] / 255
    return _image(1 - pixels if rng.random() < 0.25 else pixels)


KINDS: tuple[Callable[[Random, int, int], Image.Image], ...] = (
    scene, scene, scene, scene, texture, microscopy, medical, satellite, spectrogram, digits,
)  # fmt: skip


def data_url(image: Image.Image) -> str:
    """The image as a JPEG data URL."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def picture(rng: Random, width: int, height: int) -> Image.Image:
    """Any picture."""
    return rng.choice(KINDS)(rng, width, height)


def photographs(prose: Prose, width: float) -> Svg:
    """One picture or a grid of pictures of one kind, with row and column names, boxes or a scale bar now and then."""
    rng = prose.rng
    columns, rows = rng.choice(
        ((1, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (4, 3), (6, 4), (3, 3), (8, 3), (10, 5), (5, 7))
    )
    gap, head, left = rng.choice((0, 1, 2, 5)), rng.choice((0, 0, 12)), rng.choice((0, 0, 14))
    side = max((width - left) / columns - gap, 18) if columns > 1 else min(width, 240) * rng.uniform(0.6, 1)
    tall = side * rng.choice((1.0, rng.uniform(0.6, 1.2)))
    svg = Svg(
        left + columns * (side + gap) - gap,
        head + rows * (tall + gap) - gap,
        rng.choice(("DejaVu Sans", "STIXGeneral")),
    )
    pixels = 200 if columns == 1 else 110 if columns < 4 else 64
    kind = rng.choice(KINDS)
    pool = [data_url(kind(rng, pixels, max(int(pixels * tall / side), 8))) for _ in range(min(columns * rows, 14))]
    marked = rng.random() < 0.25
    for c in range(columns):
        if head:
            svg.text(left + c * (side + gap) + side / 2, 9, prose.plain(1)[: max(int(side / 5), 2)], 8, "middle")
        for r in range(rows):
            x, y = left + c * (side + gap), head + r * (tall + gap)
            svg.image(x, y, side, tall, pool[(c * rows + r) % len(pool)])
            if marked:
                colour = rng.choice(("#f00", "#0f0", "#ff0", "#0ff"))
                svg.rect(
                    x + side * 0.2,
                    y + tall * 0.2,
                    side * rng.uniform(0.2, 0.6),
                    tall * rng.uniform(0.2, 0.6),
                    "none",
                    colour,
                )
    for r in range(rows if left else 0):
        svg.text(9, head + r * (tall + gap) + tall / 2, prose.plain(1)[: max(int(tall / 5), 2)], 8, "middle", -90)
    return svg
