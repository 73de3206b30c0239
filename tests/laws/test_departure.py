"""What the truth has that no form has: its process, and what a design gains by it."""

import numpy as np

from ratoon.config import ChooseConfig
from ratoon.laws.decision.goals import Stakes
from ratoon.laws.design.belief import believe_weakly
from ratoon.laws.design.departure import SHARE, SIZE, TOKENS, Departure
from ratoon.laws.design.rows import Rows
from ratoon.laws.tables.table import tabulate
from ratoon.records import Observation

N, NOISE, RIGHT = 160_000, 0.0005, 0.6
LENGTHS = tuple(range(40_000, 400_001, 40_000))
END = LENGTHS[-1]


def departed(role, D, own, height=0.03):
    """D-CPT and a bump along tokens, which no law can follow: a schedule's, say."""
    bump = height * np.exp(-(np.log(D / 2e5) ** 2))
    if role == "general":
        return 2.9 + bump + 0.05 * own * (D / 1e5) ** -0.4 + 0.16 / (own + 0.15) ** 0.5
    return 2.9 + bump + 0.35 * own**0.2 * (D / 1e5) ** -0.3 + 1.3 / (own + 0.05) ** 0.2


def observed(share, tokens, role, loss):
    return Observation(
        run=f"{share}-{tokens}", group=f"{share}", commit=None, config="", model="m", params_non_embedding=N,
        tokens=tokens, share=share, learning_rate=1e-3, step=1, finished=True, evaluated=role, role=role,
        loss_nats=loss, bits_per_byte=None,
    )  # fmt: skip


def run(share, end, seed, height=0.03):
    found = []
    for role in ("general", "domain"):
        random = np.random.default_rng([seed, round(1000 * share), role == "domain"])
        luck, *each = random.normal(0, NOISE, 1 + len(LENGTHS))
        for tokens, noise in zip(LENGTHS, each, strict=True):
            if tokens <= end:
                loss = departed(role, tokens, share if role == "domain" else 1 - share, height) + luck + noise
                found.append(observed(share, tokens, role, loss))
    return found


def believe(observations, form_doubt=1.0):
    config = ChooseConfig(law="dcpt", form_doubt=form_doubt)
    rows = {role: Rows.of(table) for role, table in tabulate(observations)[0].items()}
    ceiling = departed("general", END, 1 - RIGHT)
    stakes = Stakes(ceiling / (1 + config.tolerance), 4.0, config)
    return believe_weakly(rows, params=N, tokens=END, stakes=stakes)


def test_the_basis_has_the_covariance_of_the_process():
    random = np.random.default_rng(0)
    at = {"N": random.choice([4e4, 1.6e5], 60), "D": np.exp(random.uniform(np.log(5e4), np.log(1.2e6), 60))}
    at["r"] = random.uniform(0, 1, 60)
    basis = Departure.over(at, {"N": np.array([1.6e5]), "D": np.array([1.2e6])}).columns(at)
    x = np.stack([np.log(at["D"]) / TOKENS, at["r"] / SHARE, np.log(at["N"]) / SIZE], axis=1)
    process = np.exp(-0.5 * ((x[:, None] - x[None]) ** 2).sum(axis=-1))
    assert np.abs(basis @ basis.T - process).max() < 0.02


def test_where_the_truth_departs_from_the_law_two_runs_near_the_share_find_it_and_the_interval_holds_it():
    """One to the end and one that is half as long, beside it; the law alone is sure of something else."""
    seeds = range(4)
    made = [run(0.5, END, s) + run(0.65, END // 2, s) + run(0.1, 80_000, s) for s in seeds]
    found, alone = [believe(one) for one in made], [believe(one, form_doubt=0.0) for one in made]
    assert np.median([abs(one.median - RIGHT) for one in found]) < 0.02
    assert np.median([abs(one.median - RIGHT) for one in alone]) > 2 * np.median([abs(b.median - RIGHT) for b in found])
    inside = [np.quantile(one.best, 0.05) <= RIGHT <= np.quantile(one.best, 0.95) for one in found]
    assert np.mean(inside) >= 0.75


def test_departures_are_believed_where_the_truth_has_one_and_not_where_a_law_is_true():
    def departing(height):
        return believe([one for x in (0.1, 0.5, 0.8) for one in run(x, END, 0, height)]).said["general"].laws.departing

    assert departing(0.03) > 0.99
    assert departing(0.0) < 0.25


def test_a_truth_may_be_declared_to_have_the_law_s_form():
    part = believe(run(0.1, END, 0) + run(0.5, END, 0) + run(0.8, END, 0), form_doubt=0.0).said["general"].laws.parts[0]
    assert part.away.shape == (part.noise.size, 0)
