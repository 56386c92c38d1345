"""The loss: cross-entropy of the answer's tokens, as transformers' Florence-2 computes it, one sum a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .batches import IGNORED


class AnswerLoss(nn.Module):
    """A Florence-2 and its detection prompt.

    The encoder reads the image tokens, then the prompt; the decoder reads the answer shifted right by one.
    """

    prompt: Tensor

    def __init__(self, model: Any, prompt: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("prompt", torch.tensor([list(prompt)]), persistent=False)
        text = model.config.text_config
        self._start, self._pad = text.decoder_start_token_id, text.pad_token_id

    def forward(self, pixels: Tensor | None, features: Tensor | None, answers: Tensor) -> Tensor:
        """Sum of the cross-entropy over the tokens of each answer: (pages,) float32.

        `pixels` is (pages, 3, height, width), or None where `features`, the output of `tower`, is given;
        `answers` is (pages, tokens) int64 with -100 where there is no token.
        """
        core = self.model.model
        maps = self.tower(pixels) if features is None else features
        image = core.multi_modal_projector(maps)
        # one look-up for encoder and decoder: adding its gradient to the output layer's takes a copy of that
        tokens = torch.cat([self.prompt.expand(len(answers), -1), self._shifted(answers)], dim=1)
        prompt, answer = core.get_input_embeddings()(tokens).split([self.prompt.shape[1], answers.shape[1]], dim=1)
        encoded = core.language_model.encoder(inputs_embeds=torch.cat([image.to(prompt.dtype), prompt], dim=1))
        decoded = core.language_model.decoder(
            inputs_embeds=answer, encoder_hidden_states=encoded.last_hidden_state, use_cache=False
        )
        logits = self.model.lm_head(decoded.last_hidden_state).float()
        losses = nn.functional.cross_entropy(
            logits.flatten(0, 1), answers.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return losses.view(answers.shape).sum(dim=1)

    def tower(self, pixels: Tensor | None) -> Tensor:
        """The vision tower's feature maps (pages, channels, rows, columns) of pixels (pages, 3, height, width)."""
        maps: Tensor = self.model.model.vision_tower(pixels).last_hidden_state
        return maps

    def _shifted(self, answers: Tensor) -> Tensor:
        """The decoder's input: the start token, then the answer without its last token, -100 read as padding."""
        shifted = torch.full_like(answers, self._start)
        shifted[:, 1:] = answers[:, :-1]
        return shifted.masked_fill(shifted == IGNORED, self._pad)
