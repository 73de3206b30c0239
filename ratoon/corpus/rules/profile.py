"""Which rules a document is asked: by its kind, which is that of its source or its own, and of web text by language."""

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import polars as pl

from ratoon.config import ConfigError, Kind, PrepareConfig, Source
from ratoon.corpus.judge import Ask, Documents, Findings
from ratoon.corpus.rules import Rule, build, reasons
from ratoon.corpus.rules.languages import UNDETERMINED, short

Thresholds = dict[str, Any]


class Judges(NamedTuple):
    rules: list[Rule]
    languages: dict[str, list[Rule]]
    language: str | None

    def reasons(self, texts: pl.Series | Sequence[str], languages: Sequence[str | None]) -> list[str | None]:
        """For each text the first reason to drop it, or None."""
        series = texts if isinstance(texts, pl.Series) else pl.Series(texts, dtype=pl.String)
        answers: list[str | None] = [None] * len(series)
        spoken = [short(label or self.language or "") for label in languages]
        for language in sorted(set(spoken)):
            places = [i for i, label in enumerate(spoken) if label == language]
            column = series if len(places) == len(series) else series.gather(places)
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


class Rules(NamedTuple):
    """The rules as a judge: each document is asked those of its kind."""

    profiles: dict[str, Profile]
    kind: str | None  # of all documents; None: each has its own, noted before
    fields: tuple[()] = ()

    def content(self) -> tuple[object, ...]:
        if self.kind:
            return self.profiles[self.kind].content()
        return ("rules by kind", *((kind, self.profiles[kind].content()) for kind in sorted(self.profiles)))

    def open(self) -> Ask:
        judges = {kind: each.judges() for kind, each in self.profiles.items()}

        def ask(documents: Documents) -> Findings:
            labels = spoken(documents)
            if self.kind:
                return Findings(judges[self.kind].reasons(documents.texts, labels))
            answers: list[str | None] = [None] * len(documents)
            kinds = documents.note("kind") or []
            for kind in sorted(set(kinds)):
                places = [i for i, each in enumerate(kinds) if each == kind]
                texts = documents.texts.gather(places)
                found = judges[kind].reasons(texts, [labels[i] for i in places])
                for place, reason in zip(places, found, strict=True):
                    answers[place] = reason
            return Findings(answers)

        return ask


def spoken(documents: Documents) -> list[str | None]:
    """The declared language of each, or else the one found in its text, if any was looked for."""
    declared = documents.column("language")
    found = documents.note("language")
    if found is None:
        return declared
    return [label or (None if other == UNDETERMINED else other) for label, other in zip(declared, found, strict=True)]


def rules(source: Source, config: PrepareConfig) -> Rules:
    """Raises ConfigError for a kind of text without rules, an unknown rule or a wrong threshold."""
    if source.kind == "auto":
        return Rules({kind: profile(source, config, kind) for kind in get_args(Kind)}, None)
    return Rules({source.kind: profile(source, config, source.kind)}, source.kind)


def profile(source: Source, config: PrepareConfig, kind: str) -> Profile:
    where = f"params.yaml: prepare.rules.{kind}"
    if kind not in config.rules:
        of = f"source {source.name!r} is {source.kind}"
        raise ConfigError(f"{where}: not there, but {of}; add it, `{kind}: {{}}` for no rules")
    asked = Profile(
        thresholds=dict(config.rules[kind]),  # type: ignore[index]
        languages={code: dict(each) for code, each in config.languages.items()} if kind == "web" else {},
        language=source.language,
    )
    build(asked.thresholds, where)
    for code, each in asked.languages.items():
        build(each, f"params.yaml: prepare.languages.{code}")
    return asked
