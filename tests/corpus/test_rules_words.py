"""Words: where they begin and end, and that each belongs to one text."""

import pytest
from odd_texts import ODD

from ratoon.corpus.rules import hashing
from ratoon.corpus.rules.batch import Batch
from ratoon.corpus.rules.characters import BREAKS, ENDS, INK, LETTER, traits

# What a text is split into, spaces between the words
SPLIT = {
    "The fox, it jumped.": "The fox , it jumped .",
    "(3.5 kg)": "( 3.5 kg )",
    "foo@bar.org, a[0] and f(x)": "foo@bar.org , a[0 ] and f(x )",
    "well-known COVID-19 10-20 1,000 a,b": "well - known COVID-19 10 - 20 1,000 a , b",
    "and/or x=y x=1 12:30": "and / or x = y x=1 12:30",
    "end.Next U.S. e.g. J. I saw.": "end . Next U.S. e.g. J. I saw .",
    "don't it's we've L'homme O'Brien 'quoted'": "do n't it 's we 've L' homme O' Brien ' quoted '",
    "wait... so..now -- yes--no": "wait ... so .. now -- yes -- no",
    "--- ==== ### ...": "--- = = = = # # # ...",
    "/usr/lib -1 @home \\dots ~x": "/usr / lib -1 @home \\dots ~x",
    "__init__ snake_case": "_ _ init _ _ snake_case",
    "see https://a.org/b-c?d=e, now": "see https://a.org/b-c?d=e , now",
    "cafe\u0301 naïve": "cafe\u0301 naïve",
    "“quoted” – it’s": "“ quoted ” – it ’s",
    "天气很好。 end": "天气很好 。 end",
}


def words(text: str, language: str | None = None) -> list[str]:
    batch = Batch(["other", text, "text"], language)
    found = batch.words
    mine = slice(found.bounds[1], found.bounds[2])
    return ["".join(map(chr, batch.codes[a:b])) for a, b in zip(found.start[mine], found.end[mine], strict=True)]


@pytest.mark.parametrize("text", SPLIT)
def test_words_and_marks_come_apart(text):
    assert words(text) == SPLIT[text].split(" ")


@pytest.mark.parametrize("language", ["en", "zh", "th"])
@pytest.mark.parametrize("name", ODD)
def test_words_hold_every_character_that_is_not_white_space_once_and_in_order(name, language):
    expected = [c for c in ODD[name] if not c.isspace()]
    assert list("".join(words(ODD[name], language))) == expected


def test_neighbouring_texts_never_share_a_word():
    batch = Batch(["a.", ".b", "c'", "s", "", "http:", "//x", "d"])
    assert batch.words.counts.tolist() == [2, 1, 2, 1, 0, 2, 1, 1]


def test_scripts_without_spaces_are_cut_into_letters_with_their_marks():
    assert words("天气 3.5 ok。", "zh") == ["天", "气", "3.5", "ok", "。"]
    assert words("ที่นี่ ok", "th") == ["ที่", "นี่", "ok"]


def test_traits_are_those_python_knows():
    table = traits()
    for code in [*range(0x3100), 0x4E00, 0x1F600, 0x20000]:
        assert bool(table[code] & INK) != chr(code).isspace()
        assert bool(table[code] & LETTER) == chr(code).isalpha()
    assert all(table[ord(c)] & ENDS for c in ".!?。？！।؟")
    assert not any(table[ord(c)] & ENDS for c in ",;…\"'a ")
    assert [code for code in range(0x3000) if len(f"a{chr(code)}b".splitlines()) == 2] == sorted(BREAKS)


def test_a_span_hashes_to_the_same_wherever_it_lies():
    long = "x" * 200_000
    batch = Batch([f"{long} word", "word", f"wor d {long} word", "wor\0d word\0"])
    last = batch.hashes(batch.words)[batch.words.bounds[1:] - 1]
    assert last[0] == last[1] == last[2] == hashing.of_text("word")
    assert last[3] != last[0]
    assert len(set(batch.hashes(batch.words).tolist())) == 6
