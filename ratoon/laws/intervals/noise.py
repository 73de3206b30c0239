"""How noisy runs are: the luck of a run, which all of its checkpoints share, and the noise of each measurement.

    log(measured/law) = bend (bend.py) + luck of the run + noise of the measurement      (or the difference, in nats)

Luck and noise are normal; the noise of neighbouring checkpoints of a run may correlate (`memory`), so that many
checkpoints do not pass for many runs. None of it is known: all are drawn from their restricted likelihood (Patterson
and Thompson 1971), which counts the parameters that the law spent. Beforehand luck is uniform in the shrinkage of a
run's mean where it is small (Daniels 1999) and log-uniform where it is large. Draws carry the few degrees of freedom
into every interval, as Student's t does.
Axes: R draws, n observations, p parameters, q bends.
"""

from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy.stats import chi2

from ratoon.laws.form import Array
from ratoon.laws.intervals.known import Scale
from ratoon.laws.intervals.lanes import Lanes, Places

# Variance of luck over that of the noise. Luck of thirty times the noise is as good as luck alone.
LUCK = np.concatenate([[0.0], np.geomspace(1e-2, 1e3, 31)])
MEMORIES = (0.0, 0.5, 0.8)  # each as likely as the others
# Variance of a bend's coefficient over that of the noise: a tenth of the noise does not show, all of it rarely.
BENDS = np.concatenate([[0.0], np.geomspace(0.1, 1e3, 9)])
STRAIGHT = 0.9  # probability beforehand that the law has no bend; the rest is log-uniform
OUTLYING = 4.0  # robust standard deviations beyond which a residual is moved in: one normal one in 16,000
# Of a run's checkpoints: luck of which less is left, parameters having made up for the rest, has left no trace; what is
# found there is how the law misfits.
SHOWN = 1e-3
RANK = 1e-6  # relative singular value below which a parameter moved no prediction and was not spent
ROUNDING = 1e-10  # relative: residuals below it are none
UNKNOWN = 0.002  # relative noise where nothing tells: what small proxies repeat to with another seed
FINE = 200  # quantiles of a normal that are mixed


@dataclass(frozen=True)
class Noise:
    """R draws of what it may be; standard deviations, relative or in nats where the objective is.

    degrees  of freedom behind them
    said     where it was learnt
    """

    luck: Array  # (R,)
    measurement: Array  # (R,)
    memory: Array  # (R,)
    bend: Array  # (R,) of each coefficient
    degrees: float
    said: str

    @property
    def none(self) -> bool:
        return bool((self.measurement <= 0).any())

    @property
    def typical(self) -> "Noise":
        """One draw: the likeliest memory and the medians of the draws that have it, since luck and memory stand in for
        each other; never quite zero, and of a law without bends."""
        memories, times = np.unique(self.memory, return_counts=True)
        memory = memories[times.argmax()]
        luck, measurement = (np.array([np.median(x[self.memory == memory])]) for x in (self.luck, self.measurement))
        still = np.zeros(1)
        return replace(
            self, luck=luck, measurement=np.maximum(measurement, ROUNDING), memory=np.array([memory]), bend=still
        )

    def take(self, index: Places) -> "Noise":
        parts = {name: getattr(self, name)[index] for name in ("luck", "measurement", "memory", "bend")}
        return replace(self, **parts)

    def draw(self, lanes: Lanes, random: np.random.Generator) -> Array:
        """(R, n) of luck and noise."""
        noise = lanes.remember(self.memory, random.normal(size=(len(self.luck), len(lanes))))
        luck = random.normal(size=(len(self.luck), lanes.number))[:, lanes.member]
        return np.asarray(self.luck[:, None] * luck + self.measurement[:, None] * noise)

    def whiten(self, lanes: Lanes, values: Array) -> Array:
        """(R, n) of values that vary by each draw's luck and noise, made uncorrelated and of variance one."""
        found = lanes.forget(self.memory, np.broadcast_to(values, (len(self.luck), len(lanes))))
        if not self.luck.any():
            return np.asarray(found / self.measurement[:, None])
        ones = lanes.forget(self.memory, np.ones_like(found))
        indicator, ratio = lanes.indicator, ((self.luck / self.measurement) ** 2)[:, None]
        length = (ones**2) @ indicator
        shared = ((ones * found) @ indicator) / length * (1 - 1 / np.sqrt(1 + ratio * length))
        return np.asarray((found - ones * shared[:, lanes.member]) / self.measurement[:, None])

    def agreement(self, lanes: Lanes, bends: Array, one: Array, other: Array) -> Array:
        """(R,) the product of two (R, n) or (1, n) in units of luck, noise and bends (n, q)."""
        one, other = self.whiten(lanes, one), self.whiten(lanes, other)
        found = (one * other).sum(axis=1)
        if not bends.shape[1]:
            return np.asarray(found)
        shapes = np.stack([self.whiten(lanes, column[None]) for column in bends.T], axis=2) * self.bend[:, None, None]
        gram = np.matmul(shapes.transpose(0, 2, 1), shapes) + np.eye(bends.shape[1])
        left, right = (np.matmul(x[:, None, :], shapes)[:, 0] for x in (one, other))
        return np.asarray(found - (left * np.linalg.solve(gram, right[..., None])[..., 0]).sum(axis=1))


def normal_quantiles() -> Array:
    """(FINE,) of the size of a standard normal."""
    return np.array([NormalDist().inv_cdf((1 + (k + 0.5) / FINE) / 2) for k in range(FINE)])


def learn(
    residual: Array,
    design: Array,
    bends: Array,
    lanes: Lanes,
    *,
    draws: int,
    random: np.random.Generator,
    known: Scale | None = None,
) -> Noise:
    """Noise from residuals (n,) of a law whose parameters moved its predictions by `design` (n, p).

    known  the level of the measurements' noise in the units of the residuals, where something else tells
    """
    residual = tame(residual, design.shape[1])
    grid = _Grid.over(lanes, bends)
    cells = [_cells(residual, design, bends, lanes, memory, bend, grid.luck) for memory, bend in grid.pairs]
    degrees, sure = cells[0].degrees, known.degrees if known else 0.0
    said = "what the law leaves of its runs" + (f", {known.said}" if known else "")
    if degrees + sure < 1:
        return _still(UNKNOWN, draws, f"nothing, there being as many parameters as observations: {UNKNOWN:.1%}")
    rss = np.concatenate([cell.rss for cell in cells]) + (known.degrees * known.value**2 if known else 0.0)
    if rss.max() <= len(residual) * ROUNDING**2:
        return _still(0.0, draws, f"{said}: nothing")
    rss = np.maximum(rss, 1e-300)
    weight = np.concatenate([cell.log_volume for cell in cells]) - (degrees + sure) / 2 * np.log(rss)
    weight = np.exp(weight - weight.max()) * grid.prior(lanes)
    chosen = systematic(weight / weight.sum(), draws, random)
    level = random.permutation((np.arange(draws) + 0.5) / draws)
    measurement = np.sqrt(rss[chosen] / chi2.ppf(level, degrees + sure))
    pair = np.array(grid.pairs)[chosen // len(grid.luck)]
    return Noise(
        luck=np.sqrt(grid.luck[chosen % len(grid.luck)]) * measurement,
        measurement=measurement,
        memory=pair[:, 0],
        bend=np.sqrt(pair[:, 1]) * measurement,
        degrees=degrees + sure,
        said=said,
    )


def _still(level: float, draws: int, said: str) -> Noise:
    nothing = np.zeros(draws)
    return Noise(nothing, np.full(draws, level), nothing, nothing, 0.0, said)


class _Grid(NamedTuple):
    luck: Array
    pairs: list[tuple[float, float]]  # memory, bend

    @classmethod
    def over(cls, lanes: Lanes, bends: Array) -> "_Grid":
        several = bool(lanes.rank.any())  # with one checkpoint per run luck and noise are one
        memories = MEMORIES if several else MEMORIES[:1]
        ratios = BENDS if bends.shape[1] else BENDS[:1]
        return cls(LUCK if several else LUCK[:1], [(memory, float(bend)) for memory in memories for bend in ratios])

    def prior(self, lanes: Lanes) -> Array:
        luck = np.ones(1)
        if len(self.luck) > 1:  # x d(log ratio), x the part of a run's mean that is luck; ratio 0 has what lies below
            at = lanes.checkpoints * self.luck
            luck = at / (1 + at)
            luck[0] = luck[1] / np.log(self.luck[2] / self.luck[1])
        bent = sum(bend > 0 for _, bend in self.pairs)
        bend = [STRAIGHT / max(len(self.pairs) - bent, 1) if x == 0 else (1 - STRAIGHT) / bent for _, x in self.pairs]
        return np.outer(bend, luck).ravel()


class _Cells(NamedTuple):
    """Of one memory and bend, per ratio of luck."""

    rss: Array  # of the whitened residuals that no parameter explains
    log_volume: Array  # log restricted likelihood but for the level
    degrees: float


def _cells(
    residual: Array, design: Array, bends: Array, lanes: Lanes, memory: float, bend: float, ratios: Array
) -> _Cells:
    length = np.sqrt((design**2).sum(axis=0))
    design = (design / np.maximum(length, 1e-300))[:, length > 0]
    luck = lanes.indicator if ratios.any() else np.empty((len(lanes), 0))
    each = np.concatenate([residual[:, None], design, luck, bends], axis=1).T
    each = lanes.forget(np.full(len(each), memory), each).T
    remembered = np.count_nonzero(lanes.before >= 0) * np.log(1 - memory**2)
    last = each.shape[1] - bends.shape[1]
    each, bent = _straighten(each[:, :last], each[:, last:], bend)
    new, columns, luck = each[:, 0], each[:, 1 : 1 + design.shape[1]], each[:, 1 + design.shape[1] :]
    basis, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    kept = sizes > RANK * sizes.max(initial=0.0)
    basis = basis[:, kept]
    new, luck = new - basis @ (basis.T @ new), luck - basis @ (basis.T @ luck)
    spread, axes = np.linalg.eigh(luck.T @ luck)
    shows = spread > SHOWN * lanes.checkpoints
    shrunk = 1 + ratios[:, None] * spread[shows]
    rss = new @ new - (ratios[:, None] * (axes[:, shows].T @ (luck.T @ new)) ** 2 / shrunk).sum(axis=1)
    log_volume = -(np.log(shrunk).sum(axis=1) + remembered + bent) / 2 - np.log(sizes[kept]).sum()
    return _Cells(np.maximum(rss, 0.0), log_volume, float(len(new) - kept.sum()))


def _straighten(each: Array, bends: Array, ratio: float) -> tuple[Array, float]:
    """Columns in units of noise and bends, and the logarithm of the volume that takes."""
    if ratio == 0 or not bends.shape[1]:
        return each, 0.0
    basis, sizes, _ = np.linalg.svd(bends, full_matrices=False)
    grown = 1 + ratio * sizes**2
    return each + basis @ ((1 / np.sqrt(grown) - 1)[:, None] * (basis.T @ each)), float(np.log(grown).sum())


def systematic(weights: Array, draws: int, random: np.random.Generator) -> Places:
    """`draws` indices in proportion to weights that sum to one, in shuffled order."""
    level = (np.arange(draws) + random.uniform()) / draws
    return np.asarray(random.permutation(np.minimum(np.searchsorted(np.cumsum(weights), level), len(weights) - 1)))


def tame(residual: Array, spent: int) -> Array:
    """Outliers moved in, so that a broken run does not pass for the noise of all."""
    left = len(residual) - spent
    if left < len(residual) / 2:
        return residual
    wide = OUTLYING * 1.4826 * float(np.median(np.abs(residual))) * np.sqrt(len(residual) / left)
    return np.asarray(np.clip(residual, -wide, wide)) if wide > 0 else residual
