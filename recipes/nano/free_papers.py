"""Fetch freely licensed papers: PDFs with captions out of Debian packages (vignettes, sample papers, manuals).

    python recipes/nano/free_papers.py --out PAPERS

Downloads the packages of free_packages.txt with apt-get (1.5 GB, nothing is installed) and keeps each PDF once that has
captions on two pages and on 6 % of its first 60. Needs a Debian system.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pypdfium2
from pseudo_label import CAPTION

LOOKED_AT, PAGES, SHARE = 60, 2, 0.06


def pdfs_of(package: Path) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of the PDFs in a .deb file."""
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        for member in archive:
            if member.isfile() and re.search(r"\.pdf(\.gz)?$", member.name):
                content = archive.extractfile(member).read()  # type: ignore[union-attr]
                yield member.name, gzip.decompress(content) if member.name.endswith(".gz") else content


def has_captions(content: bytes) -> bool:
    """Whether enough pages of the PDF hold a line that starts a caption."""
    try:
        document = pypdfium2.PdfDocument(content)
        texts = [document[index].get_textpage().get_text_bounded() for index in range(min(len(document), LOOKED_AT))]
    except pypdfium2.PdfiumError:
        return False
    pages = sum(any(CAPTION.match(line) for line in text.splitlines()) for text in texts)
    return pages >= PAGES and pages >= SHARE * len(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    packages = (Path(__file__).parent / "free_packages.txt").read_text().split()
    kept: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", *packages], cwd=folder, check=True)
        for package in sorted(Path(folder).glob("*.deb")):
            for name, content in pdfs_of(package):
                digest = hashlib.sha256(content).hexdigest()
                if digest in kept or not has_captions(content):
                    continue
                kept.add(digest)
                stem = re.sub(r"[^A-Za-z0-9.-]", "-", Path(name).name.partition(".pdf")[0])[:24]
                (options.out / f"{stem}-{digest[:10]}.pdf").write_bytes(content)
    print(f"{len(kept)} papers of {len(packages)} packages in {options.out}")


if __name__ == "__main__":
    main()
