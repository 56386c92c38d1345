"""The torch engine: transformers' native Florence-2 on CPU or CUDA."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from ..errors import InputError
from ..model.checkpoint import Checkpoint
from ..model.florence import load_model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """Runs a checkpoint, or a model already in memory, with torch. Not thread-safe."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        text = model.config.text_config
        self.start_id = int(text.decoder_start_token_id)
        self.vocabulary = int(model.lm_head.weight.shape[0])
        self.max_positions = int(text.max_position_embeddings)
        self.name = f"torch {self.device.type} {str(model.dtype).removeprefix('torch.')}"

    @classmethod
    def open(
        cls,
        checkpoint: Checkpoint,
        *,
        device: str = "auto",
        dtype: str | None = None,
        threads: int | None = None,
    ) -> TorchEngine:
        """Load a checkpoint in a precision of DTYPES: without one on CUDA in bf16, else on the CPU in fp32.

        `threads` sets torch's number of threads for the whole process. Raises InputError for another precision.
        """
        if dtype is not None and dtype not in DTYPES:
            raise InputError(f"dtype is {dtype!r}, but the precisions of torch are {', '.join(DTYPES)}")
        if threads is not None:
            torch.set_num_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        chosen = dtype or ("bf16" if device.startswith("cuda") else "fp32")
        return cls(load_model(checkpoint, dtype=DTYPES[chosen], device=device))

    @property
    def device(self) -> torch.device:
        """Where the model is; it may be moved between batches."""
        device: torch.device = self.model.lm_head.weight.device
        return device

    @torch.inference_mode()
    def start(
        self, pixels: NDArray[np.float32], prompt: Sequence[int], tokens: NDArray[np.int64] | None = None
    ) -> TorchDecoding:
        """Encode images (rows, 3, height, width), float32 and normalised, with one prompt."""
        head = self.model.lm_head.weight
        if tokens is not None:
            head = head[torch.from_numpy(tokens).to(self.device)]
        return TorchDecoding(self.model, self._encode(pixels, prompt), head)

    @torch.inference_mode()
    def generate(self, pixels: NDArray[np.float32], prompt: Sequence[int], **settings: Any) -> list[list[int]]:
        """The token ids transformers' own `generate` gives with these settings, the decoder's start token included."""
        encoded = BaseModelOutput(last_hidden_state=self._encode(pixels, prompt))
        ids = torch.tensor([list(prompt)] * len(pixels), device=self.device)
        # The ids only say how many rows there are: the encoder has read image and prompt already.
        mask = torch.ones(encoded.last_hidden_state.shape[:2], dtype=torch.long, device=self.device)
        found = self.model.generate(input_ids=ids, encoder_outputs=encoded, attention_mask=mask, **settings)
        rows: list[list[int]] = found.tolist()
        return rows

    def _encode(self, pixels: NDArray[np.float32], prompt: Sequence[int]) -> torch.Tensor:
        images = torch.from_numpy(pixels).to(self.device, self.model.dtype)
        features = self.model.get_image_features(images).pooler_output
        words = self.model.get_input_embeddings()(torch.tensor([list(prompt)], device=self.device))
        joined = torch.cat([features, words.expand(len(pixels), -1, -1)], dim=1)
        encoded: torch.Tensor = self.model.model.language_model.encoder(inputs_embeds=joined).last_hidden_state
        return encoded


class TorchDecoding:
    """The decoder's side of a batch: encoder states, key-value cache, and the rows of the head that are wanted."""

    def __init__(self, model: Any, encoded: torch.Tensor, head: torch.Tensor) -> None:
        self._decoder = model.model.language_model.decoder
        self._encoded, self._head = encoded, head
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        # transformers is renaming the argument
        names = inspect.signature(self._decoder.forward).parameters
        self._cached = {"cache" if "cache" in names else "past_key_values": self._cache}

    @torch.inference_mode()
    def step(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits (rows, n) after reading tokens (rows, k)."""
        out = self._decoder(
            input_ids=torch.from_numpy(tokens).to(self._encoded.device),
            encoder_hidden_states=self._encoded,
            use_cache=True,
            **self._cached,
        )
        logits = out.last_hidden_state[:, -1] @ self._head.T
        found: NDArray[np.float32] = logits.float().cpu().numpy()
        return found

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        index = torch.tensor(list(rows), device=self._encoded.device, dtype=torch.long)
        self._encoded = self._encoded[index]
        self._cache.batch_select_indices(index)
