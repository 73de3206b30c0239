"""Toxicity is a tag: it is noted of prose, says nothing of what it cannot read, and drops only when told."""

import pyarrow as pa
import pytest
from language_pages import PAGES
from odd_texts import ODD, OTHER, PROSE
from small_sources import lines, notes, recipe, sentence

from ratoon.config import Toxicity
from ratoon.corpus.clean import clean
from ratoon.corpus.documents import SCHEMA, rows
from ratoon.corpus.edition import shards
from ratoon.corpus.filters.toxicity import toxicity
from ratoon.corpus.judge import COLUMNS, Documents
from ratoon.corpus.sources import ingest

ABUSE = "You fucking moron, go kill yourself, you piece of shit. "


def ask(texts, config=None, language=None, kind="prose"):
    found = [{"id": str(i), "text": text, "source": "notes", "language": language} for i, text in enumerate(texts)]
    batch = pa.RecordBatch.from_pylist(found, SCHEMA).select(list(COLUMNS))
    answer = toxicity(config or Toxicity(), kind).open()(Documents(batch))
    return answer.reasons, answer.notes["toxicity"].to_pylist()


def test_the_tag_is_matches_per_thousand_words():
    ten = "one two three four five six seven eight nine "
    assert ask([ten + "ten", ten + "BULLSHIT", (ten + "assholes ") * 10, ABUSE]) == ([None] * 4, [0, 100, 100, 400])


@pytest.mark.parametrize("text", [*ODD.values(), PROSE, OTHER, *PAGES.values()])
def test_clean_text_has_none(text):
    assert ask([text]) == ([None], [0])


@pytest.mark.parametrize(
    "text",
    [
        "Scunthorpe, Shitake mushrooms, a classic assessment in Essex, and Dick Whittington of Sussex.",
        "The retarded potential of a moving charge; a chink in his armour; the niggardly budget of the spectrograph.",
        "Gay and lesbian couples, black women, Jews and Muslims, disabled veterans and their rights in court.",
        "Breast and penile cancer; anal fissures; sexual health of transgender patients; HIV and sex education.",
        "I will kill the process, then go. They deserve to win. We hope the winds die down.",
    ],
)
def test_names_groups_and_medicine_are_no_abuse(text):
    assert ask([text])[1] == [0]


@pytest.mark.parametrize(
    "text", ["He was charged for having written 'kill yourself' to her.", "The bitch whelped six healthy puppies."]
)
def test_quotation_and_the_breeding_of_dogs_are_known_false_alarms(text):
    assert ask([text])[1][0] > 0


def test_nothing_is_dropped_unless_told_and_never_for_a_word_or_two():
    texts = [PROSE, ABUSE * 3, "Shit happens, she said."]
    assert ask(texts)[0] == [None] * 3
    assert ask(texts, Toxicity(max_per_thousand=20))[0] == [None, "toxicity", None]
    assert ask(texts, Toxicity(max_per_thousand=20, min_matches=1))[0] == [None, "toxicity", "toxicity"]


def test_text_in_another_language_and_code_are_not_looked_at():
    assert ask([ABUSE], Toxicity(max_per_thousand=0), language="de") == ([None], [None])
    assert ask([ABUSE], Toxicity(max_per_thousand=0), kind="code") == ([None], [None])
    assert ask([ABUSE], language="eng_Latn")[1] == [400]


def test_the_tag_is_in_the_verdicts_and_nothing_else_changes(tmp_path):
    lines(tmp_path / "raw/a.jsonl", [*(sentence(i) for i in range(60)), ABUSE * 4])
    ingest(notes(), tmp_path, tmp_path / "documents")
    off = clean(notes(), recipe(), tmp_path / "documents", tmp_path / "off")
    on = clean(notes(), recipe().model_copy(update={"toxicity": Toxicity()}), tmp_path / "documents", tmp_path / "on")
    assert on.funnel == off.funnel
    (path,) = shards(tmp_path / "on", "verdicts/")
    tags = [row["toxicity"] for row in rows(path)]
    assert tags == [0] * 60 + [400]
    same = [[p.read_bytes() for p in shards(tmp_path / name, "train-")] for name in ("on", "off")]
    assert same[0] == same[1]
