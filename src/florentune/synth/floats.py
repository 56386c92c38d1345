"""Tables and figures with their captions, and the ways a page holds them."""

from __future__ import annotations

from . import drawings, plots, reports, tables
from .blocks import algorithm, code
from .draft import Draft
from .gallery import SIZE as GALLERY
from .gallery import gallery_figure
from .grids import GRIDS, picture_rows
from .text_tables import prompt_box, text_table

ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV")
CAPTION_LINES = 10  # longer captions are cut, so that a float fits its page


class Floats:
    """Makes the floats of one paper, in that paper's habits."""

    def __init__(self, draft: Draft) -> None:
        rng = draft.rng
        self.draft = draft
        self.subfigures = rng.choice((0.08, 0.2, 0.4))
        self.plot_share = rng.choice((0.25, 0.55, 0.55, 0.8))
        self.grid_share = rng.choice((0.02, 0.06, 0.2))
        self.gallery_share = rng.choice((0.0, 0.1, 0.3))
        report = draft.style.report
        self.table_share = rng.choice((0.7, 0.85, 0.95) if report else (0.2, 0.4, 0.45, 0.6))
        self.text_share = rng.choice((0.05, 0.05, 0.15, 0.3, 0.6))
        self.report_share = rng.choice((0.7, 0.9)) if report else rng.choice((0.0, 0.02, 0.08))
        self.untitled_share = rng.choice((0.0, 0.1, 0.3)) if report else 0.0  # tables with nothing over them
        self.worded = not report or rng.random() < 0.5  # captions say "Table 1"
        self.table_style = rng.choice(("", "", *tables.STYLES))
        self.boxes_share = rng.choice((0.0, 0.02, 0.05, 0.25))
        self.wide_share = rng.choice((0.15, 0.3, 0.5)) if draft.style.columns > 1 else 0.0
        self.inline_share = rng.choice((0.1, 0.35, 0.7))
        self.table_size = rng.choice((0.75, 0.82, 0.9, 0.95, 1.0))
        self.gap = rng.uniform(4.5, 9.5)

    def any(self) -> tuple[str, float]:
        """Markup of one float in the flow, and the height it takes of a column."""
        d, rng = self.draft, self.draft.rng
        chance = rng.random()
        if chance < 0.05:
            return self._whole_page(wide=d.style.columns > 1 and rng.random() < 0.6)
        if chance > 0.98:
            return self.continued()
        if chance < 0.11 and d.style.columns == 1 and d.style.name != "slides":
            return self._wrapped()
        wide = rng.random() < self.wide_share
        width = d.width if wide else d.column
        if chance < 0.19 and width > 300:
            content = self._row(width)
        elif chance < 0.28:
            content = self._stack(width)
        else:
            content = self.captioned(self.kind(), width, d.height * 0.5)
        return self._placed(content, wide), 210.0 * (d.style.columns if wide else 1)

    def kind(self) -> str:
        """Table or figure, by the paper's share."""
        return "table" if self.draft.rng.random() < self.table_share else "figure"

    def _placed(self, content: str, wide: bool) -> str:
        rng = self.draft.rng
        if wide or rng.random() > self.inline_share:
            side = "top" if rng.random() < 0.78 else "bottom"
            scope = "parent" if wide else "column"
            clearance = f"{rng.uniform(10, 20):.0f}pt"
            return f'#place({side}, float: true, scope: "{scope}", clearance: {clearance}, {content})'
        gap = f"{rng.uniform(9, 18):.0f}pt"
        return f"#block(above: {gap}, below: {gap}, width: 100%, {content})"

    def _row(self, width: float) -> str:
        """Two or three floats side by side, each with its own caption."""
        rng, count = self.draft.rng, 3 if width > 420 and self.draft.rng.random() < 0.2 else 2
        gutter = rng.uniform(9, 24)
        same = rng.choice(("table", "table", "figure", "figure", "", ""))
        share = rng.uniform(0.35, 0.65) if count == 2 else 1 / 3
        shares = [share, 1 - share] if count == 2 else [share] * 3
        room = width - gutter * (count - 1)
        cells = [self.captioned(same or self.kind(), room * part, self.draft.height * 0.35) for part in shares]
        widths = ", ".join(f"{part * 100:.0f}fr" for part in shares)
        align = rng.choice(("top", "bottom", "bottom"))
        return f"grid(columns: ({widths}), column-gutter: {gutter:.0f}pt, align: {align}, {', '.join(cells)})"

    def _stack(self, width: float) -> str:
        """Two or three floats on top of each other."""
        rng, count = self.draft.rng, self.draft.rng.choice((2, 2, 3))
        same, height = rng.choice(("table", "", "")), self.draft.height * 0.8 / count - 40
        cells = [self.captioned(same or self.kind(), width, height) for _ in range(count)]
        return f"stack(spacing: {rng.uniform(9, 24):.0f}pt, {', '.join(cells)})"

    def _whole_page(self, *, wide: bool) -> tuple[str, float]:
        """A page (or a column) of floats alone, spread over it, in its middle or at its top."""
        d, rng = self.draft, self.draft.rng
        width, count = (d.width if wide else d.column), rng.choice((1, 1, 1, 2, 2, 3, 4))
        cells = [
            self.captioned(self.kind(), width, d.height * 0.88 / count - 60, long=count == 1) for _ in range(count)
        ]
        space = "v(1fr)" if rng.random() < 0.7 else "v(24pt)"
        body = f"{space}; {f'; {space}; '.join(cells)}; v(1fr)"
        scope = "parent" if wide or d.style.columns == 1 else "column"
        block = f"block(width: 100%, height: {d.height * 0.985:.0f}pt, {{ {body} }})"
        return f'#place(top, float: true, scope: "{scope}", {block})', d.height * (d.style.columns if wide else 1)

    def continued(self) -> tuple[str, float]:
        """A table that goes on over pages: every part is a table of its own, all but the first without a caption."""
        d, rng = self.draft, self.draft.rng
        wide = d.style.columns == 1 or rng.random() < 0.6
        width, scope = (d.width, "parent") if wide else (d.column, "column")
        first = self.captioned("table", width, d.height * 0.88 - 60, long=True)
        body = self._table(width, d.height * rng.choice((0.3, 0.6, 0.9)), long=True)
        rest, _ = d.mark("table", body)
        look = "set align(center); set par(first-line-indent: 0pt)"
        page = f"block(width: 100%, height: {d.height * 0.985:.0f}pt, {first})"
        parts = (page, f"block(width: 100%, {{ {look}; {rest} }})")
        markup = "\n".join(f'#place(top, float: true, scope: "{scope}", {part})' for part in parts)
        return markup, d.height * 1.6 * (d.style.columns if wide else 1)

    def _wrapped(self) -> tuple[str, float]:
        """A float at the side of running text."""
        d, rng = self.draft, self.draft.rng
        width = d.column * rng.uniform(0.32, 0.5)
        content = self.captioned(self.kind(), width, 170)
        lines = " ".join(d.prose.sentence() for _ in range(rng.randint(4, 9)))
        text, _ = d.mark("text", f"par(justify: true)[{lines}]")
        cells, widths = [text, f"align(center, {content})"], ["1fr", f"{width:.0f}pt"]
        if rng.random() < 0.2:
            cells, widths = cells[::-1], widths[::-1]
        return f"#grid(columns: ({', '.join(widths)}), column-gutter: 12pt, {', '.join(cells)})", 190.0

    def captioned(self, kind: str, width: float, height: float, *, long: bool = False) -> str:
        """Code of a table or figure with its caption, at most `width` x `height` without the caption."""
        d, rng, style = self.draft, self.draft.rng, self.draft.style
        height = max(height, 70.0)
        body = self._body(kind, width, height, long)
        titled = kind == "table" and rng.random() >= self.untitled_share
        if kind == "table" and not titled:
            caption, key = "v(0pt)", ""
        else:
            caption, key = self._caption(kind, width) if self.worded or kind == "figure" else self._title(width)
        thing, _ = d.mark(kind, body, caption=key)
        above = kind == "table" and rng.random() < (0.95 if style.table_caption_above or not self.worded else 0.03)
        first, second = (caption, thing) if above else (thing, caption)
        place = rng.choice(("left", "center")) if style.report else "center"
        setup = f"set par(first-line-indent: 0pt); set align({place}); set block(spacing: 0pt)"
        after = self._notes() if rng.random() < (0.5 if style.report else 0.06) and kind == "table" and above else ""
        return f"block(width: 100%, breakable: false, {{ {setup}; {first}; v({self.gap:.1f}pt); {second}{after} }})"

    def _body(self, kind: str, width: float, height: float, long: bool) -> str:
        """A table or figure; now and then one that looks like the other: its caption's word tells them apart."""
        d, rng = self.draft, self.draft.rng
        if rng.random() < self.boxes_share:
            make = prompt_box if kind == "table" else rng.choice((prompt_box, prompt_box, code, algorithm))
            return f"fit-text({width:.0f}pt, {height:.0f}pt, align(left, {make(d.prose)}))"
        other = rng.random() < 0.03
        if kind == "table" and other:
            drawn = rng.choice((picture_rows, picture_rows, *GRIDS))(d.prose, width)
            return self._drawn(str(drawn), drawn.width, drawn.height, width, height)
        return self._table(width, height, long) if kind == "table" or other else self._figure(width, height)

    def _title(self, width: float) -> tuple[str, str]:
        """A report's title over its table, without the word "Table"."""
        d, rng = self.draft, self.draft.rng
        text = reports.title(d.prose)
        bold = "*" if rng.random() < 0.7 else ""
        size = f'set text(size: {d.style.points * rng.uniform(0.9, 1.1):.1f}pt, bottom-edge: "descender")'
        return d.mark("caption", f"block({{ {size}; [{bold}{text}{bold}] }})", text=text)

    def _notes(self) -> str:
        """Source and notes under a table, outside its box."""
        d, size = self.draft, self.draft.style.points * self.draft.rng.uniform(0.7, 0.85)
        setup = f"set text(size: {size:.1f}pt); set par(leading: 0.4em, justify: false); set align(left)"
        body, _ = d.mark("footnote", f"block({{ {setup}; [{reports.notes(d.prose)}] }})")
        return f"; v({d.rng.uniform(5, 9):.1f}pt); {body}"

    def _caption(self, kind: str, width: float) -> tuple[str, str]:
        d, rng, s = self.draft, self.draft.rng, self.draft.style
        number = str(d.next(kind))
        word, separator = s.caption.split("1", 1)[0].strip(), s.caption.split("1", 1)[1].rstrip(" ")
        if kind == "table":
            word = {"FIG.": "TABLE", "FIGURE": "TABLE", "Fig.": "Table", "Figure": "Table", "Рис.": "Табл."}[word]
            word = "TABLE" if s.name == "ieee" else word
            if s.name in ("ieee", "revtex"):
                number = ROMAN[(int(number) - 1) % len(ROMAN)]
        plain = f"{d.prose.plain(rng.choice((3, 5, 8, 8, 12, 20, 35))).capitalize()}."
        sentences = [d.prose.plain_sentence() for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 4)))]
        room = CAPTION_LINES * width / (s.caption_points * 0.46) - len(plain)
        sentences = sentences[: max(int(room / 110), 0)]
        label = f"{word} {number}{separator}"
        look = f"*{label}*" if s.caption_bold else label
        text = f"_{plain}_" if s.caption_italic else (f"*{plain}*" if rng.random() < 0.08 else plain)
        text = " ".join([text, *sentences])
        if s.name == "ieee" and kind == "table":
            look, text = f"{label} \\ ", f"#smallcaps[{text}]"
        centred = (
            s.caption_centred
            or len(label + text) * s.caption_points * 0.46 < width
            or (s.name == "ieee" and kind == "table")
        )
        setup = f"set par(justify: {'false' if centred else 'true'}, first-line-indent: 0pt, leading: 0.3em)"
        align = "center" if centred and not (s.caption_left and not s.caption_centred) else "left"
        # Down to the descenders, so that the gap to the object is blank and its box has room for a margin.
        size = f'set text(size: {s.caption_points}pt, bottom-edge: "descender")'
        body = f"block(width: 100%, {{ {setup}; {size}; align({align})[{look} {text}] }})"
        return d.mark("caption", body, number=number, text=f"{label} {plain} {' '.join(sentences)}".strip())

    def _table(self, width: float, height: float, long: bool) -> str:
        d, rng = self.draft, self.draft.rng
        size = self.table_size * rng.choice((1, 1, 1, 0.9)) * d.style.points
        setup = f"set text(size: {size:.1f}pt); set par(justify: false, leading: 0.45em, first-line-indent: 0pt)"
        chance, how = rng.random(), "fit"
        if chance < self.report_share:
            body, stretched = reports.statistics_table(d.prose, width=width, height=height)
            how = "fit-text" if stretched else "fit"
        elif chance < self.report_share + self.text_share * (1.0 if width > 150 else 0.3):
            body, how = text_table(d.prose, width=width, height=height), "fit-text"
        elif not long and rng.random() < 0.1:
            body = self.parts(width)
        else:
            rows = rng.randint(24, 50) if long and rng.random() < 0.6 else 0
            body = tables.table(d.prose, width=width, rows=rows, style=self.table_style)
        return f"{how}({width:.0f}pt, {height:.0f}pt, {{ {setup}; {body} }})"

    def parts(self, width: float) -> str:
        """Two or three tables under one caption, with sub-captions or without: one box holds them all."""
        d, rng = self.draft, self.draft.rng
        stacked = rng.random() < 0.35
        count = rng.choice((2, 2, 3)) if width > 300 or stacked else 2
        room, under, named = width if stacked else width / count, rng.random() < 0.5, rng.random() < 0.65
        cells = []
        for k in range(count):
            part = tables.table(d.prose, width=room, rows=rng.choice((0, 3, 4, 6)), style=self.table_style)
            name = f"[({'abc'[k]}) {d.prose.plain(rng.randint(1, 5)).capitalize()}]"
            order = (part, name) if under else (name, part)
            cells.append(f"{{ {'; v(4pt); '.join(order)} }}" if named else part)
        gaps = f"column-gutter: {rng.uniform(8, 22):.0f}pt, row-gutter: {rng.uniform(6, 14):.0f}pt"
        align = f"center + {rng.choice(('top', 'bottom'))}"
        return f"grid(columns: {1 if stacked else count}, {gaps}, align: {align}, {', '.join(cells)})"

    def _image(self, width: float, height: float) -> str:
        d, rng = self.draft, self.draft.rng
        if rng.random() < self.gallery_share:
            return self._drawn(*gallery_figure(rng.randrange(GALLERY)), width, height)
        if rng.random() < self.grid_share:
            draw = rng.choice(GRIDS)
        else:
            draw = plots.random_plot if rng.random() < self.plot_share else drawings.random_drawing
        svg = draw(d.prose, width)
        return self._drawn(str(svg), svg.width, svg.height, width, height)

    def _drawn(self, text: str, wide: float, tall: float, width: float, height: float) -> str:
        """An SVG of `wide` x `tall` as an image of at most `width` x `height`."""
        d, rng = self.draft, self.draft.rng
        name = f"f{len(d.paper.files)}.svg"
        d.paper.files[name] = text
        scale = min(rng.uniform(0.7, 1.15) if rng.random() < 0.85 else 9.0, width / wide, height / tall)
        return f'image("{name}", width: {wide * scale:.1f}pt)'

    def _figure(self, width: float, height: float) -> str:
        rng = self.draft.rng
        if rng.random() >= self.subfigures:
            return self._image(width * rng.choice((1.0, 1.0, 1.0, 0.9, 0.8, 0.65)), height)
        columns = rng.choice((2, 2, 3, 4)) if width > 300 else rng.choice((1, 2, 2))
        rows = rng.choice((1, 1, 1, 2, 3)) if columns > 1 else 2
        room, size = (width - 8 * (columns - 1)) / columns, self.draft.style.caption_points * rng.uniform(0.85, 1.0)
        cells = []
        for k in range(columns * rows):
            under = f"({'abcdefghijkl'[k]}) {self.draft.prose.plain(rng.randint(1, 6)).capitalize()}"
            image = self._image(room * 0.97, height / rows - 14)
            cells.append(f"{{ {image}; v(4pt); text(size: {size:.1f}pt)[{under}] }}")
        setup = "set par(leading: 0.4em); set block(spacing: 0pt)"
        look = f"column-gutter: 8pt, row-gutter: {rng.uniform(6, 12):.0f}pt"
        align = f"align: center + {rng.choice(('bottom', 'top'))}"
        grid = f"block(width: {width:.0f}pt, grid(columns: (1fr,) * {columns}, {look}, {align}, {', '.join(cells)}))"
        return f"{{ {setup}; fit({width:.0f}pt, {height:.0f}pt, {grid}) }}"
