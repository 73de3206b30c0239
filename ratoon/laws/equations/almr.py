"""Share of an added language against peak learning rate, as a quadratic surface (after arXiv:2409.06624).

    L(r, lr) = b0 + br r + by y + brr r^2 + bry r y + byy y^2,     y = ln(lr / lr0)

r   the added language's share of training tokens, 0..1 (the paper's ALMR)     lr0  the sweep's geometric mean
lr  peak learning rate                                                         L    nats per token

The paper sweeps both for Llama-3 8B and reports that the best share and the best rate go together; it prints no
constants. A quadratic is what a small sweep can pin, and is true near its optimum only. Coefficients have either
sign. One model size, one length, nothing outside the sweep: `Response.inside` says whether the optimum lies in it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ConfigError
from ratoon.laws.form import Array, Form, Inputs, Law, centre

TERMS = ("b0", "br", "by", "brr", "bry", "byy")
DRAWS = 2000  # surfaces drawn for an interval: its ends are then steady to about a tenth of its width
# Of the largest singular value of terms over -1..1: what rates written to three digits leave of a lost direction is
# below it, a sweep of which two levels lie a fiftieth apart above.
FLAT = 1e-3


class Surface(NamedTuple):
    b0: float
    br: float
    by: float
    brr: float
    bry: float
    byy: float
    lr0: float

    def loss(self, r: ArrayLike, lr: ArrayLike) -> Array:
        r, y = np.asarray(r, dtype=float), np.log(np.asarray(lr, dtype=float) / self.lr0)
        return np.asarray(self.b0 + self.br * r + self.by * y + self.brr * r**2 + self.bry * r * y + self.byy * y**2)

    def optimum(self) -> tuple[float, float] | None:
        """(r, lr) of least loss. None: the surface has no minimum (it falls along some direction for ever)."""
        found = _bottom(np.array([self[:6]]))[0]
        return None if np.isnan(found[0]) else (float(found[0]), float(self.lr0 * np.exp(found[1])))

    def ridge(self, lr: ArrayLike) -> Array:
        """The best share at each learning rate, not clipped to 0..1."""
        self._refuse_dome(self.brr, "share")
        y = np.log(np.asarray(lr, dtype=float) / self.lr0)
        return np.asarray(-(self.br + self.bry * y) / (2 * self.brr))

    def rate(self, r: ArrayLike) -> Array:
        """The best learning rate at each share."""
        self._refuse_dome(self.byy, "learning rate")
        return np.asarray(self.lr0 * np.exp(-(self.by + self.bry * np.asarray(r, dtype=float)) / (2 * self.byy)))

    def _refuse_dome(self, curvature: float, along: str) -> None:
        if curvature <= 0:
            raise ConfigError(
                f"almr: loss bends downwards along the {along} (curvature {curvature:.3g}), so no {along} is best; "
                f"widen the sweep until its ends are worse than its middle"
            )


def _bottom(b: Array) -> Array:
    """(R, 2): r and y where each of R surfaces has its minimum; NaN where it has none."""
    _, br, by, brr, bry, byy = b.T
    determinant = 4 * brr * byy - bry**2
    bowl = (determinant > 0) & (brr > 0)
    with np.errstate(all="ignore"):
        found = np.stack([bry * by - 2 * byy * br, bry * br - 2 * brr * by], axis=1) / determinant[:, None]
    return np.where(bowl[:, None], found, np.nan)


@dataclass(frozen=True)
class Response:
    """A surface with its evidence. Intervals are of the optimum; None where the sweep has no sure minimum."""

    surface: Surface
    optimum: tuple[float, float] | None
    share: tuple[float, float] | None
    rate: tuple[float, float] | None
    bowls: float  # share of the surfaces compatible with the noise that have a minimum
    inside: bool  # the optimum lies within the ranges swept
    noise: float  # nats: residual standard deviation, for the parameters spent


def respond(r: ArrayLike, lr: ArrayLike, loss: ArrayLike, *, level: float = 0.9, seed: int = 0) -> Response:
    """Least squares, and the central `level` interval of the optimum over surfaces drawn from their t distribution.

    Needs more than six runs at three or more shares and learning rates that do not lie on one conic.
    """
    r, lr, L = (np.asarray(x, dtype=float) for x in (r, lr, loss))
    _refuse(r, lr, L)
    refuse_flat(r, lr)
    lr0 = centre(lr)
    X = terms(r, np.log(lr / lr0))
    b = np.linalg.lstsq(X, L, rcond=None)[0]
    freedom = len(L) - X.shape[1]
    noise = float(np.sqrt(np.sum((X @ b - L) ** 2) / freedom))
    random = np.random.default_rng(seed)
    root = np.linalg.cholesky(np.linalg.inv(X.T @ X))
    stretch = noise * np.sqrt(freedom / random.chisquare(freedom, (DRAWS, 1)))
    drawn = _bottom(b + stretch * random.normal(size=(DRAWS, X.shape[1])) @ root.T)
    bowls = ~np.isnan(drawn[:, 0])
    surface = Surface(**dict(zip(TERMS, b.tolist(), strict=True)), lr0=lr0)
    best = surface.optimum()
    # An interval over the bowls alone would hide that some surfaces have no minimum at all.
    tail = (1 - level) / 2
    sure = best is not None and bowls.mean() >= 1 - tail
    ends = np.quantile(drawn[bowls], [tail, 1 - tail], axis=0) if sure else None
    return Response(
        surface=surface,
        optimum=best,
        share=None if ends is None else (float(ends[0, 0]), float(ends[1, 0])),
        rate=None if ends is None else (float(lr0 * np.exp(ends[0, 1])), float(lr0 * np.exp(ends[1, 1]))),
        bowls=float(bowls.mean()),
        inside=best is not None and bool(r.min() <= best[0] <= r.max() and lr.min() <= best[1] <= lr.max()),
        noise=noise,
    )


def _refuse(r: Array, lr: Array, loss: Array) -> None:
    if not all(np.isfinite(x).all() for x in (r, lr, loss)) or (lr <= 0).any() or (r < 0).any() or (r > 1).any():
        raise ConfigError("almr: shares must lie in 0..1, learning rates above 0, and every loss be a number")
    if len(loss) <= len(TERMS):
        raise ConfigError(
            f"almr: {len(loss)} runs leave nothing to judge the noise of a surface with {len(TERMS)} coefficients; "
            f"run at least {len(TERMS) + 1}, better a crossed grid of 3 x 3"
        )


def refuse_flat(r: Array, lr: Array) -> None:
    """Runs on one conic, such as a cross, or rates that go with the shares: many surfaces fit these alike."""
    if (lr <= 0).any():
        raise ConfigError(f"almr: learning rates run from {lr.min():g} to {lr.max():g}; each must be above 0")
    spread = terms(_across(r), _across(np.log(lr)))
    if np.linalg.matrix_rank(spread, rtol=FLAT) < len(TERMS):
        raise ConfigError(
            f"almr: {len(r)} runs at {len(np.unique(r))} shares and {len(np.unique(lr))} learning rates do not span a "
            f"quadratic surface; sweep three of each, crossed"
        )


def _across(values: Array) -> Array:
    """Over -1..1: how far apart the levels lie is no reason to call them one."""
    low, high = values.min(), values.max()
    return np.asarray((2 * values - low - high) / (high - low) if high > low else np.zeros_like(values))


def terms(r: Array, y: Array) -> Array:
    """(n, 6)"""
    return np.stack([np.ones_like(r), r, y, r**2, r * y, y**2], axis=1)


def frame(inputs: Inputs, reach: Inputs | None = None) -> float:
    refuse_flat(inputs["r"], inputs["lr"])
    return centre(inputs["lr"])


def columns(theta: Array, inputs: Inputs, lr0: float) -> Array:
    found = terms(inputs["r"], np.log(inputs["lr"] / lr0))
    return np.broadcast_to(found, (len(theta), *found.shape)).copy()


def build(theta: Array, coefficients: Array, lr0: float) -> Law:
    return Surface(**dict(zip(TERMS, coefficients.tolist(), strict=True)), lr0=lr0)


# All linear: the fit has nothing to search for, and is robust regression.
FORM = Form(
    name="almr",
    inputs=("r", "lr"),
    linear=TERMS,
    exponents={},
    frame=frame,
    columns=columns,
    build=build,
    free=frozenset(TERMS),
    spans_sizes=False,
)
