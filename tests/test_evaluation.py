"""The numbers: against pycocotools, against brute force, and on cases worked out by hand."""

import contextlib
import io
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florentune.errors import InputError, MissingExtraError
from florentune.evaluation import (
    Scale,
    align,
    calibrate,
    choose_thresholds,
    compare,
    evaluate,
    fit_scale,
)
from florentune.evaluation.bootstrap import Ranking
from florentune.evaluation.calibration import kept, reliability
from florentune.evaluation.matching import iou_matrix, judge_all, maximum_matching, pair_up
from florentune.regions import Box, Page, Region, iou

LABELS = ("table", "figure")
SIDE = 400


def page(name, *regions, crowd=()):
    found = tuple(Region(label, Box(*box), score[0] if score else None) for label, box, *score in regions)
    marks = {"crowd": {}, "ignore": {"ignore": True}}
    kept = [{"label": label, "bbox": list(box), **marks[mark]} for label, box, mark in crowd]
    extra = {"crowd": kept} if crowd else {}
    return Page(name, SIDE, SIDE, found, extra)


A, B, C = (10, 10, 110, 110), (200, 10, 300, 110), (10, 200, 110, 300)


# --- COCO ---------------------------------------------------------------------------------------------------------


def official(truth, predictions, labels):
    """pycocotools on the same pages: the twelve numbers, and AP by label."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def as_coco(pages, predicted):
        found = []
        for index, item in enumerate(pages):
            marked = [
                (Region(c["label"], Box(*c["bbox"])), int("ignore" not in c)) for c in item.extra.get("crowd", ())
            ]
            for region, flag in [*((r, 0) for r in item.regions), *marked]:
                b = region.box
                entry = {"id": len(found) + 1, "image_id": index + 1, "category_id": labels.index(region.label) + 1}
                entry |= {"bbox": [b.x1, b.y1, b.width, b.height], "area": b.width * b.height, "iscrowd": flag}
                found.append(entry | ({"score": region.score} if predicted else {"ignore": 1 - flag}))
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i + 1, "width": SIDE, "height": SIDE} for i in range(len(pages))],
            "annotations": found,
            "categories": [{"id": i + 1, "name": label} for i, label in enumerate(labels)],
        }
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        run = COCOeval(as_coco(truth, False), as_coco(predictions, True), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    precision = run.eval["precision"][..., 0, -1]
    by_label = [precision[:, :, k][precision[:, :, k] > -1] for k in range(len(labels))]
    return run.stats[:6], [float(p.mean()) if p.size else -1.0 for p in by_label]


@st.composite
def boxes(draw):
    """Boxes near a few anchors, so that predictions overlap truth; some end outside the image, some have no area."""
    x, y = draw(st.sampled_from([0, 40, 200])), draw(st.sampled_from([0, 60, 230]))
    dx, dy, w, h = (draw(st.integers(0, 30)) for _ in range(4))
    scale = draw(st.sampled_from([1, 4, 12]))
    return x - 10 + dx / 3, y - 10 + dy / 3, x + 5 + dx + w * scale, y + 5 + dy + h * scale


truths = st.lists(st.tuples(st.sampled_from(LABELS), boxes()), max_size=5)
crowds = st.lists(st.tuples(st.sampled_from(LABELS), boxes(), st.sampled_from(["crowd", "ignore"])), max_size=2)
guesses = st.lists(st.tuples(st.sampled_from(LABELS), boxes(), st.integers(0, 20).map(lambda n: n / 20)), max_size=7)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(truths, guesses, crowds),
        min_size=1,
        max_size=6,
    )
)
def test_agrees_with_pycocotools(pages):
    """Ties of scores, boxes marked iscrowd or ignore or outside of the image, labels without truth: to 1e-6."""
    truth = [page(f"{i}.png", *t, crowd=c) for i, (t, _, c) in enumerate(pages)]
    predictions = [page(f"{i}.png", *g) for i, (_, g, _) in enumerate(pages)]
    ours = evaluate(truth, predictions, LABELS, intervals=False)
    stats, by_label = official(truth, predictions, LABELS)
    mine = [ours.map, ours.ap50, ours.ap75, *(ours.by_size[s] for s in ("small", "medium", "large"))]
    mine += [ours.per_label[label].ap for label in LABELS]
    for value, expected in zip(mine, [*stats, *by_label], strict=True):
        assert (-1.0 if value is None else value) == pytest.approx(expected, abs=1e-6)


@st.composite
def weighted_pages(draw):
    """Pages with how often each is counted; all scores differ, since the order of equal ones is nobody's rule."""
    pages = draw(st.lists(st.tuples(truths, guesses, crowds, st.integers(0, 3)), min_size=1, max_size=5))
    scores = iter(draw(st.permutations(range(sum(len(g) for _, g, _, _ in pages)))))
    return [(t, [(label, box, next(scores) / 100) for label, box, _ in g], c, times) for t, g, c, times in pages]


@settings(max_examples=150)
@given(weighted_pages())
def test_weighted_pages_are_repeated_pages_to_pycocotools(pages):
    """What the bootstrap counts with weights, pycocotools counts on a set in which pages really occur several times."""
    truth = [page(f"{i}.png", *t, crowd=c) for i, (t, _, c, _) in enumerate(pages)]
    predictions = [page(f"{i}.png", *g) for i, (_, g, _, _) in enumerate(pages)]
    weights = np.array([times for *_, times in pages], dtype=np.int32)
    judged = judge_all(truth, predictions, LABELS)
    mine = [Ranking(judged, index).average_precision(weights) for index in range(len(LABELS))]
    repeated = [
        [p for p, times in zip(each, weights, strict=True) for _ in range(times)] for each in (truth, predictions)
    ]
    _, by_label = official(*repeated, LABELS) if weights.any() else ([], [-1.0] * len(LABELS))
    assert [-1.0 if each is None else each.mean() for each in mine] == pytest.approx(by_label, abs=1e-6)


def test_more_than_a_hundred_boxes_of_a_label_on_a_page():
    """COCOeval looks at the 100 best of each; so does the bootstrap."""
    tall = [(10 * i, 0, 10 * i + 8, 8) for i in range(40)] + [(10 * i, 50, 10 * i + 8, 58) for i in range(80)]
    truth = [page("a_0.png", *(("table", box) for box in tall)), page("b_0.png", ("table", A))]
    predictions = [page("a_0.png", *(("table", box, 0.9 - i / 1000) for i, box in enumerate(tall))), page("b_0.png")]
    result = evaluate(truth, predictions, LABELS, intervals=False)
    value = Ranking(judge_all(truth, predictions, LABELS), 0).average_precision(np.ones(2, dtype=np.int32)).mean()
    assert value == pytest.approx(result.per_label["table"].ap, abs=1e-9)
    assert value < 0.9


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    truth, predictions = [page("a.png", ("table", A))], [page("a.png", ("table", A, 0.9))]
    with pytest.raises(MissingExtraError, match=r"florentune\[report\]"):
        evaluate(truth, predictions, LABELS)
    light = evaluate(truth, predictions, LABELS, coco=False)
    assert light.map is None
    assert light.page_success == {0.5: 1.0, 0.7: 1.0, 0.8: 1.0}


# --- pairing ------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(boxes(), max_size=5), st.lists(boxes(), max_size=5))
def test_iou_matrix_is_iou(first, second):
    matrix = iou_matrix([Box(*b) for b in first], [Box(*b) for b in second])
    assert matrix.shape == (len(first), len(second))
    for (i, a), (j, b) in itertools.product(enumerate(first), enumerate(second)):
        assert matrix[i, j] == pytest.approx(iou(Box(*a), Box(*b)))


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_matching_is_the_largest(rows, columns, data):
    edges = np.array(data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns)))
    edges = edges.reshape(rows, columns)
    pairs = maximum_matching([(int(r), int(c)) for r, c in np.argwhere(edges)], edges.astype(float))
    assert len({r for r, _ in pairs}) == len({c for _, c in pairs}) == len(pairs)
    assert all(edges[pair] for pair in pairs)
    small = edges if rows <= columns else edges.T
    best = max(
        sum(small[i, c] for i, c in enumerate(order))
        for order in itertools.permutations(range(small.shape[1]), small.shape[0])
    )
    assert len(pairs) == best


def test_a_page_that_greedy_pairing_would_call_wrong():
    """The best-scored prediction overlaps both truths; taking its best truth would leave the other one alone."""
    left, right = Region("table", Box(0, 0, 100, 100)), Region("table", Box(0, 40, 100, 140))
    both, only = Region("table", Box(0, 19, 100, 119), 0.9), Region("table", Box(0, 1, 100, 101), 0.6)
    assert iou(left.box, both.box) > iou(right.box, both.box) > 0.5
    assert iou(only.box, right.box) < 0.5
    assert not pair_up([left, right], [both, only], [], 0.5).missed


# --- page success and the rest, by hand ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    truth = [
        page("doc1_0.png", ("table", A), ("figure", B)),  # right
        page("doc1_1.png"),  # right: nothing there, nothing kept
        page("doc1_2.png"),  # false alarm
        page("doc2_0.png", ("table", A)),  # called a figure
        page("doc2_1.png", ("table", A), ("table", B)),  # one missed, one loose
    ]
    predictions = [
        page("doc1_0.png", ("figure", B, 0.9), ("table", A, 0.8), ("table", C, 0.2)),
        page("doc1_1.png", ("table", A, 0.3)),
        page("doc1_2.png", ("figure", A, 0.7)),
        page("doc2_0.png", ("figure", A, 0.6)),
        page("doc2_1.png", ("table", (10, 10, 110, 70), 0.95)),
    ]
    return truth, predictions, evaluate(truth, predictions, LABELS)


def test_page_success(small):
    assert small[2].page_success == {0.5: 0.4, 0.7: 0.4, 0.8: 0.4}
    assert small[2].page_success_with_objects == {0.5: 1 / 3, 0.7: 1 / 3, 0.8: 1 / 3}
    assert [p.success[0.5] for p in small[2].per_page] == [True, True, False, False, False]
    assert small[2].per_page[4].loose == ["table"]


def test_false_alarms_and_counts(small):
    result = small[2]
    assert (result.pages, result.documents, result.empty_pages) == (5, 2, 2)
    assert (result.false_alarms, result.false_alarm_rate) == (1, 0.5)
    assert (result.truth, result.predicted) == (5, 5)
    assert result.per_label["table"].count_error == 2 / 5
    assert result.per_label["table"].count_right == 3 / 5


def test_confusion(small):
    assert small[2].confusion.matrix == [[2, 1, 1], [0, 1, 0], [0, 1, 0]]
    table = small[2].per_label["table"]
    assert (table.truth, table.predicted, table.correct) == (4, 2, 2)
    assert (table.precision, table.recall) == (1.0, 0.5)


def test_curve(small):
    curve = small[2].curves["table"]
    assert curve.confidence == [0.95, 0.8, 0.3, 0.2]
    assert curve.precision == [1.0, 1.0, 2 / 3, 0.5]
    assert curve.recall == [0.25, 0.5, 0.5, 0.5]


def test_documents_and_intervals(small):
    first, second = small[2].per_document
    assert (first.document, first.pages, first.page_success[0.7]) == ("doc1", 3, 2 / 3)
    assert (second.document, second.page_success[0.7]) == ("doc2", 0.0)
    interval = small[2].intervals["page_success_0.7"]
    assert (interval.low, interval.high) == pytest.approx((0.0, 2 / 3))  # two documents: it must look small
    assert set(small[2].intervals) >= {"map", "ap50", "f1", "precision", "recall", "page_success_0.5"}


def test_one_document_has_no_interval(small):
    assert evaluate(small[0], small[1], LABELS, group_by="doc").intervals == {}


def test_thresholds_by_label(small):
    strict = evaluate(small[0], small[1], LABELS, thresholds={"figure": 0.8})
    assert strict.thresholds == {"table": 0.5, "figure": 0.8}
    assert strict.false_alarms == 0
    assert strict.map == small[2].map


def test_as_dict_is_json(small):

    found = json.loads(json.dumps(small[2].as_dict(), allow_nan=False))
    assert found["page_success"]["0.7"] == 0.4
    assert found["per_page"][3]["confused"] == [["table", "figure"]]


@pytest.mark.parametrize("mark", ["crowd", "ignore"])
def test_crowd_is_neither_missed_nor_invented(mark):
    truth = [page("a.png", ("table", A), crowd=[("table", (150, 0, 400, 400), mark)])]
    result = evaluate(truth, [page("a.png", ("table", A, 0.9), ("table", B, 0.8))], LABELS)
    assert result.page_success[0.8] == 1.0
    assert (result.truth, result.predicted) == (1, 1)
    assert result.calibration.bins[8].count == (mark == "ignore")  # a small box in a large one: no match to COCOeval


def test_a_page_whose_name_tells_no_document_is_one_of_its_own():
    def documents_of(*names, group_by=None):
        truth = [page(name, ("table", A)) for name in names]
        return [one.document for one in evaluate(truth, truth, LABELS, group_by=group_by, coco=False).per_page]

    assert documents_of("a_1.png", "a_2.png", "b-p3.png", "sub/c.png") == ["a", "a", "b", "c"]
    assert documents_of("IMG_1.png", "IMG_2.png") == ["IMG_1", "IMG_2"]
    assert documents_of("x/1.png", "y/1.png", group_by=r"^(\w+)/") == ["x", "y"]
    with pytest.raises(InputError, match="does not match 1 of 2 image names"):
        documents_of("x/1.png", "1.png", group_by=r"^(\w+)/")
    with pytest.raises(InputError, match="regular expression"):
        documents_of("x/1.png", group_by="(")


# --- bad input ----------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_named():
    truth = [page("a.png", ("table", A)), page("b.png"), page("c.png")]
    predictions = [
        page("a.png", ("table", A), ("chart", B, 0.9)),
        page("a.png", ("table", A, 0.9)),
        page("elsewhere.png", ("table", A, 0.9)),
        Page("b.png", SIDE, SIDE // 2, (Region("table", Box(*A), 0.9),)),
    ]
    result = evaluate(truth, predictions, LABELS)
    kinds = [problem.kind for problem in result.problems]
    assert kinds == ["no_score", "unknown_label", "duplicate_page", "unknown_image", "other_size", "missing_page"]
    assert result.page_success[0.5] == 1.0  # what could not be scored counts neither for nor against


def test_another_resolution_is_scaled_and_said():
    half = Page("a.png", SIDE // 2, SIDE // 2, (Region("table", Box(*(value / 2 for value in A)), 0.9),))
    result = evaluate([page("a.png", ("table", A))], [half], LABELS)
    assert [(problem.kind, problem.is_note) for problem in result.problems] == [("scaled", True)]
    assert (result.page_success[0.8], result.map) == (1.0, pytest.approx(1.0))


@pytest.mark.parametrize(
    ("truth", "options", "message"),
    [
        ([], {}, "no page"),
        ([page("a.png"), page("a.png")], {}, "more than once"),
        ([page("a.png", ("chart", A))], {}, "chart"),
        ([page("a.png")], {"thresholds": 1.5}, "outside 0..1"),
        ([page("a.png")], {"thresholds": math.nan}, "outside 0..1"),
    ],
)
def test_refused(truth, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(truth, [], LABELS, **options)


# --- calibration --------------------------------------------------------------------------------------------------


def test_reliability():
    ece, bins = reliability(np.array([0.95, 0.95, 0.15, 1.0]), np.array([True, False, False, True]))
    assert bins[9].count == 3
    assert bins[9].accuracy == pytest.approx(2 / 3)
    assert ece == pytest.approx((3 * abs(2 / 3 - 2.9 / 3) + 0.15) / 4)
    assert reliability(np.array([]), np.array([], dtype=bool))[0] is None


@pytest.mark.parametrize("scale", [Scale(0.5), Scale(), Scale(3.0, 1.5), Scale(0.8, -2.0)])
def test_the_scale_is_recovered(scale):
    random = np.random.default_rng(0)
    honest = random.uniform(0.02, 0.98, 20_000)
    correct = random.random(20_000) < honest
    distorted = Scale().since(scale).of(honest)
    found = fit_scale(distorted, correct)
    assert found.temperature == pytest.approx(scale.temperature, rel=0.05)
    assert found.shift == pytest.approx(scale.shift, abs=0.08)


def test_a_scale_stays_finite_when_every_prediction_is_right():
    low = np.linspace(0.2, 0.5, 50)
    found = fit_scale(low, np.ones(50, dtype=bool))
    assert 0.8 < found.of(low).mean() < 1
    assert fit_scale(low[:9], np.ones(9, dtype=bool)) == Scale()


def test_a_scale_moves_log_odds():
    assert Scale(1.0).of(0.8) == 0.8
    assert Scale(3.0, 1.0).of(0.5) == pytest.approx(1 / (1 + math.exp(-1)))
    assert Scale(2.0).of(0.8) == pytest.approx(1 / (1 + math.exp(-math.log(4) / 2)))
    assert Scale(3.0, -2.0).of([0.0, 1.0]).tolist() == [0.0, 1.0]


@given(*[st.builds(Scale, st.floats(0.5, 5), st.floats(-2, 2))] * 2, st.floats(0.05, 0.95))
def test_scales_compose(first, second, score):
    assert first.then(second).of(score) == pytest.approx(second.of(first.of(score)), abs=1e-9)
    assert first.then(second.since(first)) == pytest.approx(second, abs=1e-9)


def test_thresholds_lie_in_the_middle_of_the_best_run():
    truth = [page("a.png", ("table", A)), page("b.png"), page("c.png", ("table", A), ("figure", B))]
    predictions = [
        page("a.png", ("table", A, 0.8)),
        page("b.png", ("table", A, 0.4)),
        page("c.png", ("table", A, 0.7), ("table", B, 0.1)),
    ]
    assert choose_thresholds(truth, predictions, LABELS) == {"table": 0.55, "figure": 0.5}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(truths, guesses), min_size=1, max_size=4))
def test_no_threshold_is_better_than_the_chosen_one(pages):
    truth = [page(f"{i}.png", *t) for i, (t, _) in enumerate(pages)]
    predictions = [page(f"{i}.png", *g) for i, (_, g) in enumerate(pages)]
    only = [Page(p.image, SIDE, SIDE, tuple(r for r in p.regions if r.label == "table")) for p in truth]
    guess = [Page(p.image, SIDE, SIDE, tuple(r for r in p.regions if r.label == "table")) for p in predictions]

    def success(threshold):
        return evaluate(only, guess, ["table"], thresholds=threshold, coco=False, intervals=False).page_success[0.7]

    chosen = success(choose_thresholds(only, guess, ["table"]))
    assert chosen >= max(success(value / 40) for value in range(1, 41)) - 1e-12


def test_calibration_file_includes_the_scale_already_there():
    truth = [page(f"{i}.png", ("table", A)) for i in range(40)]
    predictions = [page(f"{i}.png", ("table", A if i % 4 else B, 0.99)) for i in range(40)]
    raw = calibrate(truth, predictions, LABELS)
    assert raw["pages"] == 40
    assert raw["ece"] < 0.05
    before = Scale(2.0, 0.5)
    again = calibrate(truth, predictions, LABELS, scale=before)
    whole = before.then(Scale(raw["temperature"], raw["shift"]))
    assert (again["temperature"], again["shift"]) == pytest.approx(whole, abs=1e-3)


# --- two predictors -----------------------------------------------------------------------------------------------


def test_compare_is_paired():
    truth = [page(f"d{i}_0.png", ("table", A)) for i in range(30)]
    good = [page(f"d{i}_0.png", ("table", A, 0.9)) for i in range(30)]
    worse = [page(f"d{i}_0.png", ("table", A if i % 3 else B, 0.9)) for i in range(30)]
    rows = {
        row.name: row
        for row in compare(truth, (worse, evaluate(truth, worse, LABELS)), (good, evaluate(truth, good, LABELS)))
    }
    assert rows["page_success_0.7"].difference == pytest.approx(1 / 3)
    assert rows["page_success_0.7"].clear
    assert rows["map"].clear
    same = compare(truth, (good, evaluate(truth, good, LABELS)), (good, evaluate(truth, good, LABELS)))
    assert all(row.difference in (0.0, None) and not row.clear for row in same)


def test_align_keeps_the_order_of_the_truth():
    truth = [page("b.png"), page("a.png")]
    paired, problems = align(truth, [page("a.png", ("table", A, 0.5)), page("b.png")], LABELS)
    assert [p.image for p in paired] == ["b.png", "a.png"]
    assert len(paired[1].regions) == 1
    assert problems == []


@pytest.mark.slow
def test_50_000_pages_stay_below_two_gigabytes():
    script = Path(__file__).parent.parent / "benchmarks" / "evaluation_size.py"
    done = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["pages"] == 50_000
    assert found["boxes"] > 190_000
    assert found["peak_mb"] < 2048
    assert found["interval"][0] < found["map"] < found["interval"][1]


def test_of_one_box_under_two_labels_the_better_scored_counts():
    box, other = Box(0, 0, 9, 9), Box(20, 20, 30, 30)
    regions = (
        Region("table", box, 0.4),
        Region("figure", box, 0.5),
        Region("figure", other, 0.3),
        Region("figure", other, 0.3),
    )
    page = Page("1.png", 99, 99, regions)
    assert kept(page, {"table": 0.1, "figure": 0.1}) == list(regions[1:])
    assert kept(page, {"table": 0.1, "figure": 0.6}) == [regions[0]]
