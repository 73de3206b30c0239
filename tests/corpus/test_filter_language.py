"""The language of a text: found offline, noted with its score, and asked of as params say, kind by kind."""

import json
import random

import pytest
from language_pages import PAGES, SENTENCES
from odd_texts import ODD
from small_sources import notes, tree

from ratoon.config import ConfigError, HeldOut, LanguageFilter, PrepareConfig, load, parse
from ratoon.corpus.clean import clean
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import shards
from ratoon.corpus.filters.languages import PART_CHARS, PARTS, Spoken, languages, parts, spoken
from ratoon.corpus.sources import ingest

CODE = "def area(width, height):\n    if width < 0:\n        raise ValueError(width)\n    return width * height\n"


@pytest.mark.parametrize("language", SENTENCES)
def test_one_sentence_is_enough_in_fifteen_languages(language):
    assert spoken(SENTENCES[language]).language == language


@pytest.mark.parametrize("language", PAGES)
def test_a_page_passes_the_published_cut_of_its_language(language):
    cuts = {"fr": 0.824, "de": 0.821, "zh": 0.692, "sw": 0.300, "th": 0.900}
    asked = languages(LanguageFilter(keep=(language,), min_score=0.65, min_scores=cuts, max_mixing=0.1), "web")
    found = spoken(PAGES[language])
    assert found.language == language
    assert found.mixing == 0
    assert asked.reason(found, None) is None


def mixed(one, other, share, seed):
    """Eight paragraphs, `share` of them in the other language, in any order."""
    few = round(8 * share)
    pages = {code: [PAGES[code][i : i + 160] for i in range(0, 160, 20)] for code in (one, other)}
    found = [*pages[one][few:], *pages[other][:few]]
    return "\n\n".join(random.Random(seed).sample(found, 8))


@pytest.mark.parametrize(("one", "other"), [("en", "de"), ("fr", "en"), ("de", "fr")])
def test_mixing_is_about_the_share_of_paragraphs_in_the_other_language(one, other):
    for share in (0, 0.125, 0.25, 0.375):
        found = [spoken(mixed(one, other, share, seed)) for seed in range(3)]
        for each in found:
            planted = share if each.language == one else 1 - share
            assert each.mixing == pytest.approx(planted, abs=0.07)


def test_a_text_in_one_part_is_of_one_language():
    assert spoken(PAGES["en"][:PART_CHARS]).mixing == 0


@pytest.mark.parametrize("text", ["", " \n\t ", "12 + 30 = 42.", "-" * 500, "\0\0", "🧭" * 40])
def test_a_text_without_letters_is_of_no_language(text):
    assert spoken(text) == Spoken("und", 0.0, 0.0)


def test_capitals_are_read_as_small_letters():
    assert spoken(PAGES["de"].upper()).language == "de"


@pytest.mark.parametrize("name", ODD)
def test_odd_texts_have_a_language_and_shares(name):
    found = spoken(ODD[name])
    assert found.language
    assert 0 <= found.score <= 1
    assert 0 <= found.mixing <= 1


@pytest.mark.parametrize(
    "text", ["word " * 10_000_000, "\n" * 1_000_000 + "the end of it", "x" * 10_000, "\u202eabc " * 1000, "\\ud800 a"]
)
def test_of_a_huge_text_only_so_much_is_looked_at(text):
    assert len(parts(text)) <= PARTS
    assert sum(map(len, parts(text))) <= 2 * PART_CHARS * PARTS
    spoken(text)


def test_parts_are_spread_over_the_whole_text():
    text = "\n".join(f"line {i} " + "of a text " * 20 for i in range(100))
    found = parts(text)
    assert len(found) == PARTS
    assert found[0].startswith("line 0 ")
    assert any(f"line {i} " in found[-1] for i in range(80, 100))


@pytest.mark.parametrize(
    ("said", "found", "label", "reason"),
    [
        ({}, Spoken("fr", 0.1, 0.9), None, None),
        ({"keep": ["en"]}, Spoken("fr", 0.9, 0), "en", "language"),
        ({"keep": ["en"]}, Spoken("en", 0.9, 0), "fr", None),
        ({"keep": ["en"], "label": "declared"}, Spoken("fr", 0.9, 0), "en_Latn", None),
        ({"keep": ["en"], "label": "declared"}, Spoken("fr", 0.9, 0), None, "language"),
        ({"keep": ["en"], "label": "declared", "min_score": 0.5}, Spoken("fr", 0.4, 0), "eng", None),
        ({"min_score": 0.65}, Spoken("en", 0.64, 0), None, "language_score"),
        ({"min_score": 0.65}, Spoken("en", 0.65, 0), None, None),
        ({"min_score": 0.65, "min_scores": {"swh": 0.3}}, Spoken("sw", 0.31, 0), None, None),
        ({"min_scores": {"fra": 0.824}}, Spoken("fr", 0.82, 0), None, "language_score"),
        ({"max_mixing": 0.3}, Spoken("en", 0.9, 0.31), None, "language_mixing"),
        ({"max_mixing": 0.3}, Spoken("en", 0.9, 0.3), None, None),
        ({"keep": ["en"]}, Spoken("und", 0, 0), None, "language"),
    ],
)
def test_each_limit_is_asked_of_what_it_is_about(said, found, label, reason):
    assert languages(parse(LanguageFilter, said, "test"), "web").reason(found, label) == reason


@pytest.mark.parametrize(
    ("said", "message"),
    [({"keep": ["German"]}, "keep"), ({"min_scores": {"de": 2}}, "min_scores"), ({"kinds": ["x"]}, "kinds")],
)
def test_a_wrong_filter_is_refused(said, message):
    with pytest.raises(ConfigError, match=message):
        parse(LanguageFilter, said, "params.yaml: prepare.language")


def write(tmp_path, records):
    (tmp_path / "raw").mkdir(exist_ok=True)
    (tmp_path / "raw/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))


def run(tmp_path, records, source, name="clean", **said):
    write(tmp_path, records)
    ingest(source, tmp_path, tmp_path / "documents")
    rules = load_rules() if said.pop("real", False) else {kind: {} for kind in ("prose", "web", "code", "table")}
    config = PrepareConfig(held_out=HeldOut(share=0.15, min_documents=1), rules=rules, **said)
    ledger = clean(source, config, tmp_path / "documents", tmp_path / name)
    return ledger, [row for path in shards(tmp_path / name, "verdicts/") for row in rows(path)]


def load_rules():
    from pathlib import Path

    return load(Path(__file__).parents[2]).prepare.rules


def many(codes, count=20):
    """Different texts in each language."""
    return [{"text": f"{PAGES[code]} {i}"} for i in range(count) for code in codes]


def test_verdicts_hold_language_score_and_mixing_and_the_ledger_what_is_kept_of_each(tmp_path):
    records = many(["en", "de", "fr"])
    ledger, found = run(tmp_path, records, notes(), language=LanguageFilter(keep=("en", "de"), min_score=0.65))
    assert [row["language"] for row in found] == ["en", "de", "fr"] * 20
    assert all(row["language_score"] > 0.8 and row["language_mixing"] == 0 for row in found)
    assert ledger.funnel.dropped == {"language": 20}
    kept = {code: amount.documents for code, amount in ledger.kept_by["language"].items()}
    assert kept == {"de": 20, "en": 20}
    assert sum(amount.bytes for amount in ledger.kept_by["language"].values()) == ledger.funnel.bytes_kept


def test_looking_without_limits_drops_nothing_and_changes_no_text(tmp_path):
    records = many(["en", "sw"])
    run(tmp_path, records, notes(), "off")
    ledger, _ = run(tmp_path, records, notes(), "on", language=LanguageFilter())
    on, off = (
        {k: v for k, v in tree(tmp_path / name).items() if k.startswith(("train", "held"))} for name in ("on", "off")
    )
    assert on == off
    assert ledger.funnel.dropped == {}


def test_code_and_tables_are_not_looked_at_unless_told(tmp_path):
    records = [{"text": f"{CODE}# {i}\n", "url": f"a/{i}.py"} for i in range(20)] + many(["en"])
    asked = {"keep": ("de",), "min_score": 0.9}
    ledger, found = run(tmp_path, records, notes(kind="auto"), language=LanguageFilter(**asked))
    assert [(row["kind"], row["reason"]) for row in found] == [("code", None)] * 20 + [("prose", "language")] * 20
    assert [row["language"] for row in found] == [None] * 20 + ["en"] * 20
    told = LanguageFilter(**asked, kinds=("prose", "web", "code", "table"))
    with pytest.raises(ConfigError, match="0 of 0 clean documents"):
        run(tmp_path, records, notes(kind="auto"), language=told)
    ledger, found = run(tmp_path, records, notes(kind="code"), language=LanguageFilter(**asked))
    assert "language" not in found[0]
    assert ledger.kept_by == {}


def test_web_text_of_no_declared_language_is_asked_the_rules_of_the_one_it_is_in(tmp_path):
    # German pages of words too long for English
    text = PAGES["de"].replace("Bahnsteig", "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen" * 8)
    records = [{"text": f"{text} {i}"} for i in range(20)]
    prepare = {"real": True, "languages": {"de": {"min_bytes": 10}}}
    with pytest.raises(ConfigError, match="0 of 0 clean documents"):
        run(tmp_path, records, notes(kind="web"), **prepare)
    ledger, _ = run(tmp_path, records, notes(kind="web"), language=LanguageFilter(), **prepare)
    assert ledger.funnel.documents_kept == 20
    declared = [{**row, "language": "en"} for row in records]
    with pytest.raises(ConfigError, match="0 of 0 clean documents"):
        run(tmp_path, declared, notes(kind="web"), language=LanguageFilter(), **prepare)


def test_what_one_text_is_told_depends_on_no_other_and_on_no_order(tmp_path):
    records = many(["en", "de", "fr", "zh"], 20)
    _, found = run(tmp_path, records, notes(), language=LanguageFilter())
    told = {row["id"]: (row["language"], row["language_score"], row["language_mixing"]) for row in found}
    _, again = run(tmp_path, random.Random(2).sample(records, 80), notes(), language=LanguageFilter())
    assert {row["id"]: (row["language"], row["language_score"], row["language_mixing"]) for row in again} == told
