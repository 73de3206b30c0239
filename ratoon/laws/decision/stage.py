"""Peak learning rate, steps, share and schedule at once, from a table of checkpoints: the dynamics law on either loss.

Rows are checkpoints with the sums of learning rates of equations/dynamics.py: S1pt and S2pt of the parent's training,
S1cpt and S2cpt of this stage up to there (`sums` makes them of a schedule written out). Rows at S1cpt = 0 are the
parent. What joint.py then looks through is up to the caller; between and beyond what was run the law answers for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from ratoon.config import ChooseConfig, ConfigError, Role
from ratoon.laws.decision.believe import Far, far, refuse_unasked
from ratoon.laws.decision.goals import Stakes
from ratoon.laws.decision.joint import Schedule, Space, Stage, best_stage, check, ends_of
from ratoon.laws.equations import dynamics
from ratoon.laws.equations.dynamics import MILLION, Dynamics, Sums
from ratoon.laws.fitting.fit import Fit, fit
from ratoon.laws.fitting.folds import Fold
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import count_levels
from ratoon.laws.intervals.forecast import bootstrap
from ratoon.laws.tables.nats import refuse_told_unit
from ratoon.laws.tables.parents import SAME
from ratoon.laws.tables.runtable import RunTable

SUMS = ("S1pt", "S2pt", "S1cpt", "S2cpt")
STEP = 0.01  # between the shares looked at
ENOUGH = 100  # draws at most: each is asked about every stage of the space


@dataclass(frozen=True)
class StageChoice:
    best: Stage
    each: tuple[Stage, ...]  # the best of every schedule that can meet the goal
    parent_general: float  # nats
    parent_domain: float
    unseen_error: dict[Role, float | None]  # relative, median, on runs left out whole
    warnings: tuple[str, ...]


def choose_stage(
    table: RunTable,
    *,
    peaks: Sequence[float],
    steps: Sequence[int],
    schedules: Mapping[str, Schedule],
    config: ChooseConfig,
    params: float | None = None,
    parent: Mapping[Role, float] | None = None,
) -> StageChoice:
    """The stage that meets config.goal, over the shares that the table spans.

    params  of the model asked about; none: the largest of the table. The parent's losses are those told, or the mean
            of its size's rows at S1cpt = 0

    Raises ConfigError where a column is missing, or no stage keeps the ceiling.
    """
    _refuse_missing(table)
    size = params if params is not None else float(table.inputs["N"].max()) if "N" in table.inputs else MILLION
    known = {role: _parent(table, role, size, parent or {}) for role in get_args(Role)}
    stakes = Stakes(known["general"], known["domain"], config)
    fitted = {role: _fitted(table, role, config) for role in get_args(Role)}
    laws = list(zip(*(_drawn(table, role, fitted[role], config) for role in get_args(Role)), strict=True))
    space = Space(peaks, steps, _shares(table), schedules, _parents(table, size))
    goal = _goal(stakes)
    check(laws, space, goal["weight"])
    distant = _far(table, space, size, config)
    refuse_unasked([one.letter for one in distant], config)
    best, each = best_stage(laws, space, params=size, **goal), _each(laws[:1], space, size, goal)
    for one in (best, *each):
        _refuse_impossible(one, stakes)
    return StageChoice(
        best=best,
        each=tuple(each),
        parent_general=stakes.general,
        parent_domain=stakes.domain,
        unseen_error={role: one.unseen_error for role, one in fitted.items()},
        warnings=(
            *table.notes,
            *(one.warning for one in distant),
            *_beyond_peaks(table, best),
            *(f"dynamics ({role}): {x}" for role, one in fitted.items() for x in one.reasons),
        ),
    )


def _far(table: RunTable, space: Space, params: float, config: ChooseConfig) -> list[Far]:
    """What of the stages looked at no law has been checked at: their size, and the sums of their learning rates."""
    found = []
    if "N" in table.inputs:
        runs = Runs.gather({"N": table.inputs["N"]}, table.losses["general"])
        found += far(runs, config, {"N": params})
    asked = np.abs(ends_of(space)).max(axis=(0, 1, 2))
    for name, most in zip(("S1cpt", "S2cpt"), asked.tolist(), strict=True):
        ran = float(np.abs(table.inputs[name]).max())
        if most > config.far_tokens * ran > 0:
            letter = (
                f"{name} of the stages looked at is up to {most:.3g}, {most / ran:.1f} times that of the runs "
                f"({ran:.3g}), and beyond {config.far_tokens:g} times no law has been checked: look at lower peaks or "
                f"fewer steps, or run such a stage"
            )
            found.append(Far(letter, f"extrapolates beyond {config.far_tokens:g} times the runs' {name} ({ran:.3g})"))
    return found


def _beyond_peaks(table: RunTable, best: Stage) -> list[str]:
    tried = float(table.inputs["lr"].max()) if "lr" in table.inputs else np.inf
    if best.peak.value <= tried * SAME:
        return []
    return [f"extrapolates beyond the largest peak learning rate run ({tried:g})"]


def _refuse_impossible(found: Stage, stakes: Stakes) -> None:
    ends = {"general": stakes.general + found.general, "domain": stakes.domain + found.domain}
    for role, loss in ends.items():
        if loss <= 0:
            raise ConfigError(
                f"at peak {found.peak.value:g} and {found.steps.value:,.0f} steps ({found.schedule}) the law gives a "
                f"{role} loss of {loss:.4f} nats, and no loss is at or below 0: it says nothing so far from the runs. "
                f"Look at lower peaks or fewer steps"
            )


def _goal(stakes: Stakes) -> dict[str, float]:
    if stakes.config.goal == "weighted":
        return {"weight": stakes.weight}
    return {"weight": 0.0, "general_limit": stakes.general * stakes.config.tolerance}


def _each(
    laws: Sequence[tuple[Dynamics, Dynamics]], space: Space, params: float, goal: Mapping[str, float]
) -> list[Stage]:
    found = []
    for name, rates in space.schedules.items():
        try:
            found.append(best_stage(laws, space._replace(schedules={name: rates}), params=params, **goal))
        except ConfigError:  # nothing of this schedule keeps the ceiling
            continue
    return found


def _refuse_missing(table: RunTable) -> None:
    missing = [name for name in SUMS if name not in table.inputs]
    missing += [] if {"new", "share"} & set(table.inputs) else ["share"]
    missing += [role for role in get_args(Role) if role not in table.sources]
    if missing:
        raise ConfigError(
            f"{table.sheet.where}: a stage is chosen from {', '.join(SUMS)}, share, general and domain losses, and "
            f"there is no {', no '.join(missing)}; {table.ask(missing[0])}"
        )


def _new(table: RunTable) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return table.inputs["new"] if "new" in table.inputs else table.inputs["share"]


def _shares(table: RunTable) -> Sequence[float]:
    """Those between the ones that were run."""
    tried = _new(table)[table.inputs["S1cpt"] > 0]
    low, high = float(tried.min()), float(tried.max())
    found = np.linspace(low, high, 1 + round((high - low) / STEP))
    return tuple(found.tolist())


def _parents(table: RunTable, params: float) -> dict[str, Sums]:
    """Those of the size nearest to `params`: a model of another size cannot be continued as this one."""
    pairs = np.stack([table.inputs["S1pt"], table.inputs["S2pt"]], axis=1)
    if "N" in table.inputs:
        away = np.abs(np.log(table.inputs["N"] / params))
        pairs = pairs[away <= away.min() + np.log(SAME)]
    return {f"S1pt={S1:.4g}, S2pt={S2:.4g}": Sums(S1, S2) for S1, S2 in np.unique(pairs, axis=0)}


def _parent(table: RunTable, role: Role, params: float, told: Mapping[Role, float]) -> float:
    """As told, where that is in the unit of the parent's own rows; else the mean of these."""
    start, sizes = table.inputs["S1cpt"] == 0, table.inputs.get("N")
    if sizes is not None:
        start = start & (np.abs(np.log(sizes / params)) <= np.log(SAME))
    losses = table.losses[role][start & ~np.isnan(table.losses[role])]
    own = float(losses.mean()) if len(losses) else None
    if role in told:
        refuse_told_unit(role, told[role], own)
        return told[role]
    if own is None:
        of_size = "" if sizes is None else f" of {params:,.0f} parameters"
        raise ConfigError(
            f"{table.sheet.where}: no {role} loss of the parent{of_size}; add a row with S1cpt 0, or pass "
            f"--parent-{role}"
        )
    return own


def _rows(table: RunTable, role: Role) -> tuple[Runs, tuple[str, ...]]:
    keep = ~np.isnan(table.losses[role])
    inputs = {name: table.inputs[name][keep] for name in SUMS}
    inputs["new"] = _new(table)[keep]
    if "N" in table.inputs and count_levels(table.inputs["N"]) > 1:
        inputs["N"] = table.inputs["N"][keep]
    groups = tuple(name for name, kept in zip(table.group, keep, strict=True) if kept)
    return Runs.gather(inputs, table.losses[role][keep]), groups


def _fitted(table: RunTable, role: Role, config: ChooseConfig) -> Fit:
    runs, groups = _rows(table, role)
    form = dynamics.form(replay=True, sizes="N" in runs.inputs)
    member = np.array(groups)
    # A checkpoint is foretold by its own run's others: what is left out in turn is whole runs.
    each = [Fold(f"run {name}", member != name) for name in dict.fromkeys(groups)]
    return fit(form, runs.inputs, runs.loss, folds=each if len(each) > 1 else [], seed=config.seed)


def _drawn(table: RunTable, role: Role, fitted: Fit, config: ChooseConfig) -> list[Dynamics]:
    """The best estimate, and laws that these runs allow."""
    runs, groups = _rows(table, role)
    seed = 2 * config.seed + (role == "domain")
    drawn = bootstrap(fitted, runs, groups, replicates=min(config.bootstrap, ENOUGH), seed=seed)
    laws = [drawn.form.build(t, c, drawn.frame) for t, c in zip(drawn.theta, drawn.coefficients, strict=True)]
    found = [law for law in (fitted.law, *laws) if isinstance(law, Dynamics)]
    assert len(found) == 1 + len(laws)
    return found
