"""A source that is split by language: what is in which portion, and that nothing is twice or lost."""

import json
from collections import Counter

import pytest
from language_pages import SENTENCES
from pydantic import ValidationError
from small_sources import base, notes, recipe, sentence, tree

from ratoon.config import ConfigError, LanguageFilter, Split, parse
from ratoon.config.sources import Source
from ratoon.corpus.accounts.stats import stats
from ratoon.corpus.accounts.table import accounts
from ratoon.corpus.clean import clean
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import read_ledger, shards
from ratoon.corpus.pack import pack
from ratoon.corpus.packed import read_index
from ratoon.corpus.portions import shares
from ratoon.corpus.sources import ingest
from ratoon.corpus.tokenizer import train_tokenizer
from ratoon.layout import Layout
from ratoon.records import Ledger
from ratoon.report import corpus_text
from ratoon.stream.rows import Rows
from tasks.job import corpora

LANGUAGES = {"de": 60, "fr": 45, "sw": 4, None: 6}
TEXTS = [
    {"text": f"{language} {sentence(i)}", "language": {"fr": "fra"}.get(language, language)}
    for language, count in LANGUAGES.items()
    for i in range(count)
]


def web(split=None, **changes):
    return notes(name="web", split=Split(**split) if split is not None else None, **changes)


def write(root, texts, files=3):
    (root / "raw").mkdir(parents=True, exist_ok=True)
    for part in range(files):
        found = "".join(json.dumps(one) + "\n" for one in texts[part::files])
        (root / "raw" / f"{part}.jsonl").write_text(found, encoding="utf-8")
    return root


def make(root, split=None, config=None, **changes):
    layout, source = Layout(root), web(split, **changes)
    ingest(source, root, layout.documents("web"), processes=1)
    clean(source, config or recipe(), layout.documents("web"), layout.clean("web"), processes=1)
    return source, layout.clean("web")


def told(edition, folder=""):
    return [row["text"] for path in shards(edition, folder) for row in rows(path, ["text"])]


def held_and_trained(edition, name):
    return {part: sorted(told(edition, f"{name}/{part}-")) for part in ("train", "held_out")}


def test_every_kept_document_is_in_one_portion_in_its_language_and_the_ledger_adds_up(tmp_path):
    _, edition = make(write(tmp_path, TEXTS), {"languages": ["de", "fr"]})
    _, whole = make(write(tmp_path / "whole", TEXTS))
    found = {name: held_and_trained(edition, name) for name in ("de", "fr", "other")}
    for name, parts in found.items():
        languages = {text.split()[0] for part in parts.values() for text in part}
        assert languages == ({name} if name != "other" else {"sw", "None"})
    for part in ("train", "held_out"):
        together = sorted(text for parts in found.values() for text in parts[part])
        assert together == sorted(told(whole, f"{part}-"))
    ledger = read_ledger(edition)
    assert not shards(edition, "train-")
    assert {name: each.documents for name, each in ledger.portions.items()} == {"de": 60, "fr": 45, "other": 10}
    assert ledger.funnel == read_ledger(whole).funnel
    for name, parts in found.items():
        assert ledger.portions[name].held_out_documents == len(parts["held_out"])
        assert ledger.portions[name].bytes == sum(len(text) for part in parts.values() for text in part)


def test_a_ledger_whose_portions_do_not_add_up_is_refused(tmp_path):
    _, edition = make(write(tmp_path, TEXTS), {"languages": ["de"]})
    raw = read_ledger(edition).model_dump()
    raw["portions"]["de"]["documents"] += 1
    with pytest.raises(ValidationError, match=r"portions hold \[116, .* but \[115, "):
        Ledger.model_validate(raw)


def test_portions_do_not_depend_on_the_order_of_documents_and_files(tmp_path):
    _, one = make(write(tmp_path / "a", TEXTS), {"languages": ["de", "fr"]})
    _, other = make(write(tmp_path / "b", TEXTS[::-1], files=5), {"languages": ["fr", "de"]})
    for name in ("de", "fr", "other"):
        assert held_and_trained(one, name) == held_and_trained(other, name)
    assert read_ledger(one).portions == read_ledger(other).portions


def test_the_rest_is_dropped_for_a_reason_where_that_is_declared(tmp_path):
    _, edition = make(write(tmp_path, TEXTS), {"languages": ["de", "fr"], "rest": "drop"})
    ledger = read_ledger(edition)
    assert ledger.funnel.dropped == {"no_portion": 10}
    assert sorted(ledger.portions) == ["de", "fr"]
    of = accounts("web", Layout(tmp_path).documents("web"), edition)
    assert Counter(of.documents["fate"].to_list())["no_portion"] == 10
    assert Counter(of.documents["portion"].to_list()) == {"de": 60, "fr": 45, None: 10}
    assert [(one.name, one.documents) for one in stats(of).by["portion"]] == [("de", 60), ("fr", 45)]


def test_languages_with_little_text_or_little_held_out_go_to_the_rest(tmp_path):
    _, edition = make(write(tmp_path, TEXTS), {"min_share": 0.05})
    assert sorted(read_ledger(edition).portions) == ["de", "fr", "other"]
    _, edition = make(tmp_path, {"min_share": 0.5})
    assert sorted(read_ledger(edition).portions) == ["de", "other"]
    _, edition = make(tmp_path, {"min_share": 0.05})
    held = {name: read_ledger(edition).portions[name].held_out_documents for name in ("de", "fr")}
    fewer, more = sorted(held, key=lambda name: held[name])
    _, edition = make(tmp_path, {"min_share": 0.05, "rest": "drop"}, recipe(least=held[fewer] + 1))
    assert sorted(read_ledger(edition).portions) == [more]


def test_text_in_one_language_leaves_the_files_of_the_others_as_they_are(tmp_path):
    write(tmp_path, TEXTS)
    split = {"languages": ["de", "fr"]}
    _, edition = make(tmp_path, split)
    before = {name: data for name, data in tree(edition).items() if name.startswith("de/")}
    more = [{"text": f"fr {sentence(i)}", "language": "fr"} for i in range(100, 120)]
    (tmp_path / "raw" / "late.jsonl").write_text("".join(json.dumps(one) + "\n" for one in more))
    make(tmp_path, split)
    after = {name: data for name, data in tree(edition).items() if name.startswith("de/")}
    assert before
    assert before.items() <= after.items()
    assert read_ledger(edition).portions["fr"].documents == 65


def test_without_split_no_byte_is_another_and_taking_it_back_gives_the_same_bytes(tmp_path):
    _, edition = make(write(tmp_path, TEXTS))
    before = tree(edition)
    assert "portion" not in before["ledger.json"].decode()
    assert b"split" not in web().model_dump_json().encode()
    make(tmp_path, {"languages": ["de"]})
    make(tmp_path)
    assert tree(edition) == before


def test_the_language_found_in_a_text_goes_before_the_declared_one_unless_params_say_otherwise(tmp_path):
    said = [f"{SENTENCES[code]} {i}. {SENTENCES[code]}" for code in ("de", "fr") for i in range(40)]
    found = [{"text": text, "language": "en"} for text in said]
    for label, names in (("detected", ["de", "fr"]), ("declared", ["en"])):
        config = recipe().model_copy(update={"language": LanguageFilter(label=label)})
        _, edition = make(write(tmp_path / label, found), {}, config)
        assert sorted(read_ledger(edition).portions) == names


@pytest.mark.parametrize(
    ("split", "texts", "letter"),
    [
        ({"languages": ["de", "nl"]}, TEXTS, r"split.languages: no clean document is in 'nl'; there are de \(60\), fr"),
        ({}, [{"text": one["text"]} for one in TEXTS], "no document says what language it is in\n.*prepare.language"),
        ({"languages": ["de", "sw"]}, TEXTS, "portion 'sw': 1 of 4 clean documents (.|\n)*from split.languages"),
        ({"weights": {"nl": 2}}, TEXTS, "split.weights: no portion 'nl'; there are de, fr, other"),
    ],
)
def test_a_split_that_cannot_be_is_refused_and_the_earlier_edition_stays(tmp_path, split, texts, letter):
    make(write(tmp_path, texts))
    before = tree(Layout(tmp_path).clean("web"))
    with pytest.raises(ConfigError, match=f"source 'web'.*{letter}"):
        make(tmp_path, split)
    assert tree(Layout(tmp_path).clean("web")) == before


@pytest.mark.parametrize(
    ("split", "letter"),
    [
        ({"languages": ["de"], "weights": {"fr": 2}}, "weights: 'fr' is no portion"),
        ({"rest": "drop", "weights": {"other": 2}}, "no portion other where rest is drop"),
        ({"languages": ["de", "de"]}, "names one twice"),
        ({"by": "topic"}, "language"),
    ],
)
def test_a_declaration_that_does_not_go_together_is_refused(split, letter):
    raw = {"name": "web", "role": "domain", "origins": [{"path": "raw"}], "split": split}
    with pytest.raises(ConfigError, match=letter):
        parse(Source, raw, "data/sources/web.yaml")


@pytest.fixture
def packed(tmp_path):
    source, edition = make(write(tmp_path, TEXTS), {"languages": ["de", "fr"], "weights": {"fr": 3}}, weight=2.0)
    layout = Layout(tmp_path)
    train_tokenizer([edition], 300, layout.tokenizer("tiny"))
    pack(source, edition, layout.tokenizer("tiny"), base(), layout.rows("tiny", "web"))
    return source, layout


def test_each_portion_has_rows_of_its_own_that_hold_its_text(packed):
    source, layout = packed
    out = layout.rows("tiny", "web")
    ledger = read_ledger(out)
    cleaned = read_ledger(layout.clean("web"))
    for name, each in ledger.portions.items():
        index = read_index(out / name)
        assert index.totals["train"].tokens == each.tokens == Rows.open(out / name, "train", 16).num_tokens
        assert each.model_copy(update={"tokens": None, "held_out_tokens": None}) == cleaned.portions[name]
    assert ledger.tokens == sum(each.tokens for each in ledger.portions.values())
    again = tree(out)
    assert pack(source, layout.clean("web"), layout.tokenizer("tiny"), base(), out) == ledger
    assert tree(out) == again


def test_a_mixture_reads_portions_by_their_bytes_times_their_weight(packed):
    source, layout = packed
    found = corpora(layout, base(), (source,))
    assert sorted(found) == ["web.de", "web.fr", "web.other"]
    assert sum(one.weight for one in found.values()) == pytest.approx(2.0)
    sizes = {name: one.bytes - one.held_out_bytes for name, one in read_ledger(layout.clean("web")).portions.items()}
    assert found["web.fr"].weight / found["web.de"].weight == pytest.approx(3 * sizes["fr"] / sizes["de"])
    assert found["web.de"].rows == str(layout.rows("tiny", "web") / "de")
    with pytest.raises(ConfigError, match=r"'web\.de' is a source and a portion of another"):
        corpora(layout, base(), (notes(name="web.de"), source))
    assert [one.folder for one in shares(web(), layout.clean("web"))] == [""]


def test_show_tells_what_each_portion_holds(packed):
    _, layout = packed
    ledgers = [read_ledger(layout.clean("web")), read_ledger(layout.rows("tiny", "web"))]
    text = corpus_text.show(ledgers)
    assert "portions:\n     de" in text
    assert all(len(line) < 80 for line in text.splitlines())
    assert f"{ledgers[1].portions['fr'].tokens:,} tokens" in text
