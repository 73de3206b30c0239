"""Rules for tables: CSV, TSV, and tables drawn with | or ; between their cells."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ratoon.corpus.rules.batch import Batch, Ints, Mask, Spans, Test, share

SEPARATORS = "\t,;|"


class Table(NamedTuple):
    rows: Spans
    separators: Ints  # of each row
    at: Ints  # where they are


def ragged_rows(max_share: float) -> Test:
    """Share of non-blank rows with another number of cells than the commonest: cut-off tables, or none at all."""

    def test(batch: Batch) -> Mask:
        rows, counts, _ = _table(batch)
        order = np.lexsort((counts, rows.document))
        new = np.diff(counts[order], prepend=-1) != 0
        new |= np.diff(rows.document[order], prepend=-1) != 0
        size = np.diff(np.append(np.flatnonzero(new), len(order)))
        commonest = np.zeros(len(batch), np.int64)
        np.maximum.at(commonest, rows.document[order][new], size)
        return share(rows.counts - commonest, rows.counts) > max_share

    return test


def empty_cells(max_share: float) -> Test:
    """Share of cells with nothing but white space in them."""

    def test(batch: Batch) -> Mask:
        table = _table(batch)
        cells = _cells(batch, table.rows, table.at)
        empty = batch.ink_before[cells.end] == batch.ink_before[cells.start]
        return share(cells.sum(empty), cells.counts) > max_share

    return test


def _table(batch: Batch) -> Table:
    """Rows cut by the separator each text has most of, quotation marks not heeded."""
    found = np.stack([batch.count_signs(sign) for sign in SEPARATORS])
    sign = np.array([ord(s) for s in SEPARATORS], np.uint32)[np.argmax(found, axis=0)]
    of = np.repeat(sign, np.diff(batch.bounds))
    at = np.flatnonzero(batch.codes == of)
    rows = batch.filled_rows
    inside = np.searchsorted(at, rows.end) - np.searchsorted(at, rows.start)
    return Table(rows, inside, at)


def _cells(batch: Batch, rows: Spans, at: npt.NDArray[np.int64]) -> Spans:
    row = np.searchsorted(rows.end, at)
    at = at[(row < len(rows.end)) & (at >= rows.start[np.minimum(row, len(rows.end) - 1)])] if len(rows.end) else at[:0]
    start = np.sort(np.concatenate([rows.start, at + 1]))
    return batch.spans(start, np.sort(np.concatenate([rows.end, at])))
