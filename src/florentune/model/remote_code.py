"""How a folder in Microsoft's layout refers to the remote code. None of that code is read, run or shipped here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .weights import safe_file

CONFIGURATION, MODELING, PROCESSING = CODE_FILES = (
    "configuration_florence2.py",
    "modeling_florence2.py",
    "processing_florence2.py",
)
REPOSITORY = "microsoft/Florence-2-large"
REVISION = "39ddb416a9819d9fa1bacad7b7899099ae4b0a59"
AUTO_MAP = {
    "AutoConfig": "configuration_florence2.Florence2Config",
    "AutoModelForCausalLM": "modeling_florence2.Florence2ForConditionalGeneration",
}
PROCESSOR_MAP = {"AutoProcessor": "processing_florence2.Florence2Processor"}


def code_in(folder: Path) -> tuple[str, ...]:
    """The names of the three code files when a folder has all of them, else none."""
    return CODE_FILES if all(safe_file(folder, name) for name in CODE_FILES) else ()


def refer_to_code(config: dict[str, Any], preprocessor: dict[str, Any], *, local: bool) -> None:
    """Set both auto_map entries: to files in the folder, or to Microsoft's repository by id."""
    prefix = "" if local else f"{REPOSITORY}--"
    config["auto_map"] = {key: prefix + value for key, value in AUTO_MAP.items()}
    preprocessor["auto_map"] = {key: prefix + value for key, value in PROCESSOR_MAP.items()}


def missing_code_advice(folder: Path) -> str:
    """The one command that makes a Microsoft folder without code complete."""
    return (
        f"{folder}: the remote code is not in the folder, so loaders will fetch it from {REPOSITORY}; to pin it, run "
        f"`hf download {REPOSITORY} {' '.join(CODE_FILES)} --revision {REVISION} --local-dir {folder}` "
        f"and then `florentune repair {folder}`"
    )
