"""Rows of several sources as one stream of batches."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ratoon.config import ConfigError
from ratoon.stream.order import Order


class Readable(Protocol):
    """What a mixture asks of its rows; ratoon.stream.rows.Rows is one."""

    @property
    def num_rows(self) -> int: ...
    @property
    def row_tokens(self) -> int: ...
    def read(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...


class Mixture:
    """Batches as a function of the position alone."""

    def __init__(self, rows: Mapping[str, Readable], order: Order) -> None:
        lengths = {name: rows[name].row_tokens for name in order.names}
        if len(set(lengths.values())) > 1:
            raise ConfigError(f"rows of different lengths cannot be mixed: {lengths}; pack the sources for one base")
        self.rows = rows
        self.order = order
        self.row_tokens = next(iter(lengths.values()))

    def read(self, first: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows at positions first .. first + count - 1: tokens (count, row_tokens) and valid lengths (count,)."""
        place = self.order.locate(np.arange(first, first + count))
        tokens = np.empty((count, self.row_tokens), np.int64)
        valid = np.empty(count, np.int64)
        for number, name in enumerate(self.order.names):
            here = place.source == number
            if here.any():
                tokens[here], valid[here] = self.rows[name].read(place.row[here])
        return tokens, valid
