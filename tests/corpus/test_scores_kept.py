"""Scorers and time: text that comes later, or is dated later, changes no score of what was there."""

import json

import pyarrow.parquet as parquet
import pytest
from scored_texts import KINDS, LAW, SEA, config, every, written
from small_sources import notes, tree

from ratoon.config import ConfigError, DateFilter, PrepareConfig
from ratoon.corpus.clean import clean
from ratoon.corpus.edition import read_ledger, shards
from ratoon.corpus.scores.kept import LIST, Scorers, scorers
from ratoon.corpus.scores.stage import score
from ratoon.corpus.sources import ingest

EARLY, LATE = "2023-05-01", "2024-02-01"


def dated(**changes: object) -> DateFilter:
    return DateFilter.model_validate({"max_date": "2023-12-31", **changes})


def add(root, name, texts, day, file="a"):
    """A file of text of that day (none: undated), and the source ingested with it."""
    path = root / "raw" / name / f"{file}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    more = {"date": day} if day else {}
    path.write_text("".join(json.dumps({"text": text, **more}) + "\n" for text in texts), encoding="utf-8")
    ingest(notes(f"raw/{name}", name=name), root, root / "documents" / name, processes=1)


@pytest.fixture
def root(tmp_path):
    add(tmp_path, "sea", written(SEA, 120, 1), EARLY)
    add(tmp_path, "law", written(LAW, 120, 2), EARLY)
    add(tmp_path, "notes", written(SEA, 40, 11) + written(LAW, 40, 12), EARLY)
    return tmp_path


def later(root, day=LATE):
    """Other text of both subjects, and of what is scored."""
    add(root, "sea", written(LAW, 90, 21), day, "b")
    add(root, "law", written(SEA, 90, 22), day, "b")
    add(root, "notes", written(SEA, 30, 23), day, "b")


def rate(root, settings):
    scorers(settings, root / "documents", root / "scorers", processes=1)
    return score(
        notes(), settings, root / "documents" / "notes", root / "scores" / "notes", processes=1, kept=root / "scorers"
    )


def made(settings: PrepareConfig, **changes) -> PrepareConfig:
    return settings.model_copy(update=changes)


def by_id(root):
    """Every score of every document."""
    found = {}
    for path in shards(root / "scores" / "notes"):
        for row in parquet.read_table(path).to_pylist():
            found[row.pop("id")] = row
    return found


def test_text_that_comes_later_changes_scores_unless_a_scorer_is_kept(root):
    """The first half is what the second is needed for."""
    free, kept = config(**every()), config(**every(kept=1))
    rate(root, free)
    before = by_id(root)
    rate(root, kept)
    assert by_id(root) == before
    files = tree(root / "scores" / "notes")
    trained = tree(root / "scorers")
    later(root)
    rate(root, kept)
    after = by_id(root)
    assert len(after) > len(before)
    assert {id_: after[id_] for id_ in before} == before
    assert tree(root / "scorers") == trained
    again = tree(root / "scores" / "notes")
    assert {name: data for name, data in files.items() if name != "ledger.json"}.items() <= again.items()
    rate(root, free)
    assert {id_: by_id(root)[id_] for id_ in before} != before


def test_a_kept_scorer_is_made_anew_when_that_is_declared_and_taken_away_with_its_declaration(root):
    rate(root, config(**every(kept=1)))
    first = Scorers.model_validate_json((root / "scorers" / LIST).read_text())
    later(root)
    rate(root, config(**every(kept=2)))
    second = Scorers.model_validate_json((root / "scorers" / LIST).read_text())
    for name in KINDS:
        assert first.kept[name].sha256 != second.kept[name].sha256
    assert second.kept["classifier"].trained["positive"]["documents"] > 90
    rate(root, config(**every()))
    assert list(tree(root / "scorers")) == [LIST]


def test_scorers_that_are_not_kept_leave_the_edition_the_bytes_it_had(root):
    asked = config(**every())
    score(notes(), asked, root / "documents" / "notes", root / "scores" / "notes", processes=1)
    before = tree(root / "scores" / "notes")
    rate(root, asked)
    assert tree(root / "scores" / "notes") == before
    assert not {"until", "kept"} & asked.scores["classifier"].model_dump().keys()


def test_what_is_kept_is_trained_once_for_all_sources_and_the_same_by_one_worker_and_two(root):
    asked = config(**every(kept=1))
    scorers(asked, root / "documents", root / "one", processes=1)
    scorers(asked, root / "documents", root / "two", processes=2)
    assert tree(root / "one") == tree(root / "two")


@pytest.mark.parametrize("kind", KINDS)
def test_text_dated_after_max_date_changes_no_score_and_nothing_of_what_is_kept(root, kind):
    select = ({"score": kind, "keep": 0.5},)
    asked = made(config(select=select, **{kind: {"kind": kind, **KINDS[kind], "max_bytes": 20_000}}), dates=dated())
    trained = []
    for _ in range(2):
        ledger = rate(root, asked)
        clean(
            notes(),
            asked,
            root / "documents" / "notes",
            root / "clean" / "notes",
            processes=1,
            scores=root / "scores" / "notes",
        )
        files = {n: data for n, data in tree(root / "clean" / "notes").items() if n.startswith(("train-", "held_out-"))}
        trained.append((files, [name for name in ledger.shards if name.startswith("models/")], by_id(root)))
        later(root)
    (files, models, scores), (files_later, models_later, scores_later) = trained
    assert files == files_later
    assert models == models_later
    assert len(scores_later) > len(scores)
    assert scores.items() <= scores_later.items()
    assert read_ledger(root / "clean" / "notes").funnel.dropped["after_max_date"] == 30


@pytest.mark.parametrize("undated", ["drop", "keep"])
def test_text_without_a_date_trains_a_scorer_only_where_the_corpus_keeps_it(root, undated):
    asked = made(config(**every()), dates=dated(undated=undated))
    rate(root, asked)
    before = by_id(root)
    later(root, None)
    rate(root, asked)
    same = {id_: by_id(root)[id_] for id_ in before} == before
    assert same == (undated == "drop")


def test_a_scorer_has_a_last_day_of_its_own_that_no_later_text_gets_past(root):
    asked = config(**every(until="2023-12-31"))
    rate(root, asked)
    before = by_id(root)
    later(root)
    rate(root, made(asked, dates=dated(max_date="2025-01-01")))
    assert {id_: by_id(root)[id_] for id_ in before} == before
    with pytest.raises(ConfigError, match="no text to train a score on, but what is held out or dated too late"):
        rate(root, config(**every(until="2020-01-01")))


def test_a_kept_scorer_may_not_have_read_what_the_corpus_is_not_to_know(root):
    asked = config(**every(kept=1))
    rate(root, made(asked, dates=dated()))
    rate(root, made(asked, dates=dated(max_date="2024-12-31")))  # a later day takes nothing back
    before = tree(root / "scorers")
    with pytest.raises(ConfigError, match=r"up to 2023-12-31, and text may be from 2023-06-30(.|\n)*kept in params"):
        rate(root, made(asked, dates=dated(max_date="2023-06-30")))
    rate(root, made(config(**every(kept=2))))
    with pytest.raises(ConfigError, match="trained on text of any time"):
        rate(root, made(config(**every(kept=2)), dates=dated()))
    rate(root, made(config(**every(kept=3)), dates=dated()))
    assert before.keys() != tree(root / "scorers").keys()


def test_a_scorer_that_is_kept_and_not_there_or_damaged_is_asked_for(root):
    asked = config(**every(kept=1))
    documents = root / "documents" / "notes"
    with pytest.raises(ConfigError, match=r"prepare.scores.classifier: it is kept.*\n?.*ratoon prepare scorers"):
        score(notes(), asked, documents, root / "scores" / "notes", kept=root / "scorers")
    rate(root, asked)
    path = next((root / "scorers").glob("retrieval-*"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigError, match=r"not the scorer that scorers.json speaks of; bring it back \(dvc"):
        rate(root, asked)
    with pytest.raises(ConfigError, match="'web' has no documents to train a score on"):
        rate(root, config(good={"kind": "perplexity", "reference": ["web"], "kept": 1}))
