"""One generated paper as Typst source, with a marker around everything whose box is wanted."""

from __future__ import annotations

from random import Random

from . import blocks, drawings
from .draft import PRELUDE, Draft, Mark, Paper
from .floats import Floats
from .styles import Style, random_style
from .text_tables import prompt_box

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
AREAS = ("cs.CL", "cs.CV", "cs.LG", "cs.AI", "math.OC", "astro-ph.GA", "stat.ML", "hep-th", "quant-ph", "q-bio.NC")


class Writer:
    """Writes one paper; heights are estimates in points of one column, to know when enough is written."""

    def __init__(self, rng: Random, style: Style | None = None) -> None:
        self.rng = rng
        self.style = style or random_style(rng)
        self.draft = Draft(rng, self.style)
        self.floats = Floats(self.draft)
        self.prose = self.draft.prose
        report = self.style.report
        self.density = rng.choice((0.4, 0.9, 1.6) if report else (0.05, 0.3, 0.5, 0.8, 1.2))
        self.mathematics = 0.0 if report else rng.choice((0.01, 0.05, 0.15, 0.35))
        self.extras = rng.choice((0.02, 0.06, 0.15))  # share of lists, algorithms, code and theorems
        self.above, self.below = rng.uniform(10, 18), rng.uniform(5, 10)
        self.out: list[str] = []

    def write(self, pages: int) -> Paper:
        """Enough for `pages` pages, usually a little more."""
        rng, limit = self.rng, self.draft.height * self.style.columns * pages
        done = self.opening() if rng.random() < 0.7 else 0.0
        if rng.random() < (0.3 if self.style.name in ("thesis", "jmlr") or self.style.report else 0.05):
            done += self.contents()
        references = rng.random() < (0.25 if self.style.report else 0.7)
        self.body(done, limit * (rng.uniform(0.5, 0.85) if references else 1.1))
        if references:
            done = limit * 0.85 + self.references(limit * rng.uniform(0.12, 0.4))
            self.out.append(rng.choice(("#pagebreak(weak: true)", "")))
            self.density *= rng.choice((1, 1.5, 2.5))
            self.out.append(
                '#counter(heading).update(0)\n#set heading(numbering: "A.1")' if self.style.numbering else ""
            )
            self.body(min(done, limit * 0.9), limit * 1.12)
        self.draft.paper.source = self.setup() + "\n".join(self.out)
        return self.draft.paper

    def body(self, done: float, end: float) -> None:
        """Sections of text, equations and floats from height `done` to `end`."""
        rng, since, pause = self.rng, 0.0, self.rng.uniform(200, 900)
        done += self.heading(1)
        while done < end:
            if since > pause:
                done, since, pause = done + self.heading(rng.choice((1, 2, 2, 3))), 0.0, rng.uniform(150, 900)
            step = self.piece()
            if rng.random() < self.density * step / 250:
                markup, height = self.floats.any()
                self.out.append(markup)
                step += height
            done, since = done + step, since + step

    def setup(self) -> str:
        """Page, font and paragraph settings and the furniture of every page."""
        s, rng = self.style, self.rng
        left, top, right, bottom = s.margins
        for label in ("header", "footer", "footnote", "stamp"):
            self.draft.paper.marks[label] = Mark(label)
        margin = f"(left: {left:.1f}pt, right: {right:.1f}pt, top: {top:.1f}pt, bottom: {bottom:.1f}pt)"
        page = f"width: {s.size[0]}pt, height: {s.size[1]}pt, margin: {margin}, columns: {s.columns}"
        spacing = s.leading * s.points + s.skip
        clearance = 6 if s.line_numbers else 0
        lines = [
            PRELUDE,
            f"#set page({page}, header: {self._header()}, footer: {self._footer()}, background: {self._stamp()})",
            f"#set columns(gutter: {s.gutter}pt)",
            f'#set text(font: "{s.font}", size: {s.points:.1f}pt, lang: "en", hyphenate: true)',
            f"#set par(justify: {'true' if rng.random() < 0.95 else 'false'}, leading: {s.leading:.2f}em, "
            f"spacing: {spacing:.1f}pt, first-line-indent: {s.indent}pt)",
            f"#set par.line(number-clearance: {clearance}pt, number-margin: left)",
            f'#set heading(numbering: "{s.numbering}")' if s.numbering else "",
            f"#show heading: set text({self._heading_look()})",
            "#show heading.where(level: 1): set align(center)" if s.heading_centred else "",
            {"smallcaps": "#show heading: smallcaps", "caps": "#show heading: upper"}.get(s.heading, ""),
            f"#set math.equation(number-align: {rng.choice(('right', 'right', 'right', 'left'))})",
            f"#set list(indent: {rng.choice((0, 8, 14))}pt)\n#set enum(indent: {rng.choice((0, 8, 14))}pt)",
            f"#set list(spacing: {spacing:.1f}pt)\n#set enum(spacing: {spacing:.1f}pt)",
        ]
        return "\n".join(line for line in lines if line) + "\n"

    def _header(self) -> str:
        running, look = self.prose.title(self.rng.randint(2, 9)), self.style.header
        number = "context counter(page).display()"
        code = {
            "split": f"grid(columns: (1fr, auto), [{running}], {number})",
            "ruled": f"block(width: 100%, stroke: (bottom: 0.5pt), inset: (bottom: 3pt))[{running}]",
            "text": f"align({self.rng.choice(('center', 'left', 'right'))})[{running}]",
        }.get(look)
        return (
            f'mark("header", width: 100%, text(size: {self.rng.uniform(0.75, 0.95):.2f}em, {code}))' if code else "none"
        )

    def _footer(self) -> str:
        number, look = "context counter(page).display()", self.style.footer
        running = self.prose.title(self.rng.randint(2, 6))
        code = {
            "number": f"align({self.rng.choice(('center', 'center', 'center', 'right'))}, {number})",
            "text": f"[{running} #h(1fr) #{number}]",
        }.get(look)
        return f'mark("footer", width: 100%, text(size: 0.88em, {code}))' if code else "none"

    def _stamp(self) -> str:
        rng = self.rng
        if rng.random() < 0.4:
            return "none"
        number = f"{rng.randint(7, 25):02d}{rng.randint(1, 12):02d}.{rng.randint(1, 19999):05d}v{rng.randint(1, 4)}"
        date = f"{rng.randint(1, 28)} {rng.choice(MONTHS)} 20{rng.randint(10, 25)}"
        words = f"arXiv:{number} \\[{rng.choice(AREAS)}\\] {date}"
        text = (
            f'mark("stamp", text(font: "STIXGeneral", size: 18pt, fill: luma({rng.choice((110, 130, 150))}))[{words}])'
        )
        place = f"place(left + horizon, dx: {rng.uniform(10, 18):.0f}pt, rotate(-90deg, reflow: true, {text}))"
        return f"context if here().page() == 1 {{ {place} }}"

    def _heading_look(self) -> str:
        s = self.style
        weight = '"regular"' if s.heading in ("smallcaps", "italic") else '"bold"'
        colour = self.rng.choice(("rgb(20,60,140)", "rgb(150,30,30)", "rgb(0,110,110)"))
        fill = f", fill: {colour}" if s.heading == "coloured" else ""
        style = ', style: "italic"' if s.heading == "italic" else ""
        return f"size: {s.points + self.rng.choice((0, 1, 1, 2)):.1f}pt, weight: {weight}{fill}{style}"

    def opening(self) -> float:
        """Title, authors, abstract, now and then a logo or a first figure; returns the height used."""
        s, p, rng, d = self.style, self.prose, self.rng, self.draft
        place = "center" if s.title != "left" else "left"
        look = f'size: {rng.uniform(13, 20):.1f}pt, weight: "{rng.choice(("bold", "bold", "regular"))}"'
        title, _ = d.mark("title", f"align({place}, par(justify: false, text({look})[{p.title(rng.randint(4, 15))}]))")
        if s.title == "ruled":
            title = f"{{ line(length: 100%, stroke: 2pt); {title}; line(length: 100%, stroke: 0.8pt) }}"
        if rng.random() < 0.12:
            title = f"{{ {self._logo()}; {title} }}"
        authors, _ = d.mark("author", f"align({place})[{blocks.authors(p)}]")
        top = f"{title}; v({rng.uniform(6, 16):.0f}pt); {authors}; v({rng.uniform(8, 18):.0f}pt)"
        if rng.random() < 0.12:
            top += f"; {self.floats.captioned('figure', d.width, 170)}; v(12pt)"
        abstract = self._abstract()
        whole = f"{{ {top}; {abstract}; v(10pt) }}"
        if s.columns == 1:  # a float itself, so that no other float stands over the title
            floated = f"place(top, float: true, clearance: 8pt, block(width: 100%, {whole}))"
            self.out.append(f"#{whole if s.name == 'slides' else floated}")
            return 330.0
        spread = whole if s.abstract == "narrow" else f"{{ {top} }}"
        self.out.append(f'#place(top, float: true, scope: "parent", clearance: 16pt, block(width: 100%, {spread}))')
        if s.abstract != "narrow":
            self.out.append(f"#{abstract}")
        return 300.0 * s.columns

    def _logo(self) -> str:
        """A small picture by the title, which is no figure."""
        name = f"f{len(self.draft.paper.files)}.svg"
        self.draft.paper.files[name] = str(drawings.logo(self.prose))
        side, height = self.rng.choice(("left", "right", "center")), self.rng.uniform(14, 34)
        return f'align({side}, image("{name}", height: {height:.0f}pt))'

    def _abstract(self) -> str:
        s, p, rng = self.style, self.prose, self.rng
        text = " ".join(p.sentence() for _ in range(rng.randint(4, 10)))
        head = rng.choice(("Abstract", "Abstract", "ABSTRACT"))
        above = f'align(center)[#text(weight: "bold", size: 1.1em)[{head}]]'
        if s.abstract == "bold":
            text, above = f"*_{head}_---{text}*", "v(0pt)"
        narrow = rng.choice((18, 30, 40)) if s.abstract == "narrow" and s.columns == 1 else 0
        size = rng.choice((0.9, 0.95, 1))
        inner = f"pad(x: {narrow}pt, par(justify: true, first-line-indent: 0pt, text(size: {size}em)[{text}]))"
        if s.abstract == "boxed":
            inner = f"block(fill: {rng.choice(('luma(240)', 'rgb(232,240,250)'))}, inset: 8pt, {inner})"
        if rng.random() < 0.25:
            inner += f"; v(4pt); [*Keywords:* {', '.join(p.plain(2) for _ in range(rng.randint(3, 6)))}]"
        return f"{{ {above}; {self.draft.mark('abstract', f'{{ {inner} }}')[0]} }}"

    def heading(self, level: int) -> float:
        """A section heading."""
        numbered = ", numbering: none" if level > 2 and self.rng.random() < 0.5 else ""
        how = f"above: {self.above:.1f}pt, below: {self.below:.1f}pt, sticky: true, width: 100%"
        code, _ = self.draft.mark("heading", f"heading(level: {level}{numbered})[{self.prose.heading()}]", how)
        self.out.append(f"#{code}")
        return 30.0

    def piece(self) -> float:
        """A piece of body text: mostly a paragraph, sometimes an equation, list, algorithm, code or theorem."""
        rng, chance = self.rng, self.rng.random()
        if chance < self.mathematics:
            code, height = blocks.equation(self.prose, number=self.draft.next("equation"))
            gap = f"{rng.uniform(5, 11):.0f}pt"
            self.out.append(f"#{self.draft.mark('equation', code, f'width: 100%, above: {gap}, below: {gap}')[0]}")
            return height + self.paragraph(rng.choice((1, 2, 3)))
        if chance < self.mathematics + self.extras:
            return self._extra()
        return self.paragraph()

    def _extra(self) -> float:
        kinds = ("list", "list", "columns", "box", "algorithm", "code", "theorem", "theorem")
        kind = self.rng.choice(kinds[:4] if self.style.report else kinds)
        if kind == "list":
            self.out.append(self.draft.flow("list", blocks.item_list(self.prose)))
            return 80.0
        makers = {
            "algorithm": blocks.algorithm,
            "code": blocks.code,
            "theorem": blocks.theorem,
            "columns": blocks.list_in_columns,
            "box": prompt_box,  # without a caption it is framed text
        }
        marked, _ = self.draft.mark({"columns": "list", "box": "text"}.get(kind, kind), makers[kind](self.prose))
        if kind == "algorithm" and self.rng.random() < 0.5:
            side = self.rng.choice(("top", "bottom"))
            marked = f"place({side}, float: true, clearance: 12pt, {marked})"
        self.out.append(f"#{marked}")
        return 60.0 if kind == "theorem" else 150.0

    def contents(self) -> float:
        """A table of contents, which is no table; most often it has its page to itself."""
        rng, alone = self.rng, self.rng.random() < 0.7
        rows = rng.randint(6, 30)
        title = rng.choice(("Contents", "Table of Contents", "List of Tables", "List of Figures"))
        how = f"above: {self.above:.1f}pt, below: {self.below:.1f}pt"
        heading, _ = self.draft.mark("heading", f"heading(level: 1, numbering: none)[{title}]", how)
        body, _ = self.draft.mark("list", blocks.contents(self.prose, rows), "width: 100%")
        self.out.append(f"#{heading}\n#{body}\n{'#pagebreak(weak: true)' if alone else ''}")
        return self.draft.height if alone else rows * 16.0

    def paragraph(self, sentences: int = 0) -> float:
        """A paragraph; returns its height."""
        text = self.prose.paragraph(sentences)
        if self.rng.random() < 0.08:
            text = f"*{self.prose.title(self.rng.randint(1, 4))}.* {text}"
        self.out.append(self.draft.flow("text", text))
        s = self.style
        return len(text) * s.points * 0.47 / self.draft.column * s.points * (0.72 + s.leading) + s.skip

    def references(self, height: float) -> float:
        """A reference list of about `height` points of column."""
        s, done, k = self.style, 0.0, 0
        how = f"above: {self.above:.1f}pt, below: {self.below:.1f}pt"
        heading, _ = self.draft.mark("heading", "heading(level: 1, numbering: none)[References]", how)
        self.out.append(
            f"#{heading}\n#[#set text(size: {self.rng.choice((0.85, 0.9, 1))}em)\n#set par(first-line-indent: 0pt)"
        )
        while done < height:
            k += 1
            entry = blocks.reference(self.prose, k)
            self.out.append(self.draft.flow("reference", entry))
            done += len(entry) * s.points**2 * 0.5 / self.draft.column * 1.25 + 6
        self.out.append("]")
        return done
