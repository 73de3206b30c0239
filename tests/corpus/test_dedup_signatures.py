"""Signatures: they estimate the Jaccard similarity, and those on disk stay comparable for ever."""

import random
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from ratoon.corpus.dedup import signatures as room
from ratoon.corpus.dedup import words as word_room
from ratoon.corpus.dedup.bands import band_hashes
from ratoon.corpus.dedup.signatures import EMPTY, signatures
from ratoon.corpus.dedup.upsample import copies
from ratoon.corpus.dedup.words import ALONE, APART, LONGEST, words

TONGUES = [
    "The quick brown fox, number 42, jumps over 13 lazy dogs.",
    "Größere Äpfel kosten 3,50 Euro; ÜBER Straßen und Öfen.",
    "Быстрая лиса — прыгает через 7 ленивых СОБАК.",
    "敏捷的棕色狐狸跳过了懒狗。第二句。",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดด",
    "def f(x):\n    return x ** 2  # 👍 done",
]


def sign(texts, **options):
    return signatures(pa.array(texts, pa.string()), **options)


def reference(text: str) -> list[str]:
    """The recipe of words.py a character at a time."""
    found, inside = [], False
    for char in text:
        code = ord(char)
        small = char.lower() if code < 0x588 and len(char.lower()) == 1 and ord(char.lower()) < 0x800 else char
        alone = code >= 0x10000 or any(first <= code <= last for first, last in ALONE)
        letter = char.isalnum() if code < 128 else code >= 0xC0 and not any(a <= code <= b for a, b in APART)
        if letter and inside and not alone:
            found[-1] += small
        elif letter:
            found.append(small)
        inside = letter and not alone
    return [word.encode()[:LONGEST].decode(errors="ignore") for word in found]


def split(texts):
    """What words.py makes of texts: the hashes of the words of each."""
    array = pa.array(texts, pa.string())
    (data, offsets), *_ = room.batches(array)
    found = words(data, offsets)
    bounds = np.searchsorted(found.starts, offsets)
    return [found.hashes[a:b].tolist() for a, b in pairwise(bounds)]


def test_a_signature_is_the_same_in_every_version():
    digest = blake2b(sign(TONGUES).astype("<u4").tobytes(), digest_size=8).hexdigest()
    bands = blake2b(band_hashes(sign(TONGUES), 14).astype("<u8").tobytes(), digest_size=8).hexdigest()
    assert (room.ALGORITHM, digest, bands) == ("fss-1", "ed5e8804e0b48c1a", "dfad9ab45468c7de")


@pytest.mark.parametrize("piece", [7, 64, 1 << 18])
def test_words_are_those_of_the_recipe_wherever_the_bytes_are_cut(monkeypatch, piece):
    monkeypatch.setattr(word_room, "PIECE", piece)
    draw = random.Random(3)
    alphabet = "aZ9 _-é×ßÉЖжΣσ\u00a0\u200b—中文。กขㄅ한글가👍𠀀\u202e\ufe0fאبİſ\n" + "x" * 6
    texts = [
        *TONGUES,
        "",
        "a" * 200 + " b",
        *("".join(draw.choices(alphabet, k=draw.randrange(80))) for _ in range(300)),
    ]
    hash_of, word_of = {}, {}
    for text, found in zip(texts, split(texts), strict=True):
        expected = reference(text)
        assert len(found) == len(expected), text
        for word, value in zip(expected, found, strict=True):
            assert hash_of.setdefault(word, value) == value, (word, text)
            assert word_of.setdefault(value, word) == word, (word, text)


def test_case_and_signs_do_not_count_but_numbers_do():
    one, same, other = sign(
        [
            "Version 3 of the ÄRGER is: out now!",
            "version 3, of the ärger is out... NOW",
            "Version 4 of the ÄRGER is: out now!",
        ]
    )
    assert (one == same).all()
    assert (one != other).any()


def test_a_signature_knows_neither_order_nor_repetition_and_a_union_is_the_least_of_its_parts():
    draw = random.Random(5)
    for size in (1, 3, 40, 400, 4000):
        left, right = ([f"w{draw.randrange(10**9)}" for _ in range(size)] for _ in range(2))
        shuffled = draw.sample(left, size) + draw.choices(left, k=size)
        a, b, same, both = sign([" ".join(t) for t in (left, right, shuffled, left + right)], ngram=1)
        assert (a == same).all()
        assert (both == np.minimum(a, b)).all()


@pytest.mark.parametrize("size", [10, 60, 600, 3000])
def test_slots_agree_as_often_as_the_sets_are_alike_and_bands_as_the_formula_says(size):
    draw = np.random.default_rng(size)
    pairs = 1500 if size < 3000 else 300
    shared = round(2 * size * 0.7 / 1.7)
    texts = []
    for _ in range(pairs):
        tokens = [f"{x:x}" for x in draw.integers(0, 2**62, 2 * size - shared)]
        texts += [" ".join(tokens[:size]), " ".join(tokens[size - shared :])]
    found = sign(texts, ngram=1)
    left, right = found[::2], found[1::2]
    similar = shared / (2 * size - shared)
    agree = (left == right).mean(axis=1)
    assert abs(agree.mean() - similar) < 4 * agree.std() / pairs**0.5
    hit = (band_hashes(left, 14) == band_hashes(right, 14)).any(axis=1).mean()
    expected = 1 - (1 - similar**8) ** 14
    assert abs(hit - expected) < 4 * (expected * (1 - expected) / pairs) ** 0.5 + 0.03


def test_a_signature_does_not_depend_on_its_neighbours(monkeypatch):
    draw = random.Random(1)
    texts = [" ".join(draw.choices(TONGUES, k=draw.randrange(9))) for _ in range(60)]
    whole = sign(texts)
    assert (np.concatenate([sign([text]) for text in texts]) == whole).all()
    assert (signatures(pa.array(texts, pa.large_string())) == whole).all()
    assert (signatures(pa.array(["x", *texts, "y"]).slice(1, 60)) == whole).all()
    assert (signatures(pa.chunked_array([texts[:7], [], texts[7:]], pa.string())) == whole).all()
    monkeypatch.setattr(room, "BATCH_BYTES", 100)
    assert (sign(texts) == whole).all()
    assert signatures(pa.chunked_array([], pa.string())).shape == (0, 112)


def test_four_words_have_no_signature_and_five_have():
    four, five, nothing, blank = sign(["one two three four", "one two three four five", "", " \n\t "])
    assert (four == EMPTY).all()
    assert (five != EMPTY).all()
    assert (nothing == EMPTY).all()
    assert (blank == EMPTY).all()


@pytest.mark.parametrize(
    "text",
    [
        "a" * 10_000,
        "\n" * 1_000_000,
        "x " * 500_000,
        "\u202egnorw " * 9,
        "ab" * 2_000_000,
        "\x00 " * 50,
        "中" * 300_000,
    ],
    ids=["long word", "newlines", "one word a million times", "right to left", "4 MB word", "null bytes", "one sign"],
)
def test_a_poisonous_text_is_signed_and_spoils_no_other(text):
    alone = sign(TONGUES)
    among = sign([TONGUES[0], text, *TONGUES[1:]])
    assert (np.delete(among, 1, axis=0) == alone).all()


@pytest.mark.parametrize(("size", "times"), [(1, 1), (2, 1), (3, 2), (99, 2), (100, 5), (10**9, 5)])
def test_a_cluster_is_repeated_as_its_size_says(size, times):
    assert copies(np.array([size]), {100: 5, 3: 2}).tolist() == [times]
    assert copies(np.array([size]), {}).tolist() == [1]
