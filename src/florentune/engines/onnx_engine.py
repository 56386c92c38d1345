"""The ONNX Runtime engine: the same decoding without torch or transformers.

It reads the files `export` writes, in the naming transformers.js expects: `onnx/vision_encoder.onnx`,
`embed_tokens.onnx`, `encoder_model.onnx` and `decoder_model_merged.onnx`, with a suffix for the precision.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..errors import CheckpointError, InputError
from ..model.checkpoint import Checkpoint
from ..model.graphs import check_graphs
from ..model.weights import safe_file

GRAPHS = ("vision_encoder", "embed_tokens", "encoder_model", "decoder_model_merged")
SUFFIXES = {"fp32": "", "int8": "_quantized", "fp16": "_fp16"}
"""The precisions of an `onnx` folder, in the order in which one is chosen when several are there."""


def graph_files(folder: Path, dtype: str) -> dict[str, Path]:
    """The four graphs of a precision by name; they need not exist."""
    return {name: folder / f"{name}{SUFFIXES[dtype]}.onnx" for name in GRAPHS}


class OnnxEngine:
    """Runs exported graphs on the CPU. Not thread-safe by promise; the detector lets callers take turns."""

    def __init__(
        self, folder: Path, config: dict[str, Any], *, dtype: str = "fp32", threads: int | None = None
    ) -> None:
        files = graph_files(folder, dtype)
        for file in files.values():
            if safe_file(folder.parent, f"{folder.name}/{file.name}", max_bytes=None) is None:
                raise CheckpointError(f"{folder}: has no {file.name}; write it with florentune export --to onnx")
        check_graphs(files.values(), config)
        text = config["text_config"]
        self.name = f"onnx {dtype}"
        self.start_id = int(text["decoder_start_token_id"])
        self.vocabulary = int(text["vocab_size"])
        self.max_positions = int(text["max_position_embeddings"])
        heads = int(text["decoder_attention_heads"])
        self.cache_shape = (heads, 0, int(text["d_model"]) // heads)
        # Both branches of the decoder would pack every matrix for themselves; unpacked they share one copy, and single
        # rows gain nothing from packing. Integer products do.
        unpacked = set() if dtype == "int8" else {"decoder_model_merged"}
        with ThreadPoolExecutor() as pool:
            sessions = [pool.submit(_session, file, threads, name not in unpacked) for name, file in files.items()]
            self._sessions = {name: session.result() for name, session in zip(files, sessions, strict=True)}
        _give_back_memory()
        self._outputs = [output.name for output in self._sessions["decoder_model_merged"].get_outputs()]

    @classmethod
    def open(cls, checkpoint: Checkpoint, *, dtype: str | None = None, threads: int | None = None) -> OnnxEngine:
        """Load the graphs of a checkpoint; without `dtype` the first of fp32, int8 and fp16 that is there."""
        if checkpoint.onnx is None:
            raise CheckpointError(f"{checkpoint.path}: has no onnx folder; write it with florentune export --to onnx")
        if dtype is not None and dtype not in SUFFIXES:
            raise InputError(f"dtype is {dtype!r}, but the precisions of exported graphs are {', '.join(SUFFIXES)}")
        there = [name for name in SUFFIXES if graph_files(checkpoint.onnx, name)["vision_encoder"].is_file()]
        chosen = dtype or (there[0] if there else "fp32")
        return cls(checkpoint.onnx, checkpoint.config, dtype=chosen, threads=threads)

    def start(
        self, pixels: NDArray[np.float32], prompt: Sequence[int], tokens: NDArray[np.int64] | None = None
    ) -> OnnxDecoding:
        """Encode images (rows, 3, height, width), float32 and normalised, with one prompt."""
        features = self._run("vision_encoder", pixel_values=pixels)
        words = np.broadcast_to(self.embed(np.array([prompt])), (len(pixels), len(prompt), features.shape[-1]))
        joined = np.concatenate([features, words], axis=1)
        mask = np.ones(joined.shape[:2], dtype=np.int64)
        encoded = self._run("encoder_model", inputs_embeds=joined, attention_mask=mask)
        return OnnxDecoding(self, encoded, mask, tokens)

    def embed(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Token ids (rows, k) as embeddings (rows, k, width)."""
        return self._run("embed_tokens", input_ids=ids)

    def run_decoder(self, feeds: dict[str, ort.OrtValue], *, with_encoder: bool) -> dict[str, ort.OrtValue]:
        """One step; the keys and values of the encoder's states are only given (and wanted) in the first."""
        wanted = [name for name in self._outputs if with_encoder or ".encoder." not in name]
        values = self._sessions["decoder_model_merged"].run_with_ort_values(wanted, feeds)
        return dict(zip(wanted, values, strict=True))

    def empty_caches(self, rows: int) -> dict[str, ort.OrtValue]:
        """What stands for every cache before the first step: no positions at all."""
        heads, none, depth = self.cache_shape
        empty = _value(np.zeros((rows, heads, none, depth), dtype=np.float32))
        return {_as_input(name): empty for name in self._outputs if name != "logits"}

    def _run(self, graph: str, **inputs: NDArray[Any]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._sessions[graph].run(None, inputs)[0]
        return found


class OnnxDecoding:
    """The decoder's side of a batch: encoder states and caches stay in ONNX Runtime's memory between steps."""

    def __init__(
        self,
        engine: OnnxEngine,
        encoded: NDArray[np.float32],
        mask: NDArray[np.int64],
        tokens: NDArray[np.int64] | None,
    ) -> None:
        self._engine, self._tokens = engine, tokens
        self._caches = engine.empty_caches(len(encoded))
        self._fixed = {"encoder_hidden_states": _value(encoded), "encoder_attention_mask": _value(mask)}
        self._is_first = True

    def step(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits (rows, n) after reading tokens (rows, k)."""
        feeds = {
            **self._fixed,
            **self._caches,
            "inputs_embeds": _value(self._engine.embed(tokens)),
            "use_cache_branch": _value(np.array([not self._is_first])),
        }
        found = self._engine.run_decoder(feeds, with_encoder=self._is_first)
        logits: NDArray[np.float32] = found.pop("logits").numpy()[:, -1]
        self._caches.update({_as_input(name): value for name, value in found.items()})
        self._is_first = False
        return logits if self._tokens is None else logits[:, self._tokens]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        index = list(rows)
        self._fixed = {name: _value(value.numpy()[index]) for name, value in self._fixed.items()}
        self._caches = {name: _value(value.numpy()[index]) for name, value in self._caches.items()}


def _as_input(output: str) -> str:
    return output.replace("present", "past_key_values")


def _value(array: NDArray[Any]) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy(array)


def _session(file: Path, threads: int | None, packed: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or _cores()
    # A plan of the memory of a run would be held beside the memory that the first run took without one.
    options.enable_mem_pattern = False
    # A waiting thread that spins takes the core from whoever could use it; sleeping costs microseconds.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_prepacking", "0" if packed else "1")
    try:
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common base for what a broken file raises
        raise CheckpointError(f"{file}: cannot be loaded by ONNX Runtime ({error})") from error


def _give_back_memory() -> None:
    """What reading the graphs took and freed goes back to the system; glibc would keep it, as much as the weights."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def _cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
