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
from ratoon.laws.decision.believe import GRID, Believed, around, believe, far, refuse_unasked, share_grid
from ratoon.laws.decision.goals import EDGE, INTERIOR, TOLERANCE
from ratoon.laws.equations.repetition import REPEATS, effective_tokens
from ratoon.laws.form import Array, Mask
from ratoon.records import Interval, Observation

LONGEST = "limited by the longest run allowed"
SHOWN = 7  # shares of the curve, beside the best


@dataclass(frozen=True)
class Supplied:
    """One share, and the run that the text lasts for there. Losses are nats per token at its end."""

    share: float
    tokens: float
    epochs: float  # times the domain text is read
    domain: Interval
    general: Interval
    sure: float | None  # confidence with which general loss is under its ceiling; None: there is no ceiling


@dataclass(frozen=True)
class ScarceChoice:
    share: Interval
    tokens: Interval  # of the run, at each share of the interval
    epochs: float  # times the domain text is read at the best share
    domain: Interval  # nats per token there
    general: Interval
    reason: str
    law: str
    curve: tuple[Supplied, ...]  # the best one, and others through the shares tried
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
    farthest = int(config.far_tokens * max(runs, default=1))
    limit = farthest if longest is None else longest if config.extrapolate else min(longest, farthest)
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
    runs = _Runs.of(believed, supply, shares, ceiling)
    sure = np.ones(len(shares), dtype=bool) if ceiling is None else runs.confidence >= believed.config.confidence
    if not sure.any():
        raise ConfigError(_letter(runs, believed.config.confidence, ceiling))
    best = int(np.where(sure, believed.best("domain", shares, tokens=runs.fresh), np.inf).argmin())
    possible = np.where(runs.under.any(axis=1, keepdims=True), runs.under, sure)
    each = np.where(possible, runs.domain, np.inf).argmin(axis=1)
    others = np.linspace(0, len(shares) - 1, SHOWN).round().astype(int).tolist()
    curve = {k: runs.at(k, ceiling is not None) for k in sorted({best, *others})}
    short = far(believed.tables["general"].runs, believed.config, {"D": curve[best].tokens})
    refuse_unasked([one.letter for one in short], believed.config)
    return ScarceChoice(
        share=around(curve[best].share, shares[each]),
        tokens=around(curve[best].tokens, runs.tokens[each]),
        epochs=curve[best].epochs,
        domain=curve[best].domain,
        general=curve[best].general,
        reason=_why(best, sure, runs.tokens, supply),
        law=believed.law,
        curve=tuple(curve.values()),
        warnings=tuple(dict.fromkeys([*believed.warnings, *(one.warning for one in short)])),
    )


@dataclass(frozen=True)
class _Runs:
    """The run at each of n shares: (n,) tokens and those it would take without repeats, (R, n) draws of its losses."""

    believed: Believed
    supply: Supply
    shares: Array
    tokens: Array
    fresh: Array
    domain: Array
    general: Array
    under: Mask  # (R, n): general loss is under the ceiling

    @classmethod
    def of(cls, believed: Believed, supply: Supply, shares: Array, ceiling: float | None) -> "_Runs":
        D, fresh = supply.tokens(shares), supply.effective(shares)
        domain = believed.draws("domain", shares, tokens=fresh)
        general = believed.draws("general", shares, tokens=D)
        under = general <= (np.inf if ceiling is None else ceiling)
        return cls(believed, supply, shares, D, fresh, domain, general, under)

    @property
    def confidence(self) -> Array:
        """(n,) with which general loss is under the ceiling."""
        return np.asarray(self.under.mean(axis=0))

    def at(self, k: int, bounded: bool) -> Supplied:
        share, tokens = round(float(self.shares[k]), 2), float(self.tokens[k])
        domain = float(self.believed.best("domain", share, tokens=self.fresh[k])[0])
        general = float(self.believed.best("general", share, tokens=tokens)[0])
        return Supplied(
            share=share,
            tokens=tokens,
            epochs=float(self.shares[k] * tokens / self.supply.unique),
            domain=around(domain, self.domain[:, k]),
            general=around(general, self.general[:, k]),
            sure=float(self.confidence[k]) if bounded else None,
        )


def _letter(runs: _Runs, wanted: float, ceiling: float | None) -> str:
    surest = int(runs.confidence.argmax())
    return (
        f"no share keeps general loss under {ceiling:.4f} nats with confidence {wanted:g} in the run that its domain "
        f"text lasts for; the surest, {runs.shares[surest]:.2f}, does so with {runs.confidence[surest]:.0%}. Raise the "
        f"tolerance, or shorten the run"
    )


def _why(best: int, sure: Mask, D: Array, supply: Supply) -> str:
    if best + 1 < len(sure) and not sure[best + 1]:
        return TOLERANCE
    if best in (0, len(sure) - 1):
        return EDGE
    # On the kink where the text begins to run out, a longer run would move the optimum.
    return LONGEST if D[best - 1] >= supply.longest else INTERIOR
