"""Which run next: the one that narrows the decision most per FLOP, and whether it is worth its price.

The decision is r*, the best domain share at the target (belief.py). To first order in the laws that the runs allow,
a run that will be measured as Y with noise C leaves of r*'s variance

    V - c' (S + C)^-1 c,    S = Var(Y),  c = Cov(r*, Y)

which is c-optimal design (Elfving 1952; Chaloner and Verdinelli 1995) with draws in the place of the information
matrix, and of dr*/dtheta = -(dL/dtheta)/(dL/dr). Runs are ranked by log(V / V after) per FLOP: what several leave
multiplies. For the best few, outcomes are drawn, the laws reweighted, and the decision taken again: what would be
left of the interval's width and of the expected regret. A batch is chosen one by one, each as if those before it had
been run. One step ahead only: two runs that help only together are not seen.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp

from ratoon.laws.design.belief import Belief
from ratoon.laws.design.posterior import heat_keeping
from ratoon.laws.form import Array
from ratoon.laws.size import train_flops

STEP = 0.05  # between the shares that are proposed
LOOKED_AT = 6  # of the best to first order: drawn and decided again
OUTCOMES = 48  # drawn for each
SAID = 16.0  # draws that must still count after an outcome: it is believed less where fewer would
STILL = 1e-12  # variance of r* that is rounding
DULL = 0.1  # log variance, 5% of the width: a run that takes less off it is not worth a slot


@dataclass(frozen=True)
class Option:
    """A run that could be made: one size at one share, measured at each of its horizons."""

    share: float  # domain
    params: float
    horizons: tuple[float, ...]  # tokens, growing
    flops: float  # what it costs, branches included

    @classmethod
    def trunk(cls, share: float, params: float, horizons: Sequence[float], decay_share: float) -> "Option":
        """One constant-rate trunk, its last part branched off as a decay for each horizon."""
        tokens = (1 - decay_share) * max(horizons) + decay_share * sum(horizons)
        return cls(share, params, tuple(horizons), train_flops(params, tokens))


@dataclass(frozen=True)
class Proposal:
    """The first of a batch is judged as things stand, those after it as if those before had been run."""

    option: Option
    gain: float  # log(variance of r* / expected afterwards), to first order
    width_now: float
    width_after: float  # expected, as drawn
    regret_now: float
    regret_after: float

    @property
    def value(self) -> float:
        """The gain per FLOP, as drawn."""
        return 2 * float(np.log(max(self.width_now, 1e-9) / max(self.width_after, 1e-9))) / self.option.flops


@dataclass(frozen=True)
class Rule:
    """When to stop.

    width     of the interval of r*: narrow enough
    price     nats per token that as many FLOPs as the target's are worth; None: what domain loss would fall by, were
              they spent on a longer target run
    max_runs  in all
    """

    width: float
    price: float | None = None
    max_runs: int | None = None


def shares() -> list[float]:
    """Those that are proposed."""
    return [round(step * STEP, 4) for step in range(1, round(1 / STEP))]


def options(
    sizes: Iterable[float],
    horizons: Sequence[float],
    made: Iterable[tuple[float, float]],
    cost: Callable[[float, float, tuple[float, ...]], float],
) -> list[Option]:
    """Every size at every STEP of the share, up to each of the horizons, but for the (size, share) already made.

    cost  (size, share, horizons) -> FLOPs. Shares of 0 and 1 are another regime, which no law bridges: not proposed.
    """
    made = list(made)
    lengths = [tuple(horizons[: n + 1]) for n in range(len(horizons))]
    return [
        Option(share, size, length, cost(size, share, length))
        for size, share, length in itertools.product(sizes, shares(), lengths)
        if not any(size == other and abs(share - tried) < STEP / 5 for other, tried in made)
    ]


def propose(
    belief: Belief, among: Sequence[Option], rule: Rule, number: int = 1, budget: float | None = None
) -> list[Proposal]:
    """The next `number` runs, the best first: of those worth their price where any is. Fewer where no other would tell
    anything.

    budget  FLOPs that are left. Best per FLOP is then not best: each of the runs looked at is followed in thought by
            what else would fit, and the one that leads furthest is taken (Sviridenko 2004)
    """
    among = [one for one in among if budget is None or one.flops <= budget]
    measured = belief.measured([(one.params, one.share, one.horizons) for one in among])
    found: list[Proposal] = []
    if not measured:
        return found
    joint = _Joint.of(belief.best, measured, among)
    while len(found) < number and (ranked := joint.ranked(budget)):
        # Beside what is cheap what tells most: a run so small that it changes no decision may be best per FLOP.
        most = sorted(ranked, key=lambda k: (-joint.gain(k), k))[:LOOKED_AT]
        looked = {}
        for k in ranked[:1] if found else dict.fromkeys([*ranked[:LOOKED_AT], *most]):
            pull = joint.pull(k)
            said, noise = measured[k][0] @ pull, float(np.sqrt(pull @ measured[k][1] @ pull))
            looked[k] = _look(belief, among[k], joint.gain(k), said, noise)
        leads = {k: looked[k].value if budget is None else joint.leads(k, budget) for k in looked}
        best = min(looked, key=lambda k: (not worth(belief, looked[k], rule), -leads[k], k))
        found.append(looked[best])
        joint = joint.after(best)
        budget = None if budget is None else budget - among[best].flops
    return found


@dataclass(frozen=True)
class _Joint:
    """Covariance of r* and of everything that could be measured, as it stands in thought."""

    covariance: Array
    spans: tuple[slice, ...]  # of each option
    noises: tuple[Array, ...]
    among: Sequence[Option]
    left: tuple[int, ...]

    @classmethod
    def of(cls, best: Array, measured: Sequence[tuple[Array, Array]], among: Sequence[Option]) -> "_Joint":
        values, noises = zip(*measured, strict=True)
        ends = 1 + np.cumsum([0] + [one.shape[1] for one in values])
        spans = tuple(slice(start, end) for start, end in itertools.pairwise(ends))
        covariance = np.cov(np.concatenate([best[:, None], *values], axis=1).T)
        return cls(covariance, spans, noises, among, tuple(range(len(among))))

    def pull(self, k: int) -> Array:
        """What each value of an option moves the estimate of r* by."""
        at = self.spans[k]
        return np.asarray(np.linalg.solve(self.covariance[at, at] + self.noises[k], self.covariance[at, 0]))

    def gain(self, k: int) -> float:
        """log(V / V after)."""
        taken = self.covariance[0, self.spans[k]] @ self.pull(k)
        return -float(np.log(max(1 - taken / max(self.covariance[0, 0], 1e-300), 1e-9)))

    def ranked(self, budget: float | None) -> list[int]:
        """Options that tell something and can be paid, the best per FLOP first."""
        if self.covariance[0, 0] < STILL:
            return []
        gains = {k: self.gain(k) for k in self.left if budget is None or self.among[k].flops <= budget}
        return sorted((k for k in gains if gains[k] > DULL), key=lambda k: (-gains[k] / self.among[k].flops, k))

    def after(self, k: int) -> "_Joint":
        """Once option k has been measured; it and its like are gone."""
        at, made = self.spans[k], self.among[k]
        taken = self.covariance[:, at]
        rest = self.covariance - taken @ np.linalg.solve(self.covariance[at, at] + self.noises[k], taken.T)
        left = (j for j in self.left if (self.among[j].params, self.among[j].share) != (made.params, made.share))
        return replace(self, covariance=rest, left=tuple(left))

    def leads(self, k: int, budget: float) -> float:
        """log(V / V after) of option k and of what the rest of the budget would best be spent on."""
        start, here, budget = self.covariance[0, 0], self.after(k), budget - self.among[k].flops
        while ranked := here.ranked(budget):
            budget -= self.among[ranked[0]].flops
            here = here.after(ranked[0])
        return float(np.log(start / max(here.covariance[0, 0], 1e-300)))


def _look(belief: Belief, option: Option, gain: float, said: Array, noise: float) -> Proposal:
    """Outcomes drawn from the laws, and the decision taken again after each.

    said  (J,) what each law expects the run to say of r*, to first order: all of an outcome that matters
    """
    speaks = belief.speaks(option.params)
    ordered = np.flatnonzero(speaks)[np.argsort(belief.best[speaks], kind="stable")]
    truths = ordered[np.linspace(0, len(ordered) - 1, OUTCOMES).round().astype(int)]
    outcomes = said[truths] + noise * np.random.default_rng(belief.stakes.config.seed).standard_normal(OUTCOMES)
    widths, regrets = [], []
    for outcome in outcomes:
        fit = -0.5 * ((said - outcome) / noise) ** 2
        fit = np.where(speaks, fit, logsumexp(fit[speaks]) - np.log(speaks.sum()))
        weights = _reweighted(fit)
        widths.append(belief.width_of(weights))
        regrets.append(belief.regret_of(weights))
    return Proposal(option, gain, belief.width, float(np.mean(widths)), belief.regret, float(np.mean(regrets)))


def _reweighted(fit: Array) -> Array:
    """Weights that sum to 1 from log likelihoods, tempered until SAID draws count."""
    weights = np.exp(heat_keeping(fit, 1.0, SAID) * (fit - fit.max()))
    return np.asarray(weights / weights.sum())


def price(belief: Belief, option: Option, rule: Rule) -> float:
    """Regret that this run must save."""
    share = option.flops / train_flops(belief.params, belief.tokens)
    return share * (belief.fall if rule.price is None else rule.price)


def worth(belief: Belief, proposal: Proposal, rule: Rule) -> bool:
    needed = price(belief, proposal.option, rule)
    return needed <= 0 or proposal.regret_now - proposal.regret_after > needed


def stop(belief: Belief, best: Proposal | None, rule: Rule, runs: int) -> str | None:
    """Why no further run is made; None: one is."""
    if belief.width <= rule.width:
        return f"the interval is {belief.width:.3f} wide, {rule.width:g} was asked for"
    if rule.max_runs is not None and runs >= rule.max_runs:
        return f"{runs} runs were made, the most that was allowed"
    if best is None:
        return "no run that could be made would narrow the interval by more than a twentieth"
    if not worth(belief, best, rule):
        saved, needed = max(best.regret_now - best.regret_after, 0.0), price(belief, best.option, rule)
        return f"the next run would save {saved:.2g} of regret, and as many FLOPs are worth {needed:.2g} elsewhere"
    return None
