"""What is in an edition: lengths, languages, licences, years, places, and what it shares with other sources."""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from ratoon.corpus.accounts.table import KEPT, Accounts, texts
from ratoon.corpus.prefixes import host

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
TOP = 10


class Count(NamedTuple):
    name: str
    documents: int
    bytes: int


class Stats(NamedTuple):
    source: str
    lengths: dict[str, int]  # bytes of a kept document, by quantile
    by: dict[str, list[Count]]  # language, license, year, place ...; the largest first, the rest as "other"
    clusters: dict[str, int]  # texts that stand for 2, 3-4, 5-9 ... documents
    shared: dict[str, Count]  # other source -> kept documents whose text is there too


def stats(of: Accounts, others: Sequence[Accounts] = ()) -> Stats:
    """Of what is kept, training and held-out part together."""
    kept = of.documents.filter(pl.col("fate").is_in(KEPT))
    told = texts(of, kept.select("stem", "row", "bytes"), ("language", "license", "date", "url"))
    sizes = kept["bytes"]
    lengths = {f"{q:.0%}": int(sizes.quantile(q, "nearest") or 0) for q in QUANTILES} if len(kept) else {}
    by = {
        "license": _count(told, pl.col("license")),
        "year": _count(told, pl.col("date").str.slice(0, 4)),
        "place": _count(told, pl.col("url").map_elements(place, return_dtype=pl.String)),
    }
    for name in ("kind", "language", "portion"):
        column = kept if name in kept.columns else told
        if name in column.columns:
            by[name] = _count(column, pl.col(name))
    return Stats(
        of.source,
        lengths,
        {name: counts for name, counts in by.items() if any(one.name != "none" for one in counts)},
        _clusters(of),
        {other.source: _shared(kept, other) for other in others},
    )


def place(url: str | None) -> str:
    """Host of an address; of a file its folder's first two steps."""
    if not url:
        return "none"
    if "://" in url:
        return host(url) or "none"
    steps = url.split("/")
    return "/".join(steps[:2]) if len(steps) > 2 else steps[0]


def _count(table: pl.DataFrame, what: pl.Expr) -> list[Count]:
    grouped = (
        table.group_by(what.fill_null("none").alias("name"))
        .agg(pl.len().alias("documents"), pl.col("bytes").sum())
        .sort(["bytes", "name"], descending=[True, False])
    )
    found = [Count(*row) for row in grouped.select("name", "documents", "bytes").iter_rows()]
    if len(found) <= TOP:
        return found
    rest = found[TOP:]
    return [*found[:TOP], Count(f"{len(rest)} others", sum(x.documents for x in rest), sum(x.bytes for x in rest))]


def _clusters(of: Accounts) -> dict[str, int]:
    from ratoon.corpus.edition import shards

    files = shards(of.clean, "clusters/")
    if not files:
        return {}
    whole = pl.concat(pl.read_parquet(path) for path in files).unique("survivor")["size"]
    bounds = ((2, 2), (3, 4), (5, 9), (10, 99), (100, 999), (1000, None))
    found = {}
    for low, high in bounds:
        inside = whole.filter((whole >= low) & (whole <= high if high else whole >= low))
        if len(inside):
            found[f"{low}" if low == high else f"{low}-{high}" if high else f"{low} and more"] = len(inside)
    return found


def _shared(kept: pl.DataFrame, other: Accounts) -> Count:
    theirs = other.documents.filter(pl.col("fate").is_in(KEPT)).select("key").unique()
    both = kept.join(theirs, on="key", how="semi")
    return Count(other.source, len(both), int(both["bytes"].sum()))
