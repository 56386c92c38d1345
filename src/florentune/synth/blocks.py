"""The blocks of a paper that are neither text nor floats: equations, lists, algorithms, code, theorems, references."""

from __future__ import annotations

from random import Random

from .words import NAMES, Prose, acronym, invented

EQUATIONS = (
    r"cal(L)(theta) = -1/N sum_(i=1)^N log p_theta (y_i | x_i) + lambda norm(theta)_2^2",
    r"bold(h)_t = sigma(bold(W)_h bold(h)_(t-1) + bold(W)_x bold(x)_t + bold(b))",
    r"min_(theta in Theta) EE_(x ~ cal(D)) [ell(f_theta (x), y)]",
    r'"Attention"(Q, K, V) = "softmax"((Q K^top) / sqrt(d_k)) V',
    r"integral_0^infinity e^(-x^2) dif x = sqrt(pi)/2",
    r"partial u / (partial t) + (u dot nabla) u = -1/rho nabla p + nu nabla^2 u",
    r"p(x) = product_(t=1)^T p(x_t | x_(<t))",
    r'"KL"(q || p) = sum_z q(z) log q(z) / p(z) <= epsilon',
    r"mat(a_(1 1), a_(1 2), dots, a_(1 n); a_(2 1), a_(2 2), dots, a_(2 n); dots.v, dots.v, dots.down, dots.v; a_(m 1), a_(m 2), dots, a_(m n)) vec(x_1, x_2, dots.v, x_n) = bold(b)",
    r"f(x) = cases(x^2 &\"if\" x > 0, 0 &\"otherwise\")".replace('\\"', '"'),
    r"nabla_theta J(theta) = EE_(pi_theta) [sum_(t=0)^T nabla_theta log pi_theta (a_t | s_t) A_t]",
    r"H = -sum_(chevron.l i j chevron.r) J_(i j) sigma_i sigma_j - h sum_i sigma_i",
    r"&a = b + c \ &quad = d / e + integral_Omega f dif mu \ &quad <= C norm(f)_(L^2)",
    r"G(omega) = lim_(eta -> 0^+) 1 / (omega - epsilon_k + i eta)",
    r"R_(mu nu) - 1/2 R g_(mu nu) = (8 pi G) / c^4 T_(mu nu)",
    r'"score" = (2 dot "precision" dot "recall") / ("precision" + "recall")',
    r"hat(beta) = (X^top X + lambda I)^(-1) X^top y",
    r"PP(abs(1/n sum_(i=1)^n X_i - mu) >= t) <= 2 exp(- (2 n t^2) / (b - a)^2)",
)

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
    lines = rng.choice((1, 1, 1, 1, 2, 3, 6))
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
    """A bullet or numbered list."""
    sign = prose.rng.choice(("- ", "- ", "+ "))
    items = [
        sign + prose.paragraph(prose.rng.choice((1, 1, 2))).replace("#footnote", "#hide")
        for _ in range(prose.rng.randint(2, 6))
    ]
    return "\n" + "\n".join(items)


def algorithm(prose: Prose) -> str:
    """An algorithm float: rules, numbered steps with indentation, maybe no box."""
    rng = prose.rng
    steps, depth = [], 0
    for k in range(rng.randint(5, 16)):
        step = rng.choice((
            f"$x_t <- f(x_(t-1))$ \\ ", f"*for* $i = 1, dots, n$ *do* \\ ", f"*if* $a > b$ *then* \\ ", f"{prose.plain(rng.randint(3, 7))} \\ ",
            f"$theta <- theta - eta nabla cal(L)$ \\ ", f"*return* $theta$ \\ ", "*end* \\ ",
        ))  # fmt: skip
        depth = max(depth - step.startswith("*end"), 0)
        steps.append(f"{k + 1}: #h({depth * 10}pt) {step}")
        depth += step.startswith(("*for", "*if"))
    head = f"*Algorithm {rng.randint(1, 4)}* {prose.plain(rng.randint(3, 7)).capitalize()}"
    rule = "line(length: 100%, stroke: 0.7pt)"
    body = f"align(left)[{''.join(steps)}]"
    need = f"[*Require:* {prose.plain(5)} $theta_0$, $eta$]"
    return f"block(width: 100%, {{ set par(justify: false, first-line-indent: 0pt, leading: 0.5em); set block(spacing: 4pt); set text(size: 0.93em); {rule}; [{head}]; {rule}; {need}; {body}; {rule} }})"


def code(prose: Prose) -> str:
    """A listing in a typewriter font, on a grey ground or framed or bare."""
    rng, lines = prose.rng, []
    for _ in range(rng.randint(4, 14)):
        a, b = invented(rng), invented(rng)
        lines.append(rng.choice((
            f"def {a}({b}, n={rng.randint(1, 9)}):", f"    {a} = {b}.{invented(rng)}({rng.randint(0, 99)})", f"    return {a}",
            f"    for i in range({rng.randint(2, 99)}):", f"        {a} += {b}[i]", f"import {a}", f"# {prose.plain(4)}", "",
        )))  # fmt: skip
    text = "\n".join(lines)
    look = rng.choice(("fill: luma(243)", "stroke: 0.5pt", "stroke: (left: 2pt + luma(180))", "inset: 0pt"))
    lang = "python" if rng.random() < 0.6 else ""
    return f"block(width: 100%, {look + ',' if 'inset' in look else look + ', inset: 6pt,'} text(size: 0.85em)[#set par(justify: false)\n```{lang}\n{text}\n```])"


def theorem(prose: Prose) -> str:
    """A theorem-like environment or a framed remark."""
    rng = prose.rng
    kind = rng.choice(("Theorem", "Lemma", "Definition", "Proposition", "Remark", "Corollary", "Proof", "Takeaway"))
    text = " ".join(prose.sentence() for _ in range(rng.randint(1, 3)))
    head = f"*{kind} {rng.randint(1, 5)}.{rng.randint(1, 9)}.* "
    body = f"[{head}_{text}_]" if rng.random() < 0.5 else f"[{head}{text}]"
    if rng.random() < 0.35:
        fill = rng.choice(("luma(245)", "rgb(235,243,252)", "rgb(240,250,240)", "none"))
        return f"block(width: 100%, inset: 6pt, fill: {fill}, stroke: 0.6pt + luma(120), radius: {rng.choice((0, 3))}pt, {body})"
    return f"block(width: 100%, {body})"


def reference(prose: Prose, k: int) -> str:
    """One entry of the reference list."""
    rng = prose.rng
    people = ", ".join(_author(rng) for _ in range(rng.randint(1, 5)))
    venue = rng.choice(
        (
            f"Journal of {prose.title(2)}",
            f"Proc. of {acronym(rng)}",
            f"arXiv preprint arXiv:{rng.randint(1000, 2500)}.{rng.randint(1000, 19999)}",
            f"In _{prose.title(4)}_, pages {rng.randint(1, 500)}--{rng.randint(501, 999)}",
        )
    )
    title = prose.plain(rng.randint(5, 13)).capitalize()
    year = rng.randint(1985, 2025)
    if prose.cite_style == "()":
        return f"#set par(first-line-indent: 0pt, hanging-indent: 10pt)\n{people}. {year}. {title}. {venue}."
    return f"#set par(first-line-indent: 0pt, hanging-indent: 16pt)\n\\[{k}\\] {people}. {title}. {venue}, {year}."


def _author(rng: Random) -> str:
    return f"{rng.choice('ABCDEFGHJKLMNPRSTVWXYZ')}. {rng.choice(NAMES)}"
