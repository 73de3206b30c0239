"""train.subset_epochs: several epochs over a part of the domain text that is sized for the run, instead of one over
more of it (the first remedy of arXiv 2406.14833)."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ratoon.training.request import Portion


def limit_of(portion: "Portion", epochs: float | None, tokens: int, row_tokens: int) -> int | None:
    """Rows of a source to use in a run of `tokens`; None: all that there are.

    A limit that the portion has already stands: it is that of a proxy, and counts the same epochs.
    """
    if portion.limit_rows is not None or epochs is None or portion.role != "domain":
        return portion.limit_rows
    return max(1, math.ceil(portion.share * tokens / row_tokens / epochs))
