"""Parent against candidate: what the intervals promise, and what is not compared."""

import hashlib
import math

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from ratoon.config import AssessConfig, Benchmark, ConfigError
from ratoon.evaluation import harness, paired, statistics, suite
from ratoon.evaluation.samples import TaskScore
from ratoon.records import Interval, write

CONFIG = AssessConfig()
SETTINGS = harness.Settings(row_tokens=128, precision="fp32", device="cpu", lm_eval="0")


@pytest.fixture
def tests(sources, tmp_path):
    forms = {"held-out": {"kind": "held_out"}, "next-passage": {"kind": "next_passage"}}
    benchmarks = [Benchmark(name=name, version=1, form=form) for name, form in forms.items()]
    suite.build(benchmarks, sources, AssessConfig(items=40), tmp_path / "suite")
    return tmp_path / "suite"


def scored(folder, tests, seed, bits=2.0, right=0.5, **changes):
    """Scores of a model that needs `bits` per byte and answers `right` of the items."""
    draw, made = np.random.default_rng(seed), suite.load(tests)
    folder.mkdir()
    for task in made.tasks:
        rows = []
        for i in range(task.items):
            row = {"doc_hash": f"{i}", "prompt_hash": "p", "document": f"{i % 20}"}
            if task.metric == "bits_per_byte":
                row |= {"bytes": 500 + i, "loglik_nats": [-(500 + i) * bits * math.log(2) * draw.normal(1, 0.02)]}
            else:
                row |= {"loglik_nats": [0.0] * 4, "correct": int(draw.random() < right)}
            rows.append(row)
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{task.name}.parquet")
    scores = harness.Scores(model="m", weights="w", suite=made.digest, settings=SETTINGS, truncated=0, tasks=())
    write(folder / "scores.json", scores.model_copy(update=changes))
    return folder


def test_a_model_ties_with_itself_everywhere(tests, tmp_path):
    model = scored(tmp_path / "model", tests, seed=1)
    for item in paired.compare(model, model, tests, CONFIG):
        assert item.outcome == "tie"
        assert item.difference.value == 0
        assert (item.p, item.p_holm) == (1, 1)
        assert item.parent == item.candidate
        # Bits agree to the last digit; that no answer differs says little of the answers not asked for.
        assert item.difference.high == pytest.approx(-item.difference.low)
        assert (item.difference.high > 0) == (item.metric == "accuracy")


def test_swapping_the_arms_swaps_wins_and_losses(tests, tmp_path):
    good, bad = scored(tmp_path / "good", tests, 1, 1.8, 0.9), scored(tmp_path / "bad", tests, 2, 2.0, 0.2)
    there, back = paired.compare(bad, good, tests, CONFIG), paired.compare(good, bad, tests, CONFIG)
    assert {item.outcome for item in there} == {"win"}
    assert {item.outcome for item in back} == {"loss"}
    for a, b in zip(there, back, strict=True):
        assert [a.difference.low, a.difference.high] == pytest.approx([-b.difference.high, -b.difference.low])
        assert a.p == pytest.approx(b.p)


def test_each_comparison_says_what_was_compared(tests, tmp_path):
    old, new = scored(tmp_path / "old", tests, 1), scored(tmp_path / "new", tests, 2)
    items = paired.compare(old, new, tests, CONFIG)
    assert [(item.benchmark, item.source, item.role, item.items) for item in items] == [
        ("held-out", "code", "domain", 24),
        ("held-out", "docs", "general", 24),
        ("next-passage", "code", "domain", 40),
        ("next-passage", "docs", "general", 40),
    ]
    assert [item.relative is None for item in items] == [False, False, True, True]
    assert all((tmp_path / item.samples).exists() for item in items)


def test_what_lost_its_beginning_is_told_of_the_arm_that_lost_more(tests, tmp_path):
    told = {"value": 0.5, "items": 40, "sha256": ""}
    arms = [
        scored(tmp_path / f"{n}", tests, n, tasks=(TaskScore(task="next-passage--docs", truncated=n, **told),))
        for n in (70, 7)
    ]
    items = {f"{item.benchmark}--{item.source}": item for item in paired.compare(*arms, tests, CONFIG)}
    assert (items["next-passage--docs"].truncated, items["next-passage--docs"].requests) == (70, 160)
    assert items["next-passage--code"].truncated is None


def test_the_order_of_items_changes_nothing(tests, tmp_path):
    old, new = scored(tmp_path / "old", tests, 1), scored(tmp_path / "new", tests, 2)
    before = paired.compare(old, new, tests, CONFIG)
    for file in new.glob("*.parquet"):
        rows = parquet.read_table(file)
        parquet.write_table(rows.take(list(reversed(range(rows.num_rows)))), file)
    assert paired.compare(old, new, tests, CONFIG) == before


def test_adjusted_values_and_what_would_be_seen_stand_beside_each_comparison(tests, tmp_path):
    old, new = scored(tmp_path / "old", tests, 1), scored(tmp_path / "new", tests, 2)
    items = paired.compare(old, new, tests, CONFIG)
    assert all(item.p <= item.p_holm <= 1 for item in items)
    (first, *_) = items
    alone = statistics.detectable(first.tested, CONFIG.level / len(items), lower_is_better=True)
    assert first.detectable == pytest.approx(alone)
    assert first.documents == 20


def drawn(draw, documents):
    """Texts of different length and difficulty, scored by two models of which one needs 1% fewer bits."""
    weight = draw.lognormal(6, 0.7, documents)
    parent = weight * draw.normal(2, 0.3, documents)
    return paired.Pairs(parent, parent * draw.normal(0.99, 0.03, documents), weight, documents)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    draw = np.random.default_rng(5)
    effects = [paired.effect(drawn(draw, 50), CONFIG, relative=True) for _ in range(1500)]
    # Three standard errors of 1,500 trials around 95%.
    for truth, found in ((-0.01, "relative"), (-0.02, "difference")):
        covered = np.mean([getattr(e, found).low <= truth <= getattr(e, found).high for e in effects])
        assert 0.933 < covered < 0.967


def test_pairing_sees_what_two_separate_intervals_would_not():
    found = paired.effect(drawn(np.random.default_rng(7), 300), CONFIG, relative=True)
    alone = found.parent.high - found.parent.low
    assert found.difference.high - found.difference.low < alone / 3


def test_items_of_one_document_stand_and_fall_together():
    pairs = drawn(np.random.default_rng(11), 100)
    tripled = paired.Pairs(3 * pairs.parent, 3 * pairs.candidate, 3 * pairs.weight, 300)
    one, three = paired.effect(pairs, CONFIG, True), paired.effect(tripled, CONFIG, True)
    assert [three.relative.low, three.relative.high] == pytest.approx([one.relative.low, one.relative.high])
    right = np.random.default_rng(11).integers(0, 2, (2, 100)).astype(float)
    single = paired.effect(paired.Pairs(right[0], right[1], np.ones(100), 100), CONFIG, False)
    thrice = paired.effect(paired.Pairs(3 * right[0], 3 * right[1], np.full(100, 3.0), 300), CONFIG, False)
    assert thrice.p == pytest.approx(single.p)
    assert thrice.tested.error == pytest.approx(single.tested.error, rel=0.03)


@pytest.mark.parametrize("documents", [2, 3, 5])
def test_of_however_few_documents_no_end_of_an_interval_is_impossible(documents):
    draw, one = np.random.default_rng(documents), np.ones(documents)
    for right in draw.integers(0, 2, (50, 2, documents)).astype(float):
        found = paired.effect(paired.Pairs(*right, one, documents), CONFIG, relative=False)
        for arm in (found.parent, found.candidate):
            assert 0 <= arm.low <= arm.value <= arm.high <= 1
        assert -1 <= found.difference.low <= found.difference.value <= found.difference.high <= 1
    for bits in draw.lognormal(0, 2, (50, 2, documents)):
        found = paired.effect(paired.Pairs(*bits, one, documents), CONFIG, relative=True)
        assert min(found.parent.low, found.candidate.low, 1 + found.relative.low) >= 0


@pytest.mark.parametrize(("low", "high", "lower", "higher"), [(-2, -1, "win", "loss"), (-1, 1, "tie", "tie")])
def test_a_win_is_an_interval_wholly_on_the_better_side(low, high, lower, higher):
    difference = Interval(value=(low + high) / 2, low=low, high=high, confidence=0.95)
    assert paired.outcome(difference, 0.01, lower_is_better=True) == lower
    assert paired.outcome(difference, 0.01, lower_is_better=False) == higher
    assert paired.outcome(difference, 0.06, lower_is_better=False) == "tie"


def spoil(folder, change):
    file = folder / "held-out--docs.parquet"
    parquet.write_table(change(parquet.read_table(file)), file)


def test_models_scored_on_different_items_are_not_compared(tests, tmp_path):
    old, new = scored(tmp_path / "old", tests, 1), scored(tmp_path / "new", tests, 2)
    spoil(new, lambda rows: rows.slice(2))
    with pytest.raises(
        ConfigError, match=r"held-out--docs: .* not scored on the same items: 24 and 22 items, 2 only of the parent"
    ):
        paired.compare(old, new, tests, CONFIG)


def test_an_item_scored_twice_is_not_compared(tests, tmp_path):
    old, new = scored(tmp_path / "old", tests, 1), scored(tmp_path / "new", tests, 2)
    for folder in (old, new):
        spoil(folder, lambda rows: pyarrow.concat_tables([rows, rows.slice(0, 1)]))
    with pytest.raises(ConfigError, match="25 and 25 items, 0 only of the parent"):
        paired.compare(old, new, tests, CONFIG)


def test_damaged_scores_are_named(tests, tmp_path):
    old, new = scored(tmp_path / "old", tests, 1), scored(tmp_path / "new", tests, 2)
    file = new / "next-passage--code.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ConfigError, match=r"next-passage--code\.parquet: per-item scores are missing or damaged"):
        paired.compare(old, new, tests, CONFIG)


def test_models_scored_on_different_suites_or_settings_are_not_compared(tests, tmp_path):
    old = scored(tmp_path / "old", tests, 1)
    other = scored(tmp_path / "other", tests, 1, suite=hashlib.sha256(b"other").hexdigest())
    with pytest.raises(ConfigError, match="assess both models again"):
        paired.compare(old, other, tests, CONFIG)
    short = scored(tmp_path / "short", tests, 1, settings=SETTINGS.model_copy(update={"row_tokens": 64}))
    with pytest.raises(ConfigError, match=r"different settings: .*row_tokens=128.*row_tokens=64"):
        paired.compare(old, short, tests, CONFIG)


def test_scores_that_are_not_there_are_named(tests, tmp_path):
    with pytest.raises(ConfigError, match=r"scores\.json: not found"):
        paired.compare(tmp_path / "none", tmp_path / "none", tests, CONFIG)
