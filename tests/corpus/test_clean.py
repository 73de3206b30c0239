"""The clean edition: the ledger adds up, no text twice, and what is held out is never trained on."""

import random

import pytest
from small_sources import lines, notes, recipe, sentence, tree

from ratoon.config import ConfigError, DateFilter, Select
from ratoon.corpus import clean as room
from ratoon.corpus.clean import clean, normalise, text_key
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import read_ledger, shards
from ratoon.corpus.sources import ingest

HUNDRED = [sentence(i) for i in range(100)]


def prepare(tmp_path, files, config=None, name="clean", **options):
    """Files of texts through ingest and clean; the edition and its ledger."""
    raw = tmp_path / "raw"
    for old in raw.glob("*"):
        old.unlink()
    for file, texts in files.items():
        lines(raw / file, texts)
    ingest(notes(), tmp_path, tmp_path / "documents")
    return clean(notes(), config or recipe(), tmp_path / "documents", tmp_path / name, **options)


def part(directory, which):
    return [row for path in shards(directory, f"{which}-") for row in rows(path)]


def texts(directory, which):
    return [row["text"] for row in part(directory, which)]


def test_every_document_is_in_one_part_and_all_that_it_carries_with_it(tmp_path):
    ledger = prepare(tmp_path, {"a.jsonl": HUNDRED[:50], "b.jsonl": HUNDRED[50:]})
    before = {row["id"]: row for path in shards(tmp_path / "documents") for row in rows(path)}
    after = [*part(tmp_path / "clean", "train"), *part(tmp_path / "clean", "held_out")]
    assert len(after) == 100
    assert {row["id"]: row for row in after} == before
    assert ledger.held_out_documents == len(part(tmp_path / "clean", "held_out")) > 5


def test_the_ledger_adds_up_and_says_where_the_dropped_were(tmp_path):
    config = recipe(min_bytes=20, alphabetic_words=0.5)
    numbers = ["1 2 3 4 5 6 7 8 9 10 11 12", "9 8 7 6 5 4 3 2 1 0 11 12"]
    ledger = prepare(tmp_path, {"a.jsonl": [*HUNDRED, "short", *numbers, HUNDRED[0]]}, config)
    assert ledger.funnel.dropped == {"alphabetic_words": 2, "duplicate": 1, "min_bytes": 1}
    assert ledger.funnel.dropped_bytes["alphabetic_words"] == sum(map(len, numbers))
    assert ledger.funnel.documents_in == 104
    assert ledger.funnel.bytes_kept == sum(map(len, HUNDRED))
    assert ledger.held_out_bytes == sum(map(len, texts(tmp_path / "clean", "held_out")))
    assert ledger.examples["alphabetic_words"] == ["raw/a.jsonl:102", "raw/a.jsonl:103"]
    assert ledger.examples["duplicate"] == ["raw/a.jsonl:104"]
    assert read_ledger(tmp_path / "clean") == ledger


@pytest.mark.parametrize("seed", range(4))
def test_the_ledger_adds_up_whatever_comes_in(tmp_path, seed):
    draw = random.Random(seed)
    picked = [sentence(draw.randrange(150))[: draw.choice([15, 400])] for _ in range(300)]
    ledger = prepare(tmp_path, {f"{i}.jsonl": picked[i::5] for i in range(5)}, recipe(min_bytes=30))
    kept = texts(tmp_path / "clean", "train") + texts(tmp_path / "clean", "held_out")
    assert sorted(kept) == sorted({text for text in picked if len(text) >= 30})
    assert ledger.funnel.documents_in == 300
    assert ledger.funnel.documents_kept == len(kept)
    assert ledger.funnel.bytes_kept == sum(map(len, kept))


def test_the_same_text_in_other_case_space_or_form_is_there_once(tmp_path):
    same = ["Ein Café, straße.", "ein  cafe\u0301,\n\tSTRASSE. "]
    assert normalise(same[0]) == normalise(same[1])
    ledger = prepare(tmp_path, {"a.jsonl": [*HUNDRED, same[0]], "b.jsonl": [same[1]]})
    assert ledger.funnel.dropped == {"duplicate": 1}


def test_nothing_held_out_is_in_training_under_any_spelling(tmp_path):
    spelled = [text.upper() for text in HUNDRED[::2]] + [f"  {text}\n" for text in HUNDRED[::3]]
    prepare(tmp_path, {"a.jsonl": HUNDRED, "b.jsonl": spelled})
    train = {text_key(text) for text in texts(tmp_path / "clean", "train")}
    held = {text_key(text) for text in texts(tmp_path / "clean", "held_out")}
    assert not train & held
    assert len(train | held) == 100


def test_what_is_held_out_stays_so_as_the_corpus_grows_and_in_any_order(tmp_path):
    prepare(tmp_path, {"m.jsonl": HUNDRED[:60]}, name="small")
    small, train = set(texts(tmp_path / "small", "held_out")), set(texts(tmp_path / "small", "train"))
    shuffled = random.Random(1).sample([*HUNDRED, *(text.upper() for text in HUNDRED[:60])], 160)
    prepare(tmp_path, {"a.jsonl": shuffled[:80], "z.jsonl": shuffled[80:]}, name="large")
    held = {text_key(text) for text in texts(tmp_path / "large", "held_out")}
    assert {text_key(text) for text in small} <= held
    assert not {text_key(text) for text in train} & held


def test_the_held_out_share_is_about_what_was_asked():
    held = sum(room.held_out(text_key(str(i)), 0.05) for i in range(20_000))
    assert 850 < held < 1150


def test_the_same_documents_give_the_same_bytes_whatever_the_number_of_processes(tmp_path):
    files = {f"{i}.jsonl": HUNDRED[10 * i : 10 * i + 15] for i in range(9)}
    one = prepare(tmp_path, files, name="one", processes=1)
    two = prepare(tmp_path, files, name="two", processes=2)
    assert one == two
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_new_text_touches_its_own_shards_and_the_result_is_as_if_made_at_once(tmp_path, monkeypatch):
    files = {f"{i}.jsonl": HUNDRED[10 * i : 10 * i + 10] for i in range(9)}
    prepare(tmp_path, files)
    judged, written = [], []
    monkeypatch.setattr(room, "judge", _spy(room.judge, judged))
    monkeypatch.setattr(room, "write_parts", _spy(room.write_parts, written))
    prepare(tmp_path, files)
    assert (judged, written) == ([], [])
    prepare(tmp_path, {**files, "new.jsonl": [sentence(i) for i in range(200, 210)]})
    assert len(judged) == len(written) == 1
    prepare(tmp_path, {**files, "new.jsonl": HUNDRED[85:]})
    prepare(tmp_path, {**files, "new.jsonl": HUNDRED[85:]}, name="at-once")
    assert tree(tmp_path / "clean") == tree(tmp_path / "at-once")


def _spy(function, heard):
    def spy(*args):
        heard.append(args[0])
        function(*args)

    return spy


@pytest.mark.parametrize(
    ("texts", "share", "message"),
    [
        (HUNDRED[:5], 0.01, r"0 of 5 clean documents are held out; prepare.held_out.min_documents is 2"),
        (["x", *HUNDRED[:2]], 0.49, r"prepare.held_out.min_documents is 2"),
    ],
)
def test_too_little_held_out_is_refused_and_the_earlier_edition_stays(tmp_path, texts, share, message):
    prepare(tmp_path, {"a.jsonl": HUNDRED})
    before = tree(tmp_path / "clean")
    with pytest.raises(ConfigError, match=message):
        prepare(tmp_path, {"a.jsonl": texts}, recipe(share))
    assert tree(tmp_path / "clean") == before
    assert not list(tmp_path.glob(".clean*"))


def test_a_source_smaller_than_its_held_out_part_is_refused_with_the_numbers(tmp_path):
    held = [text for text in HUNDRED if room.held_out(text_key(text), 0.2)]
    train = next(text for text in HUNDRED if not room.held_out(text_key(text), 0.2))
    with pytest.raises(ConfigError) as error:
        prepare(tmp_path, {"a.jsonl": [*held, train]})
    assert "source 'notes' is smaller than its held-out part: 1 documents" in str(error.value)
    assert f"{len(held)} documents ({sum(map(len, held))} bytes) held out" in str(error.value)


def test_what_is_left_with_too_little_says_what_took_the_rest(tmp_path):
    config = recipe(min_bytes=20, mean_word_length=[9, 12]).model_copy(
        update={"dates": DateFilter(max_date="2024-06-30")}
    )
    with pytest.raises(
        ConfigError, match=r"0 of 0 clean documents .* is 2\n  of 102 documents: 102 undated\n  add text"
    ):
        prepare(tmp_path, {"a.jsonl": [*HUNDRED, "short", "brief"]}, config)
    with pytest.raises(ConfigError, match=r"\n  of 103 documents: 100 mean_word_length, 3 min_bytes\n  add text"):
        prepare(tmp_path, {"a.jsonl": ["short", "brief", "curt", *HUNDRED]}, config.model_copy(update={"dates": None}))


def test_a_source_that_a_selection_leaves_smaller_than_its_held_out_part_is_told_so(tmp_path):
    config = recipe().model_copy(update={"select": (Select(score="longest", bytes=100),)})
    with pytest.raises(
        ConfigError, match=r"is smaller than its held-out part(.|\n)*not_selected\n  keep more of it by"
    ):
        prepare(tmp_path, {"a.jsonl": HUNDRED}, config, scores=tmp_path / "scores")


def test_rules_are_those_of_the_kind_of_text(tmp_path):
    ingest_only = {"a.jsonl": HUNDRED}
    prepare(tmp_path, ingest_only)
    code = recipe().model_copy(update={"rules": {"prose": {}}})
    with pytest.raises(ConfigError, match=r"prepare.rules.code: not there, but source 'notes' is code"):
        clean(notes(kind="code"), code, tmp_path / "documents", tmp_path / "clean")
    with pytest.raises(ConfigError, match=r"params.yaml: prepare.rules.prose.symbol: no rule 'symbol'; did you mean"):
        clean(notes(), recipe(symbol=1), tmp_path / "documents", tmp_path / "clean")


def test_a_missing_edition_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"documents/ledger.json: not found"):
        clean(notes(), recipe(), tmp_path / "documents", tmp_path / "clean")


def test_a_listed_shard_that_is_gone_is_said(tmp_path):
    prepare(tmp_path, {"a.jsonl": HUNDRED})
    shards(tmp_path / "documents")[0].unlink()
    with pytest.raises(ConfigError, match=r"listed in ledger.json but not there"):
        clean(notes(), recipe(), tmp_path / "documents", tmp_path / "clean")
