"""Whatever the logits, a walk ends with a well-formed answer or a GenerationError."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florentune.engines.decode import FreeWalk, decode
from florentune.errors import CheckpointError, GenerationError, InputError
from florentune.grammar import MAX_LABEL_TOKENS, RegionGrammar
from tiny_model import tiny_tokenizer

SETS = {
    "two": ("table", "figure"),
    "one": ("table",),
    "prefixes": ("table", "table caption", "table caption note", "figure"),
    "none": (),
    "open": None,
}


@functools.cache
def grammar(name):
    return RegionGrammar(tiny_tokenizer(), SETS[name])


def lead(walk, logits_of, steps=2000):
    """Advance a walk to its end with logits_of(step)."""
    for step in range(steps):
        if walk.done:
            return walk
        walk.advance(logits_of(step))
    raise AssertionError("the walk does not end")


def check(walk, labels, limit):
    """Read the ids back independently of the walk and compare them with what it found."""
    tokenizer = tiny_tokenizer()
    first = tokenizer.token_to_id("<loc_0>")
    assert walk.ids[0] == tokenizer.token_to_id("<s>")
    assert walk.ids[-1] == tokenizer.token_to_id("</s>")
    assert len(walk.ids) <= limit
    objects, words, bins = [], [], []
    for token in walk.ids[1:-1]:
        if first <= token < first + 1000:
            bins.append(token - first)
        else:
            assert not bins, "a label begins inside a box"
            words.append(token)
        if len(bins) == 4:
            spelled = tokenizer.decode(words, skip_special_tokens=False).strip()
            label = spelled if words or not objects else objects[-1][0]
            objects.append((label, tuple(bins)))
            words, bins = [], []
    assert not words
    assert not bins
    assert [(found.label, found.bins) for found in walk.found] == objects
    assert len(set(objects)) == len(objects), "an object twice"
    for found in walk.found:
        x1, y1, x2, y2 = found.bins
        assert 0 <= x1 < x2 <= 999
        assert 0 <= y1 < y2 <= 999
        assert found.label in labels if labels else not any(sign in found.label for sign in "<>\n")
        assert bool(found.label.strip()) == (labels != ())
        assert 0.0 <= found.score <= 1.0
        assert all(abs(at - index) <= 8 for at, index in zip(found.expected, found.bins, strict=True))


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(sorted(SETS)),
    st.integers(2, 90),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["normal", "peaked", "equal", "huge", "infinite", "lowest", "no end"]),
)
def test_any_finite_or_infinite_logits_give_a_valid_answer(name, limit, seed, kind):
    rules, generator = grammar(name), np.random.default_rng(seed)
    count = len(rules.tokens)

    def logits(step):
        noise = generator.normal(size=count).astype(np.float32)
        if kind == "peaked":
            return noise * 1e4
        if kind == "equal":
            return np.zeros(count, np.float32)
        if kind == "huge":
            return np.clip(noise, -3, 3) * np.float32(1e38)
        if kind == "infinite":
            return np.where(noise > 1.0, np.inf, np.where(noise < 0, -np.inf, noise)).astype(np.float32)
        if kind == "lowest":
            return np.full(count, -np.inf, np.float32)
        if kind == "no end":
            noise[0] = -np.inf
        return noise

    check(lead(rules.walk(limit), logits), SETS[name], limit)


@pytest.mark.parametrize("name", SETS)
def test_nan_is_an_error(name):
    rules = grammar(name)
    with pytest.raises(GenerationError, match="NaN"):
        rules.walk(40).advance(np.full(len(rules.tokens), np.nan, np.float32))


def logits_for(rules, *columns):
    """Logits that want these columns, the first most."""
    wanted = np.zeros(len(rules.tokens), np.float32)
    for rank, column in enumerate(columns):
        wanted[column] = 50.0 - rank
    return wanted


def test_tokens_without_a_choice_are_returned_together():
    rules = grammar("two")
    walk = rules.walk(40)
    spelled = tiny_tokenizer().encode("figure", add_special_tokens=False).ids
    column = int(np.flatnonzero(rules.tokens == spelled[0])[0])
    assert walk.advance(logits_for(rules, column)) == spelled
    first = rules.locations.start
    walk.advance(logits_for(rules, first + 998))
    fed = walk.advance(logits_for(rules, first + 998))
    assert len(fed) == 3, "x1 = y1 = 998 leave only 999 for x2 and y2"
    assert walk.found[0].bins == (998, 998, 999, 999)
    assert walk.found[0].location_probabilities[2:] == (1.0, 1.0)


def test_the_same_object_is_not_written_twice():
    rules = grammar("one")
    walk = rules.walk(200)
    first, label = rules.locations.start, 1
    boxes = []
    while len(boxes) < 3:
        for column in (label, first + 998, first + 997):
            walk.advance(logits_for(rules, column))
        if not walk.done and len(walk.found) == len(boxes):
            walk.advance(logits_for(rules, first + 998))
        boxes.append(walk.found[-1].bins)
    assert boxes[:2] == [(998, 997, 999, 998), (998, 997, 999, 999)]
    assert boxes[2] != boxes[0]
    assert boxes[2] != boxes[1]


def test_an_object_that_does_not_fit_is_not_begun():
    rules = grammar("two")
    needed = 1 + rules.longest_label + 4 + 1
    noise = np.random.default_rng(0).normal(size=len(rules.tokens)).astype(np.float32)
    noise[0] = -1e9
    assert lead(rules.walk(needed - 1), lambda step: noise).found == []
    assert len(lead(rules.walk(needed), lambda step: noise).found) == 1


def test_a_label_ends_where_the_locations_together_outweigh_going_on():
    rules = grammar("prefixes")
    walk = rules.walk(60)
    spelled = tiny_tokenizer().encode("table", add_special_tokens=False).ids
    column = int(np.flatnonzero(rules.tokens == spelled[0])[0])
    walk.advance(logits_for(rules, column))
    flat = np.full(len(rules.tokens), 0.0, np.float32)
    flat[1 : rules.locations.start] = 2.0  # each word beats each location, but not all 1000 together
    walk.advance(flat)
    lead(walk, lambda step: flat)
    assert walk.found[0].label == "table"


def test_scores_are_label_times_geometric_mean_of_locations():
    rules = grammar("two")
    walk = rules.walk(40)
    choice = np.full(len(rules.tokens), -1e9, np.float32)
    table = tiny_tokenizer().encode("table", add_special_tokens=False).ids[0]
    choice[int(np.flatnonzero(rules.tokens == table)[0])] = np.log(3.0)
    choice[0] = 0.0  # the end has a quarter of the probability
    walk.advance(choice)
    for _ in range(4):
        walk.advance(np.zeros(len(rules.tokens), np.float32))
    assert walk.found[0].label_probability == pytest.approx(0.75)
    assert walk.found[0].location_probabilities == pytest.approx([0.009, 0.009, 0.01, 0.01])  # bins 0 to 8 and 0 to 9
    assert walk.found[0].score == pytest.approx(0.75 * (0.009 * 0.01) ** 0.5)


def test_expected_position_is_the_mean_round_the_best_bin():
    rules = grammar("none")
    walk = rules.walk(40)
    first = rules.locations.start
    wanted = np.full(len(rules.tokens), -40.0, np.float32)
    wanted[first + 100], wanted[first + 101], wanted[first + 500] = 5.0, 5.0, 4.9
    walk.advance(wanted)
    for column in (first + 100, first + 200, first + 200):
        walk.advance(logits_for(rules, column))
    assert walk.found[0].expected[0] == pytest.approx(100.5, abs=1e-3)


def test_open_labels_are_bounded_and_visible():
    rules = grammar("open")
    text = np.zeros(len(rules.tokens), np.float32)
    text[1 : rules.locations.start] = 50.0
    walk = lead(rules.walk(127), lambda step: text)
    check(walk, None, 127)
    tokenizer = tiny_tokenizer()
    words = tokenizer.encode(walk.found[0].label, add_special_tokens=False).ids
    assert len(words) <= MAX_LABEL_TOKENS


def test_broken_vocabularies_and_labels_are_named():
    from tokenizers import Tokenizer, models

    with pytest.raises(CheckpointError, match="<s>"):
        RegionGrammar(Tokenizer(models.BPE()), None)
    with pytest.raises(InputError, match="reserves"):
        RegionGrammar(tiny_tokenizer(), ["a<b"])


class Script:
    """A decoding that answers with given logits and records what it was fed."""

    def __init__(self, rows, logits_of):
        self.rows, self.logits_of = list(range(rows)), logits_of
        self.fed = [[] for _ in range(rows)]

    def step(self, tokens):
        assert tokens.shape[0] == len(self.rows)
        for row, line in zip(self.rows, tokens.tolist(), strict=True):
            self.fed[row] += line
        return np.stack([self.logits_of(row, len(self.fed[row])) for row in self.rows])

    def keep(self, rows):
        self.rows = [self.rows[row] for row in rows]


@pytest.mark.parametrize("name", SETS)
def test_rows_of_a_batch_do_not_touch_each_other(name):
    """Logits depend on the row and the number of tokens read, so a row must come out as it does alone."""
    rules = grammar(name)

    def logits(row, read):
        return np.random.default_rng((row, read)).normal(size=len(rules.tokens)).astype(np.float32)

    together = [rules.walk(45) for _ in range(6)]
    script = Script(6, logits)
    assert decode(script, together, 2) == [None] * 6
    for row, walk in enumerate(together):
        alone = rules.walk(45)
        decode(Script(1, lambda _, read, row=row: logits(row, read)), [alone], 2)
        assert walk.ids == alone.ids
        assert script.fed[row] == [2, *walk.ids][: len(script.fed[row])], "fed what it wrote, in order"
        assert len(script.fed[row]) <= len(walk.ids)


def test_a_row_of_nan_fails_alone():
    rules = grammar("two")
    bad = np.full(len(rules.tokens), np.nan, np.float32)
    walks = [rules.walk(30) for _ in range(3)]
    script = Script(3, lambda row, read: bad if row == 1 else np.zeros(len(rules.tokens), np.float32))
    failures = decode(script, walks, 2)
    assert [failure is None for failure in failures] == [True, False, True]
    assert walks[0].done
    assert walks[2].done


def test_free_walk_follows_the_best_token_and_repeats_no_triple():
    logits = np.array([0.0, 1.0, -1.0, 3.0, 2.0], np.float32)  # 3 is best, 2 is the end
    walk = FreeWalk(0, 2, 12)
    while not walk.done:
        walk.advance(logits)
    triples = list(zip(walk.ids, walk.ids[1:], walk.ids[2:], strict=False))
    assert walk.ids[:4] == [0, 3, 3, 3]
    assert len(set(triples)) == len(triples)
    assert len(walk.ids) == 12
    assert walk.ids[-1] == 2
    with pytest.raises(GenerationError):
        FreeWalk(0, 2, 12).advance(np.array([np.nan], np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_ten_thousand_walks_over_random_and_corrupted_logits(name):
    """2,000 walks for each of the five label sets; one step in fifty is corrupted, NaN included."""
    rules, generator = grammar(name), np.random.default_rng(11)
    count, failed = len(rules.tokens), 0

    def logits(step):
        found = generator.normal(scale=generator.choice([0.0, 1.0, 30.0]), size=count).astype(np.float32)
        if generator.random() < 0.02:
            found[generator.random(count) < 0.3] = generator.choice([np.nan, np.inf, -np.inf, 3e38])
        return found

    for _ in range(2000):
        limit = int(generator.integers(2, 60))
        walk = rules.walk(limit)
        try:
            lead(walk, logits)
        except GenerationError:
            failed += 1
            continue
        check(walk, SETS[name], limit)
    assert 0 < failed < 2000


@pytest.mark.parametrize(
    ("labels", "others"),
    [
        (("a", "b"), ["b"]),
        (("a", "bc"), ["bc"]),  # nothing but "c" may follow "b", so the first token decides
        (("a", "b", "bc"), ["b"]),
        (("a", "bc", "ba"), []),  # which of the two would take a step of its own
    ],
)
def test_the_other_label_of_a_box_is_kept_with_its_own_probability(labels, others):
    rules = RegionGrammar(tiny_tokenizer(), labels)
    first = np.full(len(rules.tokens), -30.0, np.float32)
    columns = [list(rules.tokens).index(rules.tokenizer.token_to_id(letter)) for letter in "ab"]
    first[[0, *columns]] = np.log([0.1, 0.6, 0.3])  # the end, a, b
    end = np.full(len(rules.tokens), -30.0, np.float32)
    end[0] = 0.0
    flat = np.zeros(len(rules.tokens), np.float32)
    walk = lead(rules.walk(90), [first, flat, flat, flat, flat, end].__getitem__)
    (found,) = walk.found
    assert [second.label for second in walk.runners_up] == others
    assert found.label_probability == pytest.approx(0.6, abs=1e-6)
    for second in walk.runners_up:
        assert second.bins == found.bins
        assert second.label_probability == pytest.approx(0.3, abs=1e-6)
        assert second.score < found.score
