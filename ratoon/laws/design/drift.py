"""Whether new runs contradict a former sweep's law, and what of the former runs may still be believed.

    y_new = a + b L_former(N, D, r) + luck + noise

The parent changed and the text grew, so level a and scale b are the new runs' own; the shape must hold. Tested per
role: the generalised sum of squares of what a and b leave, over the noise that both sweeps show, against the same in
sweeps drawn from the former law's own uncertainty (posterior.py) and noise. The smaller of
the two roles' p-values counts, as the least of so many (Sidak): under an unchanged law about LEVEL of the refreshes
are called changed.

Former runs that are not contradicted are a prior: they enter with level and scale left open and with a weight that
falls with the p-value (a power prior, Ibrahim and Chen 2000); contradicted ones get none. Few new runs contradict
little: a drift the test cannot see yet is believed until they grow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ratoon.config import ConfigError, Role
from ratoon.laws.decision.candidates import LAWS
from ratoon.laws.design.posterior import posterior
from ratoon.laws.design.rows import LUCK, Rows, correlation
from ratoon.laws.form import Array
from ratoon.laws.tables.table import Table, tabulate
from ratoon.records import Observation

LEVEL = 0.05
FULL = 0.5  # p-value from which former runs count fully
LEVEL_OPEN = 0.2  # nats: by which a former level may differ, to one standard deviation
SCALE_OPEN = 0.2  # relative, of a former scale
SAME_SIZE = 1.02
TRUSTED = 0.5  # weight from which former runs are read as if run now, by readers that cannot weigh them
SIMULATED = 2000  # sweeps drawn under the former law


@dataclass(frozen=True)
class Check:
    """One role."""

    p_value: float
    level: float  # nats by which the new runs lie above the former law, at its mean over them
    scale: float  # b
    centre: float  # that mean
    points: int


@dataclass(frozen=True)
class Drift:
    """What the former sweep is worth to the new one."""

    checks: Mapping[Role, Check]
    p_value: float
    weight: float  # 0..1, of the former runs
    prior: Mapping[Role, Rows]  # the former runs, weighted; empty where they were contradicted

    @property
    def contradicted(self) -> bool:
        return self.p_value < LEVEL

    @property
    def statement(self) -> str:
        moved = "; ".join(
            f"{role} loss moved by {check.level:+.3f} nats, its slopes by {check.scale - 1:+.0%}"
            for role, check in self.checks.items()
        )
        if self.contradicted:
            worst = min(self.checks, key=lambda role: self.checks[role].p_value)
            return (
                f"the new runs contradict the former refresh's law of {worst} loss (p = {self.p_value:.2g}): its shape "
                f"has changed, and former runs were not used. {moved}"
            )
        return f"the new runs agree with the former refresh's law (p = {self.p_value:.2g}) once {moved}"


def examine(
    former: Mapping[Role, Table], new: Mapping[Role, Table], *, params: float, tokens: float, seed: int = 0
) -> Drift:
    """Both sweeps' tables, for a target of `params` and `tokens`. Raises ConfigError where they cannot be compared."""
    checks = {role: _check(role, former[role], new[role], params, tokens, seed) for role in new}
    p_value = 1 - (1 - min(check.p_value for check in checks.values())) ** len(checks)
    weight = 0.0 if p_value < LEVEL else min(1.0, p_value / FULL)
    prior = {role: _loosened(former[role], weight) for role in new} if weight > 0 else {}
    return Drift(checks, p_value, weight, prior)


def compare(
    former: Sequence[Observation], new: Sequence[Observation], *, params: float, tokens: float, seed: int = 0
) -> Drift | None:
    """As `examine`, from observations; None where there are no former ones, or none that can be compared."""
    if not former:
        return None
    try:
        return examine(tabulate(former)[0], tabulate(new)[0], params=params, tokens=tokens, seed=seed)
    except ConfigError:
        return None


def recalibrated(former: Sequence[Observation], drift: Drift, params: float) -> list[Observation]:
    """Former runs of this size at the new level and scale, as if they had been run now; none where that is in doubt."""
    if drift.weight < TRUSTED:
        return []
    found = []
    for one in former:
        own_size = abs(np.log(one.params_non_embedding / params)) < np.log(SAME_SIZE)
        if own_size and one.finished and one.loss_nats is not None:
            check = drift.checks[one.role]
            moved = one.loss_nats + check.level + (check.scale - 1) * (one.loss_nats - check.centre)
            names = {"run": f"former-{one.run}", "group": f"former-{one.group}"}
            found.append(one.model_copy(update={**names, "loss_nats": moved, "bits_per_byte": None}))
    return found


def _check(role: Role, former: Table, new: Table, params: float, tokens: float, seed: int) -> Check:
    before, now = (_of_size(role, one, params) for one in (former, new))
    # What all forms misfit, they misfit in both sweeps: their evidence is taken at its word.
    law = posterior(list(LAWS.values()), before, params=params, tokens=tokens, seed=seed, trusting=True)
    foreseen = law.loss(now.runs.params, now.runs.tokens, now.runs.own)
    if len(now.runs) < 3:
        raise ConfigError(f"{len(now.runs)} new {role} losses cannot show a level, a scale and whether a shape holds")
    test = _Test.of(foreseen, law.noises, now)
    random = np.random.default_rng(seed)
    which = random.integers(len(foreseen), size=SIMULATED)
    luck = np.linalg.cholesky(correlation(now.group)) * now.runs.loss[:, None]
    drawn = random.standard_normal((SIMULATED, len(now.runs))) @ luck.T
    drawn = foreseen[which] + law.noises[which, None] * drawn
    left = test.left(drawn)
    as_large = int((left >= test.left(now.runs.loss[None])[0]).sum())
    return Check((1 + as_large) / (1 + SIMULATED), *test.fitted(now.runs.loss), test.centre, len(now.runs))


def _of_size(role: Role, table: Table, params: float) -> Rows:
    near = table.near_size(params)
    if abs(np.log(near.runs.params[0] / params)) > np.log(SAME_SIZE):
        raise ConfigError(
            f"no {role} loss of a model of {params:,.0f} parameters, the nearest has {near.runs.params[0]:,.0f}; "
            f"sweeps of different sizes cannot be told apart from a changed law"
        )
    rows = Rows.of(near)
    return rows.where(rows.runs.own > 0)


@dataclass(frozen=True)
class _Test:
    """The sum of squares that level and scale leave, each direction by how well it is foreseen, over the noise: the
    former law's, and what the curves of the new runs show of their own."""

    basis: Array  # (n, 2), whitened
    whiten: Array  # (n, n)
    centre: float
    rough: Array  # (p, n) second differences along each run's tokens, of variance one at relative noise one
    known: float  # degrees of freedom in the former noise
    noise: float

    @classmethod
    def of(cls, foreseen: Array, noises: Array, rows: Rows) -> "_Test":
        noise = float(np.sqrt(np.mean(noises**2)))
        length = noise * rows.runs.loss
        covariance = np.outer(length, length) * correlation(rows.group) + np.cov(foreseen.T)
        whiten = np.linalg.inv(np.linalg.cholesky(covariance))
        mean = foreseen.mean(axis=0)
        basis = np.stack([np.ones_like(mean), mean - mean.mean()], axis=1)
        known = 1 / (2 * float(np.var(np.log(noises))) + 1e-9)
        return cls(whiten @ basis, whiten, float(mean.mean()), _second_differences(rows), known, noise)

    def left(self, losses: Array) -> Array:
        """(S,) from (S, n)."""
        whitened = losses @ self.whiten.T
        orthogonal, _ = np.linalg.qr(self.basis)
        rest = whitened - (whitened @ orthogonal) @ orthogonal.T
        seen = ((np.linalg.solve(self.whiten, rest.T).T @ self.rough.T) ** 2).sum(axis=1)
        noise = (self.known * self.noise**2 + seen) / (self.known + len(self.rough))
        return np.asarray((rest**2).sum(axis=1) / noise)

    def fitted(self, loss: Array) -> tuple[float, float]:
        at_mean, scale = np.linalg.lstsq(self.basis, self.whiten @ loss, rcond=None)[0]
        return float(at_mean - self.centre), float(scale)


def _second_differences(rows: Rows) -> Array:
    found = [np.zeros((0, len(rows.runs)))]
    for group in np.unique(rows.group):
        at = np.flatnonzero(rows.group == group)
        at = at[np.argsort(rows.runs.tokens[at], kind="stable")]
        for triple in np.lib.stride_tricks.sliding_window_view(at, 3) if len(at) > 2 else ():
            line = np.zeros(len(rows.runs))
            line[triple] = np.array([1.0, -2.0, 1.0]) / rows.runs.loss[triple] / np.sqrt(6 * (1 - LUCK))
            found.append(line[None])
    return np.concatenate(found)


def _loosened(table: Table, weight: float) -> Rows:
    """Former runs of every size, their common level and scale left open."""
    runs = replace(table.runs, weights=table.runs.weights * weight)
    rows = Rows(runs, table.group, np.zeros((len(runs), 0)))
    columns = []
    for size in np.unique(runs.params):
        at = runs.params == size
        columns.append(np.where(at, LEVEL_OPEN, 0.0))
        columns.append(np.where(at, SCALE_OPEN * (runs.loss - runs.loss[at].mean()), 0.0))
    return replace(rows, loose=np.stack(columns, axis=1))
