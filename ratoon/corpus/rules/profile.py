"""Which rules a document is asked: by the kind of its source and, of web text, by its language."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from ratoon.config import ConfigError, PrepareConfig, Source
from ratoon.corpus.rules import Rule, build, reasons
from ratoon.corpus.rules.languages import short

Thresholds = dict[str, Any]


class Judges(NamedTuple):
    rules: list[Rule]
    languages: dict[str, list[Rule]]
    language: str | None

    def reasons(self, texts: Sequence[str], languages: Sequence[str | None]) -> list[str | None]:
        """For each text the first reason to drop it, or None."""
        answers: list[str | None] = [None] * len(texts)
        spoken = [short(label or self.language or "") for label in languages]
        for language in sorted(set(spoken)):
            places = [i for i, label in enumerate(spoken) if label == language]
            column = pl.Series([texts[i] for i in places], dtype=pl.String)
            asked = self.languages.get(language, self.rules)
            for place, reason in zip(places, reasons(column, asked, language or None), strict=True):
                answers[place] = reason
        return answers


class Profile(NamedTuple):
    """Thresholds of one source. A document whose language is not said is of the source's, or else English; one in a
    language without an entry is asked `thresholds`."""

    thresholds: Thresholds
    languages: dict[str, Thresholds]
    language: str | None

    def judges(self) -> Judges:
        others = {code: build(each, f"prepare.languages.{code}") for code, each in self.languages.items()}
        return Judges(build(self.thresholds, "prepare.rules"), others, self.language)

    def content(self) -> tuple[object, ...]:
        """All that decides, for a digest."""
        others = [(code, *each.items()) for code, each in sorted(self.languages.items())]
        return (*self.thresholds.items(), *others, self.language)


def profile(source: Source, config: PrepareConfig) -> Profile:
    """Raises ConfigError for a kind of text without rules, an unknown rule or a wrong threshold."""
    where = f"params.yaml: prepare.rules.{source.kind}"
    if source.kind not in config.rules:
        raise ConfigError(f"{where}: not there, but source {source.name!r} is {source.kind}; add it")
    asked = Profile(
        thresholds=dict(config.rules[source.kind]),
        languages={code: dict(each) for code, each in config.languages.items()} if source.kind == "web" else {},
        language=source.language,
    )
    build(asked.thresholds, where)
    for code, each in asked.languages.items():
        build(each, f"params.yaml: prepare.languages.{code}")
    return asked
