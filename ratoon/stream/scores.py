"""A number for each row: the mean over its tokens of their documents' scores."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratoon.config import ConfigError, unknown
from ratoon.corpus.packed import SCORES_FORMAT
from ratoon.stream.rows import Rows


def has_score(rows: Rows, score: str) -> bool:
    return rows.index.scores is not None and score in rows.index.scores.suffixes


def suffix_of(rows: Rows, score: str) -> str:
    """How the files of a score end. Raises ConfigError where it was not packed."""
    scores = rows.index.scores
    if scores is None or score not in scores.suffixes:
        there = sorted(scores.suffixes) if scores else []
        raise ConfigError(
            f"{rows.path}: {unknown('score', score, there)}\n  a score is packed with the rows: declare it in "
            f"prepare.scores and run `ratoon prepare` for this source"
        )
    if scores.format != SCORES_FORMAT:
        raise ConfigError(
            f"{rows.path}: scores of format {scores.format}, this version reads {SCORES_FORMAT}; pack the source anew"
        )
    return scores.suffixes[score]


def row_scores(rows: Rows, score: str) -> NDArray[np.float64]:
    """(num_rows,); NaN where no document of a row has the score. A separator counts to its document."""
    suffix = suffix_of(rows, score)
    sums, counts = np.zeros(rows.num_rows), np.zeros(rows.num_rows)
    begin = 0  # of the shard in the stream
    for name in rows.names:
        starts = rows.starts(name).astype(np.int64) + begin
        numbers = np.asarray(rows.map(name, suffix, "<f4", len(starts) - 1), np.float64)
        if len(numbers) and starts[-1] > begin:
            add_pieces(starts, numbers, rows.row_tokens, sums, counts)
        begin = int(starts[-1])
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / counts)


def add_pieces(
    starts: NDArray[np.int64], numbers: NDArray[np.float64], row_tokens: int, sums: NDArray[Any], counts: NDArray[Any]
) -> None:
    """Add the documents that start at `starts` (the last entry: where they end) to the rows they lie in."""
    first, last = int(starts[0]) // row_tokens, int(starts[-1] - 1) // row_tokens
    cuts = np.union1d(starts, np.arange(first + 1, last + 1) * row_tokens)
    lengths = np.diff(cuts)
    number = numbers[np.searchsorted(starts, cuts[:-1], side="right") - 1]
    scored = ~np.isnan(number)
    row = cuts[:-1][scored] // row_tokens - first
    here = slice(first, last + 1)
    sums[here] += np.bincount(row, lengths[scored] * number[scored], last - first + 1)
    counts[here] += np.bincount(row, lengths[scored], last - first + 1)
