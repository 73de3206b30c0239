"""Poison documents through the whole prepare, from file to rows, with everything switched on that can be."""

import json

import numpy as np
import pytest
from small_sources import base, notes, sentence, tree

from ratoon.config import (
    Amend,
    DateFilter,
    Dedup,
    HeldOut,
    LanguageFilter,
    LicenseFilter,
    NearDuplicates,
    Paragraphs,
    PrepareConfig,
    Toxicity,
)
from ratoon.corpus.clean import clean
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import shards
from ratoon.corpus.pack import pack
from ratoon.corpus.rules import FORMS, RULES
from ratoon.corpus.sources import ingest
from ratoon.corpus.tokenizer import load, train_tokenizer

# The least and the most that rules allow, so that every rule looks at every document and lets it pass.
SHARES = {"alphabetic_words", "alphanumeric", "gopher_alphabetic", "fineweb_ended_lines"}
LEAST = {"min_bytes", "gopher_stop_words", "c4", "c4_ended", "c4_paragraphs"}
LENIENT = {
    "number": lambda name: 0 if name in LEAST else 10**9,
    "share": lambda name: 0.0 if name in SHARES else 1.0,
    "range": lambda name: [0, 10**9],
    "shares": lambda name: [1.0] * (6 if name == "gopher_duplicate_ngrams" else 3),
}
# The shares of these may pass 1, because n-grams overlap: asked last, so that all others see every document.
LAST = ("top_bigram", "gopher_top_ngrams", "fineweb_newlines")
EVERY_RULE = {name: LENIENT[RULES[name].threshold](name) for name in (*(n for n in RULES if n not in LAST), *LAST)}
EVERY_RULE["generated"] = 5

# Of 50 MB it passes as well, in a minute, and takes 5 GB where no max_bytes spares the other rules.
LONG_LINE = "word and " * 600_000
POISON = {
    "a long line": LONG_LINE,
    "newlines": "\n" * 1_000_000 + "and an end",
    "right to left": "\u202eevil \u202d\u2066text\u2069 " * 20 + "is read.",
    "long words": " ".join(letter * 10_000 for letter in "abcdefgh"),
    "one long word": "x" * 1_000_000,
    "escaped bytes": "\\ud800 \\x00 \\udfff and so on, it says.",
    "replacement": "\ufffd" * 300 + " was here.",
    "combining": "e" + "\u0301" * 5000 + " and more of it.",
    "joined": "👩\u200d👩\u200d👧\u200d👦" * 400 + " family.",
    "control": "a\x01b\x02c\x7f\x85 and \x1b[31mred\x1b[0m text.",
    "line ends": "one\r\ntwo\rthree\u2028four\u2029five\x0bsix\x0cseven." * 9,
    "addresses": "reader@river.org, " * 20_000,
    "digits": "4111 1111 1111 1111 " * 20_000,
}
# What no shard can hold or nobody could learn from: answered at ingest, each with its reason.
REFUSED = {
    "lone surrogate": ('"\\ud800 is no character"', "not valid Unicode"),
    "empty": ('""', "empty text"),
    "white space": ('" \\t\\n\\u3000 "', "empty text"),
    "nul": ('"a\\u0000b"', "NUL bytes"),
    "no string": ("[1, 2]", "text is not a string"),
    "nothing": ("null", "no text"),
    "deep": ("[" * 100_000, "not JSON"),
}


def config(**rules):
    return PrepareConfig(
        rules=dict.fromkeys(("prose", "web", "code", "table"), rules),
        amend={"auto": Amend(repair=True, mask=("email", "ip", "phone", "card", "iban", "private_key", "credential"))},
        language=LanguageFilter(),
        dates=DateFilter(max_date="2030-01-01", undated="keep"),
        licenses=LicenseFilter(deny=("GPL-*",), unknown="keep"),
        toxicity=Toxicity(),
        dedup=Dedup(near=NearDuplicates(agreement=0.7), paragraphs=Paragraphs(min_words=5), copies={2: 2, 5: 3}),
        held_out=HeldOut(share=0.2, min_documents=2),
    )


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Poison in the midst of forty sound texts, in one file."""
    root = tmp_path_factory.mktemp("poison")
    (root / "raw").mkdir()
    sound = [sentence(i) * 2 for i in range(40)]
    with (root / "raw" / "mixed.jsonl").open("w", encoding="utf-8") as file:
        for i, text in enumerate([*sound[:20], *POISON.values(), *sound[20:]]):
            file.write(json.dumps({"text": text, "url": str(i), "date": "\u202e2020"}) + "\n")
        for spelled, _ in REFUSED.values():
            file.write(f'{{"text": {spelled}}}\n')
    return root


SOURCE = notes(kind="auto", max_bad_share=0.5)


@pytest.fixture(scope="module")
def read(raw):
    amend = config().amend["auto"]
    return ingest(SOURCE, raw, raw / "documents", processes=1, asked=amend)


@pytest.fixture(scope="module")
def passed(raw, read):
    """With every judge but no rule, so that poison comes as far as deduplication and rows."""
    ledger = clean(SOURCE, config(), raw / "documents", raw / "clean", processes=1)
    train_tokenizer([raw / "clean"], 257, raw / "tokenizer", max_bytes=100_000)
    return ledger


def texts(folder):
    found = [path for path in shards(folder) if path.name.startswith(("train-", "held_out-"))]
    return {row["url"]: row["text"] for path in found for row in rows(path)}


SOUND = {str(i) for i in (*range(20), *range(20 + len(POISON), 40 + len(POISON)))}


def test_all_kinds_of_thresholds_are_asked():
    assert {entry.threshold for entry in RULES.values()} == set(FORMS) == set(LENIENT)


def test_what_no_shard_can_hold_is_answered_with_its_reason_and_place(read):
    wanted = [reason for _, reason in REFUSED.values()]
    assert read.funnel.dropped == {reason: wanted.count(reason) for reason in sorted(set(wanted))}
    assert read.funnel.documents_kept == 40 + len(POISON)
    assert all("mixed.jsonl:" in place for places in read.examples.values() for place in places)


def test_every_rule_has_an_answer_to_every_poison_and_no_sound_document_is_lost(raw, read, tmp_path):
    ledger = clean(SOURCE, config(**EVERY_RULE), raw / "documents", tmp_path / "clean", processes=1)
    assert ledger.funnel.documents_in == read.funnel.documents_kept
    assert set(texts(tmp_path / "clean")) >= SOUND


def test_poison_that_no_rule_drops_comes_out_whole(raw, read, passed):
    kept = texts(raw / "clean")
    assert passed.funnel.dropped == {}
    assert len(kept) == read.funnel.documents_kept
    assert kept["20"] == LONG_LINE
    assert kept["21"] == POISON["newlines"]
    assert kept[str(20 + list(POISON).index("addresses"))].count("@") == 0


def test_rows_hold_every_byte_of_what_was_kept(raw, passed):
    pack(SOURCE, raw / "clean", raw / "tokenizer", base(), raw / "rows")
    encoder, separator = load(raw / "tokenizer")
    seen = set()
    for path in sorted((raw / "rows").glob("*/*.tokens")):
        tokens = np.fromfile(path, "<u2")
        starts = np.fromfile(path.with_suffix(".starts"), "<u8").astype(np.int64)
        assert (tokens[starts[1:] - 1] == separator).all()
        (shard,) = (raw / "clean").glob(f"{path.parent.name}-{path.name.rsplit('-', 1)[0]}-*.parquet")
        for row, begin, end in zip(rows(shard), starts[:-1], starts[1:] - 1, strict=True):
            seen.add(row["url"])
            # One token per byte: this tokenizer has learned nothing.
            assert end - begin == len(row["text"].encode())
            if len(row["text"]) < 1_000_000:
                assert encoder.decode(tokens[begin:end].tolist(), skip_special_tokens=False) == row["text"]
    assert seen == set(texts(raw / "clean"))


def test_again_the_bytes_are_the_same(raw, passed, tmp_path):
    clean(SOURCE, config(), raw / "documents", tmp_path / "clean", processes=2)
    assert tree(tmp_path / "clean") == tree(raw / "clean")
