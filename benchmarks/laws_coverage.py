"""Do intervals hold the truth as often as they say? Simulated studies of planted laws.

    OMP_NUM_THREADS=1 python benchmarks/laws_coverage.py --studies 2000

Every study plants a law of its own, measures it through noise on a grid and asks for a longer run: its loss, and r*,
the largest domain share whose general loss is under a ceiling. Noise is of two kinds, each of 0.0005 to 0.004 nats:
the luck of a run, shared by its checkpoints, and that of each measurement.

    demo   2 sizes x 6 ratios x 4 run lengths up to 4e5 tokens; asked for 3 times the longest
    paper  3 sizes x 9 ratios x 5 run lengths up to 20e9 tokens (arXiv:2406.01375); asked for twice the longest, and
           where the law spans sizes for 1.75 times the largest model

dcpt, warm and cmr truths have exponents anywhere in the ranges below and are fitted with their own form. `unknown` has
the form of no law here: pretraining that goes on and a shift that saturates (in the manner of arXiv:2505.07796); it is
asked of the law `ratoon choose` believes, without its doubt of the form (choose.form_doubt: 0). `doubted` is the same
with that doubt, as `ratoon choose` answers.

Printed: how often 90% intervals of the loss at r*, of r* and of the parameters hold the truth, how often it lies below
and above them, bias over spread (medians), median widths; the same of the parameters that four studies of five
identify, and the largest bias of one of them; how often the law was doubted; seconds of processor. A parameter's
interval that does not close ends where its declared range does, where no truth lies beyond: each side that closes may
miss one truth in twenty, and `due` is what that comes to.
"""

import argparse
import time
from collections.abc import Iterable
from statistics import NormalDist
from typing import NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ChooseConfig, ConfigError, Role
from ratoon.laws.decision.believe import believe, crossing
from ratoon.laws.equations import cmr, dcpt, warm
from ratoon.laws.fitting.fit import fit
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Array, Form, Law
from ratoon.laws.intervals.forecast import Forecast, forecast
from ratoon.laws.intervals.profile import profile
from ratoon.records import Observation

NOISE = (0.0005, 0.004)  # nats
SHARES = np.linspace(0.01, 0.99, 99)
ASKED = (0.25, 0.75)  # r*
TAILS = (0.05, 0.95)
REPLICATES = 400
OFTEN = 0.8  # of studies in which a parameter is identified, for runs like these to identify it
PROFILED = 4  # every so many studies: parameters take as long as all else
UNKNOWN = ("unknown", "doubted")
UNKNOWN_PART = 1 / 3  # of the studies of another cell: they take six times as long


class Truth(Protocol):
    def loss(self, N: ArrayLike, D: ArrayLike, r: ArrayLike) -> Array: ...


class Grid(NamedTuple):
    sizes: tuple[float, ...]
    lengths: tuple[float, ...]
    shares: tuple[float, ...]  # of domain text
    size: float  # of the target, where the law spans sizes
    tokens: float


GRIDS = {
    "demo": Grid((4e4, 1.6e5), (5e4, 1e5, 2e5, 4e5), (0.1, 0.25, 0.4, 0.55, 0.7, 1.0), 1.6e5, 1.2e6),
    "paper": Grid(
        (0.5e9, 1.8e9, 4e9),
        tuple(np.geomspace(1e9, 20e9, 5).tolist()),
        (0.0, 0.1, 0.2, 1 / 3, 0.5, 2 / 3, 0.8, 0.9, 1.0),
        7e9,
        40e9,
    ),
}
FORMS = {"dcpt": dcpt.FORM, "warm": warm.FORM, "cmr": cmr.FORM}
# Log-uniform: exponents over what is published of them or, where nothing is, over the whole of the declared range;
# coefficients in nats at the runs' own scales.
PLANTED = {
    "dcpt": {"a": (0.2, 0.5), "n": (0.5, 1.5), "b": (0.15, 0.6), "e": (0.03, 0.3), "c": (0.2, 1.5)},
    "warm": {"s": (0.1, 1.5), "t": (0.1, 1.5), "D0": (0.1, 10.0)},
    "cmr": {"s": (0.1, 1.5), "p": (np.exp(-1.0), np.exp(0.4))},
}
SIZED = {
    "dcpt": {"E": (1.5, 2.5), "A": (0.1, 0.4), "B": (0.02, 0.15), "C": (0.05, 0.3)},
    "warm": {"base": (2.0, 3.0), "first": (0.1, 0.5), "last": (0.2, 0.8), "own": (0.1, 0.6)},
    "cmr": {"base": (2.0, 3.0), "first": (0.1, 0.5), "last": (0.2, 0.8), "own": (0.1, 0.6)},
}


def draw(random: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


class Points(NamedTuple):
    N: Array
    D: Array
    share: Array

    @property
    def groups(self) -> list[str]:
        return [f"{N:g}-{share:.3f}" for N, share in zip(self.N, self.share, strict=True)]

    @property
    def inputs(self) -> dict[str, Array]:
        return {"N": self.N, "D": self.D, "r": 1 - self.share}


def points(form: Form | None, grid: Grid) -> Points:
    """The rows this law is fitted on; None: all."""
    sizes = grid.sizes if form is None or form.spans_sizes else grid.sizes[-1:]
    mesh = np.meshgrid(sizes, grid.lengths, grid.shares, indexing="ij")
    found = Points(*(axis.ravel() for axis in mesh))
    seen = (found.share < 1) | (form is None or form.speaks_at_zero)
    return Points(found.N[seen], found.D[seen], found.share[seen])


def plant(
    name: str, form: Form, at: Points, reach: dict[str, Array], random: np.random.Generator
) -> tuple[Law, list[float]]:
    """A law and its exponents, inside the form: what the runs cannot decide is as the form settles it."""
    settled = form.settle(at.inputs).exponents
    theta = [settled.get(key, draw(random, *PLANTED[name][key])) for key in form.exponents]
    coefficients = [draw(random, *SIZED[name][key]) for key in form.linear]
    return form.build(np.array(theta), np.array(coefficients), form.frame(at.inputs, reach)), theta


def measure(exact: Array, groups: Iterable[str], random: np.random.Generator) -> Array:
    _, member = np.unique(list(groups), return_inverse=True)
    luck = random.normal(0, draw(random, *NOISE), member.max() + 1)
    return np.asarray(exact + luck[member] + random.normal(0, draw(random, *NOISE), len(exact)))


class Parameter(NamedTuple):
    name: str
    identified: bool
    closed: int  # sides of its interval
    told: tuple[float, float, float, float]  # truth, estimate, low, high


class Answer(NamedTuple):
    """Of one study; truths, best estimates and 90% intervals."""

    loss: tuple[float, float, float, float]  # truth, estimate, low, high
    share: tuple[float, float, float, float]
    doubted: bool  # misfit was seen
    parameters: tuple[Parameter, ...] = ()


def answer(truth: Truth, right: float, size: float, tokens: float, curves: Array, best: Array, doubted: bool) -> Answer:
    """curves (R, shares) and best (shares,) of general loss."""
    ceiling = float(truth.loss(size, tokens, 1 - right))
    at = int(np.abs(SHARES - right).argmin())
    exact = float(truth.loss(size, tokens, 1 - SHARES[at]))
    low, high = np.quantile(curves[:, at], TAILS)
    found = np.maximum(crossing(SHARES, curves, ceiling), 0.0)
    least, most = np.quantile(found, TAILS)
    return Answer(
        (exact, float(best[at]), float(low), float(high)),
        (right, float(crossing(SHARES, best[None], ceiling)[0]), float(least), float(most)),
        doubted,
    )


def own_form(name: str, grid: Grid, seed: int) -> Answer:
    form, random = FORMS[name], np.random.default_rng(seed)
    at = points(form, grid)
    size = grid.size if form.spans_sizes else grid.sizes[-1]
    reach = {"N": np.array([size]), "D": np.array([grid.tokens])}
    truth, theta = plant(name, form, at, reach, random)
    losses = measure(truth.loss(at.N, at.D, 1 - at.share), at.groups, random)
    fitted = fit(form, at.inputs, losses, reach=reach, seed=seed)
    runs = Runs.gather(at.inputs, losses)
    drawn = forecast(fitted, runs, at.groups, tokens=grid.tokens, replicates=REPLICATES, seed=seed)
    curves = drawn.draws(size, grid.tokens, 1 - SHARES)
    best = fitted.loss(size, grid.tokens, 1 - SHARES)
    right = random.uniform(*ASKED)
    found = answer(truth, right, size, grid.tokens, curves, best, doubts(drawn))
    if seed % PROFILED:
        return found
    exact = {**dict(zip(form.exponents, theta, strict=True)), **truth._asdict()}
    return found._replace(
        parameters=tuple(
            Parameter(
                one.name,
                one.identified,
                one.closes_below + one.closes_above,
                (exact[one.name], one.value, one.low, one.high),
            )
            for one in profile(fitted, runs, at.groups, seed=seed)
        )
    )


class Unknown(NamedTuple):
    """Pretraining that goes on, and a shift that saturates."""

    role: Role
    longest: float
    largest: float
    shift: float
    pace: float
    bend: float
    guard: float

    def loss(self, N: ArrayLike, D: ArrayLike, r: ArrayLike) -> Array:
        size = 0.2 * np.log(self.largest / np.asarray(N)) / np.log(4)
        seen, own = 4 * np.asarray(D) / self.longest, np.asarray(r)
        if self.role == "general":
            moved = self.shift * (1 - (1 + self.pace * seen) ** -self.bend) * np.exp(-self.guard * own)
            return np.asarray(2.2 + size + 2.05 * (16 + own * seen) ** -0.1 + moved)
        return np.asarray(2.4 + size + 1.9 * (1 + self.pace * 0.6 * own * seen) ** -0.22)


def unknown(name: str, grid: Grid, seed: int) -> Answer:
    random = np.random.default_rng(seed)
    shape = (draw(random, 0.4, 1.0), draw(random, 3, 20), draw(random, 0.15, 0.5), draw(random, 2, 6))
    size, rows = grid.sizes[-1], []
    truths = {role: Unknown(role, grid.lengths[-1], size, *shape) for role in get_args(Role)}
    at = points(None, grid)
    for role, truth in truths.items():
        own = 1 - at.share if role == "general" else at.share
        losses = measure(truth.loss(at.N, at.D, own), at.groups, random)
        rows += [observation(*x, role) for x in zip(at.N, at.D, at.share, losses, strict=True)]
    doubt = {} if name == "doubted" else {"form_doubt": 0.0}
    config = ChooseConfig.model_validate({"bootstrap": REPLICATES, "seed": seed, "extrapolate": True, **doubt})
    believed = believe(rows, int(size), int(grid.tokens), config)
    curves, best = believed.draws("general", SHARES), believed.best("general", SHARES)
    doubted = doubts(believed.voices["general"][0].forecast)
    return answer(truths["general"], random.uniform(*ASKED), size, grid.tokens, curves, best, doubted)


def doubts(drawn: Forecast) -> bool:
    """Whether the law is more likely wrong than right."""
    bent = 0.0 if drawn.noise is None else float((drawn.noise.bend > 0).mean())
    return bent > 0.5 or any(one.beyond > 0 for one in drawn.excesses)


def observation(N: float, D: float, share: float, loss: float, role: Role) -> Observation:
    return Observation(
        run=f"{N:g}-{share:.3f}-{D:.0f}",
        group=f"{N:g}-{share:.3f}",
        commit=None,
        config="",
        model="proxy",
        params_non_embedding=int(N),
        tokens=int(D),
        share=share,
        learning_rate=1e-3,
        step=1,
        finished=True,
        evaluated=role,
        role=role,
        loss_nats=loss,
        bits_per_byte=None,
    )


def covered(quads: Array) -> str:
    """(S, 4) truth, estimate, low, high."""
    truth, _, low, high = quads.T
    below, above = float((truth < low).mean()), float((truth > high).mean())
    return f"{1 - below - above:.3f} (-{below:.3f} +{above:.3f}) bias {bias(quads):+.2f}"


def bias(quads: Array) -> float:
    """Spreads differ from study to study: errors are counted in their own, and their median taken."""
    truth, estimate, low, high = quads.T
    spread = (high - low) / (2 * NormalDist().inv_cdf(TAILS[1]))
    return float(np.median((estimate - truth) / np.maximum(spread, 1e-300)))


def told(parameters: list[Parameter]) -> str:
    """Of all, since an interval that does not close is one too; and which of them runs like these identify."""
    if not parameters:
        return "none"
    names = list(dict.fromkeys(one.name for one in parameters))
    quads = {name: np.array([one.told for one in parameters if one.name == name]) for name in names}
    due = 1 - TAILS[0] * float(np.mean([one.closed for one in parameters]))
    whole = f"{covered(np.concatenate(list(quads.values())))} due {due:.3f} of {len(parameters)}"
    often = [name for name in names if np.mean([one.identified for one in parameters if one.name == name]) > OFTEN]
    if not often:
        return f"{whole}, identified none"
    worst = max(often, key=lambda name: abs(bias(quads[name])))
    identified = covered(np.concatenate([quads[name] for name in often]))
    return f"{whole}, identified ({', '.join(often)}) {identified}, of {worst} {bias(quads[worst]):+.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000, help="in all, shared evenly")
    parser.add_argument("--truth", choices=[*FORMS, *UNKNOWN], nargs="*", default=[*FORMS, *UNKNOWN])
    parser.add_argument("--grid", choices=list(GRIDS), nargs="*", default=list(GRIDS))
    parser.add_argument("--first", type=int, default=0, help="seed of the first study of each cell")
    options = parser.parse_args()
    cells = [(name, where) for name in options.truth for where in options.grid]
    shares = {cell: UNKNOWN_PART if cell[0] in UNKNOWN else 1.0 for cell in cells}
    for name, where in cells:
        begun, found = time.process_time(), []
        each = round(options.studies * shares[name, where] / sum(shares.values()))
        for seed in range(options.first, options.first + each):
            try:
                found.append((unknown if name in UNKNOWN else own_form)(name, GRIDS[where], seed))
            except ConfigError as error:
                print(f"  refused: {error}")
        loss, share = np.array([one.loss for one in found]), np.array([one.share for one in found])
        print(
            f"{name:8}{where:6}{len(found):5}  loss {covered(loss)} width {np.median(loss[:, 3] - loss[:, 2]):.4f}  "
            f"r* {covered(share)} width {np.median(share[:, 3] - share[:, 2]):.3f}  "
            f"parameters {told([each for one in found for each in one.parameters])}  "
            f"doubted {np.mean([one.doubted for one in found]):.2f}  refused {each - len(found)}  "
            f"{time.process_time() - begun:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
