"""The stage `score`: editions of scores, what they are made of, and when they are made anew."""

import json

import numpy as np
import pyarrow.parquet as parquet
import pytest
from safetensors import safe_open
from scored_texts import KINDS, LAW, SEA, SHARE, config, documents, every, is_held_out, scorer, written
from small_sources import lines, notes, tree

from ratoon.config import ConfigError
from ratoon.corpus.clean import clean
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import read_ledger, shards
from ratoon.corpus.scores.models import Plan, read_model, train, write_model
from ratoon.corpus.scores.stage import score
from ratoon.corpus.sources import ingest

NOTES = written(SEA, 40, 11) + written(LAW, 40, 12)


@pytest.fixture(scope="module")
def editions(tmp_path_factory):
    return documents(tmp_path_factory.mktemp("scores"), sea=written(SEA, 150, 1), law=written(LAW, 150, 2), notes=NOTES)


def run(editions, out, settings=None, **options):
    return score(notes(), settings or config(**every()), editions / "notes", out / "notes", **options)


def test_without_scores_an_edition_is_a_ledger_and_nothing_else(editions, tmp_path):
    ledger = run(editions, tmp_path, config())
    assert ledger.shards == {}
    assert list(tree(tmp_path / "notes")) == ["ledger.json"]
    assert ledger.funnel.documents_in == ledger.funnel.documents_kept == len(NOTES)
    elsewhere = config(**every(sources=["web"]))
    assert run(editions, tmp_path, elsewhere).shards == {}


def test_scores_stand_row_by_row_as_the_documents_do(editions, tmp_path):
    run(editions, tmp_path)
    found = shards(tmp_path / "notes")
    for path, of in zip(found, shards(editions / "notes"), strict=True):
        table = parquet.read_table(path)
        assert path.stem.rpartition("-")[0] == of.stem
        assert table.column_names == ["id", "classifier", "importance", "perplexity", "retrieval", "retrieval:nearest"]
        assert table["id"].to_pylist() == [row["id"] for row in rows(of)]
        assert table.schema.metadata is None


def test_one_worker_and_two_write_the_same_bytes(editions, tmp_path):
    run(editions, tmp_path / "one", processes=1)
    run(editions, tmp_path / "two", processes=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_nothing_is_made_again_that_is_there(editions, tmp_path, monkeypatch):
    first = run(editions, tmp_path, processes=1)
    for maker in ("make", "write_scores"):
        monkeypatch.setattr(f"ratoon.corpus.scores.stage.{maker}", lambda *_: pytest.fail("made again"))
    assert run(editions, tmp_path, processes=1) == first


def test_a_new_document_is_scored_without_training_or_scoring_the_others_again(tmp_path, monkeypatch):
    root = tmp_path
    editions = documents(root, sea=written(SEA, 50, 1), law=written(LAW, 50, 2), notes=NOTES)
    before = run(editions, root / "scores", processes=1).shards
    lines(root / "raw" / "notes" / "more.jsonl", written(SEA, 5, 13))
    ingest(notes("raw/notes"), root, editions / "notes", processes=1)
    monkeypatch.setattr("ratoon.corpus.scores.stage.make", lambda *_: pytest.fail("trained again"))
    after = run(editions, root / "scores", processes=1).shards
    assert {*before} < {*after}
    assert all(after[name] == before[name] for name in before)


@pytest.mark.parametrize("change", ["setting", "reference", "held out"])
def test_a_change_of_what_a_scorer_is_made_of_makes_it_anew_and_no_other(tmp_path, change):
    editions = documents(tmp_path, sea=written(SEA, 50, 1), law=written(LAW, 50, 2), notes=NOTES)
    both = {"a": {"kind": "perplexity", "reference": ["sea"]}, "b": {"kind": "perplexity", "reference": ["law"]}}
    before = run(editions, tmp_path, config(**both), processes=1).shards
    share = SHARE
    if change == "setting":
        both["a"]["order"] = 3
    elif change == "reference":
        editions = documents(tmp_path, sea=written(SEA, 51, 1))
    else:
        share = 0.1
    after = run(editions, tmp_path, config(share, **both), processes=1).shards
    gone = sorted(name.partition("-")[0] for name in before if name.startswith("models/") and name not in after)
    assert gone == (["models/a", "models/b"] if change == "held out" else ["models/a"])
    assert not any(name in after for name in before if not name.startswith("models/"))


def test_of_texts_that_are_equal_but_for_case_one_counts_whichever_comes_first(tmp_path):
    said = written(SEA, 40, 1)
    loud = [text.upper() for text in said]
    for place, texts in (("a", said + loud), ("b", loud + said)):
        editions = documents(tmp_path / place, sea=texts)
        write_model(Plan(scorer("perplexity"), editions, SHARE), tmp_path / f"{place}.model")
    assert (tmp_path / "a.model").read_bytes() == (tmp_path / "b.model").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_read_back_gives_the_same_scores(editions, tmp_path, kind):
    plan = Plan(scorer(kind), editions, SHARE)
    write_model(plan, tmp_path / "model.safetensors")
    texts = parquet.read_table(shards(editions / "notes")[0])["text"].combine_chunks()
    made, back = train(plan)[0].scores(texts), read_model(kind, tmp_path / "model.safetensors").scores(texts)
    assert all(np.array_equal(made[key], back[key], equal_nan=True) for key in made)
    write_model(plan, tmp_path / "again.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_no_scorer_sees_a_document_that_is_held_out(tmp_path, kind):
    sea, law = written(SEA, 60, 1), written(LAW, 60, 2)
    more = [text for text in written(SEA, 300, 21) + written(LAW, 300, 22) if is_held_out(text)]
    assert len(more) > 60
    without = documents(tmp_path / "without", sea=sea, law=law)
    along = documents(tmp_path / "along", sea=sea + more[::2], law=law + more[1::2])
    for place in (without, along):
        write_model(Plan(scorer(kind), place, SHARE), place / "model")
    assert (without / "model").read_bytes() == (along / "model").read_bytes()


def test_a_large_side_is_sampled_by_the_hash_of_its_documents(tmp_path):
    editions = documents(tmp_path, sea=written(SEA, 1000, 1), law=written(LAW, 50, 2))
    total = read_ledger(editions / "sea").funnel.bytes_in
    plan = Plan(scorer("perplexity", max_bytes=total // 4), editions, SHARE)
    facts = train(plan)[1]["reference"]
    assert 0.18 * (1 - SHARE) < facts["bytes"] / total < 0.32 * (1 - SHARE)


def test_a_model_says_what_it_was_made_of(editions, tmp_path):
    write_model(Plan(scorer("classifier"), editions, SHARE), tmp_path / "model")
    with safe_open(tmp_path / "model", "numpy") as file:
        facts = json.loads(file.metadata()["facts"])
    assert facts["positive"]["documents"] == sum(not is_held_out(text) for text in written(SEA, 150, 1))
    assert facts["kind"] == "classifier"
    assert facts["auc"] > 0.9


def test_clean_trains_on_what_is_selected_and_holds_out_what_it_always_did(editions, tmp_path):
    asked = config(select=({"score": "classifier", "keep": 0.4},), **every())
    run(editions, tmp_path / "scores", asked)
    some = clean(notes(), asked, editions / "notes", tmp_path / "some", scores=tmp_path / "scores" / "notes")
    whole = clean(notes(), config(), editions / "notes", tmp_path / "whole")
    trained = [each.funnel.bytes_kept - each.held_out_bytes for each in (some, whole)]
    assert 0.35 < trained[0] / trained[1] <= 0.4
    assert some.funnel.documents_kept + some.funnel.dropped["not_selected"] == len(NOTES)
    assert part(tmp_path / "some", "held_out") == part(tmp_path / "whole", "held_out")
    kept = part(tmp_path / "some", "train")
    assert sum(text in NOTES[:40] for text in kept) > 0.95 * len(kept)


def part(edition, name):
    return [row["text"] for path in shards(edition, f"{name}-") for row in rows(path, ["text"])]


def test_a_scorer_of_a_source_that_is_not_there_is_refused(editions, tmp_path):
    asked = config(good={"kind": "perplexity", "reference": ["books"]})
    with pytest.raises(
        ConfigError, match=r"prepare.scores.good: 'books' has no documents to train a score on"
    ) as error:
        run(editions, tmp_path, asked)
    assert "ratoon prepare ingest books" in str(error.value)
    assert not (tmp_path / "notes").exists()


def test_a_scorer_without_text_is_refused_and_the_earlier_edition_stays(editions, tmp_path):
    hidden = [text for text in written(SEA, 100, 31) if is_held_out(text)]
    documents(tmp_path, hidden=hidden, notes=NOTES)
    run(editions, tmp_path)
    before = tree(tmp_path / "notes")
    asked = config(good={"kind": "perplexity", "reference": ["hidden"]})
    with pytest.raises(
        ConfigError, match=r"prepare.scores.good: hidden: no text to train a score on, but what is held"
    ):
        run(tmp_path / "documents", tmp_path, asked, processes=1)
    assert tree(tmp_path / "notes") == before
