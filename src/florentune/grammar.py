"""Which token may follow: objects of a label and four locations, then the end; nothing malformed can be decoded.

    answer := <s> object* </s>
    object := label x1 y1 x2 y2            with x1 < x2 and y1 < y2, and no object twice

Labels are a closed set (a trie over their tokens), open (any text, and further boxes may follow one label, as
Florence-2 was pretrained to write), or absent (region proposals). Everything here is numpy and knows no framework.

Logits are read through `RegionGrammar.tokens`, the token ids that can ever be needed: column 0 is the end, then come
the tokens of labels, then the 1000 locations. An engine need not compute any other logit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import CheckpointError, GenerationError
from .locations import BINS, Bins, check_label

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Logits = NDArray[np.float32]

MAX_LABEL_TOKENS = 48
"""The longest label of an open set, in tokens; it bounds what a model that never stops can spend on one label."""

LOCAL_BINS = 8
"""How far from the chosen bin, in bins, probability still counts for it: 0.8 % of the page, about 14 pixels of 1700.

A model that sees a page in 576 or 768 pixels cannot tell neighbouring bins apart, so the share of one bin alone says
how finely it splits its belief, and not how sure it is of the place.
"""

RUNNER_UP = 0.001
"""The least probability of a label that came second for it to be kept."""

_END = 0
_RESERVED = frozenset("<>\n\r\x00")
_HUGE = 1e30


@dataclass(frozen=True, slots=True)
class Found:
    """One decoded object with the parts of its score.

    `label_probability`: the product, over the label's tokens, of each one's share among the tokens the grammar
    allowed there (another label, the end, the end of the label); a token without an alternative counts as 1.
    `location_probabilities`: the share, among all 1000 locations, of the bins within LOCAL_BINS of the chosen one, so a
    location that was only chosen because the order of corners ruled out a better one scores low; a location without an
    alternative counts as 1.
    `expected`: the mean position of each coordinate in bins, within LOCAL_BINS of the chosen one.
    """

    label: str
    bins: Bins
    label_probability: float
    location_probabilities: tuple[float, ...]
    expected: tuple[float, ...]

    @property
    def score(self) -> float:
        """Label probability times the geometric mean of the four location probabilities, before any calibration."""
        return float(self.label_probability * np.prod(self.location_probabilities) ** 0.25)


@dataclass(slots=True)
class _Node:
    """A place in the trie of labels: where each next token (a column) leads, and the label that may end here."""

    children: dict[int, _Node] = field(default_factory=dict)
    label: str | None = None


class RegionGrammar:
    """The tokens of a tokenizer that answers are made of, and the order they may come in.

    `labels` is a closed set of names, None for any text, or empty for boxes without a name. Raises CheckpointError
    when the tokenizer lacks a location or a label has no tokens, and InputError for a label that holds `<` or `>`.
    """

    def __init__(self, tokenizer: Tokenizer, labels: Iterable[str] | None) -> None:
        self.tokenizer = tokenizer
        self.start, self.end = (_token_id(tokenizer, name) for name in ("<s>", "</s>"))
        locations = [_token_id(tokenizer, f"<loc_{index}>") for index in range(BINS)]
        self.is_open = labels is None
        names = () if labels is None else tuple(dict.fromkeys(check_label(label) for label in labels))
        spelled = {name: tokenizer.encode(name, add_special_tokens=False).ids for name in names}
        words = (
            _text_tokens(tokenizer) if labels is None else sorted({token for ids in spelled.values() for token in ids})
        )
        self.tokens: NDArray[np.int64] = np.array([self.end, *words, *locations], dtype=np.int64)
        self.locations = slice(1 + len(words), 1 + len(words) + BINS)
        self.root = _trie(spelled, {token: column for column, token in enumerate(words, start=1)})
        self.first_labels = [_first_label(node) for node in self.root.children.values()]
        self.can_open = _opening(tokenizer, words) if labels is None else np.empty(0, np.int64)
        self.longest_label = 1 if labels is None else max((len(ids) for ids in spelled.values()), default=0)
        self.has_labels = self.is_open or bool(names)

    def walk(self, max_new_tokens: int) -> RegionWalk:
        """A walk that generates at most that many tokens, `<s>` and `</s>` included."""
        return RegionWalk(self, max_new_tokens)


class RegionWalk:
    """One answer in the making: takes the logits of the next token, chooses, and says what to feed the decoder.

    `ids` are the token ids generated so far, `<s>` first and `</s>` last once `done`; `found` the finished objects;
    `runners_up` the same boxes under each other label of a closed set that the model held possible there (labels their
    first token tells apart only, the others would need steps of their own).
    """

    def __init__(self, grammar: RegionGrammar, max_new_tokens: int) -> None:
        self.grammar = grammar
        self.ids = [grammar.start]
        self.found: list[Found] = []
        self.runners_up: list[Found] = []
        self.done = False
        self._limit = max_new_tokens
        self._node = grammar.root
        self._label_ids: list[int] = []
        self._label_probability = 1.0
        self._others: list[tuple[str, float]] = []
        self._bins: list[int] = []
        self._probabilities: list[float] = []
        self._expected: list[float] = []
        if not self._has_room():
            self._take_word(_END, 1.0)

    def advance(self, logits: Logits) -> list[int]:
        """Choose the next token from logits of shape (len(grammar.tokens),) and all that follow without a choice.

        Returns the chosen token ids, which the decoder must read next; none when the answer is complete. Raises
        GenerationError when a logit that matters is NaN; infinite ones are read as very large or small.
        """
        begin = len(self.ids)
        self._choose(logits)
        while not self.done and self._take_forced():
            pass
        return [] if self.done else self.ids[begin:]

    def _choose(self, logits: Logits) -> None:
        words = self._words()
        can_locate = self._can_locate()
        columns = self.grammar.locations
        word_weights, location_weights = _weights(
            logits[words], logits[columns] if can_locate else np.empty(0, np.float32)
        )
        word_mass, location_mass = float(word_weights.sum()), float(location_weights.sum())
        best = int(word_weights.argmax()) if len(words) else -1
        if can_locate and (best < 0 or location_mass >= word_weights[best]):
            # A label ends where all locations together outweigh the best way to go on with it.
            self._label_probability *= location_mass / (word_mass + location_mass)
            self._take_location(location_weights / location_mass)
        else:
            total = word_mass + location_mass
            if not self._label_ids:
                self._others = self._possible(word_weights / total, best)
            self._take_word(int(words[best]), float(word_weights[best]) / total)

    def _possible(self, shares: NDArray[np.float64], best: int) -> list[tuple[str, float]]:
        """The labels whose first token could stand here instead of the best word, with their probabilities.

        `shares` are those of `_words` at the root of the trie: the end, then its children. An open set has none.
        """
        return [
            (label, float(share))
            for at, (label, share) in enumerate(zip(self.grammar.first_labels, shares[1:], strict=False), start=1)
            if at != best and label is not None and share >= RUNNER_UP
        ]

    def _take_forced(self) -> bool:
        """Take the next token if the grammar leaves only one, and say whether it did."""
        words = self._words()
        if self._can_locate():
            low, high = self._range()
            if len(words) or high - low != 1:
                return False
            self._keep_location(low, 1.0, float(low))
            return True
        if len(words) != 1:
            return False
        self._take_word(int(words[0]), 1.0)
        return True

    def _words(self) -> NDArray[np.int64]:
        """The columns of the label tokens (and the end) that may follow."""
        grammar = self.grammar
        if self._bins:
            return np.empty(0, np.int64)
        if not grammar.is_open:
            ends = () if self._label_ids else (_END,)
            begins = self._node.children if self._label_ids or self._has_room() else ()
            return np.fromiter((*ends, *begins), np.int64)
        if not self._label_ids:
            return np.append(_END, grammar.can_open) if self._has_room() else np.array([_END])
        room = self._limit - len(self.ids) > 5 and len(self._label_ids) < MAX_LABEL_TOKENS
        return np.arange(1, grammar.locations.start) if room else np.empty(0, np.int64)

    def _can_locate(self) -> bool:
        grammar = self.grammar
        if self._bins:
            return True
        if not self._label_ids:
            another = grammar.is_open and bool(self.found)
            return (another or not grammar.has_labels) and self._has_room()
        return grammar.is_open or self._node.label is not None

    def _has_room(self) -> bool:
        """Whether a whole object and the end still fit."""
        return self._limit - len(self.ids) >= self.grammar.longest_label + 4 + 1

    def _range(self) -> tuple[int, int]:
        """The bins [low, high) that keep x1 < x2 and y1 < y2."""
        step = len(self._bins)
        return (0, BINS - 1) if step < 2 else (self._bins[step - 2] + 1, BINS)

    def _used_up(self) -> list[int]:
        """The bins that lead only to objects already found."""
        step, label = len(self._bins), self._current_label()
        same = (found.bins for found in self.found if found.label == label)
        counts = Counter(bins[step] for bins in same if list(bins[:step]) == self._bins)
        return [index for index, count in counts.items() if count >= self._capacity(step, index)]

    def _capacity(self, step: int, index: int) -> int:
        """How many different boxes begin with the bins so far followed by `index`."""
        last = BINS - 1
        if step == 3:
            return 1
        if step == 2:
            return last - self._bins[1]
        if step == 1:
            return (last - self._bins[0]) * (last - index)
        return (last - index) * last * BINS // 2

    def _current_label(self) -> str:
        """The name of the label just spelled, or that of the object before when only a further box follows."""
        if not self._label_ids:
            return self.found[-1].label if self.found else ""
        if self._node.label is not None:
            return self._node.label
        return (
            self.grammar.tokenizer.decode(self._label_ids, skip_special_tokens=False).strip()
            or "\N{REPLACEMENT CHARACTER}"
        )

    def _take_word(self, column: int, probability: float) -> None:
        token = int(self.grammar.tokens[column])
        self.ids.append(token)
        if column == _END:
            self.done = True
            return
        self._label_ids.append(token)
        self._label_probability *= probability
        if not self.grammar.is_open:
            self._node = self._node.children[column]

    def _take_location(self, probabilities: NDArray[np.float64]) -> None:
        low, high = self._range()
        allowed = probabilities.copy()
        allowed[:low] = -1.0
        allowed[high:] = -1.0
        allowed[self._used_up()] = -1.0
        best = int(allowed.argmax())
        self._keep_location(best, *_local(probabilities, best))

    def _keep_location(self, index: int, probability: float, expected: float) -> None:
        self.ids.append(int(self.grammar.tokens[self.grammar.locations.start + index]))
        self._bins.append(index)
        self._probabilities.append(probability)
        self._expected.append(expected)
        if len(self._bins) == 4:
            self._finish()

    def _finish(self) -> None:
        x1, y1, x2, y2 = self._bins
        self.found.append(
            Found(
                self._current_label(),
                (x1, y1, x2, y2),
                self._label_probability,
                tuple(self._probabilities),
                tuple(self._expected),
            )
        )
        self.runners_up += [replace(self.found[-1], label=name, label_probability=p) for name, p in self._others]
        self._node, self._label_ids, self._label_probability = self.grammar.root, [], 1.0
        self._bins, self._probabilities, self._expected = [], [], []


def _weights(words: Logits, locations: Logits) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """exp(logit - largest) of both groups, safe for huge and infinite logits."""
    together = np.concatenate((words, locations)).astype(np.float64)
    if np.isnan(together).any():
        raise GenerationError("the model's logits are NaN: its weights are damaged or its numbers overflowed")
    np.clip(together, -_HUGE, _HUGE, out=together)
    weights = np.exp(together - together.max())
    return weights[: len(words)], weights[len(words) :]


def _local(probabilities: NDArray[np.float64], best: int) -> tuple[float, float]:
    """The probability within LOCAL_BINS of a bin, and the mean position there."""
    low, high = max(best - LOCAL_BINS, 0), min(best + LOCAL_BINS + 1, BINS)
    window = probabilities[low:high]
    total = float(window.sum())
    mean = float(window @ np.arange(low, high)) / total if total > 0 else float(best)
    return min(total, 1.0), min(max(mean, low), high - 1.0)


def _token_id(tokenizer: Tokenizer, name: str) -> int:
    found = tokenizer.token_to_id(name)
    if found is None:
        raise CheckpointError(f"the tokenizer has no token {name}: it is not a Florence-2 tokenizer")
    return int(found)


def _first_label(node: _Node) -> str | None:
    """The label that every way on from here spells first; None where ways part before one ends."""
    while node.label is None and len(node.children) == 1:
        (node,) = node.children.values()
    return node.label


def _trie(spelled: dict[str, list[int]], columns: dict[int, int]) -> _Node:
    root = _Node()
    for name, ids in spelled.items():
        if not ids:
            raise CheckpointError(f"the tokenizer has no tokens for the label {name!r}")
        node = root
        for token in ids:
            node = node.children.setdefault(columns[token], _Node())
        node.label = name
    return root


def _text_tokens(tokenizer: Tokenizer) -> list[int]:
    """All tokens of plain text: no added token and none that holds a sign the answer's grammar reserves."""
    added = set(tokenizer.get_added_tokens_decoder())
    ids = [token for token in sorted(tokenizer.get_vocab().values()) if token not in added]
    texts = tokenizer.decode_batch([[token] for token in ids], skip_special_tokens=False)
    return [token for token, text in zip(ids, texts, strict=True) if text and not _RESERVED & set(text)]


def _opening(tokenizer: Tokenizer, words: list[int]) -> NDArray[np.int64]:
    """The columns of text tokens that hold something visible, so that every label does."""
    texts = tokenizer.decode_batch([[token] for token in words], skip_special_tokens=False)
    return np.array([column for column, text in enumerate(texts, start=1) if text.strip()], dtype=np.int64)
