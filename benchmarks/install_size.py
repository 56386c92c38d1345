"""How large the base install is: on disk, distribution by distribution, and as downloads.

    python benchmarks/install_size.py [--python python3.12] [--extra train]

Builds the wheel of this checkout and installs it into an empty environment with pip, then lists what lies in its
site-packages without pip and setuptools. "disk" is the sum of file sizes in MB (10^6 bytes) with the bytecode pip
compiles, "code" without it. "download" is the sum of the wheels pip fetched, this package's own among them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution, distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
_TOOLS = ("pip", "setuptools")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the empty environment")
    parser.add_argument("--extra", help="measure with this extra as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site, wheels = install(Path(folder), arguments.python, arguments.extra)
        rows = sorted(map(measure, distributions(path=[str(site)])), reverse=True)
        rows = [row for row in rows if row[2].lower() not in _TOOLS]
        print("| distribution | disk MB | code MB |\n|---|---|---|")
        for disk, code, name, version in rows:
            if disk >= 0.5e6:
                print(f"| {name} {version} | {disk / 1e6:.1f} | {code / 1e6:.1f} |")
        disk, code = (sum(row[place] for row in rows) / 1e6 for place in (0, 1))
        print(f"| **{len(rows)} distributions** | **{disk:.0f}** | **{code:.0f}** |")
        print(f"\ndownload: {sum(file.stat().st_size for file in wheels.iterdir()) / 1e6:.0f} MB")


def install(folder: Path, python: str, extra: str | None) -> tuple[Path, Path]:
    """(site-packages of a fresh environment with this checkout, the folder of the wheels it was made from)."""
    wheels = folder / "wheels"
    named = f"{ROOT}[{extra}]" if extra else str(ROOT)
    run(python, "-m", "venv", folder / "venv")
    inside = folder / "venv/bin/python"
    run(inside, "-m", "pip", "wheel", "--quiet", "--wheel-dir", wheels, named)
    run(inside, "-m", "pip", "install", "--quiet", "--no-index", *wheels.iterdir())
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    return site, wheels


def measure(found: Distribution) -> tuple[int, int, str, str]:
    """(bytes on disk, bytes without bytecode, name, version) of an installed distribution."""
    files = [Path(str(file.locate())) for file in found.files or ()]
    sizes = {file: file.stat().st_size for file in files if file.is_file()}
    code = sum(size for file, size in sizes.items() if file.suffix != ".pyc")
    return sum(sizes.values()), code, found.metadata["Name"], found.version


def run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True)


if __name__ == "__main__":
    main()
