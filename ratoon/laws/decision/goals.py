"""What is asked of a share, and the share that answers it: a constrained optimum with its reason.

    ceiling   min L_domain(share)  where  L_general(share) <= (1 + tolerance) parent's, with confidence
    weighted  min w L_general(share)/parent's + (1 - w) L_domain(share)/parent's

both at the target's size and tokens, over the shares that the runs speak about and the domain text lasts for.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ratoon.config import ChooseConfig, ConfigError, Role
from ratoon.laws.decision.believe import GRID, Believed, around, share_grid
from ratoon.laws.form import Array
from ratoon.records import Interval

TOLERANCE = "limited by general tolerance"
DATA = "limited by domain data"
INTERIOR = "interior"
FREE = "not limited: domain only keeps general loss within tolerance"
EDGE = "not limited: the goal is best at the end of the shares tried"
FIXED = "fixed by the user"


class Stakes(NamedTuple):
    """What a run is weighed against. Losses are the parent's, nats per token on the same held-out text."""

    general: float
    domain: float
    config: ChooseConfig

    @property
    def parents(self) -> dict[Role, float]:
        return {"general": self.general, "domain": self.domain}

    @property
    def ceiling(self) -> float:
        return self.general * (1 + self.config.tolerance)

    @property
    def weight(self) -> float:
        """Of general loss in nats, where domain loss has the rest: relative losses are losses in other units."""
        by_general = self.config.general_weight / self.general
        return by_general / (by_general + (1 - self.config.general_weight) / self.domain)

    def value(self, general: Array, domain: Array) -> Array:
        """The weighted goal, less is better: the weighted mean of both losses' relative changes."""
        weight = self.config.general_weight
        return np.asarray(weight * (general / self.general - 1) + (1 - weight) * (domain / self.domain - 1))


@dataclass(frozen=True)
class Decision:
    share: float
    reason: str
    cap: float  # the largest share the domain text lasts for, at most 1
    best: Interval | None  # of the share at which the weighted goal is least; None for another goal
    warnings: tuple[str, ...] = ()


def decide(believed: Believed, stakes: Stakes, largest: Array, available: int | None) -> Decision:
    """`largest` (R,) is the largest share under the ceiling in each draw; `available` the domain tokens there are.

    Raises ConfigError when no share meets the tolerance, or the text is too little for any.
    """
    config = stakes.config
    cap = _cap(believed.tokens, available, config)
    best = _argmin(believed, stakes, cap) if config.goal == "weighted" else None
    if config.ratio is not None:
        return Decision(config.ratio, FIXED, cap, best, _too_little(config.ratio, believed.tokens, available, config))
    if cap < GRID:
        raise ConfigError(
            f"{available:,} domain tokens, read at most {config.domain_epochs:g} times, are less than "
            f"{GRID:.0%} of the run's {believed.tokens:,}; add domain text, shorten the run (train.tokens) or "
            f"raise choose.domain_epochs"
        )
    if best is not None:
        return Decision(best.value, _why(believed, best.value, cap), cap, best)
    share, reason = _under_ceiling(believed, stakes, largest)
    if cap < share:
        share, reason = cap, DATA
    shares = share_grid(min(believed.smallest, share), share)
    return Decision(*lowest(shares, believed.best("domain", shares), reason), cap, None)


def _under_ceiling(believed: Believed, stakes: Stakes, largest: Array) -> tuple[float, str]:
    limit = float(np.quantile(largest, 1 - stakes.config.confidence, method="lower"))
    if limit < believed.smallest:
        # Unsure is not hopeless: where the best estimate keeps under the ceiling, the most careful run there is goes
        # ahead with a warning, and the gate has the last word. Otherwise a run would only be waste.
        if believed.interval("general", believed.smallest).value > stakes.ceiling:
            raise ConfigError(_letter(believed, stakes))
        limit = believed.smallest
    if (share := down(limit)) < 1:
        return share, TOLERANCE
    return (1.0, FREE) if _domain_only_held(believed, stakes.ceiling) else (1 - GRID, TOLERANCE)


def allowed(believed: Believed, cap: float) -> Array:
    """(n,) the shares a weighted goal may fall on: those the runs span, as far as the text lasts."""
    low = believed.smallest
    return share_grid(min(low, cap), min(cap, max(low, float(believed.tables["general"].share.max()))))


def _argmin(believed: Believed, stakes: Stakes, cap: float) -> Interval:
    shares = allowed(believed, cap)
    values = stakes.value(believed.draws("general", shares), believed.draws("domain", shares))
    # The least expected goal, which is the least expected regret; the best estimate's own least costs more.
    return around(round(float(shares[values.mean(axis=0).argmin()]), 2), shares[values.argmin(axis=1)])


def _why(believed: Believed, share: float, cap: float) -> str:
    shares = allowed(believed, cap)
    if share > shares[0] + GRID / 2 and share < shares[-1] - GRID / 2:
        return INTERIOR
    runs_out = cap < float(believed.tables["general"].share.max())
    return DATA if runs_out and share > shares[-1] - GRID / 2 else EDGE


def lowest(shares: Array, domain: Array, reason: str) -> tuple[float, str]:
    """The share of least domain loss among those allowed: the last one, for `reason`, unless one inside is lower."""
    best = int(domain.argmin())
    if best < len(shares) - 1 and domain[best] < domain[-1]:
        return round(float(shares[best]), 2), INTERIOR
    return round(float(shares[-1]), 2), reason


def down(share: float) -> float:
    """To a hundredth, never up."""
    return float(np.floor(min(share, 1.0) / GRID + 1e-9) * GRID)


def _cap(tokens: float, available: int | None, config: ChooseConfig) -> float:
    return 1.0 if available is None else down(config.domain_epochs * available / tokens)


def _too_little(share: float, tokens: float, available: int | None, config: ChooseConfig) -> tuple[str, ...]:
    """Said of a share that was fixed: what text there is does not change it."""
    if available is None or share * tokens <= (most := config.domain_epochs * available):
        return ()
    return (
        f"at {share:g} the {available:,} domain tokens would be read {share * tokens / available:,.0f} times; read "
        f"{config.domain_epochs:g} times (choose.domain_epochs) they last for a share of {most / tokens:.2%}",
    )


def _domain_only_held(believed: Believed, ceiling: float) -> bool:
    """Whether the domain-only runs, where there are any, stayed under the ceiling: at its edge no law outranks them."""
    table = believed.tables["general"].near_size(believed.params)
    measured = table.runs.loss[table.share >= 1]
    return bool((measured <= ceiling).all())


def _letter(believed: Believed, stakes: Stakes) -> str:
    config = stakes.config
    at = believed.draws("general", believed.smallest)[:, 0]
    needed = float(np.quantile(at, config.confidence)) / stakes.general - 1
    expected = believed.interval("general", believed.smallest)
    return (
        f"no share keeps general loss within tolerance; at the smallest domain share tried, {believed.smallest:g}, it "
        f"is predicted to be {expected.value:.4f} nats ({expected.low:.4f} to {expected.high:.4f}) after "
        f"{believed.tokens:,} tokens, and {config.tolerance:.1%} above the parent's {stakes.general:.4f} allows "
        f"{stakes.ceiling:.4f}. The smallest tolerance met with confidence "
        f"{config.confidence:g} is {np.ceil(needed * 1e4) / 1e4:.2%}: set choose.tolerance to it, try smaller ratios "
        f"in sweep.ratios, lower train.learning_rate, or fix choose.ratio yourself"
    )
