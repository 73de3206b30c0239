"""Decisions beside datatrove 0.10.1 with spaCy's words, as its own process gave them (benchmarks/corpus_rules.py).

Where they differ, and why:
- words: spaCy splits by lists of exceptions, units and faces ("Mr.", "cannot", "5km", "):"), ours by rules without a
  dictionary (ratoon/corpus/rules/words.py). About one token in fifty of technical prose is another one, so a text whose
  share lies within about a hundredth of a threshold on words or n-grams may fall on the other side, either way.
- sentences of C4: full stops that stand alone, so they differ where words do.
- an empty text has nothing repeated here; there the repetition filter drops it as "empty". Any bound on length does.
- C4 edits texts there; here it decides and `c4_text` gives the edited text.
- bullets, arrows and other symbols are no words here; there only a list of punctuation is not.
- Chinese and Thai: see test_rules_languages.py. jieba and newmm cut words there, characters are counted here.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from odd_texts import ODD

from ratoon.corpus.formats import Bad
from ratoon.corpus.packages import installed, read
from ratoon.corpus.rules import build, reasons
from ratoon.corpus.rules.batch import Batch
from ratoon.corpus.rules.c4 import c4_text

PEER = json.loads(Path(__file__).with_name("datatrove_decisions.json").read_text())
SETS: dict[str, dict[str, Any]] = PEER["thresholds"]  # the peer's defaults, in our rules
EXPLAINED = {"gopher_repetition": ["empty"]}


@cache
def documents() -> dict[str, str]:
    """Docstrings and code of networkx, by the hash the recorded decisions go by."""
    found = {}
    for content in ("prose", "code"):
        texts = [one.text for one in read(installed("networkx", content), content) if not isinstance(one, Bad)]  # type: ignore[arg-type]
        found |= {hashlib.blake2b(text.encode(), digest_size=5).hexdigest(): text for text in texts}
    return found


@pytest.mark.parametrize("name", SETS)
def test_decisions_on_a_real_package_agree_on_99_of_100_documents(name):
    column = PEER["filters"].index(name)
    texts = {key: documents()[key] for key in PEER["networkx"] if key in documents()}
    assert len(texts) > 900, "another version of networkx: record its decisions anew"
    ours = reasons(list(texts.values()), build(SETS[name], "rules"))
    agree = [
        (reason is None) == (PEER["networkx"][key][column] == "+") for key, reason in zip(texts, ours, strict=True)
    ]
    assert sum(agree) / len(agree) >= 0.99


@pytest.mark.parametrize("name", SETS)
def test_decisions_on_odd_texts_are_the_same_but_for_those_explained(name):
    column = PEER["filters"].index(name)
    ours = reasons(list(ODD.values()), build(SETS[name], "rules"))
    differ = [
        key for key, reason in zip(ODD, ours, strict=True) if (reason is None) != (PEER["odd"][key][column] == "+")
    ]
    assert differ == EXPLAINED.get(name, [])


def test_every_odd_text_has_a_recorded_decision():
    assert set(PEER["odd"]) == set(ODD)


def test_c4_leaves_the_lines_it_keeps_without_citations():
    text = (
        "Menu\nIt rained.[12] We left\nUse of cookies is needed here.\n They came back late. \nturn javascript on now"
    )
    assert c4_text(Batch([text, "", "x"]), ended=False).to_list() == [
        "It rained. We left\nThey came back late.",
        "",
        "",
    ]
    assert c4_text(Batch([text]), ended=True).to_list() == ["They came back late."]
    assert isinstance(c4_text(Batch([]), ended=False), pl.Series)
