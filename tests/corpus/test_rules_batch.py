"""Rules over many texts at once: the same answers as one by one, and the same as the plain definition counts."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from odd_texts import ODD, OTHER, PROSE

from ratoon import config
from ratoon.corpus import rules as room
from ratoon.corpus.rules import build, reasons, verdict
from ratoon.corpus.rules.batch import Batch
from ratoon.corpus.rules.ngrams import covered, disjoint, repeats

PREPARE = config.load(Path(__file__).parents[2]).prepare
SETS = json.loads(Path(__file__).with_name("datatrove_decisions.json").read_text())["thresholds"]
FINEWEB = ("gopher_repetition", "gopher_quality", "fineweb", "c4")
WEB = {"max_bytes": 1_000_000} | {name: value for one in FINEWEB for name, value in SETS[one].items()}
TEXTS = list(ODD.values())
LOOSER = {  # one threshold of each, made easier to pass
    "gopher_words": [10, 1_000_000],
    "gopher_word_length": [2, 12],
    "gopher_hashes": 0.5,
    "gopher_alphabetic": 0.5,
    "gopher_stop_words": 1,
    "gopher_duplicate_lines": 0.6,
    "gopher_duplicate_line_chars": 0.6,
    "gopher_top_ngrams": [0.5, 0.5, 0.5],
    "gopher_duplicate_ngrams": [0.5] * 6,
    "fineweb_ended_lines": 0.01,
    "fineweb_short_lines": 1.0,
    "fineweb_duplicate_chars": 0.3,
    "fineweb_newlines": 1.0,
    "c4": 1,
}


@pytest.fixture(scope="module")
def web():
    return build(WEB, "rules")


def test_what_a_text_is_told_depends_on_no_other_text(web):
    alone = [verdict(text, web) for text in TEXTS]
    assert reasons(TEXTS, web) == alone
    places = list(range(len(TEXTS)))
    random.Random(3).shuffle(places)
    assert reasons([TEXTS[i] for i in places], web) == [alone[i] for i in places]


@pytest.mark.parametrize("size", [1, 1000, 1 << 30])
def test_where_blocks_are_cut_changes_nothing(web, monkeypatch, size):
    expected = reasons(TEXTS, web)
    monkeypatch.setattr(room, "BLOCK_BYTES", size)
    assert reasons(TEXTS, web) == expected


def test_a_second_pass_over_what_was_kept_drops_nothing(web):
    kept = [text for text, reason in zip(TEXTS, reasons(TEXTS, web), strict=True) if reason is None]
    assert PROSE + "\n" + OTHER in kept
    assert set(reasons(kept, web)) == {None}


@pytest.mark.parametrize("name", LOOSER)
def test_a_looser_threshold_never_keeps_less(name):
    strict = reasons(TEXTS, build({name: WEB[name]}, "rules"))
    loose = reasons(TEXTS, build({name: LOOSER[name]}, "rules"))
    assert all(a is not None for a, b in zip(strict, loose, strict=True) if b is not None)
    assert strict.count(None) < loose.count(None)


def test_no_texts_get_no_answers(web):
    assert reasons([], web) == []


def test_a_huge_text_is_dropped_by_its_size_before_its_characters_are_looked_at(web, monkeypatch):
    monkeypatch.setattr(Batch, "codes", property(lambda _: pytest.fail("looked at")))
    assert reasons(["word, " * 5_000_000, "x" * 50_000_000], web) == ["max_bytes", "max_bytes"]


@pytest.mark.parametrize(
    "text",
    ["\n" * 1_000_000, "again " * 200_000, "\u202eabc " * 50_000, ("x" * 10_000 + " ") * 100, "ab cd, " * 50_000],
    ids=["newlines", "again", "right to left", "long words", "one line"],
)
def test_poison_is_answered_by_every_rule(text):
    for kind in ("prose", "web", "code", "table"):
        for rule in build({k: v for k, v in PREPARE.rules[kind].items() if k != "max_bytes"}, "rules"):
            rule(text)


# ---------------------------------------------------------------- plain definitions


def drawn(seed: int) -> list[str]:
    """Texts of few words, so that much repeats, with odd lines and spaces."""
    draw = random.Random(seed)
    words = ["a", "bc", "the", "é", "x1", "3.5", "don't", ",", "—", "字"]
    gaps = [" ", " ", " ", "\n", "\n\n", "\t", "\r\n", "\u2028", "  "]
    return ["".join(draw.choice(words) + draw.choice(gaps) for _ in range(draw.randrange(60))) for _ in range(40)]


def pieces(batch: Batch, spans) -> list[list[str]]:
    text = "".join(map(chr, batch.codes))
    found = [text[a:b] for a, b in zip(spans.start, spans.end, strict=True)]
    return [found[a:b] for a, b in zip(spans.bounds[:-1], spans.bounds[1:], strict=True)]


@pytest.mark.parametrize("seed", range(5))
def test_lines_and_chunks_are_those_python_cuts(seed):
    texts = [*drawn(seed), *TEXTS]
    batch = Batch(texts)
    assert pieces(batch, batch.chunks) == [text.split() for text in texts]
    assert pieces(batch, batch.rows) == [text.split("\n") for text in texts]
    assert pieces(batch, batch.lines) == [text.splitlines() for text in texts]
    assert pieces(batch, batch.filled_lines) == [[s for line in t.splitlines() if (s := line.strip())] for t in texts]
    paragraphs = [[p for p in re.split(r"\n{2,}", text.strip()) if p] for text in texts]
    assert pieces(batch, batch.paragraphs) == paragraphs


@pytest.mark.parametrize("seed", range(5))
def test_repeated_lines_are_those_a_set_finds(seed):
    batch = Batch(drawn(seed))
    lines = batch.filled_rows
    expected = []
    for found in pieces(batch, lines):
        seen: set[str] = set()
        expected.append(sum(line in seen or bool(seen.add(line)) for line in found))
    assert lines.sum(repeats(lines.document, batch.hashes(lines))).tolist() == expected


def stepped(words: list[str], n: int) -> int:
    """Characters of repeated n-grams, each stepped over whole."""
    seen, chars, i = set(), 0, 0
    while i <= len(words) - n:
        gram = tuple(words[i : i + n])
        again = gram in seen
        seen.add(gram)
        chars += again * sum(map(len, gram))
        i += n if again else 1
    return chars


@pytest.mark.parametrize("seed", range(5))
def test_repeated_runs_of_words_are_those_a_loop_finds(seed):
    batch = Batch([*drawn(seed), *TEXTS])
    words = pieces(batch, batch.words)
    lengths = range(2, 11)
    for n, grams in zip(lengths, batch.grams(lengths), strict=True):
        bound = covered(grams, batch.word_document, batch.chars_before, len(batch))
        for d, found in enumerate(words):
            counts = Counter(tuple(found[i : i + n]) for i in range(len(found) - n + 1))
            mine = slice(*(sum(batch.word_document[grams.at] < d + k) for k in (0, 1)))
            assert sorted(grams.times[mine].tolist()) == sorted(c for c in counts.values() for _ in range(c) if c > 1)
            exact = disjoint(grams, mine, batch.chars_before)
            assert exact == stepped(found, n)
            assert exact <= bound[d]
