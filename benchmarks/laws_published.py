"""What the laws say of published runs that they were not fitted on.

    OMP_NUM_THREADS=1 python benchmarks/laws_published.py [--published ../shared/published]

chinchilla  240 points of arXiv:2404.10102: objective, exponents with 90% intervals, and the published headline again
isoflops    two ladders of Marin: the form is chosen on the three largest budgets below the last, each predicted from
            those below it; then the last budget is predicted
2mix        arXiv:2403.16952, Pythia-70M on Github and Pile-CC, step 30,000: each mixture left out in turn
left out    the same study's continued pretraining, Pile and Python: each inner ratio left out, by D-CPT
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np

from ratoon.laws.equations import chinchilla, coupled, dcpt, mixing
from ratoon.laws.fitting.fit import fit
from ratoon.laws.fitting.folds import Fold
from ratoon.laws.fitting.objective import ABSOLUTE, Objective

RAW = Objective("raw", 0.02)
NINETY = 1.645  # standard errors to either side


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
        spread = {key: found.params[key] * np.exp(NINETY * found.identification.errors[key]) for key in ("a", "b")}
        print(
            f"chinchilla, {name}: objective {found.objective:.13f}, sum {found.objective / found.loss_kind.delta:.6f}"
        )
        print(f"  E {found.params['E']:.5f}, A {counts['A']:.2f}, B {counts['B']:.2f}", end="")
        for key in ("a", "b"):
            value = found.params[key]
            print(f", {key} {value:.5f} [{value**2 / spread[key]:.3f}, {spread[key]:.3f}]", end="")
        print()


def show_isoflops(published: Path) -> None:
    table = read(published / "isoflops_public.csv")
    for experiment in ("marin_comma", "marin_dclm"):
        mine = (table["experiment"] == experiment) & (table["qc_outlier"] != "True")
        budget, N, D, loss = (values[mine] for values in numbers(table, "budget", "params", "tokens", "loss"))
        kept = budget < budget.max()
        folds = [Fold("larger budgets", budget[kept] < step) for step in np.unique(budget[kept])[-3:]]
        for form in (chinchilla.FORM, coupled.FORM):
            found = fit(form, {"N": N[kept], "D": D[kept]}, loss[kept], folds=folds)
            errors = np.abs(found.loss(N[~kept], D[~kept]) / loss[~kept] - 1)
            best = errors[loss[~kept].argmin()]
            said = ", ".join(
                f"{key} {found.params[key]:.3f} ±{NINETY * found.identification.errors[key] * found.params[key]:.3f}"
                for key in ("a", "b")
            )
            print(
                f"{experiment}, {form.name}: chosen by {found.held_out[0].rms:.2%} held out below; largest budget: "
                f"median {np.median(errors):.2%}, mean {errors.mean():.2%}, at its best size {best:.2%}, worst "
                f"{errors.max():.2%}; {said}"
            )


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
