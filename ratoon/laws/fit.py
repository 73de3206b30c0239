"""Fit a law to runs, and show the evidence: many starts, what was held out, what the runs did not decide."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ConfigError
from ratoon.laws import varpro
from ratoon.laws.form import Array, Box, Form, Law, Mask, Settled, count_levels, enclose

DELTA = 1e-3  # Huber, on log loss (arXiv:2203.15556)
SCORED = 384  # starts tried
POLISHED = 24  # of them descended from
FOLD_STARTS = 12
SAME = 1e-3  # relative difference of objective within which two starts reached the same optimum


@dataclass(frozen=True)
class Runs:
    """What one law of one role is fitted on: n observations."""

    params: Array  # N, embeddings excluded
    tokens: Array  # D
    own: Array  # r, the evaluated corpus's own share of them
    loss: Array  # nats per token

    def __len__(self) -> int:
        return len(self.loss)

    def where(self, mask: Mask) -> "Runs":
        return Runs(self.params[mask], self.tokens[mask], self.own[mask], self.loss[mask])


@dataclass(frozen=True)
class HeldOut:
    """One split: `name` says what was left out; errors are relative and signed, (predicted - measured)/measured."""

    name: str  # "longest runs" or "a ratio"
    errors: Array
    own: Array  # own share of each

    @property
    def rms(self) -> float:
        return float(np.sqrt(np.mean(self.errors**2)))

    @property
    def rms_where_seen(self) -> float:
        """Without runs that never saw the corpus: the rows that every law speaks about."""
        errors = self.errors[self.own > 0]
        return float(np.sqrt(np.mean(errors**2))) if len(errors) else self.rms


@dataclass(frozen=True)
class Fit:
    law: Law
    form: Form
    params: dict[str, float]  # in units of N/1e9 and D/1e9
    seen_error: float  # relative, median over the observations fitted
    unseen_error: float | None  # relative, median over those held out in turn. None: nothing could be
    agreement: float  # share of the starts descended from that reached this optimum
    at_bounds: tuple[str, ...]  # parameters the data did not decide: at the end of their range, or fixed
    objective: float  # sum of Huber losses on log loss
    held_out: tuple[HeldOut, ...]
    reasons: tuple[str, ...]  # why parameters were fixed
    observations: int
    box: Box
    theta: Array  # the exponents as the search sees them
    coefficients: Array
    settled: Settled

    def loss(self, N: ArrayLike, D: ArrayLike, r: ArrayLike) -> Array:
        return self.law.loss(N, D, r)

    def misfit(self, tokens: float, longest: float, shorter: float) -> float:
        """Relative error to expect at `tokens` beyond sampling noise: the larger of the two held-out errors.

        What was held out was `longest` predicted from `shorter`. A law that is tangent to the truth errs by what
        it lacks in curvature, so the error is scaled by the square of the stretch in log tokens.
        """
        stretch = np.log(max(tokens / longest, 1.0)) / max(np.log(longest / shorter), 1e-9) if shorter < longest else 1
        scales = {"longest runs": float(np.clip(stretch**2, 1.0, 10.0)), "a ratio": 1.0}
        return max((split.rms_where_seen * scales[split.name] for split in self.held_out), default=0.0)


def fit(
    form: Form,
    N: ArrayLike,
    D: ArrayLike,
    r: ArrayLike,
    loss: ArrayLike,
    *,
    tokens_to: float | None = None,
    hold_out: bool = True,
    delta: float = DELTA,
    seed: int = 0,
) -> Fit:
    """The law `form` on n observations: counts N and D, own share r in 0..1, loss in nats per token.

    tokens_to  the run length the law will be asked about; its monotonicities are kept up to there
    hold_out   also refit without the longest runs, and without each inner ratio, for `unseen_error`

    Raises ConfigError when the runs cannot pin the law, naming what would.
    """
    runs = Runs(*(np.asarray(x, dtype=float) for x in (N, D, r, loss)))
    if not form.speaks_at_zero:
        runs = runs.where(runs.own > 0)
    _refuse(form, runs)
    box, settled = (
        enclose(runs.params, runs.tokens, runs.own, tokens_to),
        form.settle(runs.params, runs.tokens, runs.own),
    )
    optimum = _search(form, runs, box, settled, delta, seed)
    return _evidence(form, runs, box, settled, optimum, _held_out(form, runs, box, delta, seed) if hold_out else ())


def _evidence(
    form: Form, runs: Runs, box: Box, settled: Settled, optimum: varpro.Optimum, splits: tuple[HeldOut, ...]
) -> Fit:
    best = int(optimum.objective.argmin())
    lowest = float(optimum.objective[best])
    law = form.build(optimum.theta[best], optimum.coefficients[best], box)
    errors = law.loss(runs.params, runs.tokens, runs.own) / runs.loss - 1
    unseen = np.concatenate([split.errors for split in splits]) if splits else None
    return Fit(
        law=law,
        form=form,
        params={name: float(value) for name, value in law._asdict().items()},
        seen_error=float(np.median(np.abs(errors))),
        unseen_error=None if unseen is None else float(np.median(np.abs(unseen))),
        agreement=float(np.mean(optimum.objective <= lowest * (1 + SAME) + 1e-12 * len(runs))),
        at_bounds=_undecided(form, optimum.theta[best], optimum.coefficients[best], settled),
        objective=lowest,
        held_out=splits,
        reasons=settled.reasons,
        observations=len(runs),
        box=box,
        theta=optimum.theta[best],
        coefficients=optimum.coefficients[best],
        settled=settled,
    )


def problem(form: Form, runs: Runs, box: Box, delta: float = DELTA) -> varpro.Problem:
    def columns(theta: Array) -> Array:
        return form.columns(theta, runs.params, runs.tokens, runs.own, box)

    return varpro.Problem(columns, runs.loss, form.low, form.high, delta)


def masks(form: Form, settled: Settled) -> tuple[Mask, Mask]:
    """(k,) which exponents may move, (m,) which coefficients may differ from 0."""
    free = np.array([name not in settled.exponents for name in form.exponents])
    present = np.array([name not in settled.absent for name in form.linear])
    return free, present


def draw_starts(form: Form, settled: Settled, number: int, seed: int) -> Array:
    """(number, k): log-uniform over the bounds, those that are fixed at their value."""
    random = np.random.default_rng(seed)
    theta = np.exp(random.uniform(np.log(form.low), np.log(form.high), (number, len(form.exponents))))
    for k, name in enumerate(form.exponents):
        if name in settled.exponents:
            theta[:, k] = settled.exponents[name]
    return np.asarray(theta)


def _search(form: Form, runs: Runs, box: Box, settled: Settled, delta: float, seed: int) -> varpro.Optimum:
    """Score many starts without moving, then descend from the better ones."""
    posed = problem(form, runs, box, delta)
    free, present = masks(form, settled)
    starts = draw_starts(form, settled, SCORED, seed)
    ones = np.ones((len(starts), len(runs)))
    scored = varpro.descend(posed, starts, ones, _repeat(free, starts), _repeat(present, starts), iterations=0)
    starts = starts[np.argsort(scored.objective, kind="stable")[:POLISHED]]
    ones = ones[: len(starts)]
    return varpro.descend(posed, starts, ones, _repeat(free, starts), _repeat(present, starts), iterations=80)


def _repeat(mask: Mask, starts: Array) -> Mask:
    return np.broadcast_to(mask, (len(starts), len(mask))).copy()


def _held_out(form: Form, runs: Runs, box: Box, delta: float, seed: int) -> tuple[HeldOut, ...]:
    """Refits with zero weight on what is left out: all folds and all their starts are one batch."""
    folds = [(name, keep) for name, keep in leave_out(runs) if _enough(form, runs.where(keep))]
    if not folds:
        return ()
    starts, may_move, may_differ = [], [], []
    for number, (_, keep) in enumerate(folds):
        kept = runs.where(keep)
        settled = form.settle(kept.params, kept.tokens, kept.own)
        theta = draw_starts(form, settled, FOLD_STARTS, seed + 1 + number)
        free, present = masks(form, settled)
        starts.append(theta)
        may_move.append(_repeat(free, theta))
        may_differ.append(_repeat(present, theta))
    found = varpro.descend(
        problem(form, runs, box, delta),
        np.concatenate(starts),
        np.repeat([keep.astype(float) for _, keep in folds], FOLD_STARTS, axis=0),
        np.concatenate(may_move),
        np.concatenate(may_differ),
        iterations=60,
    )
    errors: dict[str, list[tuple[Array, Array]]] = {}
    for number, (name, keep) in enumerate(folds):
        start = number * FOLD_STARTS
        best = start + int(found.objective[start : start + FOLD_STARTS].argmin())
        out = runs.where(~keep)
        columns = form.columns(found.theta[best][None], out.params, out.tokens, out.own, box)[0]
        errors.setdefault(name, []).append((columns @ found.coefficients[best] / out.loss - 1, out.own))
    return tuple(
        HeldOut(name, *(np.concatenate(column) for column in zip(*parts, strict=True)))
        for name, parts in errors.items()
    )


def leave_out(runs: Runs) -> list[tuple[str, Mask]]:
    """(name, what is kept): without the longest runs, and without each ratio that has neighbours on both sides.

    Longest: beyond two thirds of the longest of the same size, so that dense checkpoints are a stretch as well.
    """
    longest = np.array([runs.tokens[runs.params == size].max() for size in runs.params])
    folds = [("longest runs", runs.tokens <= longest / 1.5)]
    ratios = np.unique(runs.own)
    folds += [("a ratio", ~np.isclose(runs.own, ratio)) for ratio in ratios[1:-1]]
    return [(name, keep) for name, keep in folds if keep.any() and not keep.all()]


def longest_two(runs: Runs) -> tuple[float, float]:
    """The longest run, and the longest that is left when the longest are held out."""
    longest = float(runs.tokens.max())
    shorter = runs.tokens[runs.tokens <= longest / 1.5]
    return longest, float(shorter.max()) if len(shorter) else longest


def _undecided(form: Form, theta: Array, coefficients: Array, settled: Settled) -> tuple[str, ...]:
    fixed = [*settled.exponents, *settled.absent]
    ends = (theta <= form.low * 1.001) | (theta >= form.high * 0.999)
    at_ends = [name for name, end in zip(form.exponents, ends, strict=True) if end and name not in fixed]
    zeros = [
        name for name, value in zip(form.linear, coefficients, strict=True) if value == 0 and name not in settled.absent
    ]
    return tuple(fixed + at_ends + zeros)


def _enough(form: Form, runs: Runs) -> bool:
    if len(runs) == 0 or count_levels(runs.own) < 3:
        return False
    return len(runs) >= _num_free(form, form.settle(runs.params, runs.tokens, runs.own))


def _num_free(form: Form, settled: Settled) -> int:
    return form.num_parameters - len(settled.exponents) - len(settled.absent)


def _refuse(form: Form, runs: Runs) -> None:
    """Everything that would make a fit an opinion."""
    for name, values in (("N", runs.params), ("D", runs.tokens), ("share", runs.own), ("loss", runs.loss)):
        if bad := np.flatnonzero(~np.isfinite(values)).tolist():
            raise ConfigError(f"{form.name}: {name} is not a number in observations {bad[:5]}; leave such rows out")
    if len(runs) == 0:
        raise ConfigError(f"{form.name}: no observation to fit; loss must be measured at the end of finished runs")
    if (runs.own > 1).any() or (runs.own < 0).any():
        raise ConfigError(
            f"{form.name}: shares run from {runs.own.min():g} to {runs.own.max():g}; allowed is 0..1. "
            f"If they are in percent, divide by 100"
        )
    if (runs.loss <= 0).any() or (runs.params <= 0).any() or (runs.tokens <= 0).any():
        raise ConfigError(f"{form.name}: loss, N and D must be above 0; a row at 0 tokens is the parent, not a run")
    if (ratios := count_levels(runs.own)) < 3:
        found = ", ".join(f"{x:g}" for x in np.unique(runs.own))
        raise ConfigError(
            f"{form.name}: {ratios} ratio{'s' * (ratios > 1)} ({found}) cannot show how loss bends with the ratio; "
            f"run at least three, better five"
        )
    needed = _num_free(form, form.settle(runs.params, runs.tokens, runs.own))
    if len(runs) < needed:
        raise ConfigError(
            f"{form.name}: {len(runs)} observations cannot pin its {needed} free parameters; add ratios or "
            f"run lengths until there are at least {needed}, better twice as many"
        )
    if np.ptp(runs.loss) < 1e-6 * runs.loss.mean():
        raise ConfigError(
            f"{form.name}: all {len(runs)} losses are {runs.loss[0]:g}; a constant says nothing about the ratio. "
            f"Check that each run's own loss was recorded"
        )
