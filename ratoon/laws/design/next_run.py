"""Which run next: the one that narrows the decision most per FLOP, and whether it is worth its price.

The decision is r*, the best domain share at the target (belief.py). To first order in the laws that the runs allow,
a run that will be measured as Y with noise C leaves

    V - c' (S + C)^-1 c,    V = Var(L),  S = Var(Y),  c = Cov(L, Y)

of the variance of L, which crosses its limit at r*: general loss at the target and a share near r*, or the slope of the
weighted goal there, over how steep it is, so in units of r*. This is c-optimal design (Elfving 1952; Chaloner and
Verdinelli 1995) with draws in the place of the information matrix; V is summed over where r* may be (targeted
integrated variance, Picheny et al. 2010). It is of L and not of r*, which is far from linear in the laws where they
leave it open.

Runs are ranked by log(V / V after) per FLOP: what several leave multiplies. For the best few, outcomes are drawn, the
laws reweighted, and the decision taken again: what would be left of the interval's width and of the expected regret. A
batch is chosen one by one, each as if those before it had been run.

Runs may help only together: where the truth may depart from every law, one tells mostly of its own neighbourhood. With
a budget a run is valued by where it and the rest of the budget lead, outcomes of the best plans drawn, and the budget
is spent while the interval is wider than asked. Without one, where no run alone is worth it, AHEAD are judged together.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from ratoon.laws.design.belief import Belief
from ratoon.laws.design.lookahead import AHEAD, DULL, Joint
from ratoon.laws.design.posterior import heat_keeping
from ratoon.laws.form import Array
from ratoon.laws.size import train_flops

STEP = 0.05  # between the shares that are proposed
OUTER = ((2, 2), (2, 1), (1, 1))  # horizons of a sweep's first runs below and above the middle one
OUTCOMES = 48  # drawn for each
DRAWN = 12  # of the best plans to first order
SAID = 16.0  # draws that must still count after an outcome: it is believed less where fewer would


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


class Outlook(NamedTuple):
    """What some runs together are expected to leave, as drawn."""

    flops: float
    width: float
    regret: float


@dataclass(frozen=True)
class Proposal:
    """The first of a batch is judged as things stand, those after it as if those before had been run.

    together  what this run and those that would best follow it leave, two of them, three and so on; asked for only
              where it is not worth its price alone
    """

    option: Option
    gain: float  # log(variance of what decides r* / expected afterwards), to first order
    width_now: float
    width_after: float  # expected, as drawn
    regret_now: float
    regret_after: float
    together: tuple[Outlook, ...] = ()

    @property
    def narrows(self) -> float:
        """The gain, as drawn."""
        return 2 * float(np.log(max(self.width_now, 1e-9) / max(self.width_after, 1e-9)))

    @property
    def outlooks(self) -> tuple[Outlook, ...]:
        return (Outlook(self.option.flops, self.width_after, self.regret_after), *self.together)


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


def first_lengths(
    start: Sequence[float], cost: Callable[[float, int | None], float], budget: float | None
) -> list[int | None]:
    """How many horizons the first runs have, at these shares in order; None: all, as the middle one.

    Short ones tell how loss bends with the share. The best designs have a second run to the end near r*
    (benchmarks/laws_design_floor.py): where the budget pays for one only beside shorter first runs, they are shorter.

    cost  (share, horizons) -> what such a run costs of the budget
    """
    middle = len(start) // 2
    found = [[below] * middle + [None] + [above] * (len(start) - middle - 1) for below, above in OUTER]
    whole = cost(start[middle], None)
    for lengths in found:
        spent = whole + sum(cost(share, length) for share, length in zip(start, lengths, strict=True))
        if budget is None or spent <= budget:
            return lengths
    return found[0]


def propose(
    belief: Belief, among: Sequence[Option], rule: Rule, number: int = 1, budget: float | None = None
) -> list[Proposal]:
    """The next `number` runs, the best first: of those worth their price where any is. Fewer where no other would tell
    anything.

    budget  FLOPs that are left. Best per FLOP is then not best: each run is followed in thought by what else would fit,
            and the one that leads furthest is taken (Sviridenko 2004)
    """
    among = [one for one in among if budget is None or one.flops <= budget]
    measured = belief.measured([(one.params, one.share, one.horizons) for one in among])
    found: list[Proposal] = []
    if not measured:
        return found
    places = [(one.params, one.share) for one in among]
    joint = Joint.of(belief.turns, belief.best, measured, places, [one.flops for one in among])
    while len(found) < number and (open_to := _open_to(belief, joint, budget)):
        open_to = open_to[:1] if found else open_to
        looked = {k: _look(belief, among[k], joint, k) for k in open_to}
        if budget is None and any(one.narrows > DULL for one in looked.values()):
            open_to = sorted(looked, key=lambda k: (-looked[k].narrows / among[k].flops, k))
        best = next((k for k in open_to if worth(belief, looked[k], rule)), open_to[0])
        found.append(looked[best] if worth(belief, looked[best], rule) else _ahead(belief, joint, best, looked[best]))
        joint = joint.after(best)
        budget = None if budget is None else budget - among[best].flops
    return found


def _open_to(belief: Belief, joint: Joint, budget: float | None) -> list[int]:
    """Options that may be the next, the best first. With a budget those of the plan that is expected to leave the
    narrowest interval, as drawn: to first order runs far from r* tell as much as those beside it."""
    if budget is None and (alone := joint.candidates()):
        return alone
    plans = joint.plans(budget)
    if budget is None:
        return plans[0] if plans else []
    return min(plans[:DRAWN], key=lambda plan: _outlook(belief, joint, plan).width, default=[])


def _look(belief: Belief, option: Option, joint: Joint, k: int) -> Proposal:
    alone = _outlook(belief, joint, [k])
    return Proposal(option, float(joint.gains()[k]), belief.width, alone.width, belief.regret, alone.regret)


def _ahead(belief: Belief, joint: Joint, k: int, alone: Proposal) -> Proposal:
    chain = [made for made, _ in joint.chain(k, None)]
    return replace(alone, together=tuple(_outlook(belief, joint, chain[:n]) for n in range(2, len(chain) + 1)))


def _outlook(belief: Belief, joint: Joint, made: Sequence[int]) -> Outlook:
    """Outcomes drawn from the laws, and the decision taken again after each: an outcome is what the runs together say
    of r*, to first order, which is all of it that matters."""
    said, noise = joint.said(made)
    speaks = np.logical_and.reduce([belief.speaks(joint.places[k][0]) for k in made])
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
    return Outlook(sum(joint.flops[k] for k in made), float(np.mean(widths)), float(np.mean(regrets)))


def _reweighted(fit: Array) -> Array:
    """Weights that sum to 1 from log likelihoods, tempered until SAID draws count."""
    weights = np.exp(heat_keeping(fit, 1.0, SAID) * (fit - fit.max()))
    return np.asarray(weights / weights.sum())


def price(belief: Belief, flops: float, rule: Rule) -> float:
    """Regret that as many FLOPs must save."""
    return flops / train_flops(belief.params, belief.tokens) * (belief.fall if rule.price is None else rule.price)


def worth(belief: Belief, proposal: Proposal, rule: Rule) -> bool:
    """Alone or with those that would follow it."""
    return any(pays(proposal.regret_now - one.regret, price(belief, one.flops, rule)) for one in proposal.outlooks)


def pays(saved: float, needed: float) -> bool:
    return needed <= 0 or saved > needed


def stop(belief: Belief, best: Proposal | None, rule: Rule, runs: int, budget: float | None = None) -> str | None:
    """Why no further run is made; None: one is. A budget was given to be spent: then a run is too dear only where the
    whole regret is less than its price."""
    if belief.width <= rule.width:
        return f"the interval is {belief.width:.3f} wide, {rule.width:g} was asked for"
    if rule.max_runs is not None and runs >= rule.max_runs:
        return f"{runs} runs were made, the most that was allowed"
    if best is None and budget is not None:
        return "no run that could be made and paid from the rest of the budget would tell anything"
    if best is None:
        return f"no run that could be made, nor {AHEAD} together, would narrow the interval by more than a twentieth"
    needed = price(belief, best.option.flops, rule)
    if not worth(belief, best, rule) and (budget is None or not pays(belief.regret, needed)):
        saved = max(best.regret_now - best.regret_after, 0.0)
        return f"the next run would save {saved:.2g} of regret, and as many FLOPs are worth {needed:.2g} elsewhere"
    return None
