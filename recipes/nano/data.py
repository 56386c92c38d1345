"""Training pages: JPEG pages with boxes in, augmented pixels and token targets out.

A source is a folder with pages.jsonl as pseudo_label.py and ingest.py write it: boxes in pixels of a page of
`width` x `height`, the image stored 720 pixels high.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from tokenizers import Tokenizer

from florentune.locations import box_to_bins
from florentune.regions import Box

OBJECTS = ("table", "figure")
LAYOUT = (
    *OBJECTS,
    *("caption", "title", "heading", "text", "equation", "algorithm", "code", "list"),
    *("footnote", "reference", "header"),
)
SPOKEN = tuple(name for name in LAYOUT if name != "text")  # regions of the second prompt; paragraphs are too many
MOST_SPOKEN = 12
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
Labelled = tuple[str, np.ndarray]


@dataclass
class Sample:
    """A page in memory: JPEG bytes, and boxes as shares (0..1) of width and height."""

    jpeg: bytes
    objects: list[Labelled]
    layout: list[Labelled]
    real: bool
    paper: str
    by_eye: bool = False
    share: float = 1.0

    @property
    def weight(self) -> float:
        """How often the page is drawn: pages the teacher could not do twice, pages without an object half as often."""
        return self.share * ((2.0 if self.by_eye else 1.0) if self.objects else 0.5)


def read_source(folder: Path, *, real: bool, share: float = 1.0) -> list[Sample]:
    """The kept pages of a source folder; `share` says how often they are drawn beside those of other folders."""
    samples = []
    for line in (folder / "pages.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record.get("drop") or "objects" not in record:
            continue
        size = np.array([record["width"], record["height"]] * 2, float)
        objects = [(kind, np.clip(np.array(box) / size, 0, 1)) for kind, box in record["objects"]]
        layout = [(kind, np.clip(np.array(box) / size, 0, 1)) for kind, box in record["layout"] if kind in LAYOUT]
        paper = record["image"].rpartition("_")[0]
        page = (folder / record["image"]).read_bytes()
        samples.append(Sample(page, objects, layout, real, paper, record.get("by_eye", False), share))
    return samples


def units_of(samples: list[Sample]) -> list[tuple[int, str, np.ndarray, np.ndarray]]:
    """(sample index, kind, object box, box with its caption) of every object that can be pasted elsewhere."""
    units = []
    for index, sample in enumerate(samples):
        for kind, box in sample.objects:
            whole = box
            for label, other in sample.layout:
                across = min(box[2], other[2]) - max(box[0], other[0])
                gap = max(box[1] - other[3], other[1] - box[3])
                if label == "caption" and across > 0 and gap < 0.03:
                    whole = np.r_[np.minimum(whole[:2], other[:2]), np.maximum(whole[2:], other[2:])]
            others = [b for k, b in sample.objects if b is not box]
            if not any(_overlap(whole, b) for b in others) and whole[3] - whole[1] < 0.7:
                units.append((index, kind, box, whole))
    return units


def _overlap(first: np.ndarray, second: np.ndarray) -> bool:
    return bool((np.minimum(first[2:], second[2:]) > np.maximum(first[:2], second[:2])).all())


class Pages(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Augmented pages; item i of epoch e is the same for every worker count."""

    def __init__(
        self, samples: list[Sample], tokenizer: Tokenizer, side: int, *, seed: int = 0, real_share: float = 0.5
    ) -> None:
        self.samples, self.tokenizer, self.side, self.seed = samples, tokenizer, side, seed
        self.pools = {kind: [i for i, s in enumerate(samples) if s.real is kind] for kind in (True, False)}
        self.real_share = real_share if self.pools[False] else 1.0
        self.turns = {kind: np.cumsum([samples[i].weight for i in part]) for kind, part in self.pools.items()}
        self.units = units_of(samples)
        self.texts = [
            i
            for i in self.pools[True]
            if any(k == "text" and b[3] - b[1] > 0.12 and b[2] - b[0] > 0.22 for k, b in samples[i].layout)
        ]

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, index))
        real = bool(self.pools[True]) and rng.random() < self.real_share
        turns = self.turns[real]
        sample = self.samples[self.pools[real][int(np.searchsorted(turns, rng.random() * turns[-1], side="right"))]]
        image = Image.open(io.BytesIO(sample.jpeg)).convert("RGB")
        objects, layout = list(sample.objects), [item for item in sample.layout if item[0] not in OBJECTS]
        if rng.random() < (0.45 if sample.real else 0.2):
            for _ in range(rng.integers(1, 3)):
                image, objects, layout = self.pasted(image, objects, layout, rng)
        image, objects, layout = viewed(image, objects, layout, self.side, rng)
        image = toned(image, rng)
        pixels = (np.asarray(image, np.float32) / 255 - MEAN) / STD
        return {
            "pixels": torch.from_numpy(pixels.transpose(2, 0, 1).copy()),
            "od": self.target(objects, OBJECTS, 40),
            "layout": self.target(objects + layout, SPOKEN, MOST_SPOKEN),
            "boxes": [(LAYOUT.index(kind), box) for kind, box in objects + layout],
        }

    def pasted(
        self, image: Image.Image, objects: list[Labelled], layout: list[Labelled], rng: np.random.Generator
    ) -> tuple[Image.Image, list[Labelled], list[Labelled]]:
        """The page with one paragraph's place taken by a table or figure, caption included, of another page."""
        slots = [b for k, b in layout if k in ("text", "reference", "list") and b[3] - b[1] > 0.1 and b[2] - b[0] > 0.2]
        if not slots or not self.units:
            return image, objects, layout
        slot = slots[rng.integers(len(slots))]
        for _ in range(10):
            index, kind, box, whole = self.units[rng.integers(len(self.units))]
            source = self.samples[index]
            with Image.open(io.BytesIO(source.jpeg)) as page:
                page_size = np.array([page.width, page.height] * 2)
            size = (whole[2:] - whole[:2]) * page_size[:2]
            room = (slot[2:] - slot[:2]) * [image.width, image.height]
            scale = room[0] / size[0] * rng.uniform(0.75, 1.0)
            if 0.55 < scale < 1.5 and size[1] * scale < room[1] * 0.95:
                break
        else:
            return image, objects, layout
        page = Image.open(io.BytesIO(source.jpeg)).convert("RGB")
        crop = page.crop(tuple(np.round(whole * page_size).astype(int)))
        crop = crop.resize(
            tuple(np.maximum(np.round(np.array(crop.size) * scale), 1).astype(int)), Image.Resampling.BICUBIC
        )
        left = slot[0] * image.width + rng.uniform(0, 1) * (room[0] - crop.width)
        top = slot[1] * image.height + rng.choice([0.0, 1.0, rng.random()]) * (room[1] - crop.height)
        place = np.array([left, top, left + crop.width, top + crop.height]).round()
        image = cleared(image, slot, place)
        image.paste(crop, (int(place[0]), int(place[1])))
        inner = (box - np.r_[whole[:2], whole[:2]]) * page_size * scale + np.r_[place[:2], place[:2]]
        frame = np.array([image.width, image.height] * 2)
        layout = [item for item in layout if item[1] is not slot]
        caption_top, caption_low = inner[1] - place[1], place[3] - inner[3]
        if max(caption_top, caption_low) > 6:
            caption = (
                np.array([place[0], place[1], place[2], inner[1]])
                if caption_top > caption_low
                else np.array([place[0], inner[3], place[2], place[3]])
            )
            layout.append(("caption", caption / frame))
        return image, [*objects, (kind, np.clip(inner / frame, 0, 1))], layout

    def target(self, found: list[Labelled], labels: tuple[str, ...], most: int) -> tuple[list[int], bool]:
        """Token ids `<s>` label loc x4 ... `</s>` in the order (label, y, x), and whether the answer is complete."""
        spoken = [(kind, box) for kind, box in found if kind in labels]
        spoken.sort(key=lambda item: (labels.index(item[0]), item[1][1], item[1][0]))
        ids = [0]
        for kind, box in spoken[:most]:
            text = kind + "".join(f"<loc_{b}>" for b in box_to_bins(Box(*box), 1, 1))
            ids += self.tokenizer.encode(text, add_special_tokens=False).ids
        complete = len(spoken) <= most
        return ([*ids, 2] if complete else ids), complete


def cleared(image: Image.Image, slot: np.ndarray, place: np.ndarray) -> Image.Image:
    """The page with white where the object will stand, widened to whole lines of the paragraph."""
    frame = np.array([image.width, image.height] * 2)
    x1, y1, x2, y2 = (int(v) for v in np.round(slot * frame))
    grey = np.asarray(image.convert("L"))[:, max(x1, 0) : max(x2, x1 + 1)]
    inked = (grey < 200).any(1)
    top, low = int(place[1]) - 4, int(place[3]) + 4
    for _ in range(14):
        top -= bool(top > y1 and inked[min(max(top, 0), len(inked) - 1)])
        low += bool(low < y2 and inked[min(max(low, 0), len(inked) - 1)])
    image = image.copy()
    image.paste((255, 255, 255), (max(x1 - 2, 0), max(top, 0), min(x2 + 2, image.width), min(low, image.height)))
    return image


def viewed(
    image: Image.Image, objects: list[Labelled], layout: list[Labelled], side: int, rng: np.random.Generator
) -> tuple[Image.Image, list[Labelled], list[Labelled]]:
    """A random view of the page (shift, zoom, aspect) as a square image; no object is cut."""
    view = np.array([0.0, 0.0, 1.0, 1.0])
    if rng.random() < 0.75:
        for _ in range(8):
            zoom = np.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.06) * np.array([1, -1]))
            size = np.clip(1 / zoom, 0.6, 1.4)
            corner = (1 - size) * rng.uniform(0, 1, 2) + rng.normal(0, 0.02, 2)
            view = np.r_[corner, corner + size]
            if all((box[:2] >= view[:2]).all() and (box[2:] <= view[2:]).all() for _, box in objects):
                break
            view = np.array([0.0, 0.0, 1.0, 1.0])
    frame = np.array([image.width, image.height] * 2)
    pixels = view * frame
    if (view < 0).any() or (view > 1).any():
        pad = int(np.ceil(max(0, *(-pixels[:2]), *(pixels[2:] - frame[:2])))) + 1
        canvas = Image.new("RGB", (image.width + 2 * pad, image.height + 2 * pad), (255, 255, 255))
        canvas.paste(image, (pad, pad))
        image, pixels = canvas, pixels + pad
    image = image.resize((side, side), Image.Resampling.BICUBIC, box=tuple(pixels))
    size = np.r_[view[2:] - view[:2], view[2:] - view[:2]]

    def moved(items: list[Labelled]) -> list[Labelled]:
        shifted = [(kind, (box - np.r_[view[:2], view[:2]]) / size) for kind, box in items]
        clipped = [(kind, box, np.clip(box, 0, 1)) for kind, box in shifted]
        return [(k, c) for k, b, c in clipped if (c[2:] - c[:2]).prod() > 0.6 * (b[2:] - b[:2]).prod() > 0]

    return image, moved(objects), moved(layout)


def toned(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur, contrast, brightness, greyness, noise and JPEG artefacts, each now and then."""
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    elif rng.random() < 0.2:
        image = image.filter(ImageFilter.UnsharpMask(1, int(rng.uniform(40, 150)), 0))
    if rng.random() < 0.2:
        image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.7, 1.3))
    if rng.random() < 0.1:
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.85, 1.05))
    if rng.random() < 0.15:
        image = image.convert("L").convert("RGB")
    if rng.random() < 0.1:
        noise = rng.normal(0, rng.uniform(2, 10), (*image.size[::-1], 1))
        image = Image.fromarray(np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8))
    if rng.random() < 0.1:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(25, 80)))
        image = Image.open(buffer).convert("RGB")
    return image


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack pixels; pad token targets with -100."""
    batch: dict[str, Any] = {"pixels": torch.stack([item["pixels"] for item in items])}
    for name in ("od", "layout"):
        longest = max(len(item[name][0]) for item in items)
        batch[name] = torch.tensor([item[name][0] + [-100] * (longest - len(item[name][0])) for item in items])
    batch["boxes"] = [item["boxes"] for item in items]
    return batch


def dense_targets(boxes: list[list[tuple[int, np.ndarray]]], grid: int) -> dict[str, torch.Tensor]:
    """Per cell of a grid x grid map: which labels cover its centre, and the box of the object there.

    `classes` (B, cells, len(LAYOUT)) of 0/1, `box` (B, cells, 4) xyxy as shares, `inside` (B, cells) where it is valid.
    """
    centre = (np.arange(grid) + 0.5) / grid
    x, y = np.meshgrid(centre, centre)
    classes = np.zeros((len(boxes), grid, grid, len(LAYOUT)), np.float32)
    box_map = np.zeros((len(boxes), grid, grid, 4), np.float32)
    inside = np.zeros((len(boxes), grid, grid), bool)
    for row, found in enumerate(boxes):
        for kind, box in found:
            half = 0.3 / grid  # thin regions still cover the cells they run through
            cover = (x > box[0] - half) & (x < box[2] + half) & (y > box[1] - half) & (y < box[3] + half)
            classes[row, cover, kind] = 1
            if kind < len(OBJECTS):
                box_map[row, cover] = box
                inside[row] |= cover
    shape = (len(boxes), grid * grid)
    return {
        "classes": torch.from_numpy(classes.reshape(*shape, -1)),
        "box": torch.from_numpy(box_map.reshape(*shape, 4)),
        "inside": torch.from_numpy(inside.reshape(shape)),
    }
