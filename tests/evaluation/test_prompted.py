"""A suite asked with text in front: the same tokens are scored, and nothing is seen that should not be."""

import json

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from held_out_text import prose, write_held_out
from training_text import training_texts, write_training

from ratoon.config import AssessConfig, Benchmark, ConfigError
from ratoon.config.arms import FewShot, Retrieved
from ratoon.evaluation import harness, suite
from ratoon.evaluation.contexts import Library, Nothing, Place
from ratoon.evaluation.prompted import Planner, Reader, Room, encode, room

BENCHMARKS = [
    Benchmark(name="held-out", version=1, form={"kind": "held_out"}),
    Benchmark(name="next-passage", version=1, form={"kind": "next_passage", "context_bytes": 60}),
]
ROW = 200
ASSESS = AssessConfig(items=24, max_bytes=700)


@pytest.fixture
def library(sources, tmp_path):
    for role, (_, folder) in sources.items():
        write_training(folder, training_texts(role))
    made = suite.build(BENCHMARKS, sources, ASSESS, tmp_path / "suite")
    editions = {name: [folder] for name, (_, folder) in sources.items()}
    return Library(editions, ["code"], tmp_path / "suite", made.tasks)


@pytest.fixture
def reader(models):
    return Reader(models[0], device="cpu", precision="fp32")


def words(reader):
    return lambda text: encode(reader.tokenizer, [text])[0]


def planned(reader, library, context, place):
    return Planner(reader.tokenizer, context, place).plan(library.suite, library.tasks)


def test_without_a_context_every_item_is_scored_as_lm_eval_scores_it(reader, library, models, tmp_path):
    plan = planned(reader, library, Nothing(), Room(ROW, ROW, 0))
    found = reader.logliks(plan.every)
    harness.score(models[0], library.suite, tmp_path / "scores", row_tokens=ROW, device="cpu", threads=1)
    begin = 0
    for task in library.tasks:
        rows = plan.rows[task.name]
        ours = {}
        for row, value in zip(rows, found[begin : begin + len(rows)], strict=True):
            place = (plan.items[task.name][row.item], row.choice)
            ours[place] = ours.get(place, 0.0) + value
        begin += len(rows)
        for item in parquet.read_table(tmp_path / "scores" / f"{task.name}.parquet").to_pylist():
            wanted = item["loglik_nats"]
            assert [ours[item["id"], choice] for choice in range(len(wanted))] == pytest.approx(wanted, rel=1e-5)
    assert max(len(row.ids) for row in plan.every) == ROW


@pytest.mark.parametrize("reads", [ROW, ROW + 50, 512])
@pytest.mark.parametrize("kind", [FewShot, Retrieved])
def test_the_tokens_scored_are_the_same_whatever_is_shown(kind, reads, reader, library):
    place = Room(ROW, reads, 100)
    context = (library.nearest if kind is Retrieved else library.drawn)(kind(), 100, words(reader))
    plan, bare = planned(reader, library, context, place), planned(reader, library, Nothing(), Room(ROW, ROW, 0))
    for name, rows in plan.rows.items():
        said, wanted = {}, {}
        for into, of in ((said, rows), (wanted, bare.rows[name])):
            for row in of:
                into.setdefault((row.item, row.choice), []).extend(row.said)
        assert said == wanted
    assert max(len(row.ids) for row in plan.every) <= reads
    assert plan.told.with_text > 0.5 * plan.told.places
    assert plan.told.own_tokens == min(ROW, reads - 100)


def test_a_row_is_scored_as_what_follows_its_context(reader, library):
    plan = planned(reader, library, library.drawn(FewShot(), 100, words(reader)), Room(ROW, ROW, 100))
    rows = plan.every[::17]
    for row, value in zip(rows, reader.logliks(rows), strict=True):
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            logs_TV = reader.model(ids).logits[0].log_softmax(-1)
        expected = sum(float(logs_TV[len(row.ids) - len(row.said) + k, token]) for k, token in enumerate(row.said))
        assert value == pytest.approx(expected, rel=1e-4)


def test_every_choice_of_an_item_sees_the_same_context(reader, library):
    plan = planned(reader, library, library.nearest(Retrieved(), 100, words(reader)), Room(ROW, 512, 100))
    for task in library.tasks:
        if task.metric == "accuracy":
            shown = {}
            for row in plan.rows[task.name]:
                shown.setdefault(row.item, set()).add(tuple(row.ids[: -len(row.said) - 30]))
            assert {len(found) for found in shown.values()} == {1}


def test_what_is_shown_does_not_depend_on_what_is_to_be_said(reader, library):
    """The first half of every held-out text stays, the second becomes another: the first half's contexts stay."""
    (task,) = [task for task in library.tasks if task.name == "held-out--code"]
    file = library.suite / f"{task.name}.jsonl"
    items = [json.loads(line) for line in file.read_text().splitlines()]
    context, place = library.nearest(Retrieved(), 100, words(reader)), Room(ROW, ROW, 100)
    before = Planner(reader.tokenizer, context, place).plan(library.suite, [task]).rows[task.name]
    half = 350
    for item in items:
        item["text"] = item["text"][:half] + prose(f"not {item['id']}", 100)[: len(item["text"]) - half]
    file.write_text("".join(json.dumps(item) + "\n" for item in items))
    after = Planner(reader.tokenizer, context, place).plan(library.suite, [task]).rows[task.name]
    # One byte is one token here: windows of 200, then of 100 each; the first two lie in the first half.
    for number in range(len(items)):
        early = [[row.ids for row in rows if row.item == number][:2] for rows in (before, after)]
        assert early[0] == early[1]
    assert before != after


def test_a_copy_of_the_held_out_document_is_never_shown_though_it_is_nearest(reader, tmp_path):
    held = {f"{k:03}": " ".join(f"{word}{k}" for word in prose(k, 60).split()) for k in range(24)}
    texts = {}
    for key, text in held.items():
        near = text.split()
        near[::40] = ["altered"] * len(near[::40])
        texts |= {f"copy-{key}": " ".join(near), f"around-{key}": f"{prose(key, 50)} {text} {prose(key, 9)}"}
    folder = write_training(write_held_out(tmp_path / "notes", held), texts | training_texts("code"))
    made = suite.build([BENCHMARKS[0]], {"notes": ("domain", folder)}, ASSESS, tmp_path / "suite")
    library = Library({"notes": [folder]}, ["notes"], tmp_path / "suite", made.tasks)
    honest, careless = (
        library.nearest(Retrieved(passages=2, max_overlap=overlap), 160, words(reader)) for overlap in (0.5, 1.0)
    )
    leaked = 0
    for key, text in held.items():
        place = Place("notes", f"notes-{key}", f"notes-{key}", text[:120], 160)
        assert max(copied(reader, honest, place, text)) <= 0.5
        leaked += max(copied(reader, careless, place, text)) > 0.5
    assert leaked == len(held)  # without the rule every one of them would have been shown


def copied(reader, context, place, text):
    """Of each passage shown: the part of its runs of five words that the text holds."""
    passages = reader.tokenizer.decode(context.show([place])[0]).split("\n\n")[:-1]
    own, shown = runs_of(text), [runs_of(passage) for passage in passages]
    return [len(runs & own) / len(runs) for runs in shown if runs]


def runs_of(text):
    words = text.split()
    return {tuple(words[k : k + 5]) for k in range(len(words) - 4)}


def test_retrieval_finds_the_training_passage_that_goes_on_as_the_text_does(reader, tmp_path):
    """Each held-out text shares its rare words with one training document, and is shown that one."""
    topics = [f"topic{k} term{k} thing{k} idea{k}" for k in range(24)]
    held = {f"{k:03}": f"{topic} {prose(k, 60)}" for k, topic in enumerate(topics)}
    texts = {f"t{k:03}": f"{prose(k + 500, 4)} {topic} {prose(k + 900, 4)}" for k, topic in enumerate(topics)}
    folder = write_training(write_held_out(tmp_path / "notes", held), texts)
    made = suite.build([BENCHMARKS[0]], {"notes": ("domain", folder)}, ASSESS, tmp_path / "suite")
    context = Library({"notes": [folder]}, ["notes"], tmp_path / "suite", made.tasks).nearest(
        Retrieved(), 80, words(reader)
    )
    for k, topic in enumerate(topics):
        place = Place("notes", f"notes-{k:03}", f"notes-{k:03}", topic, 80)
        assert f"topic{k} " in reader.tokenizer.decode(context.show([place])[0])


def test_what_there_is_no_room_for_is_cut_from_the_far_end_and_counted(reader, library):
    context = library.drawn(FewShot(), 100, words(reader))
    plan = planned(reader, library, context, Room(ROW, ROW, 100))
    assert plan.told.without_room > 0  # an item with its choice has 140 tokens of 200
    wide = planned(reader, library, context, Room(ROW, 512, 100))
    assert wide.told.without_room == 0
    for name in ("next-passage--code", "next-passage--docs"):
        for narrow, full in zip(plan.rows[name], wide.rows[name], strict=True):
            assert full.ids[-len(narrow.ids) :] == narrow.ids


def test_more_to_be_shown_than_a_model_reads_is_refused(models):
    assert room(models[0], 128, None, "few_shot") == Room(128, 192, 64)
    assert room(models[0], 500, 100, "few_shot") == Room(500, 512, 100)
    with pytest.raises(
        ConfigError, match=r"arms.few_shot.tokens: 512 tokens are to be shown, and .* reads 512 at once"
    ):
        room(models[0], 128, 512, "few_shot")


@pytest.mark.parametrize("name", ["max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"])
def test_no_row_is_longer_than_the_model_reads_whatever_its_family_calls_that(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({name: 128}))
    assert room(tmp_path, 128, None, "few_shot") == Room(128, 128, 64)
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {name: 128}}))
    assert room(tmp_path, 128, None, "few_shot") == Room(128, 128, 64)


def test_batches_do_not_change_a_score_and_cost_is_that_of_the_rows(reader, library, monkeypatch):
    plan = planned(reader, library, Nothing(), Room(ROW, ROW, 0))
    rows = plan.every[:40]
    whole = reader.logliks(rows)
    monkeypatch.setattr("ratoon.evaluation.prompted.MOST_ROWS", {"cpu": 1})
    assert np.allclose(reader.logliks(rows), whole, rtol=1e-5)
    from ratoon.lm.flops import flops_of

    assert reader.flops == flops_of(reader.model)
    assert reader.cost(rows) == sum(len(row.ids) * reader.flops.forward(len(row.ids)) for row in rows)
