"""Runs of several sizes, for laws that know one size and laws that know two.

A law without a size can read runs of all sizes once each is counted from its own parent: what continued training
adds to a loss hardly depends on size (arXiv:2505.07796 finds the shift independent of it and the rest additive). So

    L(N, D, r) - parent(N) + parent(target)

is fitted as if all runs had the target's size. Parents are the rows at 0 tokens, or what the caller knows of the
target's. Where a size has none, only the runs of the size nearest to the target are fitted, as they are.

Tried on two sweeps of 40,000 and 151,000 parameters, warm and cmr, either role: the larger size's longest runs were
predicted from all shorter runs with 0.71 times the error of that size's own shorter runs alone (geometric mean of 8,
7 of them better), one sweep's target run of three times their length with 0.71 times (of 4, 2 better). Dividing by the
parent's loss instead gains half as much (0.87). The smaller size alone, with the target's parent, erred a third as
much as D-CPT on both.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ratoon.config import Role
from ratoon.laws.fitting.fit import Fit
from ratoon.laws.fitting.folds import Fold, leave_out
from ratoon.laws.form import Array, Inputs, count_levels
from ratoon.laws.tables.parents import SAME
from ratoon.laws.tables.table import Table

Starts = Mapping[Role, Mapping[float, float]]  # role -> parameters -> its model's loss before training, nats per token
# Half and twice the capacity exponent 0.34 of arXiv:2404.10102: what two sizes leave open about a third.
CAPACITIES = (0.17, 0.68)


def as_one_size(table: Table, params: float, known: Mapping[float, float], far: float) -> Table | None:
    """The runs of all sizes within `far` times of `params`, each counted from its own parent, as if of that size.

    None where there are none, or a parent is not known.
    """
    near = table.where(np.abs(np.log(table.runs.params / params)) <= np.log(far) + 1e-9)
    if len(near.runs) == 0 or params not in known:
        return None
    sizes = np.unique(near.runs.params)
    if any(size not in known for size in sizes):
        return None
    parent = np.array([known[size] for size in near.runs.params])
    shifted = near.runs.loss - parent + known[params]
    if (shifted <= 0).any():
        return None
    return replace(near, runs=replace(near.runs, loss=shifted))


def folds(inputs: Inputs, params: float, spans_sizes: bool) -> list[Fold]:
    """What is left out in turn; the largest models too, where the target's size is none of those run and enough would
    be left to say something of it."""
    found, N = leave_out(inputs), inputs["N"]
    run = (np.abs(np.log(N / params)) <= np.log(SAME)).any()
    if not run and count_levels(N) >= (3 if spans_sizes else 2):
        found.append(Fold("largest models", N.max() / SAME > N))
    return found


def size_doubt(fitted: Fit, table: Table, params: float, tokens: float, own: Array) -> float:
    """Relative standard deviation, over the shares `own`, of what two sizes leave open about a third: half of how far
    the predictions of the exponents `CAPACITIES` through the same two sizes are apart."""
    sizes = np.unique(table.runs.params)
    if not fitted.form.spans_sizes or count_levels(sizes) != 2 or len(own) == 0:
        return 0.0
    low, high = float(sizes.min()), float(sizes.max())
    if low / SAME <= params <= high * SAME:
        return 0.0
    fall = fitted.loss(low, tokens, own) - fitted.loss(high, tokens, own)
    further = [(high**-a - params**-a) / (low**-a - high**-a) for a in CAPACITIES]
    apart = np.abs(further[0] - further[1]) / 2 * fall / fitted.loss(params, tokens, own)
    return float(np.sqrt(np.mean(np.square(apart))))
