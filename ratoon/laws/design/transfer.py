"""The law of a domain nobody has swept, from domains that were and about one percent of a sweep.

Every domain is probed alike: the first percent of a run, same size, ratio and recipe (`crossdomain.probe`). The
cross-domain law (arXiv:2406.01375) is fitted on the domains that were swept and read at the new one's probe. How well
that works is measured by foreseeing each known domain from the others. Where a few short runs of the new domain are
there too, its level is moved to them, as far as their noise and what the law usually misses of a domain's level say.

Silent about how much general loss a new domain costs: that is another role, to be transferred by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ConfigError
from ratoon.laws.equations import crossdomain
from ratoon.laws.fitting.fit import Fit, fit
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Array

FEW = 3  # domains below which nothing is known of how domains differ


@dataclass(frozen=True)
class Domain:
    """A domain that was swept. `runs` have N, D and its own share r; the probe is that of all domains."""

    name: str
    runs: Runs
    probe_tokens: Array
    probe_losses: Array

    @property
    def features(self) -> tuple[float, float]:
        return crossdomain.probe(self.probe_tokens, self.probe_losses)


@dataclass(frozen=True)
class Transfer:
    """The law of the new domain.

    unseen_error  relative, median over the runs of known domains, each domain foreseen from the others by its probe
                  alone; None: too few domains for that
    level         nats added because the new domain's own runs say so
    """

    fit: Fit
    initial_loss: float
    decline_rate: float
    unseen_error: float | None
    level: float

    def loss(self, N: ArrayLike, D: ArrayLike, r: ArrayLike) -> Array:
        """Nats per token of the new domain; r is its own share."""
        return self.fit.loss(N, D, r, self.initial_loss, self.decline_rate) + self.level


def transfer(
    known: Sequence[Domain],
    probe_tokens: ArrayLike,
    probe_losses: ArrayLike,
    *,
    few: Runs | None = None,
    reach: Mapping[str, ArrayLike] | None = None,
    seed: int = 0,
) -> Transfer:
    """From swept domains and the new one's probe; `few` are finished short runs of the new domain, if any.

    reach  N and D the law will be asked about. Raises ConfigError where there are too few domains.
    """
    if len(known) < FEW:
        raise ConfigError(
            f"{len(known)} swept domains ({', '.join(one.name for one in known)}) cannot show how domains differ; "
            f"sweep {FEW} or more, or sweep the new one"
        )
    k1, k2 = crossdomain.probe(probe_tokens, probe_losses)
    fitted = _fit(known, reach, seed, asked=(k1, k2))
    misses = _misses(known, reach, seed) if len(known) > FEW else []
    unseen = float(np.median(np.abs(np.concatenate(misses)))) if misses else None
    level = 0.0 if few is None else _level(fitted, few, (k1, k2), misses)
    return Transfer(fitted, k1, k2, unseen, level)


def _fit(known: Sequence[Domain], reach: Mapping[str, ArrayLike] | None, seed: int, asked: tuple[float, float]) -> Fit:
    inputs = {name: np.concatenate([one.runs.inputs[name] for one in known]) for name in ("N", "D", "r")}
    for place, name in enumerate(("k1", "k2")):
        inputs[name] = np.concatenate([np.full(len(one.runs), one.features[place]) for one in known])
    loss = np.concatenate([one.runs.loss for one in known])
    where = {**(reach or {}), "k1": asked[0], "k2": asked[1]}
    return fit(crossdomain.FORM, inputs, loss, reach=where, hold_out=False, seed=seed)


def _misses(known: Sequence[Domain], reach: Mapping[str, ArrayLike] | None, seed: int) -> list[Array]:
    """Relative errors of each domain's runs, foreseen from the other domains."""
    found = []
    for out in known:
        others = [one for one in known if one is not out]
        k1, k2 = out.features
        foreseen = _fit(others, reach, seed, asked=(k1, k2))
        runs = out.runs.where(out.runs.own > 0)
        found.append(foreseen.loss(runs.params, runs.tokens, runs.own, k1, k2) / runs.loss - 1)
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
