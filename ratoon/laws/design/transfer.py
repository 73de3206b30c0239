"""The law of a domain nobody has swept, from domains that were and about one percent of a sweep.

Every domain is probed alike: the first percent of a run, same size, ratio and recipe (`crossdomain.probe`). The
cross-domain law (arXiv:2406.01375) is fitted on the domains that were swept and read at the new one's probe. How well
that works is measured by foreseeing each known domain from the others. Where a few short runs of the new domain are
there too, its level is moved to them, as far as their noise and what the law usually misses of a domain's level say.
From four known domains on the answer has an interval (foresight.py); three leave nothing to learn one from.

Silent about how much general loss a new domain costs: that is another role, to be transferred by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ConfigError
from ratoon.laws.decision.believe import around
from ratoon.laws.design.foresight import Foresight, foresee, scatter
from ratoon.laws.equations import crossdomain
from ratoon.laws.fitting.fit import Fit, fit
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Array
from ratoon.laws.intervals.lanes import Lanes
from ratoon.laws.intervals.simulate import refit
from ratoon.records import Interval

FEW = 3  # domains below which nothing is known of how domains differ
AGAIN = 40  # iterations without a domain


@dataclass(frozen=True)
class Domain:
    """A domain that was swept. `runs` have N, D and its own share r; the probe is that of all domains."""

    name: str
    runs: Runs
    probe_tokens: Array
    probe_losses: Array
    groups: Sequence[str] | None = None  # which runs share a trunk; None: those of one size and share

    @property
    def trunks(self) -> list[str]:
        own = trunks_of(self.runs) if self.groups is None else self.groups
        return [f"{self.name} {group}" for group in own]

    @property
    def features(self) -> tuple[float, float]:
        return crossdomain.probe(self.probe_tokens, self.probe_losses)


@dataclass(frozen=True)
class Transfer:
    """The law of the new domain.

    unseen_error  relative, median over the runs of known domains, each domain foreseen from the others by its probe
                  alone; None: too few domains for that
    level         nats added because the new domain's own runs say so
    foresight     draws of its law; None: too few domains to know how one may differ from what its probe says
    """

    fit: Fit
    initial_loss: float
    decline_rate: float
    unseen_error: float | None
    level: float
    foresight: Foresight | None = None

    def loss(self, N: ArrayLike, D: ArrayLike, r: ArrayLike) -> Array:
        """Nats per token of the new domain; r is its own share."""
        return self.fit.loss(N, D, r, self.initial_loss, self.decline_rate) + self.level

    def draws(self, N: ArrayLike, D: ArrayLike, r: ArrayLike) -> Array | None:
        """(R, n) nats per token, each of a law that the runs and the probe allow; None without a foresight."""
        if self.foresight is None:
            return None
        N, D, r = np.broadcast_arrays(np.atleast_1d(N), D, r)
        return self.foresight.loss(Runs.of(N, D, r, np.ones(len(N))))

    def interval(self, N: float, D: float, r: float, confidence: float = 0.9) -> Interval | None:
        found = self.intervals(N, D, [r], confidence)
        return None if found is None else found[0]

    def intervals(self, N: float, D: float, r: ArrayLike, confidence: float = 0.9) -> tuple[Interval, ...] | None:
        """At each own share."""
        drawn, best = self.draws(N, D, r), self.loss(N, D, r)
        if drawn is None:
            return None
        return tuple(around(float(value), each, confidence) for value, each in zip(best, drawn.T, strict=True))


def trunks_of(runs: Runs) -> list[str]:
    return [f"{N:g} {r:g}" for N, r in zip(runs.params, runs.own, strict=True)]


def transfer(
    known: Sequence[Domain],
    probe_tokens: ArrayLike,
    probe_losses: ArrayLike,
    *,
    few: Runs | None = None,
    few_groups: Sequence[str] | None = None,
    reach: Mapping[str, ArrayLike] | None = None,
    seed: int = 0,
) -> Transfer:
    """From swept domains and the new one's probe; `few` are finished short runs of the new domain, if any.

    few_groups  which of these share a trunk; None: those of one size and share
    reach       N and D the law will be asked about. Raises ConfigError where there are too few domains.
    """
    if len(known) < FEW:
        raise ConfigError(
            f"{len(known)} swept domains ({', '.join(one.name for one in known)}) cannot show how domains differ; "
            f"sweep {FEW} or more, or sweep the new one"
        )
    k1, k2 = crossdomain.probe(probe_tokens, probe_losses)
    fitted = _fit(known, reach, seed, asked=(k1, k2))
    misses = _misses(fitted, known) if len(known) > FEW else []
    unseen = float(np.median(np.abs(np.concatenate(misses)))) if misses else None
    level = 0.0 if few is None else _level(fitted, few, (k1, k2), misses)
    foresight = None
    if misses:
        probe = np.asarray(probe_tokens, dtype=float), np.asarray(probe_losses, dtype=float)
        foresight = _foresight(fitted, known, probe, misses, few, few_groups, seed)
    return Transfer(fitted, k1, k2, unseen, level, foresight)


def _foresight(
    fitted: Fit,
    known: Sequence[Domain],
    probe: tuple[Array, Array],
    misses: Sequence[Array],
    few: Runs | None,
    few_groups: Sequence[str] | None,
    seed: int,
) -> Foresight:
    runs, _, trunks = _pooled(known)
    rough = scatter([probe, *((one.probe_tokens, one.probe_losses) for one in known)])
    found, noise = foresee(fitted, runs, trunks, probe, rough, misses, seed)
    if few is None:
        return found
    lanes = Lanes.of(trunks_of(few) if few_groups is None else few_groups, few.inputs)
    return found.having_seen(few, noise, lanes, np.random.default_rng(seed + 1))


def _pooled(known: Sequence[Domain]) -> tuple[Runs, list[str], list[str]]:
    """The rows of all domains that the law speaks of, the domain of each and its trunk."""
    inputs = {name: np.concatenate([one.runs.inputs[name] for one in known]) for name in ("N", "D", "r")}
    for place, name in enumerate(("k1", "k2")):
        inputs[name] = np.concatenate([np.full(len(one.runs), one.features[place]) for one in known])
    runs = Runs.gather(
        inputs, np.concatenate([one.runs.loss for one in known]), np.concatenate([one.runs.weights for one in known])
    )
    domains = [one.name for one in known for _ in range(len(one.runs))]
    kept = runs.own > 0
    trunks = [trunk for one in known for trunk in one.trunks]
    chosen = np.flatnonzero(kept)
    return runs.where(kept), [domains[k] for k in chosen], [trunks[k] for k in chosen]


def _fit(known: Sequence[Domain], reach: Mapping[str, ArrayLike] | None, seed: int, asked: tuple[float, float]) -> Fit:
    runs, _, _ = _pooled(known)
    where = {**(reach or {}), "k1": asked[0], "k2": asked[1]}
    return fit(crossdomain.FORM, runs.inputs, runs.loss, weights=runs.weights, reach=where, hold_out=False, seed=seed)


def _misses(fitted: Fit, known: Sequence[Domain]) -> list[Array]:
    """Relative errors of each domain's runs, foreseen from the other domains."""
    runs, domains, _ = _pooled(known)
    found = []
    for one in known:
        out = np.array([name == one.name for name in domains])
        others = runs.where(~out)
        # From the exponents of all domains those of all but one are near.
        foreseen = refit(
            fitted,
            others,
            others.loss[None],
            others.weights[None],
            settled=fitted.form.settle(others.inputs),
            theta=fitted.theta[None],
            iterations=AGAIN,
        )
        found.append(foreseen.at(runs.where(out).inputs)[0] / runs.loss[out] - 1)
    return found


def _level(fitted: Fit, few: Runs, features: tuple[float, float], misses: Sequence[Array]) -> float:
    """Mean residual of the new domain's own runs, shrunk by how its spread compares with that of domains' levels."""
    away = few.loss - fitted.loss(few.params, few.tokens, few.own, *features)
    if not misses:
        return float(away.mean())
    scale = float(few.loss.mean())
    between = float(np.mean([miss.mean() ** 2 for miss in misses])) * scale**2
    within = float(np.mean([np.var(miss) for miss in misses])) * scale**2
    return float(away.mean() * between / max(between + within / len(few), 1e-300))
