"""Parent against candidate: what the intervals promise, and what is not compared."""

import hashlib
import math

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from ratoon.config import AssessConfig, Benchmark, ConfigError
from ratoon.evaluation import harness, paired, suite
from ratoon.records import Interval, write

CONFIG = AssessConfig(bootstrap=400)
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


def test_a_model_ties_with_itself_everywhere_and_without_any_width(tests, tmp_path):
    model = scored(tmp_path / "model", tests, seed=1)
    for item in paired.compare(model, model, tests, CONFIG):
        assert item.outcome == "tie"
        assert (item.difference.low, item.difference.value, item.difference.high) == (0, 0, 0)
        assert item.parent == item.candidate


def test_swapping_the_arms_swaps_wins_and_losses(tests, tmp_path):
    good, bad = scored(tmp_path / "good", tests, 1, 1.8, 0.9), scored(tmp_path / "bad", tests, 2, 2.0, 0.2)
    there, back = paired.compare(bad, good, tests, CONFIG), paired.compare(good, bad, tests, CONFIG)
    assert {item.outcome for item in there} == {"win"}
    assert {item.outcome for item in back} == {"loss"}
    for a, b in zip(there, back, strict=True):
        assert [a.difference.low, a.difference.high] == pytest.approx([-b.difference.high, -b.difference.low])


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


def test_the_order_of_items_changes_nothing(tests, tmp_path):
    old, new = scored(tmp_path / "old", tests, 1), scored(tmp_path / "new", tests, 2)
    before = paired.compare(old, new, tests, CONFIG)
    for file in new.glob("*.parquet"):
        rows = parquet.read_table(file)
        parquet.write_table(rows.take(list(reversed(range(rows.num_rows)))), file)
    assert paired.compare(old, new, tests, CONFIG) == before


def drawn(draw, documents):
    """Texts of different length and difficulty, scored by two models of which one needs 1% fewer bits."""
    weight = draw.lognormal(6, 0.7, documents)
    parent = weight * draw.normal(2, 0.3, documents)
    return paired.Pairs(parent, parent * draw.normal(0.99, 0.03, documents), weight, documents)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    draw, config = np.random.default_rng(5), AssessConfig(bootstrap=300, confidence=0.9)
    effects = [paired.effect(drawn(draw, 80), config, relative=True) for _ in range(300)]
    covered = np.mean([e.relative.low <= -0.01 <= e.relative.high for e in effects])
    # Three standard errors of 300 trials around 90%, and the percentile interval's own shortfall at 80 documents.
    assert 0.83 < covered < 0.95
    covered = np.mean([e.difference.low <= -0.02 <= e.difference.high for e in effects])
    assert 0.83 < covered < 0.95


def test_pairing_sees_what_two_separate_intervals_would_not():
    found = paired.effect(drawn(np.random.default_rng(7), 300), CONFIG, relative=True)
    alone = found.parent.high - found.parent.low
    assert found.difference.high - found.difference.low < alone / 3


def test_the_interval_is_the_bootstrap_worked_out_one_document_at_a_time():
    pairs = drawn(np.random.default_rng(3), 30)
    parent, difference = paired.resample(pairs, CONFIG)
    times = np.random.default_rng(CONFIG.seed).multinomial(30, np.full(30, 1 / 30), size=CONFIG.bootstrap)[7]
    picked = [i for i in range(30) for _ in range(times[i])]
    assert len(picked) == 30
    assert parent[7] == pytest.approx(sum(pairs.parent[picked]) / sum(pairs.weight[picked]))
    assert parent[7] + difference[7] == pytest.approx(sum(pairs.candidate[picked]) / sum(pairs.weight[picked]))


def test_a_large_suite_is_resampled_piece_by_piece_with_the_same_result(monkeypatch):
    pairs = drawn(np.random.default_rng(3), 30)
    whole = paired.resample(pairs, CONFIG)
    monkeypatch.setattr(paired, "WEIGHTS_AT_ONCE", 1000)
    assert np.allclose(paired.resample(pairs, CONFIG), whole, rtol=1e-12)


def test_items_of_one_document_stand_and_fall_together():
    draw = np.random.default_rng(11)
    right = draw.integers(0, 2, (2, 100)).astype(float)
    single = paired.Pairs(right[0], right[1], np.ones(100), 100)
    tripled = paired.Pairs(3 * right[0], 3 * right[1], np.full(100, 3.0), 300)
    assert paired.effect(tripled, CONFIG, False) == paired.effect(single, CONFIG, False)


@pytest.mark.parametrize(("low", "high", "lower", "higher"), [(-2, -1, "win", "loss"), (-1, 1, "tie", "tie")])
def test_a_win_is_an_interval_wholly_on_the_better_side(low, high, lower, higher):
    difference = Interval(value=(low + high) / 2, low=low, high=high, confidence=0.95)
    assert paired.outcome(difference, lower_is_better=True) == lower
    assert paired.outcome(difference, lower_is_better=False) == higher


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
