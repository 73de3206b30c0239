"""What mixtures are allowed, and what is wanted of their losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ratoon.config import ConfigError
from ratoon.laws.form import Array

EPOCHS = 4.0  # repetitions of a text that cost next to nothing (arXiv:2305.16264)
ROOM = 1e-9  # by which sums may miss for rounding

Cap = Literal["maximum", "repetition", "none"]


@dataclass(frozen=True)
class Limits:
    """Shares between `low` and `high` that sum to one."""

    domains: tuple[str, ...]
    low: Array  # (d,)
    high: Array
    caps: tuple[Cap, ...]  # what `high` comes from

    @classmethod
    def of(
        cls,
        domains: Sequence[str],
        *,
        minimum: Mapping[str, float] | None = None,
        maximum: Mapping[str, float] | None = None,
        unique_tokens: Mapping[str, float] | None = None,
        tokens: float | None = None,
        epochs: float = EPOCHS,
    ) -> "Limits":
        """`unique_tokens` of a domain may be read `epochs` times in a run of `tokens`: share x tokens <= epochs x
        unique. Domains that are not named are free. Raises ConfigError when no mixture fits, naming what is in the
        way."""
        minimum, maximum, unique = minimum or {}, maximum or {}, unique_tokens or {}
        for what, given in (("minimum", minimum), ("maximum", maximum), ("unique_tokens", unique)):
            _refuse_names(what, given, domains)
        _refuse_shares("minimum", minimum)
        _refuse_shares("maximum", maximum)
        if unique and (tokens is None or not np.isfinite(tokens) or tokens <= 0):
            raise ConfigError(f"unique_tokens limit a share only in a run of known length; tokens is {tokens}")
        if not (np.isfinite(epochs) and epochs > 0):
            raise ConfigError(f"epochs is {epochs:g}; a text is read some number of times above 0")
        low = np.array([minimum.get(name, 0.0) for name in domains])
        asked = np.array([maximum.get(name, 1.0) for name in domains])
        length = float(tokens or 1.0)
        repeated = np.array([min(epochs * unique[name] / length, 1.0) if name in unique else 1.0 for name in domains])
        caps: list[Cap] = [
            "repetition" if r < min(a, 1.0) else "maximum" if a < 1 else "none"
            for a, r in zip(asked, repeated, strict=True)
        ]
        found = cls(tuple(domains), low, np.minimum(asked, repeated), tuple(caps))
        found._refuse_empty()
        return found

    def _refuse_empty(self) -> None:
        for name, low, high, cap in zip(self.domains, self.low, self.high, self.caps, strict=True):
            if not 0 <= low <= 1 or high < 0:
                raise ConfigError(f"limits of {name}: {low:g} to {high:g}; shares are in 0..1")
            if low > high:
                raise ConfigError(
                    f"minimum of {name} is {low:g} and its {cap} cap {high:.4g}; lower the minimum, or raise the cap"
                    + (" (more unique text, more epochs, or a shorter run)" if cap == "repetition" else "")
                )
        if self.low.sum() > 1 + ROOM:
            named = ", ".join(f"{n} {x:g}" for n, x in zip(self.domains, self.low, strict=True) if x > 0)
            raise ConfigError(f"minimum shares sum to {self.low.sum():.4g}, above 1: {named}; lower some")
        if self.high.sum() < 1 - ROOM:
            named = ", ".join(f"{n} {x:.4g} ({c})" for n, x, c in zip(self.domains, self.high, self.caps, strict=True))
            raise ConfigError(f"the largest shares allowed sum to {self.high.sum():.4g}, below 1: {named}; raise some")

    def project(self, shares: Array) -> Array:
        """(n, d): the nearest allowed mixture of each row."""
        shares = np.atleast_2d(shares)
        below = (self.low - shares).min(axis=1) - 1
        above = (self.high - shares).max(axis=1) + 1
        for _ in range(60):  # halvings: to the last digit of a double
            middle = (below + above) / 2
            much = np.clip(shares + middle[:, None], self.low, self.high).sum(axis=1) > 1
            below, above = np.where(much, below, middle), np.where(much, middle, above)
        return np.asarray(np.clip(shares + ((below + above) / 2)[:, None], self.low, self.high))

    def least(self, slope: Array) -> Array:
        """(d,): the allowed mixture of least slope . h. Filling up the cheapest domains first is exact."""
        found, left = self.low.copy(), 1 - self.low.sum()
        for j in np.argsort(slope, kind="stable"):
            step = min(self.high[j] - self.low[j], left)
            found[j] += step
            left -= step
        return found


@dataclass(frozen=True)
class Goal:
    """Weighted losses to make small, losses that have a ceiling, and a pull towards a mixture that is trusted."""

    evaluated: tuple[str, ...]
    weights: Array  # (p,)
    ceilings: Array  # (p,) nats; infinite where there is none
    reference: Array | None = None  # (d,)
    pull: float = 0.0  # kappa, in nats: of KL(h | reference)

    @classmethod
    def of(
        cls,
        evaluated: Sequence[str],
        *,
        weights: Mapping[str, float] | None = None,
        ceilings: Mapping[str, float] | None = None,
        reference: Mapping[str, float] | None = None,
        domains: Sequence[str] = (),
        pull: float = 0.0,
    ) -> "Goal":
        """Without `weights` all losses count the same, 1/p each. `reference` names the share of every domain; Olmix
        pulls to the natural mixture with 0.05 (arXiv:2602.12237)."""
        chosen = weights if weights is not None else {name: 1 / len(evaluated) for name in evaluated}
        for what, given in (("weights", chosen), ("ceilings", ceilings or {})):
            _refuse_names(what, given, evaluated)
        if min(chosen.values(), default=-1.0) < 0 or sum(chosen.values()) <= 0:
            raise ConfigError(f"weights of the losses are {dict(chosen)}; they must be >= 0, and one above 0")
        if not np.isfinite(pull) or pull < 0 or (pull > 0 and reference is None):
            raise ConfigError(f"pull is {pull:g}; it must be >= 0, and above 0 it needs a reference mixture to pull to")
        mixture = None
        if reference is not None:
            _refuse_names("reference", reference, domains)
            mixture = np.array([reference.get(name, 0.0) for name in domains])
            if abs(mixture.sum() - 1) > 1e-6 or (mixture <= 0).any():
                raise ConfigError(
                    f"reference shares sum to {mixture.sum():g}, the least is {mixture.min():g}; they must sum to 1 "
                    f"and all be above 0, or the pull away from a domain is without end: give it a maximum of 0 instead"
                )
        return cls(
            tuple(evaluated),
            np.array([chosen.get(name, 0.0) for name in evaluated]),
            np.array([(ceilings or {}).get(name, np.inf) for name in evaluated]),
            mixture,
            pull,
        )

    @property
    def matters(self) -> Array:
        """(p,) bool: losses that a search has to predict."""
        return np.asarray((self.weights > 0) | np.isfinite(self.ceilings))

    def away(self, shares: Array) -> Array:
        """The pull's cost, (n,) nats, of mixtures (n, d)."""
        if self.reference is None or self.pull == 0:
            return np.zeros(len(shares))
        ratio = np.where(shares > 0, shares / self.reference, 1.0)
        return np.asarray(self.pull * (shares * np.log(ratio)).sum(axis=1))

    def value(self, losses: Array, shares: Array) -> Array:
        """(n,) nats of mixtures (n, d) with losses (n, p)."""
        return np.asarray(losses @ self.weights + self.away(shares))

    def over(self, losses: Array) -> Array:
        """(n,) nats by which the worst ceiling is broken; 0 where none is."""
        return np.asarray(np.maximum(losses - self.ceilings, 0.0).max(axis=1))


def _refuse_shares(what: str, given: Mapping[str, float]) -> None:
    for name, share in given.items():
        if not 0 <= share <= 1:
            percent = f"; {share / 100:g} for {share:g}%" if share > 1 else ""
            raise ConfigError(f"{what} of {name} is {share:g}; shares are in 0..1{percent}")


def _refuse_names(what: str, given: Mapping[str, float], known: Sequence[str]) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise ConfigError(f"{what}: no {', '.join(unknown)} among {', '.join(known)}")
    if bad := [name for name, value in given.items() if not np.isfinite(value)]:
        raise ConfigError(f"{what}: not a number for {', '.join(bad)}")
