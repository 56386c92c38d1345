"""One generated paper as Typst source, with a marker around everything whose box is wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from . import blocks, drawings, plots, tables
from .styles import Style, random_style
from .words import Prose

PRELUDE = """
#let mk(id, c) = place(c, context [#metadata((i: id, p: here().position()))<m>])
#let mark(id, body, ..how) = block(breakable: false, ..how, {mk(id, top + left); body; mk(id, bottom + right)})
#let fn(body) = body
#show footnote.entry: it => mark("footnote", it)
#set math.equation(supplement: none)
"""


@dataclass(frozen=True)
class Mark:
    """What a marker's id stands for. `caption` is the id of an object's caption, `number` and `text` a caption's own."""

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


class Writer:
    """Writes one paper. Heights are estimated in points of one column, to know when enough is written."""

    def __init__(self, rng: Random, style: Style | None = None) -> None:
        self.rng = rng
        self.style = style or random_style(rng)
        self.prose = Prose(rng, cite=self.style.cite)
        self.paper = Paper(self.style)
        self.counts = {"table": 0, "figure": 0, "equation": 0}
        self.density = rng.choice((0.0, 0.2, 0.5, 0.8, 1.2))
        self.mathematics = rng.choice((0.02, 0.1, 0.3))
        self.subfigures = rng.choice((0.1, 0.3))
        left, top, right, bottom = self.style.margins
        width, height = self.style.size
        self.width = width - left - right
        self.column = (self.width - self.style.gutter * (self.style.columns - 1)) / self.style.columns
        self.height = (height - top - bottom) * self.style.columns
        self.out: list[str] = []

    def mark(self, label: str, body: str, **meaning: str) -> tuple[str, str]:
        """A marked block's markup and its id. `body` is Typst code."""
        key = f"{label[0]}{len(self.paper.marks)}"
        self.paper.marks[key] = Mark(label, **meaning)
        return f'mark("{key}", {body})', key

    def block(self, label: str, body: str) -> None:
        """Write a marked block; `body` is Typst code."""
        self.out.append("#" + self.mark(label, body)[0])

    def flow(self, label: str, text: str) -> None:
        """Write text that may break over columns and pages: every line leaves its own position."""
        key = f"{label[0]}{len(self.paper.marks)}"
        self.paper.marks[key] = Mark(label)
        number = "#n " if self.style.line_numbers else ""
        shown = f"#text(size: 6pt, fill: luma(130))[{number}]" if number else ""
        self.out.append(
            f'#[#set par.line(numbering: n => [#context [#metadata((l: "{key}", p: here().position()))<m>]{shown}])\n{text}\n\n]'
        )

    def write(self, pages: int) -> Paper:
        """Enough for `pages` pages, usually a little more."""
        rng, limit, done, since = self.rng, self.height * pages, 0.0, 0.0
        if rng.random() < 0.7:
            done += self.opening()
        references = rng.random() < 0.75
        body = limit * (rng.uniform(0.6, 0.85) if references else 1.1)
        done += self.heading(1)
        while done < body:
            step = self.piece()
            since += step
            if rng.random() < self.density * step / 260:
                step += self.add_float()
            done += step
            if since > rng.uniform(250, 900):
                done, since = done + self.heading(rng.choice((1, 2, 2, 3))), 0.0
        if references:
            done += self.references(limit * rng.uniform(0.15, 0.3))
            if done < limit * 1.05:
                self.heading(1)
        while done < limit * 1.08:
            done += self.piece() + (self.add_float() if rng.random() < self.density * 0.4 else 0)
        self.paper.source = self.setup() + "\n".join(self.out)
        return self.paper

    def setup(self) -> str:
        """Page, font and paragraph settings and the furniture of every page."""
        s, rng = self.style, self.rng
        left, top, right, bottom = s.margins
        self.paper.marks.update(
            {
                k: Mark(v)
                for k, v in (("header", "header"), ("footer", "footer"), ("footnote", "footnote"), ("stamp", "stamp"))
            }
        )
        running = self.prose.title(rng.randint(3, 8))
        if s.header == "split":
            head = f"grid(columns: (1fr, auto), [{running}], context counter(page).display())"
        elif s.header == "ruled":
            head = f"block(width: 100%, stroke: (bottom: 0.5pt), inset: (bottom: 3pt))[{running}]"
        else:
            head = f"align(center)[{running}]"
        header = f'mark("header", width: 100%, text(size: 0.82em, {head}))' if s.header else "none"
        foot = {
            "number": "context counter(page).display()",
            "text": f"[{running} #h(1fr) #context counter(page).display()]",
        }
        footer = (
            f'mark("footer", width: 100%, align(center, text(size: 0.85em, {foot[s.footer]})))' if s.footer else "none"
        )
        stamp = ""
        if rng.random() < 0.5:
            words = f"arXiv:{rng.randint(1, 25):02d}{rng.randint(1, 12):02d}.{rng.randint(1, 19999):05d}v{rng.randint(1, 4)}  \\[{rng.choice(('cs.CL', 'cs.CV', 'cs.LG', 'math.OC', 'astro-ph.GA', 'stat.ML'))}\\]  {rng.randint(1, 28)} {rng.choice(('Jan', 'Mar', 'Jun', 'Sep', 'Nov'))} 20{rng.randint(10, 25)}"
            stamp = f'context if here().page() == 1 {{ place(left + horizon, dx: 14pt, rotate(-90deg, reflow: true, mark("stamp", text(size: 16pt, fill: luma(130))[{words}]))) }}'
        numbering = f'#set heading(numbering: "{s.numbering}")\n' if s.numbering else ""
        return (
            PRELUDE
            + f'#set page(width: {s.size[0]}pt, height: {s.size[1]}pt, margin: (left: {left:.1f}pt, right: {right:.1f}pt, top: {top:.1f}pt, bottom: {bottom:.1f}pt), columns: {s.columns}, header: {header}, footer: {footer}, background: {{ {stamp} }})\n'
            + f"#set columns(gutter: {s.gutter}pt)\n"
            + f'#set text(font: "{s.font}", size: {s.points:.1f}pt, lang: "en", hyphenate: true)\n'
            + f"#set par(justify: {'true' if rng.random() < 0.95 else 'false'}, leading: {s.leading:.2f}em, spacing: {s.leading * s.points + s.skip:.1f}pt, first-line-indent: {s.indent}pt)\n"
            + "#set par.line(number-clearance: " + ("6pt" if s.line_numbers else "0pt") + ")\n"
            + numbering
            + f"#show heading: set text({self._heading_look()})\n"
            + f"#show heading: set block(above: {rng.uniform(10, 16):.1f}pt, below: {rng.uniform(5, 9):.1f}pt)\n"
            + ("#show heading.where(level: 1): set align(center)\n" if s.heading_centred else "")
            + ("#show heading: smallcaps\n" if s.heading == "smallcaps" else "")
            + ("#show heading: upper\n" if s.heading == "caps" else "")
        )  # fmt: skip

    def _heading_look(self) -> str:
        s = self.style
        weight = '"regular"' if s.heading in ("smallcaps", "italic") else '"bold"'
        fill = (
            f", fill: {self.rng.choice(('rgb(20,60,140)', 'rgb(150,30,30)', 'rgb(0,110,110)'))}"
            if s.heading == "coloured"
            else ""
        )
        return f"size: {s.points + self.rng.choice((0, 1, 2)):.1f}pt, weight: {weight}{fill}"

    def opening(self) -> float:
        """Title, authors and abstract; returns the height used."""
        s, p, rng = self.style, self.prose, self.rng
        place = "center" if s.title != "left" else "left"
        title, _ = self.mark(
            "title",
            f'align({place}, text(size: {rng.uniform(14, 19):.1f}pt, weight: "bold")[{p.title(rng.randint(4, 14))}])',
        )
        if s.title == "ruled":
            title = f"{{ line(length: 100%, stroke: 2pt); {title}; line(length: 100%, stroke: 0.8pt) }}"
        people = ", ".join(
            p.person() + f"#super[{rng.randint(1, 3)}]" for _ in range(rng.choice((1, 2, 3, 4, 6, 9, 14)))
        )
        if rng.random() < 0.4:
            count = rng.choice((2, 3, 4))
            people = (
                f"#grid(columns: (1fr,) * {count}, row-gutter: 8pt, "
                + ", ".join(
                    f'align(center)[*{p.person()}* \\ {p.place()} \\ #text(font: "DejaVu Sans Mono", size: 0.8em)[{p.plain(1)}\\@{p.plain(1)}.edu]]'
                    for _ in range(count * rng.choice((1, 1, 2)))
                )
                + ")"
            )
        else:
            people += " \\ " + " \\ ".join(f"#super[{k + 1}]{p.place()}" for k in range(rng.randint(1, 3)))
        authors, _ = self.mark("author", f"align({place})[{people}]")
        text = " ".join(p.sentence() for _ in range(rng.randint(4, 10)))
        head = f'align(center)[#text(weight: "bold", size: 1.1em)[{rng.choice(("Abstract", "ABSTRACT", "Abstract"))}]]'
        narrow = 0 if s.columns > 1 or s.abstract != "narrow" else rng.choice((18, 30, 40))
        inner = f"pad(x: {narrow}pt, par(justify: true, first-line-indent: 0pt, text(size: {rng.choice((0.9, 0.95, 1))}em)[{text}]))"
        if s.abstract == "boxed":
            inner = f"block(fill: luma(240), inset: 8pt, {inner})"
        abstract, _ = self.mark("abstract", inner)
        top = f"{title}; v({rng.uniform(6, 16):.0f}pt); {authors}; v({rng.uniform(8, 18):.0f}pt)"
        whole = f"{{ {top}; {head}; {abstract}; v(10pt) }}"
        if s.columns == 1:
            self.out.append(f"#{whole}")
        elif s.abstract == "narrow":
            self.out.append(f'#place(top, float: true, scope: "parent", clearance: 16pt, block(width: 100%, {whole}))')
        else:
            self.out.append(
                f'#place(top, float: true, scope: "parent", clearance: 16pt, block(width: 100%, {{ {top} }}))'
            )
            self.out.append(f"#{{ {head}; {abstract} }}")
        return 260.0 * s.columns if s.abstract == "narrow" else 140.0 * s.columns + 200

    def heading(self, level: int) -> float:
        """A section heading."""
        numbered = ", numbering: none" if level > 2 and self.rng.random() < 0.5 else ""
        self.block("heading", f"heading(level: {level}{numbered})[{self.prose.heading()}]")
        return 30.0

    def piece(self) -> float:
        """A piece of body text: mostly a paragraph, sometimes an equation, list, algorithm, code or theorem."""
        rng, chance = self.rng, self.rng.random()
        if chance < self.mathematics:
            self.block(
                "equation", blocks.equation(self.prose, numbered=rng.random() < 0.6, number=self._next("equation"))
            )
            return 40.0 + self.paragraph(2)
        if chance < self.mathematics + 0.05:
            self.flow("list", blocks.item_list(self.prose))
            return 80.0
        if chance < self.mathematics + 0.07:
            self.block("algorithm", blocks.algorithm(self.prose))
            return 160.0
        if chance < self.mathematics + 0.085:
            self.block("code", blocks.code(self.prose))
            return 130.0
        if chance < self.mathematics + 0.11:
            self.block("theorem", blocks.theorem(self.prose))
            return 60.0
        return self.paragraph()

    def paragraph(self, sentences: int = 0) -> float:
        """A paragraph; returns its height."""
        text = self.prose.paragraph(sentences)
        if self.rng.random() < 0.08:
            text = f"*{self.prose.title(self.rng.randint(1, 4))}.* {text}"
        self.flow("text", text)
        s = self.style
        return len(text) * s.points * 0.47 / self.column * s.points * (0.72 + s.leading) + s.skip

    def _next(self, kind: str) -> int:
        self.counts[kind] += 1
        return self.counts[kind]

    def add_float(self) -> float:
        """A table or a figure with its caption, somewhere; returns the height used in columns."""
        rng, s = self.rng, self.style
        wide = s.columns > 1 and rng.random() < 0.35
        width = self.width if wide else self.column
        kind = "table" if rng.random() < 0.45 else "figure"
        if rng.random() < 0.06 and width > 300:
            content = self._side_by_side(kind, width)
        else:
            content = self._captioned(kind, width, wide)
        where = rng.random()
        scope = '"parent"' if wide else '"column"'
        if wide or where < 0.6:
            side = "top" if rng.random() < 0.8 else "bottom"
            self.out.append(
                f"#place({side}, float: true, scope: {scope}, clearance: {rng.uniform(11, 20):.0f}pt, {content})"
            )
        else:
            gap = rng.uniform(10, 18)
            self.out.append(f"#block(above: {gap:.0f}pt, below: {gap:.0f}pt, width: 100%, {content})")
        return 200.0 * (s.columns if wide else 1)

    def _side_by_side(self, kind: str, width: float) -> str:
        half = width / 2 - 10
        other = kind if self.rng.random() < 0.6 else ("table" if kind == "figure" else "figure")
        first, second = self._captioned(kind, half, False), self._captioned(other, half, False)
        align = self.rng.choice(("top", "bottom"))
        return f"grid(columns: (1fr, 1fr), column-gutter: 20pt, align: {align}, {first}, {second})"

    def _captioned(self, kind: str, width: float, wide: bool) -> str:
        rng, s = self.rng, self.style
        if rng.random() < 0.06:
            body = tables.prompt_box(self.prose)
        else:
            body = self._table(wide, width) if kind == "table" else self._figure(width, wide)
        caption, key = self._caption(kind)
        thing, _ = self.mark(kind, body, caption=key)
        above = kind == "table" and s.table_caption_above and rng.random() < 0.95
        first, second = (caption, thing) if above else (thing, caption)
        gap = rng.uniform(6, 11)
        return f"block(width: 100%, breakable: false, {{ set par(first-line-indent: 0pt); set align(center); {first}; v({gap:.1f}pt, weak: true); {second} }})"

    def _caption(self, kind: str) -> tuple[str, str]:
        rng, s = self.rng, self.style
        number = str(self._next(kind))
        word = s.caption.split()[0]
        if kind == "table":
            word = {"FIG.": "TABLE", "FIGURE": "TABLE", "Fig.": "Table", "Figure": "Table"}[word]
        if s.name == "ieee" and kind == "table":
            number = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X")[min(int(number), 10) - 1]
        separator = s.caption.split("1", 1)[1].rstrip(" ")
        words = self.prose.plain(rng.choice((3, 5, 8, 12, 20, 35))).capitalize()
        tail = f". {self.prose.plain(rng.randint(8, 30)).capitalize()}." if rng.random() < 0.3 else "."
        label = f"{word} {number}{separator}"
        look = f"*{label}*" if s.caption_bold else label
        text = f"_{words}{tail}_" if s.caption_italic else words + tail
        align = "center" if s.caption_centred or len(words) < 40 else "left"
        body = f"block(width: 100%, {{ set par(justify: true, first-line-indent: 0pt, leading: 0.5em); set text(size: {s.caption_points}pt); align({align})[{look} {text}] }})"
        return self.mark("caption", body, number=number, text=f"{label} {words}{tail}")

    def _table(self, wide: bool, width: float) -> str:
        rng = self.rng
        size = rng.choice((0.75, 0.82, 0.9, 0.9, 1.0))
        body = tables.table(self.prose, wide=wide or width > 380)
        fit = f"context {{ let t = {{ {body} }}; let w = measure(t).width; if w > {width:.1f}pt {{ scale({width:.1f}pt / w * 100%, reflow: true, t) }} else {{ t }} }}"
        if "1fr" in body:
            fit = body
        return f"{{ set text(size: {size}em); set par(justify: false, leading: 0.45em); {fit} }}"

    def _image(self, share: float) -> str:
        draw = plots.random_plot if self.rng.random() < 0.55 else drawings.random_drawing
        svg = draw(self.prose)
        name = f"f{len(self.paper.files)}.svg"
        self.paper.files[name] = str(svg)
        width = share
        tallest = min(self.height / self.style.columns * 0.55, 420.0)
        width = min(width, tallest * svg.width / svg.height)
        return f'image("{name}", width: {width:.1f}pt)'

    def _figure(self, width: float, wide: bool) -> str:
        rng = self.rng
        if rng.random() < self.subfigures:
            columns = rng.choice((2, 2, 3, 4)) if width > 300 else 2
            share = (width - 8 * (columns - 1)) / columns * 0.97
            size = self.style.caption_points * 0.92
            cells = []
            for k in range(columns * rng.choice((1, 1, 2))):
                under = f"({'abcdefghijkl'[k]}) {self.prose.plain(rng.randint(1, 5)).capitalize()}"
                cells.append(f"{{ {self._image(share)}; v(4pt, weak: true); text(size: {size:.1f}pt)[{under}] }}")
            return f"grid(columns: {columns}, column-gutter: 8pt, row-gutter: 8pt, align: center + bottom, {', '.join(cells)})"
        return self._image(width * rng.choice((1.0, 1.0, 0.9, 0.75, 0.6, 0.5)))

    def references(self, height: float) -> float:
        """A reference list of about `height` points of column."""
        self.out.append("#" + self.mark("heading", "heading(level: 1, numbering: none)[References]")[0])
        done, k = 0.0, 0
        self.out.append(f"#[#set text(size: {self.rng.choice((0.85, 0.9, 1))}em)")
        while done < height:
            k += 1
            entry = blocks.reference(self.prose, k)
            self.flow("reference", entry)
            done += len(entry) * self.style.points**2 * 0.5 / self.column * 1.25 + 6
        self.out.append("]")
        return done
