"""How sure a fit is: draws of laws that the runs allow, and what the law gets wrong of runs it never saw.

Runs that share a trunk share its luck, so whole groups are drawn anew, never checkpoints. Two ways:

    noise  studies simulated from the fitted law, with luck per run and noise per measurement as large as the runs'
           residuals let them be (noise.py), and the law fitted to each. Right where groups are few: a study of
           parameters against a dozen trunks has no dozen independent residuals to resample
    runs   the runs as they are, each group under a random weight (in the manner of Rubin 1981), wider where the law
           leans on it: no ratio is ever lost. Asks nothing of the noise, and many groups
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from ratoon.laws.fitting.fit import Fit
from ratoon.laws.fitting.folds import Fold
from ratoon.laws.fitting.identify import SINGULAR, TINY, jacobian
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.fitting.search import problem
from ratoon.laws.form import Array
from ratoon.laws.intervals.bend import Bend
from ratoon.laws.intervals.known import Scale
from ratoon.laws.intervals.lanes import Lanes
from ratoon.laws.intervals.misfit import STUDIES, Excess, at_target, excesses
from ratoon.laws.intervals.noise import Noise
from ratoon.laws.intervals.simulate import Replicates, likely, noise_of, refit, restage, spoken

# Groups per free parameter from which on they speak for themselves. From there to fifty, 90% intervals of a line of
# plain squares stretched by half hold the truth 86 to 91 times in a hundred, be noise normal, heavy-tailed or growing
# along the runs; simulated studies 88 to 92 times, but 84 to 87 where it grows.
MANY = 10.0
COUNTED = 0.9  # of the draws that Student's t is matched at
LEAST = 0.3  # of a group's own shift that is taken to be left, however much of it the parameters took up

Way = Literal["auto", "noise", "runs"]


@dataclass(frozen=True)
class Forecast:
    """Draws of a predicted loss: laws the runs allow, each wrong by what no law of this form gets right.

    misfit     relative standard deviation, common to all points of one draw
    shocks     (R,) standard normal quantiles in shuffled order
    inflation  of the draws' distance from the fit; 1 but where the runs themselves were resampled
    noise      what the runs' noise may be
    excesses   held-out errors, and how much of them is noise
    """

    fit: Fit
    replicates: Replicates
    misfit: float
    shocks: Array
    inflation: float = 1.0
    noise: Noise | None = None
    bend: Bend | None = None
    bends: Array | None = None
    excesses: tuple[Excess, ...] = ()

    def draws(self, N: ArrayLike, D: ArrayLike, r: ArrayLike) -> Array:
        """(R, n) nats per token."""
        N, D, r = (np.atleast_1d(np.asarray(x, dtype=float)) for x in np.broadcast_arrays(N, D, r))
        return self.at({"N": N, "D": D, "r": r})

    def at(self, inputs: Mapping[str, ArrayLike]) -> Array:
        """(R, n) nats per token of a law of any inputs: each (n,), or (n, d) where it is a vector."""
        arrays = {name: np.asarray(inputs[name], dtype=float) for name in self.fit.form.inputs}
        centre = self.fit.predict(arrays)
        sampled = centre + self.inflation * (self.replicates.at(arrays) - centre)
        if self.bend is not None and self.bends is not None:
            # Where the truth bends away from the law that was fitted to it, the law lies on the other side.
            away = self.bends @ self.bend.columns(arrays).T
            sampled = sampled - away if self.fit.loss_kind.space == "raw" else sampled * np.exp(-away)
        return np.asarray(sampled * (1 + self.misfit * self.shocks[:, None]))

    @property
    def said(self) -> str:
        """What the width of its intervals rests on, in words."""
        if self.noise is None:
            return "the runs themselves, resampled whole"
        return f"simulated studies; noise from {self.noise.said}: {self.noise.degrees:.0f} degrees of freedom"


def bootstrap(
    fitted: Fit,
    runs: Runs,
    groups: Sequence[str],
    *,
    replicates: int = 400,
    seed: int = 0,
    way: Way = "auto",
    known: Scale | None = None,
) -> Replicates:
    """Laws the runs allow. `runs` and `groups` are the n observations that were fitted; a group shares its luck.

    way    auto: `runs` where groups are many, else `noise`
    known  the measurements' noise, where something other than these runs tells it
    """
    runs, groups = spoken(fitted, runs, groups)
    return _resample(fitted, runs, groups, replicates, seed, way, known, studies=0).drawn


def forecast(
    fitted: Fit,
    runs: Runs,
    groups: Sequence[str],
    *,
    tokens: float,
    spread: float = 0.0,
    doubt: float = 0.0,
    replicates: int = 400,
    seed: int = 0,
    way: Way = "auto",
    known: Scale | None = None,
    folds: Sequence[Fold] | None = None,
) -> Forecast:
    """What the law says of runs of `tokens`, with everything that is known to be uncertain about it.

    Draws move only what the law can express. What it cannot shows in runs it was not fitted on: the held-out error
    beyond what noise explains, scaled to how far `tokens` lies beyond the longest run, is added as one relative shift
    per draw, and with it `spread`, the relative distance to other laws that fit about as well.

    doubt  0: the law has the truth's form, and what noise explains of its held-out errors is noise. 1: the form may
           be wrong all the same, and those errors are carried forward whole
    folds  those the fit held out, where they were not its own choice
    """
    runs, groups = spoken(fitted, runs, groups)
    found = _resample(fitted, runs, groups, replicates, seed, way, known, studies=STUDIES)
    beyond = excesses(fitted, runs, found.losses, found.theta, folds) if fitted.held_out else ()
    normal = NormalDist()
    quantiles = np.array([normal.inv_cdf((k + 0.5) / replicates) for k in range(replicates)])
    return Forecast(
        fit=fitted,
        replicates=found.drawn,
        misfit=float(np.hypot(at_target(beyond, runs, tokens, doubt), spread)),
        shocks=np.random.default_rng(seed + 1).permutation(quantiles),
        inflation=found.inflation,
        noise=found.noise,
        bend=Bend.of(runs.inputs),
        bends=found.bends,
        excesses=beyond,
    )


@dataclass(frozen=True)
class _Resampled:
    drawn: Replicates
    inflation: float
    noise: Noise | None  # None: it was not asked for
    bends: Array | None  # (R, q)
    losses: Array  # (S, n) simulated studies
    theta: Array  # (S, k) exponents near each


def _resample(
    fitted: Fit,
    runs: Runs,
    groups: Sequence[str],
    replicates: int,
    seed: int,
    way: Way,
    known: Scale | None,
    studies: int,
) -> _Resampled:
    random = np.random.default_rng(seed)
    lanes = Lanes.of(groups, runs.inputs)
    if way == "auto":
        way = "runs" if lanes.number >= MANY * fitted.num_free else "noise"
    if way == "runs":
        weights = _lots(fitted, runs, lanes, replicates, random)
        losses = np.broadcast_to(runs.loss, (replicates, len(runs)))
        drawn = refit(fitted, runs, losses, weights[:, lanes.member] * runs.weights)
        simulated, theta = np.empty((0, len(runs))), np.empty((0, len(fitted.theta)))
        if studies:
            noise = noise_of(fitted, runs, lanes, draws=studies, random=random, known=known)
            simulated = restage(fitted, runs, lanes, noise, random).losses
            theta = np.broadcast_to(fitted.theta, (studies, len(fitted.theta)))
        return _Resampled(drawn, _inflation(fitted, lanes.number), None, None, simulated, theta)
    noise = noise_of(fitted, runs, lanes, draws=replicates, random=random, known=known)
    staged = restage(fitted, runs, lanes, noise, random)
    drawn = refit(fitted, runs, staged.losses, np.broadcast_to(runs.weights, staged.losses.shape))
    chosen = likely(fitted, runs, lanes, noise, drawn, random)
    simulated = staged.losses[:studies]
    return _Resampled(drawn.take(chosen), 1.0, noise, staged.bends[chosen], simulated, drawn.theta[:studies])


def _lots(fitted: Fit, runs: Runs, lanes: Lanes, replicates: int, random: np.random.Generator) -> Array:
    """(R, G) weights of the groups, of mean one.

    The law bends towards the groups it leans on, and leaves less of their luck to be seen: their weights vary the more,
    so that to first order the draws vary as leaving each group out in turn says (MacKinnon and White 1985, HC3).
    """
    posed = problem(fitted.form, runs, fitted.frame, fitted.loss_kind, fitted.settled)
    root = np.sqrt(runs.weights) / (1.0 if fitted.loss_kind.space == "raw" else runs.loss)
    design = jacobian(posed, fitted.theta, fitted.coefficients)[:, fitted.identification.used] * root[:, None]
    basis, sizes, _ = np.linalg.svd(design / np.maximum(np.sqrt((design**2).sum(axis=0)), TINY), full_matrices=False)
    basis = basis[:, sizes > SINGULAR * sizes.max(initial=0.0)]
    own = lanes.indicator * np.sqrt(runs.weights)[:, None]
    taken = ((basis.T @ own) ** 2).sum(axis=0) / np.maximum((own**2).sum(axis=0), TINY)
    shape = np.maximum(1 - taken, LEAST) ** 2
    weights = random.gamma(shape, size=(replicates, lanes.number)) / shape
    return np.asarray(weights / weights.mean(axis=1, keepdims=True))


def _inflation(fitted: Fit, num_groups: int) -> float:
    """G groups show (G - 1)/G of their variance, and what they show of it is itself uncertain, as Student's t says;
    held to a factor of two."""
    tail = (1 + COUNTED) / 2
    student = t.ppf(tail, max(num_groups - fitted.num_free, 1)) / NormalDist().inv_cdf(tail)
    return float(min(student * np.sqrt(num_groups / max(num_groups - 1, 1)), 2.0))
