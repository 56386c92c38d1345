"""The blocks of a paper that are neither text nor floats: equations, lists, algorithms, code, theorems, references."""

from __future__ import annotations

from random import Random

from .vocabulary import NAMES
from .words import Prose, acronym, invented

EQUATIONS = (
    r"cal(L)(theta) = -1/N sum_(i=1)^N log p_theta (y_i | x_i) + lambda norm(theta)_2^2",
    r"bold(h)_t = sigma(bold(W)_h bold(h)_(t-1) + bold(W)_x bold(x)_t + bold(b))",
    r"min_(theta in Theta) EE_(x ~ cal(D)) [ell(f_theta (x), y)]",
    r'"Attention"(Q, K, V) = "softmax"((Q K^top) / sqrt(d_k)) V',
    r"integral_0^infinity e^(-x^2) dif x = sqrt(pi)/2",
    r"partial u / (partial t) + (u dot nabla) u = -1/rho nabla p + nu nabla^2 u",
    r"p(x) = product_(t=1)^T p(x_t | x_(<t))",
    r'"KL"(q || p) = sum_z q(z) log q(z) / p(z) <= epsilon',
    r"mat(a_(1 1), dots, a_(1 n); dots.v, dots.down, dots.v; a_(m 1), dots, a_(m n)) vec(x_1, dots.v, x_n) = bold(b)",
    r'f(x) = cases(x^2 &"if" x > 0, 0 &"otherwise")',
    r"nabla_theta J(theta) = EE_(pi_theta) [sum_(t=0)^T nabla_theta log pi_theta (a_t | s_t) A_t]",
    r"H = -sum_(chevron.l i j chevron.r) J_(i j) sigma_i sigma_j - h sum_i sigma_i",
    r"&a = b + c \ &quad = d / e + integral_Omega f dif mu \ &quad <= C norm(f)_(L^2)",
    r"G(omega) = lim_(eta -> 0^+) 1 / (omega - epsilon_k + i eta)",
    r"R_(mu nu) - 1/2 R g_(mu nu) = (8 pi G) / c^4 T_(mu nu)",
    r'"score" = (2 dot "precision" dot "recall") / ("precision" + "recall")',
    r"hat(beta) = (X^top X + lambda I)^(-1) X^top y",
    r"PP(abs(1/n sum_(i=1)^n X_i - mu) >= t) <= 2 exp(- (2 n t^2) / (b - a)^2)",
)

NEEDS: tuple[tuple[str, ...], ...] = ((), ("Require",), ("Require", "Ensure"), ("Input", "Output"), ("Input",))
SHORT = (
    ("cal(L)_1", "=", "EE_(x ~ p) [log D(x)]"),
    ("f(x)", "<=", "sum_(k=1)^K alpha_k phi.alt_k (x) + C norm(x)^2"),
    ("", "=", "integral_Omega u nabla v dif x - integral_(partial Omega) g v dif s"),
    ("", "<=", "(1 - eta mu)^t norm(x_0 - x^*)^2 + sigma^2 / (mu n)"),
    ("bold(q)_i", "=", "bold(W)_q bold(x)_i, quad bold(k)_i = bold(W)_k bold(x)_i"),
    ("P(A | B)", "=", "(P(B | A) P(A)) / P(B)"),
    ("dot(x)", "=", "A x + B u"),
    ("", "=", "1/2 log det Sigma + 1/2 (x - mu)^top Sigma^(-1) (x - mu)"),
    ("E_0", "approx", "-13.6 thin upright(e V)"),
    ("", ">=", "max_(a in cal(A)) Q^pi (s, a) - epsilon"),
    ("nabla dot bold(B)", "=", "0"),
    ("beta_t", "=", "beta_(t-1) + gamma (r_t - hat(r)_t)"),
)


def equation(prose: Prose, *, number: int) -> tuple[str, float]:
    """Code of a display equation of one to six lines, numbered or not, and its rough height in points."""
    rng = prose.rng
    lines = rng.choice((1, 1, 1, 1, 2, 3, 6, 10))
    text = rng.choice(EQUATIONS)
    if lines > 1:
        rows = [rng.choice(SHORT) for _ in range(lines)]
        text = " \\ ".join(f"{left} &{sign} {right}" for left, sign, right in rows)
    how = f"numbering: n => [({number})], " if rng.random() < 0.6 else ""
    return f"math.equation(block: true, {how}$ {text} $.body)", 22.0 + 18 * lines


def authors(prose: Prose) -> str:
    """Markup of names and affiliations: a line of names, or a grid of names with address."""
    rng = prose.rng
    if rng.random() < 0.55:
        names = [f"{prose.person()}#super[{rng.randint(1, 3)}]" for _ in range(rng.choice((1, 2, 3, 4, 6, 9, 16)))]
        bold = "*" if rng.random() < 0.4 else ""
        places = " \\ ".join(f"#super[{k + 1}]{prose.place()}" for k in range(rng.randint(1, 3)))
        return f"{bold}{', '.join(names)}{bold} \\ {places}"
    columns = rng.choice((1, 2, 3, 4))
    mail = '#text(font: "DejaVu Sans Mono", size: 0.75em)'
    cells = [
        f"align(center)[*{prose.person()}* \\ {prose.place()} \\ {mail}[{invented(rng)}\\@{invented(rng)}.edu]]"
        for _ in range(columns * rng.choice((1, 1, 2)))
    ]
    return f"#grid(columns: (1fr,) * {columns}, row-gutter: 8pt, column-gutter: 6pt, {', '.join(cells)})"


def item_list(prose: Prose) -> str:
    """A bullet or numbered list, its items blank lines apart: Typst counts lines in paragraphs alone."""
    sign = prose.rng.choice(("- ", "- ", "+ "))
    items = [
        sign + prose.paragraph(prose.rng.choice((1, 1, 2))).replace("#footnote", "#hide")
        for _ in range(prose.rng.randint(2, 6))
    ]
    return "\n" + "\n\n".join(items)


def list_in_columns(prose: Prose) -> str:
    """Code of short items or terms in two to four columns, which is no table: nothing names it one."""
    rng, columns = prose.rng, prose.rng.choice((2, 2, 3, 4))
    longest, sign = max(10 // columns, 1), rng.choice(("• ", "• ", "-- ", "", "{}. ", "({}) "))
    terms = columns == 2 and rng.random() < 0.4
    cells = []
    for k in range(columns * rng.randint(3, 10)):
        text = prose.plain(rng.randint(1, longest)).capitalize()
        bold = "*" if terms and k % 2 == 0 else ""
        cells.append(f"[{'' if terms else sign.format(k + 1)}{bold}{text}{bold}]")
    widths = "(auto, 1fr)" if terms else f"(1fr,) * {columns}"
    look = f"column-gutter: 10pt, row-gutter: {rng.uniform(4, 9):.1f}pt, align: left"
    setup = "set par(first-line-indent: 0pt, justify: false)"
    return f"block(width: 100%, {{ {setup}; grid(columns: {widths}, {look}, {', '.join(cells)}) }})"


def contents(prose: Prose, rows: int = 12) -> str:
    """Code of a table of contents or a list of tables or figures: titles, leaders, page numbers."""
    rng, page, lines = prose.rng, 1, []
    kind = rng.choice(("", "", "Table ", "Figure "))
    leader = rng.choice(("repeat[. ]", "repeat[.#h(3pt)]", "h(1fr)", "line(length: 100%, stroke: 0.3pt)"))
    leader = f"box(width: 1fr, {leader})" if leader != "h(1fr)" else leader
    section, part = 0, 0
    for _ in range(rows):
        page += rng.randint(0, 6)
        top = section == 0 or rng.random() < 0.3
        section, part = (section + 1, 0) if top else (section, part + 1)
        number = f"{kind}{section}" + ("" if top and not kind else f".{part}")
        bold = "*" if top and not kind else ""
        name = prose.title(rng.randint(1, 7 if kind else 5))
        indent = 0 if top or kind else 14
        lines.append(f"[#h({indent}pt) {bold}{number} #h(6pt) {name}{bold} #{leader} {page}]")
    setup = "set par(first-line-indent: 0pt, justify: false)"
    grid = f"grid(columns: (1fr,), row-gutter: {rng.uniform(4, 9):.1f}pt, {', '.join(lines)})"
    return f"block(width: 100%, {{ {setup}; {grid} }})"


STEPS = (
    "$x_t <- f(x_(t-1))$", "*for* $i = 1, dots, n$ *do*", "*if* $a > b$ *then*", "*while* $norm(g) > epsilon$ *do*",
    "$theta <- theta - eta nabla cal(L)$", "*return* $theta$", "*end*", "*end*", "*else*", "Sample $z ~ cal(N)(0, I)$",
    "$cal(B) <- cal(B) union {(s_t, a_t, r_t)}$", "Compute $g_t$ with @eq by back-propagation",
)  # fmt: skip


def algorithm(prose: Prose) -> str:
    """Pseudo-code: numbered or bare steps between rules, in a frame, or with nothing round them."""
    rng = prose.rng
    steps, depth, numbered = [], 0, rng.random() < 0.75
    for k in range(rng.randint(4, 22)):
        step = (
            rng.choice(STEPS).replace(" with @eq", "")
            if rng.random() < 0.75
            else prose.plain(rng.randint(3, 9)).capitalize()
        )
        depth = max(depth - step.startswith(("*end", "*else")), 0)
        steps.append(f"{f'{k + 1}:' if numbered else ''} #h({depth * 10}pt) {step}")
        depth += step.startswith(("*for", "*if", "*while", "*else"))
    head = f"[*Algorithm {rng.randint(1, 4)}{rng.choice(('', ':'))}* {prose.plain(rng.randint(2, 8)).capitalize()}]"
    needs = [f"*{word}:* {prose.plain(rng.randint(2, 9))} $theta_0$, $eta$" for word in rng.choice(NEEDS)]
    body = f"[{' #linebreak() '.join(needs + steps)}]"
    look = rng.choice(("rules", "rules", "rules", "frame", "bare", "below"))
    rule = f"line(length: 100%, stroke: {rng.choice((0.5, 0.8, 1.0))}pt)"
    order = {"rules": (rule, head, rule, body, rule), "below": (rule, body, rule, head)}.get(look, (head, body))
    frame = "inset: 5pt, stroke: 0.6pt, " if look == "frame" else ""
    setup = "set par(justify: false, first-line-indent: 0pt, leading: 0.5em); set block(spacing: 4pt); set align(left)"
    return (
        f"block(width: 100%, {frame}{{ {setup}; set text(size: {rng.choice((0.85, 0.93, 1))}em); {'; '.join(order)} }})"
    )


def code(prose: Prose) -> str:
    """A listing in a typewriter font: on a grey ground, framed, between rules or bare; captioned now and then."""
    rng, lines = prose.rng, []
    for _ in range(rng.randint(3, 22)):
        a, b = invented(rng), invented(rng)
        line = rng.choice((
            f"def {a}({b}, n={rng.randint(1, 9)}):", f"    {a} = {b}.{invented(rng)}({rng.randint(0, 99)})",
            f"    return {a}", f"    for i in range({rng.randint(2, 99)}):", f"        {a} += {b}[i]", f"import {a}",
            f"# {prose.plain(4)}", "", f"  \"{a}\": \"{prose.plain(3)}\",",
        ))  # fmt: skip
        lines.append(line)
    text = "\n".join(lines)
    looks = ("fill: luma(243), inset: 6pt", "stroke: 0.5pt, inset: 6pt", "stroke: (left: 2pt + luma(180)), inset: 6pt",
             "stroke: (top: 0.6pt, bottom: 0.6pt), inset: (y: 5pt)", "inset: 0pt", "inset: (left: 12pt)")  # fmt: skip
    caption = f"[Listing {rng.randint(1, 5)}: {prose.plain(5).capitalize()}.]; " if rng.random() < 0.25 else ""
    raw = f"[#set par(justify: false, leading: 0.5em)\n```{rng.choice(('python', '', ''))}\n{text}\n```]"
    body = f"text(size: {rng.choice((0.75, 0.85, 0.95))}em){raw}"
    return f"{{ {caption}block(width: 100%, {rng.choice(looks)}, {body}) }}"


def theorem(prose: Prose) -> str:
    """A theorem-like environment or a framed remark."""
    rng = prose.rng
    kind = rng.choice(("Theorem", "Lemma", "Definition", "Proposition", "Remark", "Corollary", "Proof", "Takeaway"))
    text = " ".join(prose.sentence() for _ in range(rng.randint(1, 3)))
    head = f"*{kind} {rng.randint(1, 5)}.{rng.randint(1, 9)}.* "
    body = f"[{head}_{text}_]" if rng.random() < 0.5 else f"[{head}{text}]"
    if rng.random() < 0.35:
        fill = rng.choice(("luma(245)", "rgb(235,243,252)", "rgb(240,250,240)", "none"))
        frame = f"fill: {fill}, stroke: 0.6pt + luma(120), radius: {rng.choice((0, 3))}pt"
        return f"block(width: 100%, inset: 6pt, {frame}, {body})"
    return f"block(width: 100%, {body})"


def reference(prose: Prose, k: int) -> str:
    """One entry of the reference list."""
    rng = prose.rng
    people = ", ".join(_author(rng) for _ in range(rng.randint(1, 5)))
    pages = f"{rng.randint(1, 500)}--{rng.randint(501, 999)}"
    preprint = f"arXiv preprint arXiv:{rng.randint(1000, 2500)}.{rng.randint(1000, 19999)}"
    venues = (
        f"_Journal of {prose.title(2)}_",
        f"Proc. of {acronym(rng)}",
        preprint,
        f"In _{prose.title(4)}_, pages {pages}",
    )
    venue = rng.choice(venues)
    title = prose.plain(rng.randint(5, 13)).capitalize()
    year = rng.randint(1985, 2025)
    if prose.cite_style == "()":
        return f"#set par(first-line-indent: 0pt, hanging-indent: 10pt)\n{people}. {year}. {title}. {venue}."
    return f"#set par(first-line-indent: 0pt, hanging-indent: 16pt)\n\\[{k}\\] {people}. {title}. {venue}, {year}."


def _author(rng: Random) -> str:
    return f"{rng.choice('ABCDEFGHJKLMNPRSTVWXYZ')}. {rng.choice(NAMES)}"
