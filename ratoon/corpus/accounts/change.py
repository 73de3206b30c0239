"""What one edition of a source has that another has not."""

from typing import NamedTuple

import polars as pl

from ratoon.corpus.accounts.table import KEPT, Accounts


class Move(NamedTuple):
    before: str  # a fate, or "not there"
    after: str
    documents: int
    bytes: int
    examples: list[str]


ABSENT = "not there"
EXAMPLES = 3


def change(before: Accounts, after: Accounts) -> list[Move]:
    """Documents by what they were and what they are, the largest move first; what stayed as it was comes last.

    A document is its id: source and text. One that is there twice is counted as often.
    """
    sides = [_numbered(of).select("id", "copy", "place", "bytes", "fate") for of in (before, after)]
    both = sides[0].join(sides[1], on=["id", "copy"], how="full", coalesce=True, suffix="_after")
    moves = (
        both.with_columns(
            pl.col("fate").fill_null(ABSENT),
            pl.col("fate_after").fill_null(ABSENT),
            pl.coalesce("bytes_after", "bytes").alias("size"),
            pl.coalesce("place_after", "place").alias("where"),
        )
        .sort("id", "copy")
        .group_by("fate", "fate_after", maintain_order=True)
        .agg(pl.len().alias("documents"), pl.col("size").sum(), pl.col("where").head(EXAMPLES))
    )
    found = [Move(*row) for row in moves.iter_rows()]
    return sorted(found, key=lambda move: (move.before == move.after, -move.documents, move.before, move.after))


def kept(moves: list[Move]) -> tuple[int, int]:
    """Documents that came into what is kept, and that left it."""
    came = sum(move.documents for move in moves if move.before not in KEPT and move.after in KEPT)
    return came, sum(move.documents for move in moves if move.before in KEPT and move.after not in KEPT)


def _numbered(of: Accounts) -> pl.DataFrame:
    return of.documents.with_columns(pl.int_range(pl.len()).over("id").alias("copy"))
