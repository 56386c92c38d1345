"""What the parts of a paper's writer share: its language, style, markers and measures."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from .styles import Style
from .words import Prose

PRELUDE = """
#let mk(id, c) = place(c, context [#metadata((i: id, p: here().position()))<m>])
#let mark(id, body, ..how) = block(breakable: false, ..how, {mk(id, top + left); body; mk(id, bottom + right)})
#let fit(w, h, body) = context {
  let m = measure(body, width: w)
  let full = measure(body)
  let k = calc.min(1, w / calc.max(full.width, 1pt), h / calc.max(full.height, 1pt))
  if k < 1 { scale(k * 100%, reflow: true, body) } else { body }
}
#let fit-text(w, h, body) = context {
  let m = measure(block(width: w, body))
  let k = calc.min(1, h / calc.max(m.height, 1pt))
  if k < 1 { scale(k * 100%, reflow: true, block(width: w, body)) } else { block(width: w, body) }
}
#set document(date: none)
#show footnote.entry: it => mark("footnote", it)
"""


@dataclass(frozen=True)
class Mark:
    """What a marker's id stands for: `caption` is the id of an object's caption, `number` and `text` are its own."""

    label: str
    caption: str = ""
    number: str = ""
    text: str = ""


@dataclass
class Paper:
    """Source text, the figures it reads (file name -> SVG) and the meaning of every marker."""

    style: Style
    source: str = ""
    files: dict[str, str] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)


class Draft:
    """A paper being written: lengths in points, text as Typst markup."""

    def __init__(self, rng: Random, style: Style) -> None:
        self.rng, self.style = rng, style
        self.prose = Prose(rng, cite=style.cite)
        self.paper = Paper(style)
        self.counts: dict[str, int] = {}
        left, top, right, bottom = style.margins
        width, height = style.size
        self.width = width - left - right
        self.column = (self.width - style.gutter * (style.columns - 1)) / style.columns
        self.height = height - top - bottom

    def mark(self, label: str, body: str, how: str = "", **meaning: str) -> tuple[str, str]:
        """The Typst code of a marked block round the code `body`, and its id; `how` is more arguments of the block."""
        key = self._new(label, **meaning)
        return f'mark("{key}", {body}{", " if how else ""}{how})', key

    def flow(self, label: str, text: str) -> str:
        """Markup of text that may break over columns and pages: every line leaves its own position."""
        key = self._new(label)
        shown = "#text(size: 6pt, fill: luma(130))[#n]" if self.style.line_numbers else ""
        line = f'n => [#context [#metadata((l: "{key}", p: here().position()))<m>]{shown}]'
        return f"#[#set par.line(numbering: {line})\n{text}\n\n]"

    def next(self, kind: str) -> int:
        """The next number of a kind of thing, from 1."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return self.counts[kind]

    def _new(self, label: str, **meaning: str) -> str:
        key = f"{label}-{len(self.paper.marks)}"
        self.paper.marks[key] = Mark(label, **meaning)
        return key
