"""Hooks of the site (mkdocs.yml): what the pages link to outside of docs/ becomes part of the site.

A link like `../examples/demo.py` works in a checkout. Here the file it names is copied to `repository/` of the site, a
Markdown file as a page, and the link is bent there, so the site has no dead end and needs no address of a repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(\]\()([^)#\s]+)")


def _targets(source: Path) -> dict[str, Path]:
    """The links of a Markdown file to files of the repository, with the file each one leads to."""
    links = {link for _, link in LINK.findall(source.read_text(encoding="utf-8")) if "://" not in link}
    targets = {link: (source.parent / link).resolve() for link in links}
    return {link: target for link, target in targets.items() if target.is_relative_to(ROOT)}


def _place(target: Path, docs: Path) -> str:
    """Where a file of the repository stands in the site, relative to its root."""
    if target.is_dir():
        target /= "README.md"
    if target.is_relative_to(docs):
        return target.relative_to(docs).as_posix()
    return PurePosixPath("repository", target.relative_to(ROOT)).as_posix()


def _added(target: Path, place: str, config: MkDocsConfig) -> File:
    """The file at a place of the site; a folder without a README.md becomes a page that lists its files."""
    if not target.is_dir() or (target / "README.md").exists():
        source = target / "README.md" if target.is_dir() else target
        return File.generated(config, place, abs_src_path=str(source), inclusion=InclusionLevel.NOT_IN_NAV)
    listed = "".join(f"- `{file.name}`\n" for file in sorted(target.iterdir()))
    content = f"# {target.relative_to(ROOT)}\n\nFiles of the repository:\n\n{listed}"
    return File.generated(config, place, content=content, inclusion=InclusionLevel.NOT_IN_NAV)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file outside of docs/ that a page leads to, directly or through another one."""
    docs = Path(config.docs_dir)
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages()]
    while waiting:
        for target in _targets(waiting.pop()).values():
            place = _place(target, docs)
            if place in files.src_uris or not target.exists():
                continue
            added = _added(target, place, config)
            files.append(added)
            if added.is_documentation_page() and added.abs_src_path:
                waiting.append(Path(added.abs_src_path))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Bend the links of a page to where its targets stand in the site."""
    docs = Path(config.docs_dir)
    if not page.file.abs_src_path:
        return markdown
    places = {link: _place(target, docs) for link, target in _targets(Path(page.file.abs_src_path)).items()}
    here = PurePosixPath(page.file.src_uri).parent

    def bent(match: re.Match[str]) -> str:
        place = places.get(match[2])
        return match[0] if place not in files.src_uris else match[1] + os.path.relpath(place, here)

    return LINK.sub(bent, markdown)
