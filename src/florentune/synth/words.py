"""English that looks like a paper's: templates filled from a vocabulary, with invented words from a letter model.

Every function takes the paper's own `random.Random`, so that one seed gives one text. Text is Typst markup.
"""

from __future__ import annotations

import re
from functools import cache
from random import Random

from .vocabulary import ADJECTIVES, ADVERBS, FIRST, LINKS, NAMES, NOUNS, PLACES, SYMBOLS, TEMPLATES, VERBS


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
        if sign == "C":
            return self.citation()
        return rng.choice(VERBS if sign == "V" else ADVERBS) if sign in "VD" else number(rng)

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

    def _plain_slot(self, sign: str) -> str:
        if sign == "C":
            return ""
        if sign == "M":
            return self.rng.choice(NOUNS)
        return f"Section {self.rng.randint(1, 9)}" if sign == "R" else self._slot(sign)

    def plain_sentence(self) -> str:
        """A sentence without any markup: its text is what a reader of the page sees."""
        template = self.rng.choice(TEMPLATES)
        text = re.sub(r"\b[NAVDCRM]\b|#", lambda slot: self._plain_slot(slot[0]), template)
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
