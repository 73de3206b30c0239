"""Do intervals of a domain nobody has swept hold the truth as often as they say? Simulated studies.

    OMP_NUM_THREADS=1 python benchmarks/laws_transfer.py --studies 60

Every study plants a cross-domain law and domains of its own, sweeps all but one of them (two sizes x three lengths x
five shares), probes each (twenty losses over the first percent) and foretells the one that was not swept at the
largest size, twice the longest run and three shares. Trunks have luck and measurements noise, 0.0005 to 0.002 relative
each, probes 0.00005 to 0.0002, and every domain has a level of its own that no probe tells: 0, 0.5% or 2%. `--few`
gives the new domain four short runs of its own.

Printed per number of known domains and level: how often 90% intervals hold the truth, how often it lies below and above
them, the median width over the loss and the median error.
"""

import argparse
import itertools

import numpy as np

from ratoon.laws.design.transfer import Domain, Transfer, transfer
from ratoon.laws.equations.crossdomain import CrossDomain
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Array

SIZES, LENGTHS, SHARES = (5e8, 2e9), (1e9, 4e9, 1.6e10), (0.1, 0.25, 0.5, 0.75, 1.0)
ASKED = (2e9, 3.2e10, np.array([0.2, 0.4, 0.8]))
PROBED = np.linspace(0, 1.6e8, 20) + 1e6  # tokens: one percent of the longest run
TAILS = [0.05, 0.95]


def between(random: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def plant(random: np.random.Generator) -> CrossDomain:
    ranges = {
        "E": (0.8, 1.5), "A": (0.03, 0.08), "a": (0.34, 0.340001), "B": (0.01, 0.03), "n": (0.5, 1.0),
        "b": (0.25, 0.5), "C": (0.1, 0.2), "e": (0.04, 0.1), "c": (0.3, 0.6), "F": (0.4, 1.0), "m": (0.7, 1.5),
        "w1": (0.8, 1.6), "w2": (2.0, 4.0),
    }  # fmt: skip
    return CrossDomain(**{name: between(random, *ends) for name, ends in ranges.items()})


def probe(features: tuple[float, float], noise: float, random: np.random.Generator) -> Array:
    exact = features[0] - features[1] * (PROBED - PROBED[0]) / 1e9
    return np.asarray(exact * (1 + noise * random.normal(size=len(PROBED))))


def swept(
    truth: CrossDomain, features: tuple[float, float], level: float, noises: tuple[float, float], lengths: tuple,
    random: np.random.Generator,
) -> Runs:  # fmt: skip
    N, D, r = np.array(list(itertools.product(SIZES, lengths, SHARES))).T
    _, trunk = np.unique([f"{n:g} {x:g}" for n, x in zip(N, r, strict=True)], return_inverse=True)
    luck = random.normal(0, noises[0], trunk.max() + 1)[trunk]
    rest = random.normal(0, noises[1], len(N))
    return Runs.of(N, D, r, truth.loss(N, D, r, *features) * np.exp(level + luck + rest))


def study(known: int, scatter: float, few: bool, seed: int) -> tuple[Array, Transfer]:
    """(shares, 4) truth, estimate, low, high."""
    random = np.random.default_rng([seed, known, round(1e4 * scatter)])
    truth = plant(random)
    features = [(between(random, 1.2, 2.8), between(random, 0.1, 0.3)) for _ in range(known + 1)]
    levels = random.normal(0, scatter, known + 1) if scatter else np.zeros(known + 1)
    noises, rough = (between(random, 5e-4, 2e-3), between(random, 5e-4, 2e-3)), between(random, 5e-5, 2e-4)
    domains = [
        Domain(f"d{k}", swept(truth, at, levels[k], noises, LENGTHS, random), PROBED, probe(at, rough, random))
        for k, at in enumerate(features)
    ]
    new = features[-1]
    own = swept(truth, new, levels[-1], noises, LENGTHS[:1], random)
    short = own.where((own.params == SIZES[0]) & (own.own < 1)) if few else None
    found = transfer(domains[:-1], PROBED, domains[-1].probe_losses, few=short, reach={"D": ASKED[1]}, seed=seed)
    drawn = found.draws(*ASKED)
    assert drawn is not None
    low, high = np.quantile(drawn, TAILS, axis=0)
    exact = truth.loss(*ASKED, *new) * np.exp(levels[-1])
    return np.stack([exact, found.loss(*ASKED), low, high], axis=1), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=60, help="per cell")
    parser.add_argument("--known", type=int, nargs="*", default=[4, 5, 6, 8])
    parser.add_argument("--scatter", type=float, nargs="*", default=[0.0, 0.005, 0.02])
    parser.add_argument("--few", action="store_true", help="the new domain has four short runs of its own")
    asked = parser.parse_args()
    for known, scatter in itertools.product(asked.known, asked.scatter):
        quads = np.stack([study(known, scatter, asked.few, seed)[0] for seed in range(asked.studies)])
        truth, best, low, high = np.moveaxis(quads, 2, 0)
        below, above = (truth < low).mean(), (truth > high).mean()
        print(
            f"{known} domains, own levels {scatter:.1%}: {1 - below - above:.3f} (-{below:.3f} +{above:.3f}) of "
            f"{asked.studies} x {len(ASKED[2])}, width {np.median((high - low) / truth):.2%}, error "
            f"{np.median(np.abs(best / truth - 1)):.2%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
