"""Why a document is where it is."""

from typing import Any, NamedTuple

import polars as pl

from ratoon.config import ConfigError, PrepareConfig, Source, Thresholds
from ratoon.corpus.accounts.table import KEPT, Accounts, texts
from ratoon.corpus.dedup.survivors import CLUSTERS
from ratoon.corpus.edition import shards
from ratoon.corpus.fates import DUPLICATE
from ratoon.corpus.portions import NO_PORTION
from ratoon.corpus.scores.select import NOT_SELECTED

MOST = 20
JOINT = {
    DUPLICATE: "the same text, but for case and white space, as",
    "near_duplicate": "nearly the same text as",
    "in_other_source": "in a source of higher priority",
    "repeated_paragraphs": "most of its words stand in paragraphs of other documents",
    NOT_SELECTED: "its score is below what the budget of prepare.select has room for",
    NO_PORTION: "its language is no portion of this source (split), and the rest is dropped",
}


class Story(NamedTuple):
    id: str
    place: str
    fate: str
    because: str
    noted: dict[str, Any]  # what judges noted of it
    stands: tuple[str, str] | None  # id and place of the document that stands for it
    text: str


def why(of: Accounts, asked: str, source: Source, config: PrepareConfig) -> list[Story]:
    """What became of the documents whose id begins with `asked`, or whose place is it, or holds it, or whose text does.

    Raises ConfigError where there is none, or more than twenty.
    """
    found = _matching(of, asked)
    if len(found) > MOST:
        raise ConfigError(
            f"source {of.source!r}: {len(found)} documents match {asked!r}, such as {found['place'][0]}; give an id, "
            f"or more of the place (at most {MOST} are told of)"
        )
    clusters = [pl.read_parquet(path) for path in shards(of.clean, "clusters/")]
    table = pl.concat(clusters) if clusters else pl.DataFrame(schema={name: pl.Binary for name in CLUSTERS.names})
    return [_story(of, row, table, source, config) for row in texts(of, found).iter_rows(named=True)]


def _matching(of: Accounts, asked: str) -> pl.DataFrame:
    documents = of.documents
    place = pl.col("place")
    # A whole place before a part of one: a.jsonl:3 is line 3, though it is a part of a.jsonl:30 too.
    for test in (
        pl.col("id").str.starts_with(asked),
        place == asked,
        place.str.ends_with(f"/{asked}"),
        place.str.contains(asked, literal=True),
    ):
        if len(found := documents.filter(test)):
            return found
    parts = [
        texts(of, rows).filter(pl.col("text").str.contains(asked, literal=True)).drop("text")
        for _, rows in documents.group_by("stem", maintain_order=True)
    ]
    if parts and len(found := pl.concat(parts)):
        return found
    raise ConfigError(
        f"source {of.source!r}: no document has an id that begins with {asked!r}, a place or a text that holds it"
    )


def _story(of: Accounts, row: dict[str, Any], clusters: pl.DataFrame, source: Source, config: PrepareConfig) -> Story:
    plain = {"row", "id", "place", "reason", "key", "bytes", "stem", "fate", "text"}
    noted = {name: value for name, value in row.items() if name not in plain and value is not None}
    fate = row["fate"]
    stands = None if fate in KEPT or row["reason"] else _survivor(of, row, clusters)
    return Story(row["id"], row["place"], fate, _because(fate, _rules(row, source, config)), noted, stands, row["text"])


def _rules(row: dict[str, Any], source: Source, config: PrepareConfig) -> Thresholds:
    """Those this document was asked."""
    kind: Any = row.get("kind") or source.kind
    language = source.language or row.get("language")
    if kind == "web" and language in config.languages:
        return config.languages[language]
    return config.rules.get(kind, {})


def _because(fate: str, rules: Thresholds) -> str:
    if fate in KEPT:
        return f"{'held out from training' if fate == 'held_out' else 'trained on'}: nothing speaks against it"
    if fate in JOINT:
        return JOINT[fate]
    # A rule of several reasons begins each of them with its own name.
    name = next((rule for rule in sorted(rules, key=len, reverse=True) if fate.startswith(rule)), None)
    return f"rule {name}: {rules[name]} (params.yaml, prepare.rules)" if name else f"{fate} (params.yaml, prepare)"


def _survivor(of: Accounts, row: dict[str, Any], clusters: pl.DataFrame) -> tuple[str, str] | None:
    same = of.documents.filter((pl.col("key") == row["key"]) & pl.col("fate").is_in(KEPT))
    if not len(same):
        told = clusters.filter(pl.col("id") == row["id"]) if len(clusters) else clusters
        if not len(told):
            return None
        begins = bytes(told["survivor"][0])
        same = of.documents.filter(pl.col("key").bin.starts_with(begins) & pl.col("fate").is_in(KEPT))
    return (same["id"][0], same["place"][0]) if len(same) else None
