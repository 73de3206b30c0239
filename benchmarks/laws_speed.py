"""How fast a law is fitted, beside the customary way on the same data in the same run.

    OMP_NUM_THREADS=1 python benchmarks/laws_speed.py [--published ../shared/published] [--only chinchilla]

chinchilla  240 points of arXiv:2404.10102 against 4,500 starts of L-BFGS, the grid of arXiv:2203.15556 as the
            replication runs it: Huber(1e-3) of LSE(a - alpha ln N, b - beta ln D, e) - ln L, with its exact gradient
loglinear   512 proxies of arXiv:2407.01492, one metric, against the fit arXiv:2602.12237 uses by default: Huber(0.02)
            of e^c + exp(t h) - y from 10 x 30 starts, L-BFGS with strong Wolfe search at learning rate 0.01. Its
            algorithm written anew from its description: 20 iterations a call, until ten calls or no progress
dcpt        540 points on the grid of arXiv:2406.01375 with noise: one fit, and 1,000 bootstrap replicates of it

Both sides' objectives are evaluated by the same function, so that speed is not bought with a worse fit. Seconds are the
processor's.
"""

import argparse
import csv
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from ratoon.laws.equations import chinchilla, dcpt, loglinear
from ratoon.laws.fitting.fit import fit
from ratoon.laws.fitting.objective import HUBER, Objective
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.intervals.forecast import bootstrap

REPEATS = 5  # of ours; the median counts. The peers take minutes and run once
RAW = Objective("raw", 0.02)
PROGRESS = 1e-7  # relative fall of the objective per call below which the peer stops


def timed(work: Callable[[], Any], repeats: int = 1) -> tuple[Any, float]:
    seconds = []
    for _ in range(repeats):
        begun = time.process_time()  # of one thread: what else runs on the machine does not count
        found = work()
        seconds.append(time.process_time() - begun)
    return found, float(np.median(seconds))


def read(path: Path) -> dict[str, Any]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def chinchilla_grid(N: Any, D: Any, loss: Any, every: int) -> tuple[Any, float]:
    """Best of the grid's starts: (E, A, B, alpha, beta) and the objective."""
    log_N, log_D, log_L = np.log(N), np.log(D), np.log(loss)

    def evaluate(x: Any) -> tuple[float, Any]:
        a, b, e, alpha, beta = x
        terms = np.stack([a - alpha * log_N, b - beta * log_D, np.full_like(log_N, e)])
        predicted = logsumexp(terms, axis=0)
        error = predicted - log_L
        pull = np.clip(error, -1e-3, 1e-3)
        value = np.where(np.abs(error) <= 1e-3, error**2 / 2, 1e-3 * (np.abs(error) - 5e-4)).sum()
        share = np.exp(terms - predicted) * pull
        gradient = [share[0].sum(), share[1].sum(), share[2].sum(), -(share[0] @ log_N), -(share[1] @ log_D)]
        return float(value), np.array(gradient)

    exponents, levels, floors = np.arange(0, 2.5, 0.5), np.arange(0, 30, 5.0), np.arange(-1, 1.5, 0.5)
    starts = list(itertools.product(levels, levels, floors, exponents, exponents))[::every]
    found = [minimize(evaluate, np.array(start), jac=True, method="L-BFGS-B") for start in starts]
    best = min((one for one in found if np.isfinite(one.fun)), key=lambda one: one.fun)
    return best.x, float(best.fun)


def loglinear_starts(h: Any, y: Any, every: int) -> tuple[Any, float]:
    """Best of 10 x 30 starts: log c over -2..1.5, t small and random."""
    inputs, target = torch.tensor(h), torch.tensor(y)
    random = torch.Generator().manual_seed(0)
    best: tuple[Any, float] = (None, np.inf)
    starts = list(itertools.product(np.linspace(-2, 1.5, 10), range(30)))[::every]
    for log_c, _ in starts:
        x = torch.cat([torch.tensor([log_c]), 0.1 * torch.rand(h.shape[1], generator=random, dtype=torch.float64)])
        x = x.to(torch.float64).requires_grad_(True)
        optimizer = torch.optim.LBFGS([x], lr=0.01, max_iter=20, line_search_fn="strong_wolfe")

        def closure(x: Any = x, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            predicted = torch.exp(x[0]) + torch.exp(inputs @ x[1:])
            loss = torch.nn.functional.huber_loss(predicted, target, delta=0.02, reduction="sum")
            loss.backward()
            return loss

        value = np.inf
        for _ in range(10):
            earlier, value = value, optimizer.step(closure).item()
            if not np.isfinite(value) or earlier - value < PROGRESS * value:
                break
        value = closure().item()
        if np.isfinite(value) and value < best[1]:
            best = (x.detach().numpy().copy(), value)
    return best


def show(name: str, ours: float, theirs: float, objective: float, peer: float) -> None:
    print(f"{name}: ours {ours:.3f} s, peer {theirs:.1f} s, {theirs / ours:,.0f} times as long")
    print(f"  objective: ours {objective:.10f}, peer {peer:.10f}")


def run_chinchilla(published: Path, every: int) -> None:
    table = read(published / "chinchilla_epoch.csv")
    kept = table["excluded"] != "True"
    N, D, loss = (table[name][kept].astype(float) for name in ("params", "tokens", "loss"))
    found, ours = timed(lambda: fit(chinchilla.FORM, {"N": N, "D": D}, loss, hold_out=False), REPEATS)
    (_, peer), theirs = timed(lambda: chinchilla_grid(N, D, loss, every))
    show(f"chinchilla, {len(loss)} points, 4,500 starts", ours, theirs * every, found.objective, peer)
    print("  " + ", ".join(f"{name} {value:.5f}" for name, value in found.params.items()))


def run_loglinear(published: Path, every: int) -> None:
    table = read(published / "regmix_train_1m.csv")
    domains = tuple(name for name in table if name.startswith("mix_"))
    h = np.stack([table[name].astype(float) for name in domains], axis=1)
    h = h / h.sum(axis=1, keepdims=True)
    y, form = table["loss_pile_cc"].astype(float), loglinear.form(domains)
    found, ours = timed(lambda: fit(form, {"h": h}, y, objective=RAW, hold_out=False), REPEATS)
    (_, peer), theirs = timed(lambda: loglinear_starts(h, y, every))
    show(f"loglinear, {len(y)} runs, {len(domains)} domains, 300 starts", ours, theirs * every, found.objective, peer)


def run_dcpt() -> None:
    axes = np.meshgrid([0.5e9, 1.8e9, 4e9], np.linspace(1, 20, 20) * 1e9, np.linspace(0.1, 1, 9), indexing="ij")
    N, D, r = (axis.ravel() for axis in axes)
    truth = dcpt.DCPT(E=1.2, A=0.35, a=0.3, B=0.15, n=1.1, b=0.35, C=0.9, e=0.08, c=0.35)
    loss = truth.loss(N, D, r) * np.exp(np.random.default_rng(0).normal(0, 2e-3, len(N)))
    found, seconds = timed(lambda: fit(dcpt.FORM, {"N": N, "D": D, "r": r}, loss, hold_out=False), REPEATS)
    groups = [f"{n:g} {share:g}" for n, share in zip(N, r, strict=True)]
    runs = Runs.of(N, D, r, loss)
    _, resampled = timed(lambda: bootstrap(found, runs, groups, replicates=1000))
    print(f"dcpt, {len(loss)} points: one fit {seconds:.3f} s, 1,000 replicates {resampled:.2f} s, all on one core")
    print(f"  objective {found.objective:.10f} ({HUBER}), agreement of starts {found.agreement:.0%}")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--published", type=Path, default=Path(__file__).parents[2] / "shared" / "published")
    asked.add_argument("--only", choices=["chinchilla", "loglinear", "dcpt"])
    asked.add_argument("--every", type=int, default=1, help="run every n-th start of the peer, and scale its time")
    given = asked.parse_args()
    torch.set_num_threads(1)
    if given.only in (None, "chinchilla"):
        run_chinchilla(given.published, given.every)
    if given.only in (None, "loglinear"):
        run_loglinear(given.published, given.every)
    if given.only in (None, "dcpt"):
        run_dcpt()


if __name__ == "__main__":
    main()
