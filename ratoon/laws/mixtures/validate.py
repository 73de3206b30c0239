"""Which regressor to believe: each predicts runs it has not seen, at random and by whole regions of mixtures.

Random folds ask how well gaps are filled, and flatter whoever follows the runs closely. Regions (clusters of alike
mixtures, left out whole) ask what is said of mixtures unlike those tried, which is where a best mixture often lies:
there a law that holds carries over, and trees do not. The pick weighs both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import nnls
from scipy.stats import spearmanr
from sklearn.cluster import KMeans

from ratoon.config import ConfigError
from ratoon.laws.form import Array, Mask
from ratoon.laws.mixtures.regressors import Regressor, Sum, Surface, regressors
from ratoon.laws.mixtures.runs import MixtureRuns

FOLDS = 5  # of each kind
REGION_WEIGHT = 0.5  # of the regions in the score; the random folds have the rest. Neither question outranks the other
STACK = "stack"
NEGLIGIBLE = 1e-3  # weight below which a part of the stack is left out
ONE = 1e3  # how strongly weights are held to a sum of one, beside errors of order one


@dataclass(frozen=True)
class Folds:
    random: tuple[Mask, ...]  # (n,) each: True where kept
    regions: tuple[Mask, ...]

    @property
    def all(self) -> tuple[Mask, ...]:
        return self.random + self.regions

    @property
    def weights(self) -> Array:
        """Of each fold in the score."""
        random, regions = len(self.random), len(self.regions)
        return np.concatenate(
            [np.full(random, (1 - REGION_WEIGHT) / random), np.full(regions, REGION_WEIGHT / regions)]
        )


def split(shares: Array, seed: int = 0) -> Folds:
    """Rows of the same mixture are always left out together."""
    different, member = np.unique(shares, axis=0, return_inverse=True)
    member = member.ravel()
    count = min(FOLDS, len(different) // 2)
    deck = np.random.default_rng(seed).permutation(len(different)) % count
    # Between roots of shares the distance is Hellinger's: a share of 0.01 or none is a difference.
    clusters = KMeans(count, n_init=10, random_state=seed).fit_predict(np.sqrt(different))
    random, regions = (tuple(labels[member] != k for k in np.unique(labels)) for labels in (deck, clusters))
    return Folds(random, regions)


@dataclass(frozen=True)
class Figures:
    """Held-out errors of one candidate. Errors are root mean squares as a part of that loss's standard deviation."""

    name: str
    evaluated: tuple[str, ...]
    random_error: tuple[float, ...]  # per loss, mean over folds
    region_error: tuple[float, ...]
    random_rank: tuple[float, ...]  # Spearman's correlation over all rows
    region_rank: tuple[float, ...]
    relative: tuple[float, ...]  # root mean square of (predicted - measured)/measured, both kinds by their weight
    score: float  # what the pick goes by
    by_fold: Array  # (folds,): mean over losses

    @property
    def random(self) -> float:
        return float(np.mean(self.random_error))

    @property
    def region(self) -> float:
        return float(np.mean(self.region_error))

    def line(self) -> str:
        ranks = f"{np.mean(self.random_rank):.4f} {np.mean(self.region_rank):.4f}"
        return (
            f"{self.name:10} random {self.random:.4f}  regions {self.region:.4f}  score {self.score:.4f}  rank {ranks}"
        )


@dataclass(frozen=True)
class Candidate:
    """One way to predict all losses."""

    figures: Figures
    surfaces: tuple[Surface, ...]  # one per loss
    unseen: Array  # (2, n, p): by random folds, by regions


@dataclass(frozen=True)
class Comparison:
    """All candidates, and which is believed."""

    candidates: tuple[Candidate, ...]
    picked: Candidate
    reason: str
    left_out: tuple[str, ...]
    regressors: dict[str, Regressor]
    stack_weights: Array = field(default_factory=lambda: np.zeros((0, 0)))  # (p, candidates before the stack)

    def named(self, name: str) -> Candidate:
        return next(one for one in self.candidates if one.figures.name == name)


def compare(
    runs: MixtureRuns, *, wanted: str = "auto", seed: int = 0, offered: Sequence[Regressor] | None = None
) -> Comparison:
    """Every regressor and their stack on every loss, and the pick.

    A regressor these runs cannot pin is left out and said so, unless it is the one `wanted`.
    """
    folds = split(runs.shares, seed)
    found: list[Candidate] = []
    left_out: list[str] = []
    names = {one.name: one for one in (offered if offered is not None else regressors(runs.domains))}
    if wanted not in ("auto", STACK, *names):
        raise ConfigError(f"no regressor {wanted!r}; there are auto, {', '.join(names)} and {STACK}")
    for one in names.values():
        try:
            found.append(_assess(one, runs, folds))
        except ConfigError as error:
            if one.name == wanted:
                raise
            left_out.append(f"{one.name} left out: {error}")
    if not found:
        raise ConfigError(f"no regressor can be fitted on these runs: {'; '.join(left_out)}")
    weights = np.zeros((0, 0))
    if len(found) > 1:
        stacked, weights = stack(found, runs, folds)
        found.append(stacked)
    picked, reason = pick(found, folds, wanted)
    return Comparison(tuple(found), picked, reason, tuple(left_out), names, weights)


def _assess(one: Regressor, runs: MixtureRuns, folds: Folds) -> Candidate:
    surfaces, unseen = [], np.empty((2, *runs.losses.shape))
    for column, loss in enumerate(runs.losses.T):
        surface, predicted = one.assess(runs.shares, loss, folds.all)
        surfaces.append(surface)
        for number, (keep, values) in enumerate(zip(folds.all, predicted, strict=True)):
            unseen[int(number >= len(folds.random)), ~keep, column] = values
    return Candidate(measure(one.name, runs, folds, unseen), tuple(surfaces), unseen)


def measure(name: str, runs: MixtureRuns, folds: Folds, unseen: Array) -> Figures:
    spread = runs.losses.std(axis=0)
    errors = (unseen - runs.losses) / spread
    by_fold = np.array(
        [
            np.sqrt(np.mean(errors[int(number >= len(folds.random)), ~keep] ** 2, axis=0))
            for number, keep in enumerate(folds.all)
        ]
    )
    ranks = [[float(spearmanr(kind[:, j], loss)[0]) for j, loss in enumerate(runs.losses.T)] for kind in unseen]
    square = np.mean((unseen / runs.losses - 1) ** 2, axis=1)
    split_at = len(folds.random)
    return Figures(
        name=name,
        evaluated=runs.evaluated,
        random_error=tuple(by_fold[:split_at].mean(axis=0).tolist()),
        region_error=tuple(by_fold[split_at:].mean(axis=0).tolist()),
        random_rank=tuple(ranks[0]),
        region_rank=tuple(ranks[1]),
        relative=tuple(np.sqrt((1 - REGION_WEIGHT) * square[0] + REGION_WEIGHT * square[1]).tolist()),
        score=float(folds.weights @ by_fold.mean(axis=1)),
        by_fold=by_fold.mean(axis=1),
    )


def stack(candidates: Sequence[Candidate], runs: MixtureRuns, folds: Folds) -> tuple[Candidate, Array]:
    """Weights >= 0 that sum to one, per loss, by least squares on what was predicted unseen (Breiman 1996). Its own
    figures come from weights that were found without the fold they predict."""
    each = np.stack([one.unseen for one in candidates], axis=-1)  # (2, n, p, candidates)
    unseen = np.empty(each.shape[:3])
    for number, keep in enumerate(folds.all):
        kind = int(number >= len(folds.random))
        for column, loss in enumerate(runs.losses.T):
            weights = blend(each[:, keep, column], loss[keep])
            unseen[kind, ~keep, column] = each[kind, ~keep, column] @ weights
    found = np.array([blend(each[:, :, column], loss) for column, loss in enumerate(runs.losses.T)])
    sums = [
        Sum(tuple((float(w), one.surfaces[j]) for w, one in zip(row, candidates, strict=True) if w > 0))
        for j, row in enumerate(found)
    ]
    return Candidate(measure(STACK, runs, folds, unseen), tuple(sums), unseen), found


def blend(predicted: Array, loss: Array) -> Array:
    """(candidates,) weights for predictions (2, n, candidates) of loss (n,)."""
    spread = loss.std()
    kinds = np.sqrt([1 - REGION_WEIGHT, REGION_WEIGHT]) / np.sqrt(len(loss))
    rows = [kind * (part - loss[:, None]) / spread for kind, part in zip(kinds, predicted, strict=True)]
    # With a sum of one, the weighted errors are the error of the weighted prediction.
    system = np.concatenate([*rows, np.full((1, predicted.shape[2]), ONE)])
    weights = nnls(system, np.concatenate([np.zeros(len(system) - 1), [ONE]]))[0]
    weights = np.where(weights < NEGLIGIBLE * weights.sum(), 0.0, weights)
    return np.asarray(weights / weights.sum())


def pick(candidates: Sequence[Candidate], folds: Folds, wanted: str) -> tuple[Candidate, str]:
    """The one asked for; else the first in the order of assumptions whose score is within one standard error, over
    the folds and paired, of the least."""
    if wanted != "auto":
        found = [one for one in candidates if one.figures.name == wanted]
        if not found:
            raise ConfigError(f"{wanted} needs two regressors that can be fitted; these runs pin one")
        return found[0], "asked for"
    least = min(candidates, key=lambda one: one.figures.score)
    for one in candidates:
        behind = one.figures.by_fold - least.figures.by_fold
        if one is least:
            return one, f"least score, {least.figures.score:.4f}"
        if folds.weights @ behind <= _standard_error(behind, folds):
            said = f"score {one.figures.score:.4f} is within one standard error of the least, "
            return one, f"{said}{least.figures.score:.4f} of {least.figures.name}, and it assumes more"
    raise AssertionError("the least score is one of the candidates")


def _standard_error(values: Array, folds: Folds) -> float:
    """Of the weighted mean of a difference, each kind of fold with its own variance."""
    parts = np.split(values, [len(folds.random)])
    shares = (1 - REGION_WEIGHT, REGION_WEIGHT)
    return float(
        np.sqrt(sum(share**2 * part.var(ddof=1) / len(part) for share, part in zip(shares, parts, strict=True)))
    )
