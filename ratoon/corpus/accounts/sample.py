"""Documents to look at: some that are kept, and some of every reason to drop."""

import hashlib
from typing import NamedTuple

import polars as pl

from ratoon.config import ConfigError, unknown
from ratoon.corpus.accounts.table import KEPT, Accounts, texts


class Seen(NamedTuple):
    id: str
    place: str
    fate: str
    bytes: int
    text: str


def sample(of: Accounts, number: int = 20, reason: str | None = None, seed: int = 0) -> dict[str, list[Seen]]:
    """Fate -> at most `number` documents of it, the same for the same seed; `kept` first, then reasons by size.

    Raises ConfigError for a reason that dropped nothing.
    """
    fate = pl.when(pl.col("fate").is_in(KEPT)).then(pl.lit("kept")).otherwise(pl.col("fate"))
    documents = of.documents.with_columns(fate.alias("group"))
    counts = documents.group_by("group").len().sort(["len", "group"], descending=[True, False])
    groups = [name for name in ("kept", *counts["group"].to_list()) if name in set(counts["group"].to_list())]
    groups = list(dict.fromkeys(groups))
    if reason is not None:
        if reason not in groups:
            raise ConfigError(f"source {of.source!r}: {unknown('reason', reason, groups)}")
        groups = [reason]
    return {name: _some(of, documents.filter(pl.col("group") == name), number, seed) for name in groups}


def _some(of: Accounts, documents: pl.DataFrame, number: int, seed: int) -> list[Seen]:
    # By the hash of an id, so that more text leaves most of a sample as it was.
    order = [hashlib.blake2b(f"{seed} {id_}".encode(), digest_size=8).digest() for id_ in documents["id"]]
    chosen = documents.with_columns(pl.Series("order", order)).sort("order").head(number)
    found = texts(of, chosen)
    return [Seen(*row) for row in found.sort("order").select(Seen._fields).iter_rows()]
