"""Tables made of text: transcripts, examples, answers side by side, glossaries; and framed text such as prompts."""

from __future__ import annotations

from random import Random

from .words import Prose, acronym, number

TINTS = (
    "luma(235)", "luma(220)", "luma(245)", "rgb(225,235,250)", "rgb(230,245,230)", "rgb(255,240,220)",
    "rgb(250,228,230)", "rgb(255,250,215)", "rgb(238,230,248)",
)  # fmt: skip
TITLES = (
    "rgb(60,90,160)",
    "rgb(40,110,90)",
    "rgb(150,60,60)",
    "luma(60)",
    "luma(110)",
    "rgb(90,60,140)",
    "rgb(200,120,30)",
)
INKS = ("rgb(200,0,0)", "rgb(0,0,200)", "rgb(0,120,0)", "rgb(150,0,150)", "luma(110)")
SPEAKERS = ("User", "Assistant", "System", "Input", "Output", "Question", "Answer", "Prompt", "Context", "Human", "AI")
PAIRS = (
    ("Prompt", "Response"), ("Input", "Output"), ("Question", "Answer"), ("Source", "Target"), ("Task", "Example"),
    ("Instruction", "Completion"), ("Category", "Description"), ("Type", "Example"), ("Step", "Details"),
)  # fmt: skip
SIGNS = ("$lambda_1$", "$cal(D)$", "$x_t$", "$alpha$", "$bold(W)$", "$n$", "$theta$", "$sigma^2$", "$K$", "$p_i$")
RULES = ("ends", "ends", "head", "head", "head", "between", "between", "full", "rows", "columns", "none")


def text_table(prose: Prose, *, width: float, height: float) -> str:
    """Code of a table whose cells are words and sentences; it takes up to about `width` x `height` points."""
    rng = prose.rng
    room = width * height / 52 * rng.choice((0.15, 0.3, 0.3, 0.5, 0.5, 0.8))  # letters
    make = rng.choice(MAKERS)
    columns, head, rows, rules = make(prose, width, max(room, 160.0))
    header = [f"[*{name}*]" for name in head] if rng.random() < 0.7 else [f"[{name}]" for name in head]
    cells = header + [cell for row in rows for cell in row]
    leading = f"set par(leading: {rng.uniform(0.4, 0.62):.2f}em, justify: {rng.choice(('true', 'false'))})"
    look = f"align: {rng.choice(('left', 'left', 'left + horizon'))}, inset: {_inset(rng)}, {_tint(rng, bool(head))}"
    lines = _rules(rng, rules, bool(head), len(rows))
    return f"{{ {leading}; table(columns: {columns}, {look} {lines}\n{','.join(cells)}) }}"


Rows = list[list[str]]
Made = tuple[str, tuple[str, ...], Rows, str]  # column widths, header, cells, rules


def passage(prose: Prose, letters: float) -> str:
    """Sentences of about so many letters in all, with a few of them marked as papers mark examples."""
    rng, left = prose.rng, letters
    parts: list[str] = []
    plain = rng.random() < 0.6
    while left > 30 or not parts:
        short = left < 70
        text = f"{prose.plain(max(int(left / 8), 2)).capitalize()}." if short else prose.plain_sentence()
        left -= len(text)
        chance = 1.0 if plain else rng.random()
        if chance < 0.12:
            text = f"#text(fill: {rng.choice(INKS)})[{text}]"
        elif chance < 0.2:
            text = f"#highlight(fill: {rng.choice(TINTS)})[{text}]"
        elif chance < 0.32:
            text = rng.choice(("*{}*", "_{}_", "#underline[{}]", "{} \\[...\\]")).format(text)
        parts.append(text)
    return " ".join(parts)


def _inset(rng: Random) -> str:
    return f"(x: {rng.uniform(2, 6.5):.1f}pt, y: {rng.uniform(1.5, 5):.1f}pt)"


def _tint(rng: Random, header: bool) -> str:
    chance, tint = rng.random(), rng.choice(TINTS)
    if chance < 0.08:
        return f"fill: (x, y) => if calc.even(y) {{ {tint} }},"
    if chance < 0.14 and header:
        return f"fill: (x, y) => if y == 0 {{ {tint} }},"
    return f"fill: (x, y) => if x == 0 {{ {tint} }}," if chance < 0.18 else ""


def _rules(rng: Random, rules: str, header: bool, rows: int) -> str:
    total, thick = rows + header, rng.choice((0.5, 0.7, 0.8, 1.0, 1.3))
    if rules == "full":
        return f"stroke: {thick / 2:.2f}pt,"
    if rules == "rows":
        return f"stroke: (x, y) => (bottom: {thick / 2:.2f}pt, top: if y == 0 {{ {thick / 2:.2f}pt }}),"
    if rules == "columns":
        return f"stroke: (x, y) => (y: {thick / 2:.2f}pt, left: if x > 0 {{ {thick / 2:.2f}pt }}),"
    if rules == "none":
        under = f"table.hline(y: 1, stroke: {thick / 2:.2f}pt)," if header and rng.random() < 0.5 else ""
        return f"stroke: none, {under}"
    lines = [f"table.hline(y: {y}, stroke: {thick:.2f}pt)" for y in (0, total)]
    if header and rules != "ends":
        lines.append(f"table.hline(y: 1, stroke: {thick * 0.6:.2f}pt)")
    if rules == "between":
        dash = rng.choice(("", "", ', dash: "dashed"', ', dash: "dotted"'))
        stroke = f"(thickness: {thick * 0.5:.2f}pt{dash})"
        lines += [f"table.hline(y: {y}, stroke: {stroke})" for y in range(header + 1, total)]
    return f"stroke: none, {', '.join(lines)},"


def _transcript(prose: Prose, width: float, room: float) -> Made:
    """Turns of a dialogue: the speaker in a column of its own or in bold before the words."""
    rng, count = prose.rng, prose.rng.randint(3, 14)
    speakers = rng.sample(SPEAKERS, rng.choice((2, 2, 3)))
    turns = [(speakers[k % len(speakers)], passage(prose, room / count * rng.uniform(0.3, 1.7))) for k in range(count)]
    head = (rng.choice(("Dialogue", "Example", "Conversation", "Transcript")),) if rng.random() < 0.3 else ()
    if rng.random() < 0.4:
        named = tuple(rng.choice((("Speaker", "Utterance"), ("Role", "Content"), ("Turn", "Text")))) if head else ()
        return "(auto, 1fr)", named, [[f"[*{who}*]", f"[{said}]"] for who, said in turns], rng.choice(RULES)
    sign = rng.choice((":", ":", "", ">"))
    rows = [[f"[*{who}{sign}* {said}]"] for who, said in turns]
    return "(1fr,)", head, rows, rng.choice(("ends", "ends", "head", "between", "full", "none"))


def _passages(prose: Prose, width: float, room: float) -> Made:
    """One column of paragraphs between rules, as body text would look."""
    rng = prose.rng
    count = rng.choice((1, 1, 2, 3, 4, 6))
    titled = rng.random() < 0.6
    rows = []
    for k in range(count):
        text = passage(prose, room / count * rng.uniform(0.5, 1.4))
        start = rng.choice((f"*{prose.title(rng.randint(1, 4))}.* ", f"*{prose.title(2)}* \\ ", f"({k + 1}) "))
        rows.append([f"[{start if titled else ''}{text}]"])
    head = (prose.title(rng.randint(1, 5)),) if rng.random() < 0.4 else ()
    return "(1fr,)", head, rows, rng.choice(("ends", "ends", "ends", "head", "between", "full", "none"))


def _pairs(prose: Prose, width: float, room: float) -> Made:
    """A narrow column of names and a wide one (or more) of text."""
    rng = prose.rng
    columns = rng.choice((2, 2, 2, 3)) if width > 200 else 2
    count = rng.choice((2, 2, 3, 4, 5, 6, 8, 10, 14))
    long = room / count / (columns - 1)
    rows = []
    for _ in range(count):
        name = rng.choice((prose.plain(rng.randint(1, 3)).capitalize(), acronym(prose.rng), rng.choice(SIGNS)))
        cells = [passage(prose, max(long * rng.uniform(0.4, 1.4), 10)) for _ in range(columns - 1)]
        bold = "*" if rng.random() < 0.25 else ""
        rows.append([f"[{bold}{name}{bold}]", *(f"[{cell}]" for cell in cells)])
    names = (*rng.choice(PAIRS), prose.plain(1).capitalize())[:columns]
    first = rng.choice(("auto", f"{rng.uniform(0.16, 0.34):.2f}fr", f"{rng.uniform(0.6, 1):.2f}fr"))
    head = names if rng.random() < 0.75 else ()
    if first == "auto":  # a long name may not push the text out
        first = "0.25fr"
    return f"({first}, {', '.join(['1fr'] * (columns - 1))})", head, rows, rng.choice(RULES)


def _answers(prose: Prose, width: float, room: float) -> Made:
    """Texts of several methods side by side, one column a method."""
    rng = prose.rng
    columns = rng.randint(2, 4) if width > 300 else 2
    count = rng.choice((1, 1, 2, 3, 4))
    long = room / count / columns
    rows = [
        [f"[{passage(prose, max(long * rng.uniform(0.5, 1.5), 12))}]" for _ in range(columns)] for _ in range(count)
    ]
    head = tuple(acronym(rng) for _ in range(columns)) if rng.random() < 0.85 else ()
    return f"(1fr,) * {columns}", head, rows, rng.choice(RULES)


def _glossary(prose: Prose, width: float, room: float) -> Made:
    """Terms or symbols and a few words on each: notation, hyper-parameters, data sets, lists of words."""
    rng = prose.rng
    columns = rng.randint(2, 5) if width > 300 else rng.choice((2, 2, 3))
    count = rng.choice((4, 5, 6, 8, 10, 12, 16, 20))
    longest, signs = rng.choice((2, 3, 6, 9)), rng.random() < 0.35
    rows = []
    for _ in range(count):
        first = rng.choice(SIGNS) if signs else prose.plain(rng.randint(1, 2)).capitalize()
        more = [prose.plain(rng.randint(1, longest)).capitalize() for _ in range(columns - 1)]
        if rng.random() < 0.12:
            more[-1] = number(rng)
        rows.append([f"[{cell}]" for cell in (first, *more)])
    head = tuple(prose.plain(1).capitalize() for _ in range(columns)) if rng.random() < 0.7 else ()
    widths = "(auto,) * " + str(columns) if longest < 4 else f"(0.3fr, {', '.join(['1fr'] * (columns - 1))})"
    return widths, head, rows, rng.choice(("none", "none", *RULES))


def _register(prose: Prose, width: float, room: float) -> Made:
    """Rows of mixed columns: a name, words that wrap, numbers, dates, marks, citations, as in surveys and lists."""
    rng = prose.rng
    columns = rng.randint(3, 7 if width > 350 else 4)
    kinds = [rng.choice(("words", "words", "text", "number", "date", "mark", "cite")) for _ in range(columns - 1)]
    kinds[rng.randrange(columns - 1)] = "text"
    count, longest = rng.choice((3, 4, 6, 8, 10, 14)), rng.choice((30, 60, 110))
    long = min(room / count / kinds.count("text"), longest)

    def cell(kind: str) -> str:
        if kind == "text":
            return prose.plain(max(int(long * rng.uniform(0.4, 1.3) / 7), 1)).capitalize()
        if kind == "date":
            return f"{rng.randint(1, 28)}.{rng.randint(1, 12)}.{rng.randint(1985, 2025)}"
        if kind == "mark":
            return rng.choice(("$checkmark$", "$checkmark$", "$times$", "", "(X)", "yes", "no"))
        if kind == "cite":
            return prose.citation()
        return number(rng) if kind == "number" else prose.plain(rng.randint(1, 2)).capitalize()

    numbered = rng.random() < 0.3
    rows = []
    for k in range(count):
        name = f"{k + 1}." if numbered else rng.choice((acronym(rng), prose.plain(rng.randint(1, 2)).capitalize()))
        rows.append([f"[{name}]", *(f"[{cell(kind)}]" for kind in kinds)])
    head = tuple(prose.plain(rng.randint(1, 2)).capitalize() for _ in range(columns)) if rng.random() < 0.85 else ()
    share = {"text": rng.uniform(1.5, 3.5), "words": 1.2, "cite": 1.1, "date": 1.0, "number": 0.8, "mark": 0.7}
    widths = ", ".join(f"{share[kind]:.2f}fr" for kind in kinds)
    return f"({0.35 if numbered else 1.1}fr, {widths})", head, rows, rng.choice(RULES)


def _facts(prose: Prose, width: float, room: float) -> Made:
    """Names and values two by two, as in forms, fact sheets and set-ups."""
    rng = prose.rng
    pairs, count = (rng.choice((1, 2, 2)) if width > 220 else 1), rng.choice((3, 4, 6, 8, 12))
    colon, bold = rng.choice(("", ":")), rng.choice(("*", "*", ""))
    rows = []
    for _ in range(count):
        row = []
        for _ in range(pairs):
            value = rng.choice((number(rng), prose.plain(rng.randint(1, 5)).capitalize(), prose.person(), ""))
            row += [f"[{bold}{prose.plain(rng.randint(1, 3)).capitalize()}{colon}{bold}]", f"[{value}]"]
        rows.append(row)
    widths = f"({', '.join(['1fr', f'{rng.uniform(1, 2.2):.2f}fr'] * pairs)})"
    return widths, (), rows, rng.choice(("full", "full", "rows", "none", "ends", "between"))


MAKERS = (
    _transcript, _transcript, _passages, _passages, _pairs, _pairs, _pairs, _answers, _glossary, _glossary, _register,
    _register, _register, _facts,
)  # fmt: skip


def prompt_box(prose: Prose) -> str:
    """Framed text such as a prompt or a dialogue, which papers caption as a table or as a figure."""
    rng = prose.rng
    mono = rng.random() < 0.35
    lines = []
    for _ in range(rng.randint(2, 9)):
        text = f"{prose.plain(rng.randint(5, 40)).capitalize()}."
        if rng.random() < 0.2:
            text = f"#text(fill: {rng.choice(TITLES)})[{text}]"
        if rng.random() < 0.12:
            text = f"#highlight(fill: {rng.choice(TINTS)})[{text}]"
        head = rng.choice(
            (f"*{rng.choice(SPEAKERS)}:* ", f"*\\#\\#\\# {rng.choice(SPEAKERS)}* ", "", f"{number(rng)}. ")
        )
        lines.append(head + text)
    tint = rng.choice((*TINTS, "white", "white", "white"))
    frame = (
        rng.choice(("0.5pt", "0.7pt", "none", "1pt + luma(120)")) if tint != "white" else rng.choice(("0.5pt", "0.8pt"))
    )
    radius = rng.choice((0, 0, 3, 5))
    font = '#set text(font: "DejaVu Sans Mono", size: 0.76em)\n' if mono else "#set text(size: 0.9em)\n"
    setup = "#set align(left)\n#set par(justify: false, first-line-indent: 0pt, leading: 0.5em, spacing: 0.75em)\n"
    setup += "#set block(spacing: 0.75em)\n"
    inner = f"block(width: 100%, inset: 6pt)[{setup}{font}{chr(10).join(line + chr(10) for line in lines)}]"
    if rng.random() < 0.4:
        title = f'text(fill: white, weight: "bold")[{prose.title(3)}]'
        inner = f"block(width: 100%, inset: 4pt, fill: {rng.choice(TITLES)}, align(left, {title})); {inner}"
    look = f"fill: {tint}, stroke: {frame}, radius: {radius}pt"
    return f"block(width: 100%, clip: true, {look}, {{ set block(spacing: 0pt); {inner} }})"
