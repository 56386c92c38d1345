"""Page styles: what tells a NeurIPS page from an ACL or an IEEE page at a glance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

LETTER, A4, SLIDE = (612.0, 792.0), (595.3, 841.9), (720.0, 405.0)
TIMES, MODERN, LIBERTINUS, SANS, SERIF = (
    "STIXGeneral",
    "New Computer Modern",
    "Libertinus Serif",
    "DejaVu Sans",
    "DejaVu Serif",
)


@dataclass(frozen=True)
class Style:
    """One page style; lengths in points."""

    name: str
    size: tuple[float, float] = LETTER
    margins: tuple[float, float, float, float] = (108.0, 72.0, 108.0, 72.0)  # left, top, right, bottom
    columns: int = 1
    gutter: float = 18.0
    font: str = TIMES
    points: float = 10.0
    leading: float = 0.55
    indent: float = 0.0
    skip: float = 5.5  # space between paragraphs
    heading: str = "bold"  # "bold" | "caps" | "smallcaps" | "italic" | "ruled" | "coloured"
    heading_centred: bool = False
    numbering: str = "1.1"
    caption: str = "Figure 1: "  # shape of the label: word, number style, separator
    caption_bold: bool = False
    caption_italic: bool = False
    caption_points: float = 9.0
    caption_centred: bool = False
    caption_left: bool = False  # short captions stand at the left too
    table_caption_above: bool = True
    header: str = ""  # "" | "text" | "ruled" | "split"
    footer: str = "number"  # "" | "number" | "text"
    line_numbers: bool = False
    cite: str = "()"
    title: str = "centred"  # "centred" | "left" | "ruled"
    abstract: str = "narrow"  # "narrow" | "column" | "boxed" | "bold"
    report: bool = False  # an administration's report: tables of statistics, often titled without "Table 1"


STYLES = (
    Style("neurips", title="ruled", margins=(108, 72, 108, 72), cite="[]", header="", leading=0.58),
    Style("iclr", header="ruled", heading="smallcaps", abstract="narrow", margins=(108, 88, 108, 72)),
    Style("icml", columns=2, margins=(54, 72, 54, 72), gutter=18, header="ruled", title="ruled", caption="Figure 1. ",
          caption_italic=True, abstract="column"),
    Style("acl", A4, (71, 71, 71, 71), columns=2, gutter=17, points=11, indent=11, skip=2, footer="", caption_points=10,
          abstract="column", table_caption_above=False),
    Style("cvpr", columns=2, margins=(54, 72, 54, 80), gutter=22, indent=10, skip=1, cite="[]", caption="Figure 1. ",
          abstract="column", table_caption_above=False),
    Style("ieee", columns=2, margins=(49, 54, 49, 54), gutter=14, indent=10, skip=1, cite="[]", heading="smallcaps",
          heading_centred=True, numbering="I.A", caption="Fig. 1. ", caption_points=8, abstract="bold", header="split",
          footer=""),
    Style("nature", A4, (50, 60, 50, 60), columns=2, gutter=16, font=LIBERTINUS, points=9, indent=8, skip=0, cite="^",
          numbering="", caption="Fig. 1 | ", caption_bold=True, caption_points=8, title="left", header="split"),
    Style("article", margins=(125, 110, 125, 110), font=MODERN, indent=15, skip=1, cite="[]", caption_points=10,
          caption_centred=True, table_caption_above=False),
    Style("preprint", A4, (72, 80, 72, 80), font=MODERN, points=11, indent=15, skip=2, cite="[]", caption_points=10),
    Style("revtex", columns=2, margins=(54, 60, 54, 60), font=MODERN, indent=10, skip=0,
          heading="caps", heading_centred=True, numbering="I.A", caption="FIG. 1. ", caption_points=9,
          abstract="narrow", header="text", cite="[]"),
    Style("lncs", A4, (134, 120, 134, 130), font=MODERN, indent=12, skip=0, cite="[]", caption="Fig. 1. ",
          caption_bold=True, header="split", footer=""),
    Style("acm", columns=2, margins=(54, 76, 54, 72), gutter=24, font=LIBERTINUS, points=9, indent=9, skip=0,
          cite="[]", heading="caps", caption_bold=True, caption_points=9, header="split", footer="", title="centred"),
    Style("thesis", A4, (99, 110, 85, 100), font=MODERN, points=11.5, leading=0.85, indent=16, skip=2, cite="[]",
          header="ruled", caption_points=10),
    Style("report", A4, (80, 85, 80, 85), font=SANS, points=9, skip=8, leading=0.7, heading="coloured", footer="text",
          caption_bold=True, caption_points=8, title="left", abstract="boxed"),
    Style("jmlr", margins=(90, 85, 90, 85), font=MODERN, points=11, indent=15, skip=1, header="split", heading="bold",
          caption_points=10),
    Style("review", columns=1, line_numbers=True, margins=(108, 72, 108, 72), header="text"),
    Style("slides", SLIDE, (50, 44, 50, 36), font=SANS, points=15, leading=0.8, skip=12, heading="coloured",
          numbering="", caption_points=10, footer="text"),
    Style("agency", A4, (65, 75, 65, 75), font=SANS, points=8.5, skip=8, leading=0.7, heading="coloured", cite="^",
          footer="text", caption_bold=True, caption_points=8, caption_left=True, title="left", abstract="boxed",
          report=True),
    Style("bulletin", A4, (50, 65, 50, 65), columns=2, gutter=20, font=SANS, points=7.5, skip=5, leading=0.65, cite="^",
          footer="text", numbering="", caption_bold=True, caption_points=7.5, title="left", abstract="column",
          header="ruled", report=True),
    Style("yearbook", A4, (70, 80, 70, 80), font=TIMES, points=11, skip=7, caption_points=10, header="split", footer="",
          abstract="boxed", title="left", cite="^", report=True),
    Style("landscape", (841.9, 595.3), (60, 60, 60, 55), font=SANS, points=8.5, skip=7, leading=0.65, numbering="",
          caption_bold=True, caption_points=8.5, title="left", footer="text", cite="^", report=True),
    Style("elsevier", A4, (60, 70, 60, 80), columns=2, gutter=18, font=TIMES, points=9.5, indent=12, skip=0, cite="[]",
          heading="bold", caption="Fig. 1. ", caption_points=8, header="split", title="ruled"),
)  # fmt: skip


def random_style(rng: Random) -> Style:
    """A style with its lengths shaken a little, and sometimes another font, captions or furniture."""
    weights = [0.35 if style.name == "slides" else 0.6 if style.report else 1.0 for style in STYLES]
    style = rng.choices(STYLES, weights)[0]
    left, top, right, bottom = style.margins
    d, e = rng.uniform(-8, 8), rng.uniform(-10, 10)
    style = replace(
        style,
        margins=(left + d, top + e, right + d, bottom + e),
        points=style.points + rng.choice((0, 0, 0, -0.5, 0.5, 1)),
        leading=max(style.leading + rng.uniform(-0.06, 0.1), 0.42),
        line_numbers=style.line_numbers or rng.random() < 0.05,
    )
    if rng.random() < 0.2:
        style = replace(style, font=rng.choice((TIMES, MODERN, LIBERTINUS, SERIF)))
    if rng.random() < 0.3:
        style = replace(style, caption=rng.choice(("Figure 1: ", "Figure 1. ", "Fig. 1: ", "Fig. 1. ", "FIGURE 1 ")))
    if rng.random() < 0.25:
        style = replace(style, caption_bold=not style.caption_bold)
    if rng.random() < 0.25:
        style = replace(style, table_caption_above=not style.table_caption_above)
    if rng.random() < 0.2:
        style = replace(style, caption_left=True)
    return replace(style, heading=rng.choice(("bold", style.heading, style.heading)))
