"""Does the choice between regressors of mixtures know which will rank mixtures it has never seen?

    python benchmarks/laws_regmix.py
    python benchmarks/laws_regmix.py --losses pile_cc --peer

RegMix's published runs (arXiv:2407.01492): 512 mixtures of 17 domains with 13 losses each to fit and to choose by,
256 more that are looked at once, after the choice. Per candidate: held-out errors on the 512 (parts of a loss's
standard deviation, at random and by regions of mixtures) and their score; then Spearman's correlation on the 256,
the candidate that was picked marked. Last how often its 90% intervals hold the losses of the 256.
`--peer` adds LightGBM at the source's settings less their early stop on the test rows, where it is installed.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from ratoon.laws.form import Array
from ratoon.laws.mixtures.choose import OTHER_DRAWS, redraw, widened
from ratoon.laws.mixtures.runs import MixtureRuns
from ratoon.laws.mixtures.validate import Comparison, compare

TABLES = Path(__file__).parents[2] / "shared" / "published"
ROUNDED = 1e-3  # the step the published shares were rounded to


def read(path: Path, losses: list[str]) -> MixtureRuns:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    domains = [name.removeprefix("mix_") for name in rows[0] if name.startswith("mix_")]
    chosen = losses or [name.removeprefix("loss_") for name in rows[0] if name.startswith("loss_")]
    shares = [[float(row[f"mix_{name}"]) for name in domains] for row in rows]
    found = [[float(row[f"loss_{name}"]) for name in chosen] for row in rows]
    return MixtureRuns.gather(domains, chosen, shares, found, rounding=ROUNDED)


def ranks(predicted: Array, measured: Array) -> list[float]:
    return [float(spearmanr(a, b)[0]) for a, b in zip(predicted.T, measured.T, strict=True)]


def peer(train: MixtureRuns, test: MixtureRuns) -> Array | None:
    """LightGBM's predictions for the test mixtures; None where it is not installed."""
    try:
        import lightgbm
    except ImportError:
        return None
    settings = {"learning_rate": 0.01, "n_estimators": 1000, "seed": 42, "verbose": -1, "n_jobs": 1}
    return np.stack(
        [lightgbm.LGBMRegressor(**settings).fit(train.shares, loss).predict(test.shares) for loss in train.losses.T],
        axis=1,
    )


def coverage(found: Comparison, train: MixtureRuns, test: MixtureRuns) -> float:
    drawn = redraw(found, train, OTHER_DRAWS, seed=0)
    held = []
    for j in range(len(train.evaluated)):
        losses = np.array([surfaces[j].loss(test.shares) for surfaces in drawn])
        low, high = np.quantile(widened(losses, found.picked.figures.relative[j], seed=j), [0.05, 0.95], axis=0)
        held.append(np.mean((low <= test.losses[:, j]) & (test.losses[:, j] <= high)))
    return float(np.mean(held))


def table(rows: dict[str, list[float]], evaluated: tuple[str, ...], picked: str) -> None:
    print(f"\n{'Spearman on unseen':20}" + "".join(f"{name:>12}" for name in rows))
    for j, name in enumerate(evaluated):
        print(f"{name:20}" + "".join(f"{values[j]:12.4f}" for values in rows.values()))
    print(f"{'mean':20}" + "".join(f"{np.mean(values):12.4f}" for values in rows.values()))
    print(f"{'picked':20}" + "".join(f"{'*' if name == picked else '':>12}" for name in rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="*", default=[], help="of which domains; all when not given")
    parser.add_argument("--tables", type=Path, default=TABLES, help="where the published tables lie")
    parser.add_argument("--peer", action="store_true", help="LightGBM as well, where it is installed")
    options = parser.parse_args()
    begun = time.monotonic()
    train = read(options.tables / "regmix_train_1m.csv", options.losses)
    found = compare(train)
    print("\n".join([*train.notes, *found.left_out, *(one.figures.line() for one in found.candidates)]))
    print(f"picked: {found.picked.figures.name}, {found.reason}; {time.monotonic() - begun:.0f} s")

    test = read(options.tables / "regmix_test_1m.csv", options.losses)
    rows = {
        one.figures.name: ranks(np.stack([each.loss(test.shares) for each in one.surfaces], axis=1), test.losses)
        for one in found.candidates
    }
    if options.peer:
        others = peer(train, test)
        rows |= {"lightgbm": ranks(others, test.losses)} if others is not None else {}
        print("lightgbm is not installed" if others is None else "", end="")
    table(rows, train.evaluated, found.picked.figures.name)
    print(f"90% intervals hold {coverage(found, train, test):.1%}; {time.monotonic() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
