"""`florentune doctor`: what is installed and what works here."""

from __future__ import annotations

import json
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Annotated, Any

import typer

EXTRAS = {
    "train": (
        "torch",
        "transformers",
        "accelerate",
        "peft",
        "safetensors",
        "huggingface_hub",
        "onnx",
        "matplotlib",
    ),
    "synth": ("typst", "matplotlib"),
    "report": ("faster-coco-eval", "matplotlib"),
    "server": ("fastapi", "uvicorn", "python-multipart", "prometheus-client"),
    "ray": ("ray",),
    "parquet": ("pyarrow",),
    "fsspec": ("fsspec",),
}
BASE = ("numpy", "Pillow", "tokenizers", "onnxruntime", "pypdfium2", "typer", "rich", "PyYAML")


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Show versions and devices, and what each missing optional package would add."""
    findings = examine()
    if as_json:
        typer.echo(json.dumps(findings, indent=2))
        return
    typer.echo(f"florentune {findings['florentune']} on Python {findings['python']}, {findings['system']}")
    typer.echo(f"{findings['cores']} cores, {findings['free_disk_gb']} GB free here, device: {findings['device']}")
    for name, found in findings["packages"].items():
        typer.echo(f"  {name:<20} {found or 'MISSING: reinstall florentune'}")
    for extra, packages in findings["extras"].items():
        missing = [name for name, found in packages.items() if found is None]
        if missing:
            typer.echo(f"[{extra}] is missing {', '.join(missing)}: pip install 'florentune[{extra}]'")
        else:
            typer.echo(f"[{extra}] ready ({', '.join(f'{name} {found}' for name, found in packages.items())})")


def examine() -> dict[str, Any]:
    """Versions, cores, free disk and device, as plain values."""
    return {
        "florentune": _version("florentune"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "free_disk_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "device": _device(),
        "packages": {name: _version(name) for name in BASE},
        "extras": {extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()},
        "requires": requires("florentune") or [],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> str:
    if _version("torch") is None:
        return "CPU (ONNX Runtime)"
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return "CPU"
