"""How near to the full grid's answer 40% of its tokens can come: the least any choice of runs leaves.

    python benchmarks/laws_design_floor.py

For the planted truths of laws_design.py whose form is known, to first order: estimates are those of generalised least
squares under the ranges the forms declare (the Cramer-Rao bound in its Bayesian form, van Trees 1968), as
design/posed.py takes them.
r* is moved by its gradient, dr*/dtheta = -(dL/dtheta)/(dL/dr). Designs are searched for the least root mean square of
(r* of the design - r* of the grid): runs that both have share their noise, as they do there. Exchange of runs from
many random designs, each run a share and a length as `laws.design.next_run.options` gives them.

Columns are medians, 0.6745 of the root mean square:
    apart      two full grids, by this theory: compare with `grids apart` of laws_design.py, which simulates
    any        the best design of 40% of the tokens, chosen knowing the truth
    after      the best one that begins with the runs laws_design.py begins with
and `sure` is how often the best design would come within 0.02.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from laws_design import (
    BUDGET,
    DECAY,
    HORIZONS,
    LONGEST,
    OWN,
    RATIOS,
    START,
    WITHIN,
    begin,
    cmr_like,
    dcpt_like,
    warm_like,
)

from ratoon.laws.design.posed import REACH
from ratoon.laws.form import Array

UNIT = 1e5  # tokens
MEDIAN = NormalDist().inv_cdf(0.75)
VAGUE = 3.0  # nats, of a coefficient beforehand
STEP = 1e-4
RESTARTS = 24

Loss = Callable[[Array, Array, Array], Array]  # parameters, tokens in units, own share
Run = tuple[float, int]  # domain share, number of horizons


class Known(NamedTuple):
    """A planted truth, written in its parameters: coefficients, then exponents on the scale they are searched on."""

    name: str
    loss: Loss
    truth: tuple[float, ...]
    widths: tuple[float, ...]  # of the declared range of each exponent, on that scale
    planted: Callable[..., float]

    @property
    def prior(self) -> Array:
        """Precision: as weak as design/posed.py takes it."""
        vague = [VAGUE] * (len(self.truth) - len(self.widths))
        return np.diag(np.array([*vague, *(width / 2 / REACH for width in self.widths)]) ** -2.0)


def dcpt(x: Array, D: Array, own: Array) -> Array:
    E, B, C, n, b, e, c = *x[:3], *np.exp(x[3:])
    return np.asarray(E + B * own**n * D**-b + C * (own + e) ** -c)


def warm(x: Array, D: Array, own: Array) -> Array:
    s, t, start = np.exp(x[4:])
    tokens = (1 + D / start) ** -t
    return np.asarray(x[0] + x[1] * tokens + (x[2] + x[3] * tokens) * own**s)


def cmr(x: Array, D: Array, own: Array) -> Array:
    tokens = D ** x[5]
    return np.asarray(x[0] + x[1] * tokens + (x[2] + x[3] * tokens) * own ** np.exp(x[4]))


def log_width(low: float, high: float) -> float:
    return float(np.log(high / low))


SIZE = OWN / 1e5
KNOWN = (
    Known(
        "dcpt_like",
        dcpt,
        (2.9 + 0.4 * SIZE**-0.34, 0.05, 0.16, *np.log([1.0, 0.4, 0.15, 0.5])),
        (log_width(0.05, 4), log_width(0.05, 1.5), log_width(1e-3, 1), log_width(0.05, 4)),
        dcpt_like,
    ),
    Known(
        "warm_like",
        warm,
        (3.75, 0.0, -0.65, 0.5, *np.log([0.3, 0.5, 3.0])),
        (log_width(0.05, 3), log_width(0.1, 1.5), log_width(0.01, 10)),
        warm_like,
    ),
    Known(
        "cmr_like",
        cmr,
        (3.5, 0.05, -0.9, 0.45, np.log(0.3), -0.2),
        (log_width(0.05, 3), 2.5),
        cmr_like,
    ),
)


def gradient(one: Known, D: Array, own: Array) -> Array:
    """(n, p)."""
    truth = np.array(one.truth)
    steps = STEP * np.eye(len(truth))
    return np.stack([(one.loss(truth + h, D, own) - one.loss(truth - h, D, own)) / (2 * STEP) for h in steps], axis=1)


@cache
def tokens_of(run: Run) -> float:
    lengths = HORIZONS[: run[1]]
    return (1 - DECAY) * max(lengths) + DECAY * sum(lengths)


@dataclass
class Table:
    """What every run tells, and how r* moves: information (p, p) of a run is of its losses under luck and noise."""

    one: Known
    noise: float
    right: float
    stretch: float

    def __post_init__(self) -> None:
        shares = sorted({round(0.05 * k, 2) for k in range(1, 20)} | {x for x in RATIOS if x < 1})
        self.told = {(share, k + 1): self.information(share, k + 1) for share in shares for k in range(len(HORIZONS))}
        at, D = np.array([1 - self.right]), np.array([self.stretch * LONGEST / UNIT])
        rise = (self.loss_at(D, at - STEP) - self.loss_at(D, at + STEP)) / (2 * STEP)
        self.pull = -gradient(self.one, D, at)[0] / rise[0]
        self.grid = self.sum([(share, len(HORIZONS)) for share in RATIOS if share < 1])

    def loss_at(self, D: Array, own: Array) -> Array:
        return self.one.loss(np.array(self.one.truth), D, own)

    def information(self, share: float, length: int) -> Array:
        D = np.array(HORIZONS[:length]) / UNIT
        slopes = gradient(self.one, D, np.full(length, 1 - share))
        covariance = self.noise**2 * (np.eye(length) + 1)
        return np.asarray(slopes.T @ np.linalg.solve(covariance, slopes))

    def sum(self, runs: Sequence[Run]) -> Array:
        return np.asarray(np.sum([self.told[run] for run in runs], axis=0))

    def apart(self, runs: Sequence[Run], more: Sequence[Run], prior: Array) -> Array:
        """(more,) root mean square of what r* is from the grid's, for `runs` and one more each."""
        empty = np.zeros_like(prior)
        mine = np.stack([self.told[run] for run in more]) + sum((self.told[run] for run in runs), empty)
        common = np.stack([self.told[run] * (run[0] in RATIOS) for run in more])
        common = common + sum((self.told[run] for run in runs if run[0] in RATIOS), empty)
        grid = np.linalg.solve(self.grid + prior, self.pull)
        design = np.linalg.solve(mine + prior, np.broadcast_to(self.pull, mine.shape[:2])[..., None])[..., 0]
        noise = ((mine @ design[..., None])[..., 0] * design).sum(axis=1) + grid @ self.grid @ grid
        noise = noise - 2 * ((common @ grid) * design).sum(axis=1)
        drawn = ((design - grid) @ prior * (design - grid)).sum(axis=1)  # one is pulled further to the ranges' middle
        return np.asarray(np.sqrt(np.maximum(np.nan_to_num(noise + drawn, nan=np.inf), 0.0)))

    def grids_apart(self, prior: Array) -> float:
        grid = np.linalg.solve(self.grid + prior, self.pull)
        return float(np.sqrt(2 * grid @ self.grid @ grid))

    def best(self, prior: Array, forced: Sequence[Run] = ()) -> tuple[float, list[Run]]:
        random = np.random.default_rng(0)
        most = BUDGET * len(RATIOS) * tokens_of((0.0, len(HORIZONS)))
        found = [
            self.exchange(self.fill(list(forced), most, random), len(forced), most, prior) for _ in range(RESTARTS)
        ]
        return min(found, key=lambda pair: pair[0])

    def fill(self, made: list[Run], most: float, random: np.random.Generator) -> list[Run]:
        for k in random.permutation(len(self.told)):
            run = list(self.told)[k]
            if self.open_to(made, run) and sum(map(tokens_of, made)) + tokens_of(run) <= most:
                made.append(run)
        return made

    def open_to(self, made: Sequence[Run], run: Run) -> bool:
        return all(run[0] != other[0] for other in made)

    def exchange(self, made: list[Run], kept: int, most: float, prior: Array) -> tuple[float, list[Run]]:
        """The best of all single additions and exchanges, until none is better."""
        least = float(self.apart(made[:-1], made[-1:], prior)[0])
        while True:
            tried: list[tuple[float, list[Run]]] = []
            for k in [None, *range(kept, len(made))]:
                rest = [run for j, run in enumerate(made) if j != k]
                spent = sum(map(tokens_of, rest))
                more = [run for run in self.told if spent + tokens_of(run) <= most and self.open_to(rest, run)]
                if more:
                    found = self.apart(rest, more, prior)
                    tried.append((float(found.min()), [*rest, more[int(found.argmin())]]))
            best = min(tried, key=lambda pair: pair[0], default=(np.inf, made))
            if best[0] > least * (1 - 1e-6):
                return least, made
            least, made = best


def check(one: Known) -> None:
    """What is written here in parameters is what is planted there."""
    for tokens, own in itertools.product(HORIZONS, (0.1, 0.5, 0.9)):
        mine = one.loss(np.array(one.truth), np.array([tokens / UNIT]), np.array([own]))[0]
        if abs(mine - one.planted("general", OWN, tokens, own)) > 1e-9:
            raise SystemExit(f"{one.name}: {mine} is not the planted {one.planted('general', OWN, tokens, own)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", type=float, nargs="*", default=[0.002, 0.0005], help="nats, of a trunk and of a run")
    parser.add_argument("--shares", type=float, nargs="*", default=[0.4, 0.7])
    parser.add_argument("--stretch", type=float, default=3.0)
    asked = parser.parse_args()
    most = BUDGET * len(RATIOS) * tokens_of((0.0, len(HORIZONS)))
    start = [(one.share, len(one.horizons)) for one in begin(START, OWN, HORIZONS, most)]
    for one, share, noise in itertools.product(KNOWN, asked.shares, asked.noise):
        check(one)
        table = Table(one, noise, share, asked.stretch)
        prior = one.prior
        free, runs = table.best(prior)
        after, _ = table.best(prior, start)
        sure = 2 * NormalDist().cdf(WITHIN / max(free, 1e-12)) - 1
        print(
            f"{one.name:10} r* {share:.2f} noise {noise:g}  apart {MEDIAN * table.grids_apart(prior):.3f}  "
            f"any {MEDIAN * free:.3f}  after {MEDIAN * after:.3f}  sure {sure:.0%}  "
            + ", ".join(f"{x:g} to {HORIZONS[k - 1]}" for x, k in sorted(runs)),
            flush=True,
        )


if __name__ == "__main__":
    main()
