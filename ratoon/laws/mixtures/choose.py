"""The shares of many domains at once, from runs of many mixtures: which regressor, which mixture, how sure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ratoon.config import ConfigError
from ratoon.laws.form import Array
from ratoon.laws.mixtures.limits import Goal, Limits
from ratoon.laws.mixtures.question import Question
from ratoon.laws.mixtures.regressors import LawSurface, Sum, Surface
from ratoon.laws.mixtures.runs import MixtureRuns
from ratoon.laws.mixtures.simplex import ACTIVE, BROKEN, Optimum
from ratoon.laws.mixtures.validate import STACK, Candidate, Comparison, Figures, compare
from ratoon.records import Interval

SPREAD = 0.9  # of every interval
LAW_DRAWS, OTHER_DRAWS = 200, 40  # refits of a law are cheap, those of trees and a process are not
PER_DOMAIN = 3  # runs per free parameter of a log-linear law below which Olmix warns (arXiv:2602.12237)
FAR = 0.95  # quantile of the distances between neighbouring runs beyond which a mixture is unlike any tried
KEPT = 0.9  # share of the draws in which a ceiling must hold to go without a word


@dataclass(frozen=True)
class MixtureChoice:
    """A mixture and the evidence for it. Losses are nats per token at the size and length of the runs."""

    shares: dict[str, Interval]  # intervals: of the best share, over whole runs resampled
    predicted: dict[str, Interval]  # of the chosen mixture; intervals hold the bootstrap and the held-out error
    goal: float  # nats: what was made small, at the chosen mixture
    expected_regret: float  # nats: mean over draws of goal(chosen) - goal(best mixture of that draw)
    regressor: str
    reason: str
    figures: tuple[Figures, ...]
    second_opinion: dict[str, dict[str, float]]  # what each other regressor would choose
    # Nats: what each of them says the chosen mixture costs above its own; below 0 where it breaks a ceiling for them.
    rival_regret: dict[str, float]
    optimum: Optimum
    draws: int  # of whole runs, that the intervals rest on
    warnings: tuple[str, ...]

    @property
    def mixture(self) -> dict[str, float]:
        return {name: share.value for name, share in self.shares.items()}

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {
            "shares": {name: share.model_dump() for name, share in self.shares.items()},
            "predicted": {name: loss.model_dump() for name, loss in self.predicted.items()},
            "goal": self.goal,
            "expected_regret": self.expected_regret,
            "regressor": self.regressor,
            "reason": self.reason,
            "figures": {
                one.name: {"random": one.random, "region": one.region, "score": one.score} for one in self.figures
            },
            "second_opinion": self.second_opinion,
            "rival_regret": self.rival_regret,
            "proven": self.optimum.proven,
            "gap": self.optimum.gap,
            "draws": self.draws,
            "warnings": list(self.warnings),
        }


def choose_mixture(
    runs: MixtureRuns,
    goal: Goal,
    limits: Limits,
    *,
    compared: Comparison | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> MixtureChoice:
    """The mixture of least goal within the limits, by the regressor that predicts unseen runs best.

    `compared` is what `compare(runs)` found, made once for several questions, or with a regressor that is `wanted`.
    `draws` is the number of times whole runs are resampled.

    Raises ConfigError when the runs carry no regressor, or no mixture meets the limits and ceilings.
    """
    _refuse_others(runs, goal, limits)
    compared = compared or compare(runs, seed=seed)
    asked = Question(runs, goal, limits, seed)
    optimum = asked.best(compared.picked.surfaces)
    usual = LAW_DRAWS if _is_law(compared.picked) else OTHER_DRAWS
    redrawn = redraw(compared, runs, usual if draws is None else draws, seed)
    return _told(asked, compared, optimum, redrawn)


def _refuse_others(runs: MixtureRuns, goal: Goal, limits: Limits) -> None:
    if goal.evaluated != runs.evaluated or limits.domains != runs.domains:
        raise ConfigError(
            f"goal and limits are of {goal.evaluated} and {limits.domains}, the runs of {runs.evaluated} and "
            f"{runs.domains}; they must be the same, in the same order"
        )


def _told(
    asked: Question, compared: Comparison, optimum: Optimum, redrawn: Sequence[tuple[Surface, ...]]
) -> MixtureChoice:
    """The optimum with everything a reader should weigh it by."""
    runs, picked = asked.runs, compared.picked
    bests, lost = _resample(asked, redrawn, optimum.shares)
    losses = np.array([[one.loss(optimum.shares[None])[0] for one in surfaces] for surfaces in redrawn])
    opinions, regrets, silent = _opinions(asked, compared, optimum.shares)
    each = zip(runs.domains, optimum.shares, bests.T, strict=True)
    return MixtureChoice(
        shares={name: _interval(share, column) for name, share, column in each},
        predicted=_predicted(picked, optimum.shares, losses, asked.seed),
        goal=optimum.value,
        expected_regret=float(np.mean(lost)),
        regressor=picked.figures.name,
        reason=compared.reason,
        figures=tuple(one.figures for one in compared.candidates),
        second_opinion=opinions,
        rival_regret=regrets,
        optimum=optimum,
        draws=len(bests),
        warnings=(
            *runs.notes,
            *compared.left_out,
            *silent,
            *_doubts(asked, picked, optimum, losses),
            *_unreached(len(redrawn) - len(bests), len(redrawn)),
        ),
    )


def _opinions(
    asked: Question, compared: Comparison, chosen: Array
) -> tuple[dict[str, dict[str, float]], dict[str, float], list[str]]:
    """Of the candidates that were not picked: their own best mixtures, what the chosen one costs above them in their
    eyes, and a line for each that finds none."""
    opinions, regrets, silent = {}, {}, []
    for one in compared.candidates:
        if one is not compared.picked:
            try:
                best = asked.best(one.surfaces)
            except ConfigError as error:
                silent.append(f"second opinion, {one.figures.name}: {error}")
                continue
            opinions[one.figures.name] = dict(zip(asked.runs.domains, best.shares.tolist(), strict=True))
            regrets[one.figures.name] = asked.value(one.surfaces, chosen) - best.value
    return opinions, regrets, silent


def _unreached(missing: int, draws: int) -> list[str]:
    return [f"in {missing} of {draws} draws no mixture keeps the ceilings; they are left out"] if missing else []


def redraw(compared: Comparison, runs: MixtureRuns, draws: int, seed: int) -> list[tuple[Surface, ...]]:
    """The picked regressor's surfaces, refitted on `draws` resamples of whole runs.

    Laws get Dirichlet weights (see uncertainty.py). What passes through its runs, as a process and trees do, would
    not be moved by weights above zero: there runs are drawn with replacement, and a third is missing each time.
    """
    names, member = np.unique(np.asarray(runs.names), return_inverse=True)
    random, count = np.random.default_rng(seed), len(names)
    if _is_law(compared.picked):
        weights = random.dirichlet(np.ones(count), size=draws) * count
    else:
        weights = random.multinomial(count, np.full(count, 1 / count), size=draws).astype(float)
    weights = weights[:, member.ravel()]
    columns = []
    for j, loss in enumerate(runs.losses.T):
        if compared.picked.figures.name != STACK:
            again = compared.regressors[compared.picked.figures.name].redraw(
                compared.picked.surfaces[j], runs.shares, loss, weights
            )
        else:
            again = _redraw_stack(compared, j, runs.shares, loss, weights)
        columns.append(again)
    return list(zip(*columns, strict=True))


def _redraw_stack(compared: Comparison, j: int, shares: Array, loss: Array, weights: Array) -> list[Surface]:
    """The weights of the stack stay: what moves is its parts."""
    parts: list[list[Surface]] = []
    kept = []
    for candidate, weight in zip(compared.candidates, compared.stack_weights[j], strict=False):
        if weight > 0:
            again = compared.regressors[candidate.figures.name]
            parts.append(again.redraw(candidate.surfaces[j], shares, loss, weights))
            kept.append(float(weight))
    return [Sum(tuple(zip(kept, each, strict=True))) for each in zip(*parts, strict=True)]


def _is_law(candidate: Candidate) -> bool:
    return isinstance(candidate.surfaces[0], LawSurface)


def _resample(asked: Question, redrawn: Sequence[tuple[Surface, ...]], chosen: Array) -> tuple[Array, Array]:
    """(R, d) the best mixture of each draw, and (R,) what the chosen one loses there. A draw in which no mixture keeps
    the ceilings has no best one and is left out."""
    bests, lost = [], []
    for surfaces in redrawn:
        try:
            best = asked.best(surfaces, near=chosen)
        except ConfigError:
            continue
        bests.append(best.shares)
        # Below zero only where the search missed the draw's best, or where the chosen one breaks a ceiling there.
        lost.append(max(asked.value(surfaces, chosen) - best.value, 0.0))
    if not bests:
        raise ConfigError("in no resample of the runs does any mixture keep the ceilings; raise them, or add runs")
    return np.array(bests), np.array(lost)


def _interval(value: float, draws: Array) -> Interval:
    low, high = np.quantile(draws, [(1 - SPREAD) / 2, (1 + SPREAD) / 2])
    return Interval(
        value=float(value), low=min(float(low), float(value)), high=max(float(high), float(value)), confidence=SPREAD
    )


def widened(losses: Array, relative: float, seed: int) -> Array:
    """Draws (R, ...) of a loss, each with a relative shift as large as what was got wrong of unseen runs: a bootstrap
    moves only what the regressor can express."""
    shifts = np.random.default_rng(seed).normal(0, relative, len(losses))
    return np.asarray(losses * (1 + shifts.reshape(-1, *[1] * (losses.ndim - 1))))


def _predicted(picked: Candidate, shares: Array, losses: Array, seed: int) -> dict[str, Interval]:
    found = {}
    for j, name in enumerate(picked.figures.evaluated):
        value = float(picked.surfaces[j].loss(shares[None])[0])
        found[name] = _interval(value, widened(losses[:, j], picked.figures.relative[j], seed + j))
    return found


def _doubts(asked: Question, picked: Candidate, optimum: Optimum, losses: Array) -> list[str]:
    runs, limits, shares, found = asked.runs, asked.limits, optimum.shares, []
    if len(runs) < PER_DOMAIN * (len(runs.domains) + 1):
        advised = PER_DOMAIN * (len(runs.domains) + 1)
        found.append(f"{len(runs)} runs of {len(runs.domains)} domains; {advised} or more are advised")
    for j, name in enumerate(runs.domains):
        if limits.caps[j] != "none" and shares[j] > limits.high[j] - ACTIVE:
            found.append(f"{name} is at its {limits.caps[j]} cap, {limits.high[j]:.4f}: more of it would be better")
        elif limits.low[j] > 0 and shares[j] < limits.low[j] + ACTIVE:
            found.append(f"{name} is at its minimum, {limits.low[j]:.4f}: less of it would be better")
        if shares[j] > (most := float(runs.shares[:, j].max())) + ACTIVE:
            found.append(f"{name} has {shares[j]:.3f}, more than any run had ({most:.3f})")
    if (away := _distance(shares, runs.shares)) > (usual := _neighbours(runs.shares)):
        found.append(f"no run is near this mixture: the nearest is {away:.2f} away (Hellinger), neighbours {usual:.2f}")
    for i in np.flatnonzero(np.isfinite(asked.goal.ceilings)).tolist():
        drawn = widened(losses[:, i], picked.figures.relative[i], asked.seed + i)
        kept = float(np.mean(drawn <= asked.goal.ceilings[i]))
        if kept < KEPT:
            found.append(f"the ceiling of {runs.evaluated[i]} is kept in {kept:.0%} of the draws")
    fits = [one.evidence for one in picked.surfaces if isinstance(one, LawSurface) and one.evidence is not None]
    found += [f"{picked.figures.name}: {reason}" for reason in dict.fromkeys(r for fit in fits for r in fit.reasons)]
    if optimum.over > BROKEN:
        found.append(f"the best mixture found breaks a ceiling by {optimum.over:.2g} nats")
    if optimum.gap is not None and not optimum.proven:
        found.append(f"the optimum is not proven: it may lie {optimum.gap:.2g} nats lower")
    return found


def _distance(shares: Array, others: Array) -> float:
    return float(np.sqrt(((np.sqrt(shares) - np.sqrt(others)) ** 2).sum(axis=1) / 2).min())


def _neighbours(shares: Array) -> float:
    different = np.unique(shares, axis=0)
    apart = [_distance(row, np.delete(different, i, axis=0)) for i, row in enumerate(different)]
    return float(np.quantile(apart, FAR))
