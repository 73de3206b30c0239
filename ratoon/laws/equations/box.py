"""The box of a law of size, tokens and ratio: where it keeps its monotonicities, and the units of its search."""

from dataclasses import dataclass

import numpy as np

from ratoon.laws.form import Inputs, centre, count_levels


@dataclass(frozen=True)
class Box:
    """Sizes and tokens are geometric means; a share of zero is outside of it."""

    params_scale: float
    tokens_scale: float
    share_low: float
    share_high: float
    tokens_low: float
    tokens_high: float

    @property
    def one_length(self) -> bool:
        """All runs are equally long: nothing is known of other lengths, and loss is taken not to depend on it."""
        return self.tokens_high <= self.tokens_low


def enclose(inputs: Inputs, reach: Inputs | None = None) -> Box:
    """The box of these runs, reaching to the tokens of `reach` when asked for."""
    N, D, r = inputs["N"], inputs["D"], inputs["r"]
    asked = float(np.max(reach["D"])) if reach and "D" in reach else 0.0
    return Box(
        params_scale=centre(N),
        tokens_scale=centre(D),
        share_low=float(min(r[r > 0].min(), 0.02)),
        share_high=1.0,
        tokens_low=float(D.min()),
        tokens_high=max(float(D.max()), asked) if count_levels(D) > 1 else float(D.min()),
    )
