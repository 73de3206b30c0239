"""Who is asked about the documents of a source, in which order: what costs least and spares the others most first."""

from ratoon.config import PrepareConfig, Source
from ratoon.corpus.filters.dates import dates
from ratoon.corpus.filters.kinds import Kinds
from ratoon.corpus.filters.languages import languages
from ratoon.corpus.filters.licenses import licenses
from ratoon.corpus.filters.toxicity import toxicity
from ratoon.corpus.judge import Judge
from ratoon.corpus.rules.profile import rules


def judges(source: Source, config: PrepareConfig) -> tuple[Judge, ...]:
    """Dates, licences, kind, language, rules, toxicity. Rules come after what they ask for: kind and language.

    Raises ConfigError for a kind of text without rules, an unknown rule or a wrong threshold.
    """
    found: list[Judge] = []
    if config.dates:
        found.append(dates(config.dates))
    if config.licenses:
        found.append(licenses(config.licenses))
    kind = None if source.kind == "auto" else source.kind
    if kind is None:
        found.append(Kinds())
    if config.language and (kind is None or kind in config.language.kinds):
        found.append(languages(config.language, kind))
    found.append(rules(source, config))
    if config.toxicity and (kind is None or kind in config.toxicity.kinds):
        found.append(toxicity(config.toxicity, kind))
    return tuple(found)
