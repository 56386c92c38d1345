"""English that looks like a paper's: templates filled from a vocabulary, with invented words from a letter model.

Every function takes the paper's own `random.Random`, so that one seed gives one text. Text is Typst markup.
"""

from __future__ import annotations

import re
from functools import cache
from random import Random

NOUNS = """model network layer method approach data set benchmark task image feature representation attention token
sequence gradient loss objective baseline encoder decoder prompt agent policy reward state graph node edge kernel
sample distribution variance prior posterior estimator bound theorem proof algorithm system framework pipeline
module parameter weight embedding query document language corpus sentence word translation speech signal frequency
domain shift error accuracy precision recall score metric evaluation experiment ablation result performance cost
budget latency memory throughput hardware cluster training inference fine-tuning pre-training optimisation schedule
temperature field particle galaxy spectrum detector photon electron lattice phase transition energy surface boundary
flow turbulence pressure velocity cell protein gene sequence patient cohort trial treatment outcome survey market
price agent household region country climate ocean rainfall sensor robot trajectory controller camera scene object
mask depth pose shape texture resolution patch vocabulary dialogue user preference annotation label class cluster
hypothesis assumption condition constraint equation matrix vector tensor manifold operator function space measure
simulation architecture convolution backbone head block residual channel dropout batch epoch seed checkpoint
knowledge reasoning chain step answer question context window retrieval passage index memory tool code program
generation diffusion noise score sampler guidance likelihood entropy divergence mixture component expert router
compression quantization pruning sparsity bit rank subspace projection basis coefficient threshold margin""".split()
ADJECTIVES = """large small deep shallow robust efficient sparse dense linear nonlinear stochastic deterministic
convex smooth local global hierarchical recurrent convolutional pretrained supervised unsupervised multimodal visual
textual temporal spatial causal optimal approximate exact novel simple strong weak consistent significant relevant
available recent previous different similar common standard popular complex challenging diverse synthetic real
high-dimensional low-rank end-to-end fine-grained long-range zero-shot few-shot open-source domain-specific
state-of-the-art task-agnostic magnetic thermal periodic chiral stellar clinical genetic empirical theoretical""".split()
VERBS = """propose introduce present develop evaluate compare analyse study investigate demonstrate show observe find
derive prove estimate compute train optimise learn extend generalise improve outperform reduce increase leverage
exploit combine integrate sample select filter measure report describe consider define adopt follow apply employ
construct design build collect annotate release""".split()
ADVERBS = """significantly substantially consistently slightly notably typically generally jointly independently
effectively efficiently directly empirically theoretically previously recently further also often carefully""".split()
LINKS = """However Moreover Furthermore In-addition Consequently Therefore Specifically In-particular For-example
By-contrast Intuitively Note-that Finally First Second Similarly As-a-result Hence Interestingly Empirically""".split()
NAMES = """Adams Baker Chen Wang Zhang Li Liu Kumar Singh Gupta Tanaka Suzuki Kim Park Lee Nguyen Tran Garcia Lopez
Silva Santos Rossi Bianchi Muller Schmidt Weber Dubois Martin Novak Kowalski Ivanov Petrov Johnson Smith Brown Davis
Wilson Taylor Clark Hall Young King Wright Scott Green Hill Yamada Sato Cohen Levy Hassan Ali Khan Rahman Olsen Berg
Larsen Virtanen Papadopoulos Yilmaz Okafor Mensah Abebe Fischer Huang Zhao Wu Zhou Xu Sun Hu Guo He Lin Luo""".split()
FIRST = """Anna Ben Carlos Dina Elena Feng Grace Hiro Ivan Jia Kenji Laura Marco Nina Omar Priya Qing Rosa Sven Tara
Uma Victor Wei Xin Yuki Zoe Alex Bo Chloe David Emma Felix Hannah Igor Julia Kevin Linh Maria Noah Olga Paul Ravi Sara
Thomas Yang Yu Jun Min Hao""".split()
PLACES = """University of Northfield|Institute for Advanced Computing|Eastlake University|National Laboratory of Physics
|Department of Computer Science, Rivertown University|School of Engineering, Westbrook|Orion Research|Meridian AI
|Max Huber Institute|Technical University of Lakeside|Kestrel Labs|College of Information, Southgate University
|Center for Data Science, Hillcrest|Faculty of Mathematics, Elm University""".replace("\n", "").split("|")
SYMBOLS = r"""$x_i$|$theta$|$alpha$|$beta in RR^d$|$f(x)$|$cal(L)$|$p(y bar.v x)$|$bold(W)$|$O(n log n)$|$k = 5$|$lambda$
|$epsilon > 0$|$sigma^2$|$bold(h)_t$|$n times d$|$eta = 10^(-4)$|$hat(y)$|$cal(D)$|$phi.alt(x)$|$T = 0.7$|$EE[X]$|$delta_(i j)$
|$s_t$|$a_t$|$pi_theta$|$q_phi (z bar.v x)$|$nabla_theta cal(L)$|$Omega$|$mu$|$G = (V, E)$|$m_chi$|$tau$|$ell_2$|$d_k$|$N$|$K$""".replace(
    "\n", ""
).split("|")
TEMPLATES = """We V a A N that D improves the N of A N|The N of the N is A and depends on the A N|Our N D V the N by
 using a A N with A N|A N are A in A N, which makes the N of N A|In this N, we V the A N between N and N C|To V the N,
 we V a N with M A N|Previous work V the N of N C, but the A N remains A|The A N D outperforms the N by # points on
 the N N|When the N is A, the N of M is A and the N D decreases|This N is A because the N of each N is A|We V M as
 the N of the N, where M is the A N|It is A to V the N without A N or A N C|Given a N M, the N is to V the A N of
 the N|As shown in R, the A N D V the N by # % over the A N|There are # N in the N, with # A N for each N|The results
 in R V that A N are A for A N|We use the N of C with a N of # and a A N of #|Each N is V into A N, and the N is A
|Let M be the A N and let M denote the N of N|Both N and N are A when the N is V by the N|These N suggest that A N
 V the N of A N even if the N is A|While A N can V the N, they D V A N at the N of N|For all N, we V the N N and
 V the N D|Following C, we D V the N with # N and a N of size #|The N between M and M gives the A N of the N""".replace(
    "\n", ""
).split("|")


@cache
def _letter_model() -> dict[str, str]:
    """Two letters -> every letter that follows them in the vocabulary (with repeats, so choice keeps frequency)."""
    model: dict[str, str] = {}
    for word in NOUNS + ADJECTIVES + VERBS:
        padded = f"^^{re.sub('[^a-z]', '', word)}$"
        for at in range(len(padded) - 2):
            model[padded[at : at + 2]] = model.get(padded[at : at + 2], "") + padded[at + 2]
    return model


def invented(rng: Random) -> str:
    """A pseudo-word of 3 to 12 letters with the letter statistics of the vocabulary."""
    model = _letter_model()
    word = "^^"
    while not word.endswith("$"):
        word += rng.choice(model[word[-2:]])
    word = word.strip("^$")
    return word if 3 <= len(word) <= 12 else invented(rng)


def number(rng: Random) -> str:
    """A number as papers write them: integer, decimal, percentage or with thousands."""
    kind = rng.randrange(4)
    if kind == 0:
        return str(rng.choice((2, 3, 4, 5, 8, 10, 16, 32, 64, 100, 128, 256, 512, 1000)))
    if kind == 1:
        return f"{rng.uniform(0, 100):.{rng.choice((1, 2))}f}"
    return f"{rng.randrange(1, 99)}" if kind == 2 else f"{rng.randrange(1, 99)},{rng.randrange(1000):03d}"


def acronym(rng: Random) -> str:
    """A method's name: BERT-like capitals, CamelCase or a word with a number."""
    kind = rng.randrange(4)
    word = invented(rng)
    if kind == 0:
        return "".join(rng.choice("ABCDEFGHILMNOPRSTUV") for _ in range(rng.randint(2, 5)))
    if kind == 1:
        return word.capitalize() + rng.choice(("Net", "Former", "GPT", "LM", "CL", "RL", "Bench", "VAE"))
    if kind == 2:
        return f"{word.capitalize()}-{rng.choice(('7B', '13B', 'v2', 'XL', '101', 'base', 'large', '3.5'))}"
    return word.capitalize()


class Prose:
    """One paper's language: its share of invented words, citation style, and how often it uses mathematics."""

    def __init__(self, rng: Random, *, cite: str = "") -> None:
        self.rng = rng
        self.invention = rng.choice((0.03, 0.08, 0.15, 0.3))
        self.mathematics = rng.choice((0.02, 0.06, 0.15))
        self.cite_style = cite or rng.choice(("[]", "()", "^"))
        self.link_colour = rng.choice(("", "", "rgb(0,0,150)", "rgb(0,130,0)", "rgb(30,80,200)"))
        self.terms = [acronym(rng) for _ in range(12)]

    def _coloured(self, text: str) -> str:
        return f"#text(fill:{self.link_colour})[{text}]" if self.link_colour else text

    def citation(self) -> str:
        """A citation in the paper's style, as markup."""
        rng = self.rng
        if self.cite_style == "()":
            year = str(rng.randint(1998, 2025)) + rng.choice(("", "", "a", "b"))
            several = rng.choice((" et al.", "", f" and {rng.choice(NAMES)}"))
            return self._coloured(f"({rng.choice(NAMES)}{several}, {year})")
        numbers = ", ".join(str(n) for n in sorted({rng.randint(1, 80) for _ in range(rng.choice((1, 1, 2, 3)))}))
        return self._coloured(f"#super[{numbers}]" if self.cite_style == "^" else f"\\[{numbers}\\]")

    def _slot(self, sign: str) -> str:
        rng = self.rng
        if sign == "N":
            if rng.random() < self.invention:
                return rng.choice((invented(rng), rng.choice(self.terms)))
            return rng.choice(NOUNS) + rng.choice(("", "", "", "s"))
        if sign == "A":
            return invented(rng) if rng.random() < self.invention / 2 else rng.choice(ADJECTIVES)
        if sign == "R":
            return self._coloured(f"{rng.choice(('Figure', 'Table', 'Section', 'Fig.', 'Tab.'))}~{rng.randint(1, 9)}")
        if sign == "M":
            return rng.choice(SYMBOLS) if rng.random() < self.mathematics * 5 else f"the {rng.choice(NOUNS)}"
        return {"V": lambda: rng.choice(VERBS), "D": lambda: rng.choice(ADVERBS), "C": self.citation}.get(
            sign, lambda: number(rng)
        )()

    def _filled(self, template: str) -> str:
        return re.sub(r"\b[NAVDCRM]\b|#", lambda slot: self._slot(slot[0]), template)

    def sentence(self) -> str:
        """One sentence of about 8 to 40 words with its full stop, as markup."""
        rng = self.rng
        text = self._filled(rng.choice(TEMPLATES))
        if rng.random() < 0.3:
            second = self._filled(rng.choice(TEMPLATES))
            text += rng.choice((", and ", "; ", ", while ", ", where ")) + second[0].lower() + second[1:]
        text = text[0].upper() + text[1:]
        if rng.random() < 0.25:
            text = f"{rng.choice(LINKS).replace('-', ' ')}, {text[0].lower() + text[1:]}"
        if rng.random() < self.mathematics:
            text += f" for {rng.choice(SYMBOLS)}"
        if rng.random() < 0.06:
            text += f" ({self.plain(rng.randint(2, 6))})"
        return text + rng.choice((".", ".", ".", f" {self.citation()}."))

    def plain_sentence(self) -> str:
        """A sentence without any markup: its text is what a reader of the page sees."""
        rng, text = self.rng, self.rng.choice(TEMPLATES)
        words = {"C": lambda: "", "M": lambda: rng.choice(NOUNS), "R": lambda: f"Section {rng.randint(1, 9)}"}
        text = re.sub(r"\b[NAVDCRM]\b|#", lambda slot: words.get(slot[0], lambda: self._slot(slot[0]))(), text)
        return re.sub(r"\s+", " ", text[0].upper() + text[1:]).strip() + "."

    def paragraph(self, sentences: int = 0) -> str:
        """Several sentences; now and then a bold or italic run-in head."""
        rng = self.rng
        text = " ".join(self.sentence() for _ in range(sentences or rng.choice((2, 3, 4, 4, 5, 6, 8))))
        if rng.random() < 0.04:
            text += f"#footnote[{self.plain(rng.randint(4, 22)).capitalize()}.]"
        return text

    def plain(self, words: int) -> str:
        """Some words without a sentence's structure, safe in any context (labels, cells, captions)."""
        rng = self.rng
        chosen = []
        for _ in range(words):
            kind = rng.random()
            if kind < self.invention:
                chosen.append(invented(rng))
            elif kind < 0.3:
                chosen.append(rng.choice(("of", "the", "and", "for", "in", "with", "on", "a", "to", "by")))
            else:
                chosen.append(rng.choice(NOUNS if kind < 0.75 else ADJECTIVES))
        return " ".join(chosen)

    def heading(self) -> str:
        """A section's title in title case."""
        fixed = "Introduction|Related Work|Background|Method|Experiments|Results|Discussion|Conclusion|Limitations"
        if self.rng.random() < 0.35:
            return self.rng.choice(fixed.split("|"))
        return self.title(self.rng.choice((1, 2, 2, 3, 4, 6)))

    def title(self, words: int) -> str:
        """Some words in title case."""
        return " ".join(
            word if word in ("of", "the", "and") else word.capitalize() for word in self.plain(words).split()
        )

    def person(self) -> str:
        """A full name."""
        middle = f" {self.rng.choice('ABCDEFGHJKLMNPRSTW')}." if self.rng.random() < 0.2 else ""
        return f"{self.rng.choice(FIRST)}{middle} {self.rng.choice(NAMES)}"

    def place(self) -> str:
        """An affiliation."""
        return self.rng.choice(PLACES)
