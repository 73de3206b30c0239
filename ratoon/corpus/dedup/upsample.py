"""How often a document is trained on, by how often the web said it.

A text that many places repeat is better than average up to a point, so what deduplication removed is partly given
back (arXiv:2506.20920): the survivor of a cluster is repeated, more often for larger clusters. Only text to train on
is; what is held out is measured once.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def copies(sizes: NDArray[np.int64], table: Mapping[int, int]) -> NDArray[np.uint8]:
    """Of clusters of these sizes; `table`: from this size on, so many. Below its least size: one."""
    steps = sorted(table)
    times = np.array([1, *(table[step] for step in steps)], np.uint8)
    return times[np.searchsorted(np.array(steps, np.int64), sizes, side="right")]
