"""The suite: which items a model is scored on."""

import json
from collections import Counter
from itertools import pairwise

import pyarrow
import pyarrow.parquet as parquet
import pytest
from held_out_text import prose, write_held_out

from ratoon.config import AssessConfig, Benchmark, ConfigError, NextPassage, ProbeConfig, benchmark, parse
from ratoon.evaluation import passages, probe, suite, trajectory
from ratoon.evaluation.contexts import Library
from ratoon.evaluation.held_out import held_out_documents
from ratoon.evaluation.taskfile import lines_of

HELD_OUT = Benchmark(name="held-out", version=1, form={"kind": "held_out"})
NEXT = Benchmark(name="next-passage", version=1, form={"kind": "next_passage"})
CONFIG = AssessConfig(items=60)


def items(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_shipped_benchmarks_are_declared_as_they_should_be(request):
    root = request.config.rootpath
    names = sorted(path.stem for path in (root / "data" / "benchmarks").glob("*.yaml"))
    assert {name: benchmark(root, name).metric for name in names} == {
        "held-out": "bits_per_byte",
        "next-passage": "accuracy",
    }


def test_an_unknown_key_of_a_benchmark_is_named():
    with pytest.raises(ConfigError, match="no key 'versoin'; did you mean 'version'"):
        parse(Benchmark, {"name": "x", "versoin": 1, "form": {"kind": "held_out"}}, "benchmarks/x.yaml")


def test_the_same_documents_give_the_same_suite_whatever_their_order_and_folder(sources, tmp_path):
    first = suite.build([HELD_OUT, NEXT], sources, CONFIG, tmp_path / "one")
    role, clean = sources["docs"]
    shard = clean / "held_out-00000.parquet"
    rows = parquet.read_table(shard)
    shard.unlink()
    parquet.write_table(rows.slice(10), clean / "held_out-00000.parquet")
    parquet.write_table(rows.slice(0, 10), clean / "held_out-00001.parquet")
    second = suite.build([NEXT, HELD_OUT], dict(reversed(sources.items())), CONFIG, tmp_path / "two")
    assert first == second
    assert role == "general"
    assert suite.load(tmp_path / "one") == suite.load(tmp_path / "two") == first


def test_a_growing_corpus_keeps_the_chosen_documents_until_better_hashes_come(tmp_path):
    texts = {f"{i:03}": prose(i, 60) for i in range(80)}
    few = AssessConfig(max_documents=20)
    before = write_held_out(tmp_path / "docs", dict(list(texts.items())[:60]))
    suite.build([HELD_OUT], {"docs": ("general", before)}, few, tmp_path / "before")
    after = write_held_out(tmp_path / "docs", texts)
    suite.build([HELD_OUT], {"docs": ("general", after)}, few, tmp_path / "after")
    old = [item["id"] for item in items(tmp_path / "before", "held-out--docs")]
    new = [item["id"] for item in items(tmp_path / "after", "held-out--docs")]
    kept = [key for key in new if key <= "docs-059"]
    assert kept == old[: len(kept)]
    assert 10 < len(kept) < 20


def test_every_item_is_answered_by_its_own_document_and_by_no_other(sources, tmp_path):
    suite.build([NEXT], sources, CONFIG, tmp_path / "suite")
    texts = {each.id: each.text for each in held_out_documents(sources["docs"][1])}
    made = items(tmp_path / "suite", "next-passage--docs")
    assert len(made) == 60
    for item in made:
        text, choices = texts[item["document"]], item["choices"]
        assert item["context"] + choices[item["gold"]] in text
        assert sum(choice in text for choice in choices) == 1
        assert len(set(choices)) == CONFIG.choices
        assert all(choice[0].isspace() for choice in choices)


def test_right_and_wrong_answers_have_the_same_length_within_a_tenth(tmp_path):
    texts = {f"{i:03}": prose(i, 100).replace("e", "é").replace("a", "漢") for i in range(30)}
    clean = write_held_out(tmp_path / "docs", texts)
    suite.build([NEXT], {"docs": ("general", clean)}, CONFIG, tmp_path / "suite")
    sizes = [len(c.encode()) for item in items(tmp_path / "suite", "next-passage--docs") for c in item["choices"]]
    assert max(sizes) - min(sizes) <= 3
    assert max(sizes) <= 80


def test_the_right_answer_stands_equally_often_at_every_place(sources, tmp_path):
    suite.build([NEXT], sources, CONFIG, tmp_path / "suite")
    assert set(Counter(item["gold"] for item in items(tmp_path / "suite", "next-passage--code")).values()) == {15}


def test_documents_with_one_passage_come_before_second_passages_of_others():
    documents = [("short", prose(1, 70)), ("long", prose(2, 900))]
    found = passages.pool(documents, NextPassage(kind="next_passage"), 6, seed=0)
    assert [passage.document for passage in found] == ["short", *["long"] * 5]
    places = sorted(passage.place for passage in found[1:])
    assert all(b - a >= 320 for a, b in pairwise(places))


def test_documents_that_repeat_one_another_are_not_each_others_wrong_answers():
    same = [(f"{i}", prose("licence", 80)) for i in range(30)]
    found = passages.pool(same, NextPassage(kind="next_passage"), 30, seed=0)
    assert passages.items(found, 4, seed=0) == []


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("short", 10, "short"),
        ("one\ntwo\nthree", 9, "one\ntwo\n"),
        ("a\n" + "b" * 20, 12, "a\n" + "b" * 10),
        ("é" * 10, 7, "ééé"),
        ("漢字", 6, "漢字"),
    ],
)
def test_a_long_text_is_cut_between_lines_or_letters(text, limit, expected):
    assert suite.cut(text, limit) == expected


def test_too_few_held_out_documents_are_refused_with_what_to_do(tmp_path):
    clean = write_held_out(tmp_path / "docs", {f"{i}": prose(i, 80) for i in range(7)})
    with pytest.raises(ConfigError, match=r"docs: 7 held-out documents in .* it needs 20\n  add text to the source"):
        suite.build([HELD_OUT], {"docs": ("general", clean)}, CONFIG, tmp_path / "suite")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs"]


def test_documents_too_short_for_a_passage_do_not_count(tmp_path):
    clean = write_held_out(tmp_path / "docs", {f"{i:02}": prose(i, 20 if i < 10 else 90) for i in range(25)})
    with pytest.raises(ConfigError, match=r"15 held-out documents .* 'next-passage'"):
        suite.build([NEXT], {"docs": ("general", clean)}, CONFIG, tmp_path / "suite")


def test_a_source_without_held_out_shards_says_who_writes_them(tmp_path):
    with pytest.raises(ConfigError, match=r"no held_out-.*`ratoon prepare` writes them"):
        suite.build([HELD_OUT], {"docs": ("general", tmp_path)}, CONFIG, tmp_path / "suite")


def test_a_damaged_shard_is_named_and_the_suite_there_stays(sources, tmp_path):
    before = suite.build([HELD_OUT], sources, CONFIG, tmp_path / "suite")
    shard = sources["code"][1] / "held_out-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"held_out-00000\.parquet: not readable"):
        suite.build([HELD_OUT], sources, CONFIG, tmp_path / "suite")
    assert suite.load(tmp_path / "suite") == before


def test_a_shard_without_the_text_column_is_named(tmp_path):
    (tmp_path / "docs").mkdir()
    parquet.write_table(pyarrow.table({"id": ["a"], "body": ["b"]}), tmp_path / "docs" / "held_out-0.parquet")
    with pytest.raises(ConfigError, match="columns id and text"):
        suite.build([HELD_OUT], {"docs": ("general", tmp_path / "docs")}, CONFIG, tmp_path / "suite")


def test_items_changed_by_hand_are_noticed(sources, tmp_path):
    suite.build([HELD_OUT], sources, CONFIG, tmp_path / "suite")
    with (tmp_path / "suite" / "held-out--docs.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(ConfigError, match=r"held-out--docs is not what suite\.json says"):
        suite.load(tmp_path / "suite")


def test_text_with_line_ends_of_unicode_is_read_as_one_item_by_all_who_read_a_suite(tmp_path):
    texts = {f"{i:02}": f"{prose(i, 30)}\u2028{prose(i + 50, 30)}\x85{prose(i + 90, 30)}" for i in range(24)}
    write_held_out(tmp_path / "clean", texts)
    forms = ({"kind": "held_out"}, {"kind": "next_passage", "context_bytes": 60})
    asked = [Benchmark(name=form["kind"].replace("_", "-"), version=1, form=form) for form in forms]
    config = AssessConfig(items=24, max_bytes=10**6)
    tests = suite.build(asked, {"docs": ("domain", tmp_path / "clean")}, config, tmp_path / "suite")
    lines = lines_of(tmp_path / "suite" / "held-out--docs.jsonl")
    assert {line["id"].removeprefix("clean-"): line["text"] for line in lines} == texts
    part = trajectory.subset(tmp_path / "suite", 5, tmp_path / "part")
    assert [task.items for task in part.tasks] == [5, 5]
    assert len(probe.items_of(tmp_path / "suite", ProbeConfig(items=20))) == 20
    library = Library({"docs": [tmp_path / "clean"]}, ["docs"], tmp_path / "suite", tests.tasks)
    assert library.num_bytes(tests.tasks[:1]) == sum(len(text.encode()) for text in texts.values())
    assert len(library.held_out) == len(texts)


def test_two_tasks_of_one_name_are_refused_before_one_overwrites_the_other(sources, tmp_path):
    (tmp_path / "exam.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    form = {"kind": "items", "path": "exam.jsonl", "ask": "generation"}
    exam = Benchmark(name="held-out--docs", version=1, form=form)
    letter = (
        r"benchmark 'held-out' on 'docs' and benchmark 'held-out--docs' on 'held-out--docs' are both the task "
        r"'held-out--docs'; rename a benchmark"
    )
    with pytest.raises(ConfigError, match=letter):
        suite.build([HELD_OUT, exam], sources, CONFIG, tmp_path / "suite", tmp_path)
    assert not (tmp_path / "suite").exists()
