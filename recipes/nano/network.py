"""nano in training: the Florence-2 of the package, a start that helps, and heads that are thrown away afterwards."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from florentune.locations import BINS
from florentune.model.florence import build_model

START = 2  # </s>, the decoder's start token
BOS = 0


def fourier(positions: torch.Tensor, width: int) -> torch.Tensor:
    """(n, width) cosine and sine features of positions in 0..1, from a quarter of a wave to 64 waves a page."""
    waves = torch.exp(torch.linspace(math.log(0.25), math.log(64), width // 2))
    angles = 2 * math.pi * positions[:, None] * waves
    return torch.cat([angles.cos(), angles.sin()], 1)


class DenseHead(nn.Module):
    """Per cell: logits of the layout labels and the box of the object there, as distances from the cell's centre."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, labels + 4)
        nn.init.constant_(self.out.bias[:labels], -2.0)
        self.labels = labels

    def forward(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, n, width) -> logits (B, n, labels) and boxes (B, n, 4) xyxy as shares of the page."""
        out = self.out(self.norm(cells)).float()
        grid = round(math.sqrt(cells.shape[1]))
        centre = (torch.arange(grid) + 0.5) / grid
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        reach = functional.softplus(out[..., self.labels :]) * 0.25
        boxes = torch.stack(
            [
                x.flatten() - reach[..., 0],
                y.flatten() - reach[..., 1],
                x.flatten() + reach[..., 2],
                y.flatten() + reach[..., 3],
            ],
            -1,
        )
        return out[..., : self.labels], boxes

    def loss(self, cells: torch.Tensor, target: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Class loss (binary cross-entropy) and box loss (L1 + 1 - IoU over the cells inside an object)."""
        logits, boxes = self(cells.float())
        classes = functional.binary_cross_entropy_with_logits(logits, target["classes"]) * 4
        inside = target["inside"]
        if not inside.any():
            return classes, boxes.sum() * 0
        guess, truth = boxes[inside], target["box"][inside]
        size = (torch.minimum(guess[:, 2:], truth[:, 2:]) - torch.maximum(guess[:, :2], truth[:, :2])).clamp(min=0)
        overlap = size.prod(1)
        union = (guess[:, 2:] - guess[:, :2]).prod(1) + (truth[:, 2:] - truth[:, :2]).prod(1) - overlap
        return classes, (guess - truth).abs().mean() * 4 + (1 - overlap / union.clamp(min=1e-6)).mean()


class Nano(nn.Module):
    """The model with its two dense heads; `florence` is what ships."""

    def __init__(
        self, tokenizer: Any, labels: int, prompts: dict[str, list[int]], config: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.florence = build_model(config or "nano")
        self.first = tokenizer.token_to_id("<loc_0>")
        width = self.florence.config.text_config.d_model
        self.tower_head = DenseHead(self.florence.config.vision_config.embed_dim[-1], labels)
        self.encoder_head = DenseHead(width, labels)
        self.prompts = {name: torch.tensor(ids) for name, ids in prompts.items()}

    def prepare(self, grid: int) -> None:
        """Let locations and image positions start as Fourier features, so that neighbours look alike."""
        model = self.florence.model
        with torch.no_grad():
            table = model.language_model.shared.weight
            width = table.shape[1]
            bins = fourier((torch.arange(BINS) + 0.5) / BINS, width)
            table[self.first : self.first + BINS] = bins * 0.04
            place = model.multi_modal_projector.image_position_embed
            half = place.row_embeddings.weight.shape[1]
            rows = fourier((torch.arange(place.row_embeddings.num_embeddings) + 0.5) / grid, half)
            place.row_embeddings.weight.copy_(rows)
            place.column_embeddings.weight.copy_(rows)
            nn.init.eye_(model.multi_modal_projector.image_projection.weight)
            model.language_model.encoder.embed_positions.weight.zero_()

    def regrid(self, old: int, new: int) -> None:
        """Stretch the image positions from an old x old to a new x new map."""
        place = self.florence.model.multi_modal_projector.image_position_embed
        for table in (place.row_embeddings.weight, place.column_embeddings.weight):
            with torch.no_grad():
                known = table[:old].T[None]
                table[:new] = functional.interpolate(known, size=new, mode="linear", align_corners=False)[0].T

    def see(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tower map as cells (B, n, C) and image tokens (B, 1 + n, width)."""
        tower = self.florence.model.vision_tower(pixels).last_hidden_state
        return tower.flatten(2).transpose(1, 2), self.florence.model.multi_modal_projector(tower)

    def read(self, tokens: torch.Tensor, prompt: str) -> torch.Tensor:
        """Encoder output (B, 1 + n + prompt, width) for image tokens and a prompt."""
        encoder = self.florence.model.language_model.encoder
        ids = self.prompts[prompt].expand(len(tokens), -1)
        return encoder(inputs_embeds=torch.cat([tokens, encoder.embed_tokens(ids)], 1)).last_hidden_state

    def say(self, read: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, vocabulary) of each token of the answers (padded with -100), teacher forced."""
        previous = torch.cat([torch.full((len(answer), 1), START), answer[:, :-1].clamp(min=0)], 1)
        decoder = self.florence.model.language_model.decoder
        hidden = decoder(input_ids=previous, encoder_hidden_states=read).last_hidden_state
        return self.florence.lm_head(hidden).float()

    def token_loss(self, logits: torch.Tensor, answer: torch.Tensor, sigma: float) -> dict[str, torch.Tensor]:
        """Cross-entropy of labels; of locations against a Gaussian of `sigma` bins, and L1 of their expectation."""
        place = answer - self.first
        located = (place >= 0) & (place < BINS)
        named = (answer >= 0) & ~located
        losses = {"label": functional.cross_entropy(logits[named], answer[named])}
        if not located.any():
            return {**losses, "location": logits.sum() * 0, "l1": logits.sum() * 0}
        scores = logits[located].log_softmax(-1)[:, self.first : self.first + BINS]
        bins = torch.arange(BINS, dtype=torch.float32)
        soft = torch.exp(-0.5 * ((bins - place[located][:, None]) / sigma) ** 2)
        losses["location"] = -(soft / soft.sum(1, keepdim=True) * scores).sum(1).mean()
        expected = (scores.softmax(-1) * bins).sum(1)
        losses["l1"] = (expected - place[located]).abs().mean() / BINS
        return losses


@torch.no_grad()
def greedy(
    net: Nano, pixels: torch.Tensor, label_ids: dict[int, str], most: int = 8
) -> list[list[tuple[str, np.ndarray]]]:
    """The answers to the object prompt, decoded with the grammar: (label, xyxy as shares) a page."""
    _, tokens = net.see(pixels)
    read = net.read(tokens, "od")
    answer = torch.full((len(pixels), 1), BOS)
    done = torch.zeros(len(pixels), dtype=torch.bool)
    allowed = torch.tensor([*label_ids, START])
    for step in range(most * 5 + 1):
        padded = torch.cat([answer, torch.full((len(answer), 1), -100)], 1)
        logits = net.say(read, padded)[:, -1]
        part = step % 5
        mask = torch.full_like(logits, -torch.inf)
        if part == 0:
            mask[:, allowed] = 0
        else:
            mask[:, net.first : net.first + BINS] = 0
            if part > 2:  # the far corner lies beyond the near one
                near = answer[:, -2] - net.first
                mask[:, net.first : net.first + BINS][torch.arange(BINS) <= near[:, None]] = -torch.inf
        chosen = (logits + mask).argmax(-1).masked_fill(done, START)
        done |= chosen == START
        answer = torch.cat([answer, chosen[:, None]], 1)
        if done.all():
            break
    return [_objects(row.tolist()[1:], label_ids, net.first) for row in answer]


def _objects(ids: list[int], label_ids: dict[int, str], first: int) -> list[tuple[str, np.ndarray]]:
    found = []
    for at in range(0, len(ids) - 4, 5):
        if ids[at] not in label_ids:
            break
        found.append((label_ids[ids[at]], (np.array(ids[at + 1 : at + 5]) - first + 0.5) / BINS))
    return found
