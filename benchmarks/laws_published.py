"""What the laws say of published runs that they were not fitted on.

    OMP_NUM_THREADS=1 python benchmarks/laws_published.py [--published ../shared/published]

chinchilla  240 points of arXiv:2404.10102: objective, exponents, and the published headline again, with 95% intervals
            of the exponents by resampled points, as the published ones are
isoflops    two ladders of Marin: the form is chosen on the three largest budgets below the last, each predicted from
            those below it; then the last budget is predicted, point by point and at its best size. Beside it the
            floor: smooth curves in log N fitted to the last budget's own losses, which no law that is smooth in N can
            be expected to beat; their minimum is what the budget measured of its best loss
2mix        arXiv:2403.16952, Pythia-70M on Github and Pile-CC, step 30,000: each mixture left out in turn
left out    the same study's continued pretraining, Pile and Python: each inner ratio left out, by D-CPT
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linprog

from ratoon.laws.equations import chinchilla, coupled, dcpt, mixing
from ratoon.laws.fitting.fit import Fit, fit
from ratoon.laws.fitting.folds import Fold
from ratoon.laws.fitting.objective import ABSOLUTE, Objective
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.intervals.forecast import bootstrap

RAW = Objective("raw", 0.02)
RESAMPLED = 4000  # as often as the published intervals of Chinchilla's exponents
PUBLISHED_INTERVALS = {"a": (0.317, 0.373), "b": (0.331, 0.415)}  # 95%, arXiv:2404.10102
DEGREES = (2, 3, 4)  # of the smooth curves in log N
NEAR = 1.0  # of log size about the best one: where a budget's minimum is read off a parabola
FINE = 400  # sizes at which a curve is searched for its minimum


def read(path: Path) -> dict[str, Any]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def numbers(table: dict[str, Any], *names: str) -> list[Any]:
    return [table[name].astype(float) for name in names]


def show_chinchilla(published: Path) -> None:
    table = read(published / "chinchilla_epoch.csv")
    kept = table["excluded"] != "True"
    N, D, loss = (values[kept] for values in numbers(table, "params", "tokens", "loss"))
    for name, how in (("Huber(1e-3) on log loss", {}), ("least absolute deviations", {"objective": ABSOLUTE})):
        found = fit(chinchilla.FORM, {"N": N, "D": D}, loss, hold_out=False, **how)
        counts = {"A": found.params["A"] * 1e9 ** found.params["a"], "B": found.params["B"] * 1e9 ** found.params["b"]}
        print(
            f"chinchilla, {name}: objective {found.objective:.13f}, sum {found.objective / found.loss_kind.delta:.6f}"
        )
        print(f"  E {found.params['E']:.5f}, A {counts['A']:.2f}, B {counts['B']:.2f}", end="")
        print(*(f", {key} {found.params[key]:.5f}" for key in ("a", "b")), sep="")
        show_exponents(found, Runs.gather({"N": N, "D": D}, loss))


def show_exponents(found: Fit, runs: Runs) -> None:
    """Beside the published intervals: every point is a run of its own, and points are resampled."""
    for key, low, high in exponents(found, runs, 0.95):
        theirs = PUBLISHED_INTERVALS[key]
        print(f"  {key}: 95% {low:.3f} to {high:.3f} (published {theirs[0]} to {theirs[1]})")


def exponents(found: Fit, runs: Runs, confidence: float) -> list[tuple[str, float, float]]:
    """Resampled: measurements as unlike each other as these have no one noise for `profile` to go by."""
    drawn = bootstrap(found, runs, [str(k) for k in range(len(runs))], replicates=RESAMPLED, way="runs").theta
    ends = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return [(key, *ends[:, list(found.form.exponents).index(key)]) for key in ("a", "b")]


def show_isoflops(published: Path) -> None:
    table = read(published / "isoflops_public.csv")
    for experiment in ("marin_comma", "marin_dclm"):
        mine = (table["experiment"] == experiment) & (table["qc_outlier"] != "True")
        budget, N, D, loss = (values[mine] for values in numbers(table, "budget", "params", "tokens", "loss"))
        kept = budget < budget.max()
        folds = [Fold("larger budgets", budget[kept] < step) for step in np.unique(budget[kept])[-3:]]
        last = Runs.gather({"N": N[~kept], "D": D[~kept]}, loss[~kept])
        for form in (chinchilla.FORM, coupled.FORM):
            found = fit(form, {"N": N[kept], "D": D[kept]}, loss[kept], folds=folds)
            errors, ratio = np.abs(found.predict(last.inputs) / last.loss - 1), last.tokens / last.params
            inside = errors[ratio <= (D / N)[kept].max()]
            told = exponents(found, Runs.gather({"N": N[kept], "D": D[kept]}, loss[kept]), 0.9)
            said = ", ".join(f"{key} {found.params[key]:.3f} [{low:.3f}, {high:.3f}]" for key, low, high in told)
            print(
                f"{experiment}, {form.name}: chosen by {found.held_out[0].rms:.2%} held out below; largest budget: "
                f"median {np.median(errors):.2%}, mean {errors.mean():.2%}, at its best size "
                f"{errors[last.loss.argmin()]:.2%}, worst {errors.max():.2%} at {ratio[errors.argmax()]:,.0f} "
                f"tokens per parameter, {inside.max():.2%} within those of the smaller budgets; {said}"
            )
            show_minimum(found, last)
        show_floor(last)


def show_minimum(found: Fit, last: Runs) -> None:
    """The budget's least loss, foretold and measured: on the law's curve through the budget, and the vertex of a
    parabola through the runs near the best one, with what their scatter leaves open of it."""
    log_N, log_L = np.log(last.params), np.log(last.loss)
    sizes = np.linspace(log_N.min(), log_N.max(), FINE)
    tokens = np.exp(np.interp(sizes, np.sort(log_N), np.log(last.tokens)[np.argsort(log_N)]))
    curve = found.loss(np.exp(sizes), tokens)
    near = np.abs(log_N - log_N[last.loss.argmin()]) <= NEAR
    columns = np.vander(log_N[near] - sizes[curve.argmin()], 3)
    best, *_ = np.linalg.lstsq(columns, log_L[near], rcond=None)
    rest = log_L[near] - columns @ best
    # Of the vertex's height; that of its place is of second order.
    error = np.sqrt(rest @ rest / (near.sum() - 3) * np.linalg.inv(columns.T @ columns)[2, 2])
    at = -best[1] / (2 * best[0])
    vertex = np.exp(best[2] + best[1] * at / 2)
    print(
        f"  least loss foretold {curve.min():.4f} at {np.exp(sizes[curve.argmin()]):.3g} parameters; measured "
        f"{vertex:.4f} (±{error * vertex:.4f}) at {np.exp(at + sizes[curve.argmin()]):.3g} by a parabola through "
        f"{near.sum()} runs: off by {curve.min() / vertex - 1:+.2%}; best single run {last.loss.min():.4f}: "
        f"{curve.min() / last.loss.min() - 1:+.2%}"
    )


def show_floor(last: Runs) -> None:
    """How far the last budget's own points lie off smooth curves that were fitted to these very points."""
    log_N, log_L = np.log(last.params), np.log(last.loss)
    away = log_N - log_N.mean()
    for degree in DEGREES:
        columns = np.vander(away, degree + 1)
        hat = columns @ np.linalg.pinv(columns)
        rest = log_L - hat @ log_L
        unseen = rest / (1 - np.diag(hat))  # each left out in turn, exactly (Allen 1974)
        print(
            f"  a free curve of degree {degree} in log N through its own {len(last)} points: median "
            f"{np.median(np.abs(rest)):.2%}, worst {np.abs(rest).max():.2%}, least worst "
            f"{least_worst(columns, log_L):.2%}; each left out in turn: median {np.median(np.abs(unseen)):.2%}, worst "
            f"{np.abs(unseen).max():.2%}"
        )


def least_worst(columns: Any, values: Any) -> float:
    """Of the linear curve whose worst residual is least: no curve of these columns does better at its worst."""
    n, m = columns.shape
    bounds = np.concatenate([columns / np.abs(columns).max(axis=0), -columns / np.abs(columns).max(axis=0)])
    table = np.concatenate([bounds, -np.ones((2 * n, 1))], axis=1)
    goal = np.append(np.zeros(m), 1.0)
    free = [(None, None)] * m + [(0, None)]
    return float(linprog(goal, A_ub=table, b_ub=np.concatenate([values, -values]), bounds=free).fun)


def show_mixtures(published: Path) -> None:
    table = read(published / "dml_2mix_70m.csv")
    at = table["step"].astype(float) == 30000
    domains = tuple(name for name in table if name.startswith("mix_"))
    h = np.stack([values[at] for values in numbers(table, *domains)], axis=1)
    for name in (name for name in table if name.startswith("loss_")):
        loss = table[name][at].astype(float)
        errors = []
        for out in range(len(loss)):
            kept = np.arange(len(loss)) != out
            found = fit(mixing.form(domains), {"h": h[kept]}, loss[kept], objective=RAW, hold_out=False)
            errors.append(abs(float(found.loss(h[~kept])[0]) / loss[out] - 1))
        print(f"2mix, {name} at 30,000 steps, {len(loss)} mixtures left out in turn: mean error {np.mean(errors):.3%}")


def show_left_out(published: Path) -> None:
    table = read(published / "dml_ct_pythia70m.csv")
    for role, column in (("general", "general_loss"), ("domain", "python_loss")):
        N, D, r, loss = numbers(table, "model_params", "tokens", f"{role}_proportion", column)
        found = fit(dcpt.FORM, {"N": N, "D": D, "r": r}, loss)
        errors = next(split.errors for split in found.held_out if split.name == "a ratio")
        open_ = ", ".join(dict.fromkeys([*found.at_bounds, *found.identification.loose]))
        print(
            f"left out ratio, {role}: median error {np.median(np.abs(errors)):.3%} over {len(errors)} checkpoints; not "
            f"decided by four ratios at one size: {open_}"
        )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--published", type=Path, default=Path(__file__).parents[2] / "shared" / "published")
    published = asked.parse_args().published
    show_chinchilla(published)
    show_isoflops(published)
    show_mixtures(published)
    show_left_out(published)


if __name__ == "__main__":
    main()
