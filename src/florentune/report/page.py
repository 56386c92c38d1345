"""The HTML files of this room: a template with its style and values filled in, written whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path

from .. import __version__
from ..files import written_whole
from .plots import PALETTE

_HERE = Path(__file__).parent


def write_page(folder: Path, template: str, values: Mapping[str, str]) -> Path:
    """Write `folder`/index.html from a template beside this module and return its path.

    `{{name}}` becomes `values[name]`, which must be HTML already; every template also has {{style}}, {{colours}} (the
    palette of labels as --c0 ... --c7) and {{version}}.
    """
    filled = {
        "style": _text("page.css"),
        "colours": "".join(f"--c{index}:{colour};" for index, colour in enumerate(PALETTE)),
        "version": escape(__version__),
        **values,
    }
    html = re.sub(r"\{\{(\w+)\}\}", lambda match: filled[match[1]], _text(template))
    with written_whole(folder / "index.html") as stream:
        stream.write(html)
    return folder / "index.html"


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
