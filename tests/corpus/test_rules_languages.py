"""Rules by kind of text and by language: who is asked what, and what counts as a word without spaces."""

from pathlib import Path

import pytest
from language_pages import PAGES
from small_sources import notes

from ratoon.config import ConfigError, PrepareConfig, load, parse
from ratoon.corpus.rules import build, verdict
from ratoon.corpus.rules.languages import LANGUAGES, short
from ratoon.corpus.rules.profile import profile

PREPARE = load(Path(__file__).parents[2]).prepare


def judges(kind="web", language=None):
    return profile(notes(kind=kind, language=language), PREPARE, kind).judges()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_passes_the_rules_of_its_language(language):
    assert judges().reasons([PAGES[language]], [language]) == [None]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_repeated_is_dropped_in_every_language(language):
    (reason,) = judges().reasons([PAGES[language].replace("\n", " ") * 3], [language])
    assert reason.startswith("gopher_")


@pytest.mark.parametrize(("language", "other"), [("en", "de"), ("de", "fr"), ("fr", "sw"), ("zh", "th"), ("th", "zh")])
def test_a_page_labelled_with_another_language_lacks_its_stop_words(language, other):
    rules = build({"gopher_stop_words": 2}, "rules")
    assert verdict(PAGES[language], rules, language) is None
    assert verdict(PAGES[language], rules, other) == "gopher_stop_words"


def test_documents_of_one_shard_are_each_asked_in_their_language():
    labels = ["deu_Latn", "en-GB", None, "zh", "cmn_Hani"]
    texts = [PAGES["de"], PAGES["en"], PAGES["en"], PAGES["zh"], PAGES["en"]]
    assert judges().reasons(texts, labels)[:4] == [None] * 4
    assert judges().reasons(texts, labels)[4] is not None
    assert judges(language="de").reasons([PAGES["de"]], [None]) == [None]
    assert judges(language="en").reasons([PAGES["de"]], [None]) != [None]


def test_a_language_without_an_entry_is_asked_the_common_rules_but_no_stop_words():
    asked = judges()
    assert short("spa_Latn") not in PREPARE.languages
    spanish = "Los niños del pueblo caminan cada mañana hasta la escuela nueva. " + PAGES["sw"]
    assert "gopher_stop_words" not in asked.reasons([spanish], ["es"])
    assert asked.reasons(["una palabra"], ["es"]) != [None]


def test_languages_change_nothing_for_other_kinds_than_web():
    short_one = "Ein kurzer Satz über den Fluss, und noch einer über die Brücke am Markt."
    assert judges("prose").reasons([short_one], ["de"]) == [None]
    assert judges("web").reasons([short_one], ["de"]) != [None]


def test_code_and_tables_pass_their_own_rules_and_not_those_of_prose_pages():
    code = (
        "def area(width, height):\n    if width < 0:\n        raise ValueError(width)\n    return width * height\n" * 2
    )
    table = "name,count,price\n" + "\n".join(f"item{i},{i * 7},{i}.50" for i in range(60))
    assert judges("code").reasons([code], [None]) == [None]
    assert judges("table").reasons([table], [None]) == [None]
    assert None not in judges("web").reasons([code, table], [None, None])
    assert judges("table").reasons([PAGES["en"] + code], [None]) == ["ragged_rows"]


def test_words_of_scripts_without_spaces_are_counted_by_their_usual_length():
    text = "天" * 166
    assert verdict(text, build({"gopher_words": [100, 100]}, "rules"), "zh") is None
    assert verdict(text[:-2], build({"gopher_words": [100, 100]}, "rules"), "zh") == "gopher_words"


def test_every_language_in_params_has_its_words_and_only_rules_there_are():
    assert {*PREPARE.languages, "en"} == set(LANGUAGES)
    for thresholds in (*PREPARE.rules.values(), *PREPARE.languages.values()):
        build(thresholds, "rules")


@pytest.mark.parametrize(
    ("languages", "message"),
    [
        ({"de": {"gopher_word": [1, 2]}}, "params.yaml: prepare.languages.de.gopher_word: no rule 'gopher_word'; did"),
        ({"de": {"c4": "five"}}, "languages.de.c4"),
        ({"German": {}}, "languages.German"),
    ],
)
def test_a_wrong_language_is_refused_with_its_place(languages, message):
    with pytest.raises(ConfigError) as error:
        profile(notes(kind="web"), parse(PrepareConfig, {"rules": {"web": {}}, "languages": languages}, "test"), "web")
    assert message in str(error.value)
