"""Domain text that runs out: the share and the run length that are best together (usage 2 of arXiv:2406.01375).

    min over r of  L_domain(N, D'(r), r),   D(r) = min(epochs U / r, longest),   D'(r) = effective(U, r D) / r

U          domain tokens there are, unique            r  domain share of the run's tokens
D          tokens of the run, general text included   effective(U, seen)  fresh tokens worth as much as `seen` ones
                                                      drawn from U (arXiv:2305.16264, repetition.py)

More of a share leaves less of a run: with U tokens read `epochs` times, a run at share r ends after epochs U / r. The
domain law is asked about D', the length at which a run without repeats would have given the model as much of the
domain; with epochs = 1 that is D. General text is taken not to run out. A half-life of 15.4 repeats comes from runs on
one corpus; within a mixture a scarce corpus bears 15 to 20 (arXiv:2605.12715), so it errs to the careful side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ratoon.config import ChooseConfig, ConfigError
from ratoon.laws.decision.believe import GRID, Believed, around, believe, share_grid
from ratoon.laws.decision.goals import EDGE, INTERIOR, TOLERANCE
from ratoon.laws.equations.repetition import REPEATS, effective_tokens
from ratoon.laws.form import Array
from ratoon.records import Interval, Observation

LONGEST = "limited by the longest run allowed"


@dataclass(frozen=True)
class ScarceChoice:
    share: Interval
    tokens: Interval  # of the run, at each share of the interval
    epochs: float  # times the domain text is read at the best share
    domain: Interval  # nats per token there
    general: Interval
    reason: str
    law: str
    warnings: tuple[str, ...]


def choose_scarce(
    observations: Sequence[Observation],
    *,
    params_non_embedding: int,
    domain_tokens: int,
    config: ChooseConfig,
    longest: int | None = None,
    ceiling: float | None = None,
    half_life: float = REPEATS,
) -> ScarceChoice:
    """Share and length of a run that reads `domain_tokens` of domain text at most `config.domain_epochs` times.

    longest  tokens a run may have; none: as many as the laws may be asked about, far_tokens times the longest run,
             which is also the limit of a `longest` given unless config.extrapolate
    ceiling  nats per token that general loss must stay under with config.confidence; none: it may rise as it likes
    """
    runs = [x.tokens for x in observations if x.finished and x.tokens > 0]
    far = int(config.far_tokens * max(runs, default=1))
    limit = far if longest is None else longest if config.extrapolate else min(longest, far)
    shares = [x.share for x in observations if x.finished and x.tokens > 0 and x.share > 0]
    reach = min(limit, int(config.domain_epochs * domain_tokens / min(shares, default=1.0)))
    believed = believe(observations, params_non_embedding, max(reach, 1), config)
    supply = Supply(domain_tokens, config.domain_epochs, limit, half_life)
    return best_supply(believed, supply, ceiling)


@dataclass(frozen=True)
class Supply:
    """What domain text there is, and how it may be used."""

    unique: float
    epochs: float
    longest: float
    half_life: float = REPEATS

    def tokens(self, shares: Array) -> Array:
        """D: of the run at each share."""
        return np.minimum(self.epochs * self.unique / shares, self.longest)

    def effective(self, shares: Array) -> Array:
        """D': of a run without repeats that gives as much of the domain."""
        return np.asarray(effective_tokens(self.unique, shares * self.tokens(shares), self.half_life) / shares)


def best_supply(believed: Believed, supply: Supply, ceiling: float | None = None) -> ScarceChoice:
    """Over the shares tried; `believed` must reach to the longest run that `supply` allows."""
    table = believed.tables["domain"]
    shares = share_grid(max(float(table.share[table.share > 0].min()), GRID), float(table.share.max()))
    D, fresh = supply.tokens(shares), supply.effective(shares)
    domain = believed.draws("domain", shares, tokens=fresh)
    general = believed.draws("general", shares, tokens=D)
    under = np.ones_like(domain, dtype=bool) if ceiling is None else general <= ceiling
    sure = under.mean(axis=0) >= believed.config.confidence if ceiling is not None else under[0]
    if not sure.any():
        raise ConfigError(
            f"no share keeps general loss under {ceiling:.4f} nats with confidence {believed.config.confidence:g} in "
            f"the run that its domain text lasts for; the surest, {shares[under.mean(axis=0).argmax()]:.2f}, does so "
            f"with {under.mean(axis=0).max():.0%}. Raise the tolerance, or shorten the run"
        )
    best = int(np.where(sure, believed.best("domain", shares, tokens=fresh), np.inf).argmin())
    possible = np.where(under.any(axis=1, keepdims=True), under, sure)
    each = np.where(possible, domain, np.inf).argmin(axis=1)
    share = round(float(shares[best]), 2)
    ends = around(float(D[best]), D[each])
    return ScarceChoice(
        share=around(share, shares[each]),
        tokens=ends,
        epochs=float(shares[best] * D[best] / supply.unique),
        domain=around(float(believed.best("domain", share, tokens=fresh[best])[0]), domain[:, best]),
        general=around(float(believed.best("general", share, tokens=D[best])[0]), general[:, best]),
        reason=_why(best, sure, D, supply),
        law=believed.law,
        warnings=tuple(believed.warnings),
    )


def _why(best: int, sure: Array, D: Array, supply: Supply) -> str:
    if best + 1 < len(sure) and not sure[best + 1]:
        return TOLERANCE
    if best in (0, len(sure) - 1):
        return EDGE
    # On the kink where the text begins to run out, a longer run would move the optimum.
    return LONGEST if D[best - 1] >= supply.longest else INTERIOR
