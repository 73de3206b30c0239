"""Learning rate, schedule and ratio at once: by the law of learning dynamics, and by a quadratic surface.

    dynamics  min w dL_general + (1 - w) dL_domain  over peak rate, steps, share of new text, schedule, parent
              dL = loss at the end of the stage less loss at its start (arXiv:2505.07796: w = lambda1)
    surface   the same, or min L_domain where L_general <= ceiling, over share and peak rate (arXiv:2409.06624)

The laws of laws/equations/dynamics.py and almr.py. Both speak of one batch size, the first of every schedule, the
second of the one that was swept; neither of repeated text. Replay is 1 - the share of new text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ratoon.config import ConfigError
from ratoon.laws.decision.believe import around
from ratoon.laws.equations.almr import TERMS, Surface
from ratoon.laws.equations.dynamics import Dynamics, Sums, sums
from ratoon.laws.form import Array
from ratoon.records import Interval

Schedule = Callable[[float, int], Array]  # (peak learning rate, steps) -> (steps,) learning rates
CELLS = 201  # points per axis of a surface's box
EPSILON = 1e-12


class Space(NamedTuple):
    """What a stage may be: every combination is looked at."""

    peaks: Sequence[float]
    steps: Sequence[int]
    shares: Sequence[float]  # of new text, 0..1
    schedules: Mapping[str, Schedule]
    parents: Mapping[str, Sums]  # at the end of pretraining; several where the loss potential can be chosen

    @property
    def axes(self) -> dict[str, Sequence[float]]:
        """In the order in which tables have them, after schedules and parents."""
        return {"peak": self.peaks, "steps": self.steps, "share": self.shares}


@dataclass(frozen=True)
class Stage:
    """The best of a space; intervals of what is best over the laws given, at the best schedule and parent."""

    peak: Interval
    steps: Interval
    share: Interval
    schedule: str
    parent: str
    general: float  # nats gained by the stage (negative: fallen) on the parent's text
    domain: float  # and on the new text
    value: Interval
    at_ends: tuple[str, ...]  # axes whose best value is the first or last of those looked at


def best_stage(
    laws: Sequence[tuple[Dynamics, Dynamics]],
    space: Space,
    *,
    weight: float,
    params: float = 1e6,
    general_limit: float | None = None,
) -> Stage:
    """`laws` are pairs for general and domain loss: the best estimate first, then draws of it where there are any.

    weight         of general loss, 0..1; domain loss has the rest
    general_limit  nats that general loss may rise by; none: any
    """
    check(laws, space, weight)
    sums_at = ends_of(space)
    tables = [tuple(_change(law, space, sums_at, params) for law in pair) for pair in laws]
    values = [weight * general + (1 - weight) * domain for general, domain in tables]
    allowed = [general <= (np.inf if general_limit is None else general_limit) for general, _ in tables]
    if not allowed[0].any():
        raise ConfigError(
            f"no stage keeps general loss within {general_limit:g} nats of the parent's; the least it rises by is "
            f"{tables[0][0].min():.4f}. Allow more, or add lower peaks, fewer steps or smaller shares"
        )
    best = np.unravel_index(int(np.where(allowed[0], values[0], np.inf).argmin()), values[0].shape)
    kind = best[:2]
    each = [
        np.unravel_index(int(np.where(may[kind], value[kind], np.inf).argmin()), value[kind].shape)
        for value, may in zip(values, allowed, strict=True)
        if may[kind].any()  # a draw that allows nothing has no best
    ]
    axes = {name: np.array([float(x) for x in axis]) for name, axis in space.axes.items()}
    found = {
        name: around(float(axis[best[2 + k]]), axis[[int(at[k]) for at in each]])
        for k, (name, axis) in enumerate(axes.items())
    }
    ends = [name for k, (name, axis) in enumerate(axes.items()) if len(axis) > 1 and best[2 + k] in (0, len(axis) - 1)]
    return Stage(
        **found,
        schedule=list(space.schedules)[best[0]],
        parent=list(space.parents)[best[1]],
        general=float(tables[0][0][best]),
        domain=float(tables[0][1][best]),
        value=around(float(values[0][best]), np.array([value[best] for value in values])),
        at_ends=tuple(ends),
    )


def check(laws: Sequence[tuple[Dynamics, Dynamics]], space: Space, weight: float) -> None:
    if not laws:
        raise ConfigError("no law to search with; give at least one pair for general and domain loss")
    if empty := [name for name, axis in space._asdict().items() if not len(axis)]:
        raise ConfigError(f"nothing to choose from: {', '.join(empty)} of the space are empty")
    if not 0 <= weight <= 1 or min(space.shares) < 0 or max(space.shares) > 1:
        raise ConfigError(f"weight {weight:g} and shares {list(space.shares)} must lie in 0..1; divide percents by 100")
    if min(space.peaks) <= 0 or min(space.steps) < 1:
        raise ConfigError("peaks must be above 0 and steps at least 1")


def ends_of(space: Space) -> Array:
    """(schedules, peaks, steps, 2): S1 and S2 at the end of each stage."""
    return np.array(
        [
            [[np.stack(sums(rates(peak, steps)).end) for steps in space.steps] for peak in space.peaks]
            for rates in space.schedules.values()
        ]
    )


def _change(law: Dynamics, space: Space, ends: Array, params: float) -> Array:
    """(schedules, parents, peaks, steps, shares): what the stage does to the loss."""
    parents = np.array([np.stack(parent) for parent in space.parents.values()])
    S1cpt, S2cpt = (ends[:, None, :, :, None, k] for k in range(2))
    S1pt, S2pt = (parents[None, :, None, None, None, k] for k in range(2))
    share = np.asarray(space.shares, dtype=float)
    return law.loss(S1pt, S2pt, S1cpt, S2cpt, share, params) - law.loss(S1pt, S2pt, 0.0, 0.0, share, params)


@dataclass(frozen=True)
class Mixed:
    """The best share of new text and peak learning rate within a swept box."""

    share: float
    rate: float
    general: float  # nats per token
    domain: float
    at_ends: tuple[str, ...]  # "share", "rate": the best lies on the box's edge, so the sweep was too narrow


def blend(general: Surface, domain: Surface, weight: float) -> Surface:
    """The surface of weight general + (1 - weight) domain: again a quadratic."""
    if abs(general.lr0 / domain.lr0 - 1) > EPSILON:
        domain = recentre(domain, general.lr0)
    mixed = weight * np.array(general[:6]) + (1 - weight) * np.array(domain[:6])
    return Surface(**dict(zip(TERMS, mixed.tolist(), strict=True)), lr0=general.lr0)


def recentre(surface: Surface, lr0: float) -> Surface:
    """The same surface with its learning rates counted from another one."""
    b0, br, by, brr, bry, byy, old = surface
    shift = float(np.log(lr0 / old))
    return Surface(b0 + by * shift + byy * shift**2, br + bry * shift, by + 2 * byy * shift, brr, bry, byy, lr0)


def best_on_surfaces(
    general: Surface,
    domain: Surface,
    *,
    shares: tuple[float, float],
    rates: tuple[float, float],
    weight: float | None = None,
    ceiling: float | None = None,
) -> Mixed:
    """Within the box that was swept: the least of the weighted sum, or of domain loss with general under `ceiling`."""
    if (weight is None) == (ceiling is None):
        raise ConfigError("give either a weight of general loss or a ceiling for it, and not both")
    if weight is not None:
        share, rate = least(blend(general, domain, weight), shares, rates)
    else:
        assert ceiling is not None
        share, rate = _under(general, domain, shares, rates, ceiling)
    on_edge = {
        "share": share in shares and shares[0] < shares[1],
        "rate": bool(np.isclose(rate, rates, rtol=1e-9).any()) and rates[0] < rates[1],
    }
    return Mixed(
        share=share,
        rate=rate,
        general=float(general.loss(share, rate)),
        domain=float(domain.loss(share, rate)),
        at_ends=tuple(name for name, edge in on_edge.items() if edge),
    )


def least(surface: Surface, shares: tuple[float, float], rates: tuple[float, float]) -> tuple[float, float]:
    """(share, rate) of least loss in the box: the bottom where it lies inside, else the best point of an edge."""
    inside = surface.optimum()
    if inside and shares[0] <= inside[0] <= shares[1] and rates[0] <= inside[1] <= rates[1]:
        return inside
    found = [(share, rate) for share in shares for rate in rates]
    if surface.brr > 0:
        found += [(float(np.clip(surface.ridge(rate), *shares)), rate) for rate in rates]
    if surface.byy > 0:
        found += [(share, float(np.clip(surface.rate(share), *rates))) for share in shares]
    return min(found, key=lambda at: float(surface.loss(*at)))


def _under(
    general: Surface, domain: Surface, shares: tuple[float, float], rates: tuple[float, float], ceiling: float
) -> tuple[float, float]:
    share = np.linspace(*shares, CELLS)[:, None]
    rate = np.geomspace(*rates, CELLS)[None, :]
    kept = general.loss(share, rate)
    if kept.min() > ceiling:
        raise ConfigError(
            f"nowhere in the box swept does general loss stay under {ceiling:.4f} nats; at best it is "
            f"{kept.min():.4f}. Sweep lower learning rates or smaller shares, or raise the tolerance"
        )
    best = np.unravel_index(int(np.where(kept <= ceiling, domain.loss(share, rate), np.inf).argmin()), kept.shape)
    return float(share[best[0], 0]), float(rate[0, best[1]])
