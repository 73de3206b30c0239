"""What a law gets wrong of runs it never saw, beyond what their noise and its own sampling explain.

A held-out error is part noise. How large it would be were the law true is found by holding the same runs out of
simulated studies; what lies above nine tenths of those is taken for the law's own fault.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ratoon.laws.fitting.fit import Fit
from ratoon.laws.fitting.folds import Fold, leave_out
from ratoon.laws.fitting.runs import Runs, longest_two
from ratoon.laws.form import Array
from ratoon.laws.intervals.simulate import refit

STUDIES = 40  # simulated: four lie above the ninth decile
EXPLAINED = 0.9  # of simulated held-out errors that must be smaller before any is the law's fault
ITERATIONS = 15  # without its runs, exponents lie further from the fit's
FARTHEST = 10.0  # times the error at the held-out runs, at most, that is expected of the target


class Excess(NamedTuple):
    """Root mean squares, relative, of one split."""

    name: str
    found: float
    explained: float  # by noise

    @property
    def beyond(self) -> float:
        return float(np.sqrt(max(self.found**2 - self.explained**2, 0.0)))

    def doubted(self, doubt: float) -> float:
        """What is beyond noise, and of the rest a part of `doubt`: the whole error found where that is 1."""
        return float(np.hypot(self.beyond, doubt * min(self.explained, self.found)))


def excesses(
    fitted: Fit, runs: Runs, losses: Array, theta: Array, folds: Sequence[Fold] | None = None
) -> tuple[Excess, ...]:
    """Per split that the fit held out, over rows every law speaks about.

    losses, theta  (S, n), (S, k): simulated studies and the exponents found on each
    """
    held = {split.name for split in fitted.held_out}
    asked = [fold for fold in (leave_out(runs.inputs) if folds is None else folds) if fold.name in held]
    # The runs' own losses come first: they are refitted just as the simulated ones are.
    losses = np.concatenate([runs.loss[None], losses])
    theta = np.concatenate([fitted.theta[None], theta])
    squares: dict[str, list[Array]] = {}
    for fold in asked:
        out = ~fold.keep & (runs.inputs.get("r", np.ones(len(runs))) > 0) & (runs.weights > 0)
        if not out.any():
            continue
        kept = runs.where(fold.keep)
        weights = np.broadcast_to(kept.weights, (len(losses), len(kept)))
        settled = fitted.form.settle(kept.inputs)
        found = refit(fitted, kept, losses[:, fold.keep], weights, settled=settled, theta=theta, iterations=ITERATIONS)
        errors = found.at(runs.where(out).inputs) / losses[:, out] - 1
        squares.setdefault(fold.name, []).append(errors**2)
    return tuple(_excess(name, np.concatenate(parts, axis=1)) for name, parts in squares.items())


def _excess(name: str, squares: Array) -> Excess:
    means = squares.mean(axis=1)
    return Excess(name, float(np.sqrt(means[0])), float(np.sqrt(np.quantile(means[1:], EXPLAINED))))


def at_target(found: Sequence[Excess], runs: Runs, tokens: float, doubt: float = 0.0) -> float:
    """Relative error to expect at `tokens` from what is beyond noise: the largest of the splits. `doubt` is the part
    of what noise does explain that is carried along with it.

    A law that is tangent to the truth errs by what it lacks in curvature, so what was got wrong of the longest runs
    grows with the square of the stretch in log tokens.
    """
    scale = 1.0
    if "D" in runs.inputs:
        longest, shorter = longest_two(runs)
        if shorter < longest:
            stretch = np.log(max(tokens / longest, 1.0)) / np.log(longest / shorter)
            scale = float(np.clip(stretch**2, 1.0, FARTHEST))
    return max((one.doubted(doubt) * (scale if one.name == "longest runs" else 1.0) for one in found), default=0.0)
