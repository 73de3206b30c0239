"""Answers that flip: counted, listed, and pinned ones that may not."""

import json

import pyarrow
import pyarrow.parquet as parquet
import pytest

from ratoon.config import AssessConfig, Benchmark, ConfigError
from ratoon.evaluation import flips, harness, suite
from ratoon.records import write

SETTINGS = harness.Settings(row_tokens=128, precision="fp32", device="cpu", lm_eval="0")


@pytest.fixture
def tests(sources, tmp_path):
    benchmarks = [Benchmark(name="next-passage", version=1, form={"kind": "next_passage"})]
    suite.build(benchmarks, sources, AssessConfig(items=20), tmp_path / "suite")
    return tmp_path / "suite"


def answered(folder, tests, right, name="{source}:{i}"):
    """Scores of a model that answers item i of source s as right[s][i]."""
    folder.mkdir()
    made = suite.load(tests)
    for task in made.tasks:
        rows = [
            {
                "doc_hash": f"{i}",
                "prompt_hash": "p",
                "document": f"d{i // 2}",
                "id": name.format(source=task.source, i=i),
                "correct": ok,
            }
            | {"loglik_nats": [0.0] * 4}
            for i, ok in enumerate(right[task.source])
        ]
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{task.name}.parquet")
    scores = harness.Scores(model="m", weights="w", suite=made.digest, settings=SETTINGS, truncated=0, tasks=())
    write(folder / "scores.json", scores)
    return folder


@pytest.fixture
def both(tests, tmp_path):
    before = answered(tmp_path / "before", tests, {"code": [1, 1, 1, 0, 0] * 4, "docs": [1, 0] * 10})
    now = answered(tmp_path / "now", tests, {"code": [1, 1, 0, 1, 0] * 4, "docs": [1, 0] * 10})
    return before, now


def find(both, tests, pinned=None):
    return flips.find(*both, tests, against="parent", pinned=pinned or {}, confidence=0.95)


def test_the_change_in_accuracy_is_the_positive_rate_less_the_negative(both, tests):
    code, docs = find(both, tests).counts
    assert (code.negative, code.positive, code.right_before, code.right_after) == (4, 4, 12, 12)
    assert (code.right_after - code.right_before) / code.items == code.positive_rate.value - code.negative_rate.value
    assert (docs.negative, docs.positive, docs.negative_rate.low) == (0, 0, 0)
    assert docs.negative_rate.high > 0.1


def test_a_relative_rate_of_one_is_what_two_unrelated_models_would_have(both, tests):
    code, docs = find(both, tests).counts
    assert code.relative_negative_rate == pytest.approx((4 / 20) / (0.6 * 0.4))
    assert docs.relative_negative_rate == 0


def test_swapping_the_arms_swaps_negative_and_positive(both, tests):
    there, back = find(both, tests), find(both[::-1], tests)
    for a, b in zip(there.counts, back.counts, strict=True):
        assert (a.negative_rate, a.positive_rate) == (b.positive_rate, b.negative_rate)
    assert {f.id for f in there.listed if f.flip == "negative"} == {f.id for f in back.listed if f.flip == "positive"}


def test_every_flip_is_listed_with_its_id_the_wrong_ones_first(both, tests):
    found = find(both, tests, {"next-passage": ("code:7",)})
    lines = [json.loads(line) for line in flips.lines(found.listed).splitlines()]
    assert [line["flip"] for line in lines] == ["negative"] * 4 + ["positive"] * 4
    assert (lines[0]["id"], lines[0]["golden"]) == ("code:7", True)
    assert {line["id"] for line in lines[:4]} == {"code:2", "code:7", "code:12", "code:17"}
    assert lines[0] == {
        "against": "parent",
        "benchmark": "next-passage",
        "source": "code",
        "id": "code:7",
        "document": "d3",
        "flip": "negative",
        "golden": True,
    }


def test_a_pinned_item_that_was_wrong_before_may_stay_wrong(both, tests):
    (golden,) = find(both, tests, {"next-passage": ("code:0", "code:4")}).golden
    assert golden == flips.Golden("next-passage", 2, 1, (), ())


def test_a_whole_benchmark_may_be_pinned(both, tests):
    (golden,) = find(both, tests, {"next-passage": "all"}).golden
    assert (golden.items, golden.right) == (40, 22)
    assert golden.flipped == ("code:12", "code:17", "code:2", "code:7")


def test_pinned_items_that_are_not_asked_are_named(both, tests):
    found = find(both, tests, {"next-passage": ("code:0", "code:99"), "quiz": "all"}).golden
    assert [item.absent for item in found] == [("code:99",), ("any",)]


def test_flips_between_different_suites_are_not_counted(both, tests):
    scores = both[1] / "scores.json"
    scores.write_text(scores.read_text().replace(suite.load(tests).digest, "0" * 64))
    with pytest.raises(ConfigError, match="assess both models again"):
        find(both, tests)


def test_an_item_is_pinned_in_every_source_that_has_one_of_its_id(tests, tmp_path):
    """A wrong answer of one source is not made good by a right one of another that is called alike."""
    before = answered(tmp_path / "was", tests, {"code": [1, 0] * 10, "docs": [0, 1] * 10}, name="{i}")
    now = answered(tmp_path / "is", tests, {"code": [0, 0] + [1, 0] * 9, "docs": [0, 1] * 10}, name="{i}")
    (golden,) = find((before, now), tests, {"next-passage": ("0", "3")}).golden
    assert golden == flips.Golden("next-passage", 4, 2, ("code:0",), ())
    (every,) = find((before, now), tests, {"next-passage": "all"}).golden
    assert (every.items, every.right, every.flipped) == (40, 20, ("code:0",))
