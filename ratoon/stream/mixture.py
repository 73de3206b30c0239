"""Rows of several sources as one stream of batches."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ratoon.config import ConfigError
from ratoon.stream.order import Order, Place


class Batch(NamedTuple):
    """Packed rows, and where each comes from."""

    tokens: NDArray[np.int64]  # (rows, row_tokens)
    valid: NDArray[np.int64]  # (rows,), real tokens of each; separators fill the rest
    place: Place | None = None
    parts: int = 1  # in which each row of the order was cut
    silent: NDArray[np.bool_] | None = None  # (rows, row_tokens), tokens that have no loss; None: none is silenced

    def some(self, rows: slice | NDArray[Any]) -> "Batch":
        """Some of its rows."""
        place, silent = self.place, self.silent
        if place is not None:
            place = Place(place.source[rows], place.row[rows], place.epoch[rows])
        if silent is not None:
            silent = silent[rows]
        return self._replace(tokens=self.tokens[rows], valid=self.valid[rows], place=place, silent=silent)


class Readable(Protocol):
    """What a mixture asks of its rows; ratoon.stream.rows.Rows is one."""

    @property
    def num_rows(self) -> int: ...
    @property
    def row_tokens(self) -> int: ...
    def read(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...


WINDOW = 2048  # rows that are located at once: numpy costs as much for few


class Mixture:
    """Batches as a function of the position alone."""

    def __init__(self, rows: Mapping[str, Readable], order: Order) -> None:
        lengths = {name: rows[name].row_tokens for name in order.names}
        if len(set(lengths.values())) > 1:
            raise ConfigError(f"rows of different lengths cannot be mixed: {lengths}; pack the sources for one base")
        self.rows = rows
        self.order = order
        self.row_tokens = next(iter(lengths.values()))
        self._window: tuple[int, Place | None] = (0, None)

    def read(self, first: int, count: int) -> Batch:
        """Rows at positions first .. first + count - 1."""
        place = self._locate(first, count)
        tokens = np.empty((count, self.row_tokens), np.int64)
        valid = np.empty(count, np.int64)
        for number, name in enumerate(self.order.names):
            here = place.source == number
            if here.any():
                tokens[here], valid[here] = self.rows[name].read(place.row[here])
        return Batch(tokens, valid, place)

    def _locate(self, first: int, count: int) -> Place:
        """Where these positions lie; the window they are in is remembered, and changes nothing but the time."""
        begin, known = self._window
        if known is None or not begin <= first <= first + count <= begin + len(known.row):
            begin, known = self._window = first, self.order.locate(np.arange(first, first + max(count, WINDOW)))
        here = slice(first - begin, first - begin + count)
        return Place(known.source[here].copy(), known.row[here].copy(), known.epoch[here].copy())
