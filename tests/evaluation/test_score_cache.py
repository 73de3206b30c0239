"""Scores kept across refreshes: found again, bounded, and never believed when damaged."""

import threading

import pytest

from ratoon.config import AssessConfig, Benchmark
from ratoon.evaluation import harness, suite
from ratoon.evaluation.score_cache import ScoreCache

BENCHMARK = Benchmark(name="held-out", version=1, form={"kind": "held_out"})


@pytest.fixture
def scored(models, sources, tmp_path):
    """Scores the model anew in a folder of that name; how many rows were read for it."""
    suite.build([BENCHMARK], sources, AssessConfig(max_bytes=400), tmp_path / "suite")

    def call(name, model=models[0], row_tokens=144):
        calls = []
        settings = {"row_tokens": row_tokens, "device": "cpu", "cache": tmp_path / "cache"}
        found = harness.score(model, tmp_path / "suite", tmp_path / name, report=lambda *a: calls.append(a), **settings)
        return found, len(calls)

    return call


def test_a_later_refresh_reads_the_parents_scores_instead_of_the_model(scored):
    first, read = scored("one")
    assert read > 0
    assert scored("two") == (first, 0)


def test_other_weights_and_other_settings_are_scored_anew(scored, models):
    first, read = scored("one")
    other, again = scored("two", model=models[1])
    assert (other.tasks != first.tasks, again) == (True, read)
    assert scored("three", row_tokens=100)[1] > 0


def test_a_source_whose_text_changed_is_scored_anew_and_the_others_are_not(scored, sources, tmp_path):
    scored("one")
    suite.build([BENCHMARK], sources, AssessConfig(max_bytes=400), tmp_path / "suite")
    file = tmp_path / "suite" / "held-out--docs.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    found = suite.read(tmp_path / "suite" / "suite.json", suite.Suite)
    changed = suite.digest_of(tmp_path / "suite", "held-out--docs")
    tasks = tuple(t.model_copy(update={"sha256": changed}) if t.source == "docs" else t for t in found.tasks)
    suite.write(tmp_path / "suite" / "suite.json", found.model_copy(update={"digest": "other", "tasks": tasks}))
    assert {task.task: task.items for task in scored("two")[0].tasks} == {"held-out--code": 24, "held-out--docs": 23}
    assert len(list((tmp_path / "cache").glob("*.parquet"))) == 3


def test_a_damaged_entry_is_made_again(scored, tmp_path):
    first, read = scored("one")
    for entry in (tmp_path / "cache").glob("*.parquet"):
        entry.write_bytes(entry.read_bytes()[:-9])
    assert scored("two") == (first, read)
    assert scored("three") == (first, 0)


def test_what_was_used_longest_ago_makes_room(tmp_path):
    cache = ScoreCache(tmp_path / "cache", max_bytes=250)
    file = tmp_path / "file"
    for name in ("a", "b", "c"):
        file.write_bytes(name.encode() * 100)
        if name == "c":
            assert cache.take("a", tmp_path / "out")
        cache.put(name, file)
    assert {name for name in "abc" if cache.take(name, tmp_path / "out")} == {"a", "c"}


def test_writers_at_once_leave_good_entries_and_nothing_else(tmp_path):
    cache = ScoreCache(tmp_path / "cache", max_bytes=5000)
    failures = []

    def work(number):
        file, out = tmp_path / f"in-{number}", tmp_path / f"out-{number}"
        try:
            for turn in range(40):
                key, content = f"k{turn % 5}", b"x" * (100 + turn % 5)
                file.write_bytes(content)
                cache.put(key, file)
                if cache.take(key, out) and out.read_bytes() != content:
                    failures.append(key)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(path.name.split(".")[0] for path in (tmp_path / "cache").iterdir()) == [f"k{n}" for n in range(5)]
