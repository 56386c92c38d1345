"""`florentune doctor`: what is installed and what works here."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import textwrap
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Annotated, Any

import typer

EXTRAS = {
    "train": "fine-tune, export, repair and import; the torch engine; models from the hub",
    "synth": "generate papers with exact boxes",
    "report": "COCO metrics, plots, HTML reports",
    "server": "serve the detector over HTTP",
    "ray": "extract on a Ray cluster",
    "parquet": "write the tables of a corpus as Parquet",
    "fsspec": "read documents from object stores and web servers",
    "supervision": "hand boxes to supervision.Detections",
}
"""What each extra is for; what it needs is in pyproject.toml."""


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Show what is installed, and how to get what is missing.

    Runs nano on a blank page. Exit code 1 when the base install does not work; an extra that is missing is no error.
    """
    findings = examine()
    if as_json:
        typer.echo(json.dumps(findings, indent=2))
    else:
        _tell(findings)
    if findings["problems"]:
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """Versions, cores, free disk, device and whether nano runs, as plain values.

    `problems` are what keeps the base install from working; `extras` map each extra to its packages and their versions
    (None: not installed), and `missing` to what of it is missing or too old.
    """
    needed = _needed()
    problems = [f"{text}: pip install --force-reinstall florentune" for text in _lacking(needed[""])]
    known = [extra for extra in EXTRAS if needed[extra]]
    nano = None if problems else _try_nano()
    return {
        "florentune": _version("florentune"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "free_disk_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "device": _device(),
        "packages": {name: _version(name) for name, _ in needed[""]},
        "extras": {extra: {name: _version(name) for name, _ in needed[extra]} for extra in known},
        "missing": {extra: _lacking(needed[extra]) for extra in known},
        "problems": problems + ([f"nano does not run: {nano}"] if nano else []),
        "requires": requires("florentune") or [],
    }


def _tell(findings: dict[str, Any]) -> None:
    typer.echo(f"florentune {findings['florentune']} on Python {findings['python']}, {findings['system']}")
    typer.echo(f"{findings['cores']} cores, {findings['free_disk_gb']} GB free here, device: {findings['device']}")
    for name, found in findings["packages"].items():
        typer.echo(f"  {name:<20} {found or 'MISSING'}")
    for problem in findings["problems"]:
        typer.echo(f"PROBLEM: {problem}")
    if not findings["problems"]:
        typer.echo("nano runs: predict and extract work")
    for extra, packages in findings["extras"].items():
        if lacking := findings["missing"][extra]:
            typer.echo(_fill(f"[{extra}] to {EXTRAS[extra]}:"))
            typer.echo(_fill("    " + ", ".join(lacking)))
            typer.echo(f"    pip install 'florentune[{extra}]'")
        else:
            versions = ", ".join(f"{name} {found}" for name, found in packages.items())
            typer.echo(_fill(f"[{extra}] ready ({versions})"))


def _fill(text: str) -> str:
    """Lines of at most 80 columns, continued with four blanks."""
    return textwrap.fill(text, 80, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _needed() -> dict[str, list[tuple[str, Any]]]:
    """(package, versions) of the base install ("") and of each extra, as the installed metadata says."""
    from packaging.requirements import Requirement

    found: dict[str, list[tuple[str, Any]]] = {place: [] for place in ("", *EXTRAS)}
    for line in requires("florentune") or []:
        needed = Requirement(line)
        places = [place for place in found if needed.marker is None or needed.marker.evaluate({"extra": place})]
        for place in places[:1] if "" in places else places:
            found[place].append((needed.name, needed.specifier))
    return found


def _lacking(needed: list[tuple[str, Any]]) -> list[str]:
    """What of these packages is missing or of a version that is too old."""
    texts = []
    for name, versions in needed:
        found = _version(name)
        if found is None:
            texts.append(f"{name} is missing")
        elif not versions.contains(found, prereleases=True):
            texts.append(f"{name} is {found}, but {versions} is needed")
    return texts


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _try_nano() -> str | None:
    """Why nano cannot look at a page here; None when it can."""
    try:
        from ..detector import load_detector

        load_detector("nano", engine="onnx", threads=1).warm_up()
    except Exception as error:  # noqa: BLE001 - a broken native library may raise anything
        return f"{type(error).__name__}: {error}"
    return None


def _device() -> str:
    if _version("torch") is None:
        return "CPU (ONNX Runtime)"
    try:
        import torch
    except Exception as error:  # noqa: BLE001 - a broken installation of torch is what doctor is there to name
        return f"CPU (ONNX Runtime); torch cannot be imported: {error}"
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return "CPU" if sys.platform != "linux" or torch.version.cuda is None else "CPU (torch finds no CUDA device)"
