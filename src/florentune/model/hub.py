"""Models on the Hugging Face hub: a download takes only the files that are read, never code and never pickles."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import CheckpointError, MissingExtraError

FILES = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "labels.json",
    "calibration.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    "onnx/*.json",
    "onnx/*.onnx",
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")


def is_hub_id(source: str) -> bool:
    """Whether a source has the form owner/name or owner/name@revision."""
    return _HUB_ID.fullmatch(source) is not None


def download(source: str) -> Path:
    """The local snapshot of a hub id, downloaded where the cache lacks it (huggingface_hub honours HF_ENDPOINT,
    HF_HOME and HF_HUB_OFFLINE). Raises CheckpointError when the hub or the repository cannot be reached."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise MissingExtraError("huggingface_hub", "train") from None
    name, _, revision = source.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(FILES)))
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"{source}: is not in the local cache and the hub cannot be reached; download it once while online, "
            "or name a folder"
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{source}: cannot be downloaded ({reason[:200]}); check the name") from None
