"""What the runs say at the target: which laws are believed, how much each, and draws of either loss from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ChooseConfig, ConfigError, Role
from ratoon.laws.decision.candidates import Candidate, fit_all, pick, spread, weigh
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Array, count_levels
from ratoon.laws.intervals.forecast import Forecast
from ratoon.laws.tables.parents import starts
from ratoon.laws.tables.table import Table, own_share, tabulate
from ratoon.records import Interval, Observation, RatioPoint

GRID = 0.01  # shares are whole hundredths: exact in blocks of 100 rows
CURVE = 25  # points of the curve for the report
SPREAD = 0.9  # of every interval


class Voice(NamedTuple):
    """One law with the share of belief it has; the shares of a role sum to 1."""

    weight: float
    candidate: Candidate
    forecast: Forecast


@dataclass(frozen=True)
class Believed:
    """The laws of either role at a target of `params` and `tokens`.

    voices  what is believed, the most believed law first: one law where one was picked, several where they are
            combined. Draws are pooled in proportion to weight, best estimates are the weighted mean
    """

    tables: dict[Role, Table]
    candidates: list[Candidate]
    voices: dict[Role, tuple[Voice, ...]]
    params: float
    tokens: float
    config: ChooseConfig
    warnings: list[str]

    @property
    def picked(self) -> dict[Role, Candidate]:
        """The most believed law of either role."""
        return {role: voices[0].candidate for role, voices in self.voices.items()}

    def candidate(self, role: Role, name: str) -> Candidate:
        return next(one for one in self.candidates if one.role == role and one.name == name)

    @property
    def forecasts(self) -> dict[Role, Forecast]:
        return {role: voices[0].forecast for role, voices in self.voices.items()}

    @property
    def law(self) -> str:
        """In words: the law or the laws with their weights, for either role."""
        general, domain = name(self.voices["general"]), name(self.voices["domain"])
        combined = "combined: " if any(len(both) > 1 for both in self.voices.values()) else ""
        return combined + (general if general == domain else f"{general} for general, {domain} for domain")

    @property
    def smallest(self) -> float:
        """The smallest domain share a choice may fall on: the smallest tried that has any domain text."""
        return float(max(self.tables["general"].share.min(), GRID))

    def draws(self, role: Role, shares: ArrayLike, *, tokens: ArrayLike | None = None) -> Array:
        """(R, n) nats per token at domain shares (n,), after the target's tokens or (n,) others."""
        D = self.tokens if tokens is None else tokens
        own = own_share(role, np.atleast_1d(np.asarray(shares, dtype=float)))
        voices = self.voices[role]
        if len(voices) == 1:
            return voices[0].forecast.draws(self.params, D, own)
        found = [one.forecast.draws(self.params, D, own) for one in voices]
        counts = portions([one.weight for one in voices], len(found[0]))
        pooled = np.concatenate([drawn[:count] for drawn, count in zip(found, counts, strict=True)])
        # Which law is right for general loss says nothing about which is for domain loss: rows are shuffled.
        return np.asarray(pooled[np.random.default_rng(self.config.seed + (role == "domain")).permutation(len(pooled))])

    def best(self, role: Role, shares: ArrayLike, *, tokens: ArrayLike | None = None) -> Array:
        """(n,) nats per token, without uncertainty."""
        D = self.tokens if tokens is None else tokens
        own = own_share(role, np.atleast_1d(np.asarray(shares, dtype=float)))
        each = [one.weight * one.candidate.loss(self.params, D, own) for one in self.voices[role]]
        return np.asarray(np.sum(each, axis=0))

    def interval(self, role: Role, share: float) -> Interval:
        return around(float(self.best(role, share)[0]), self.draws(role, share)[:, 0])

    def curve(self) -> tuple[RatioPoint, ...]:
        return tuple(
            RatioPoint(share=float(x), general=self.interval("general", x), domain=self.interval("domain", x))
            for x in np.linspace(self.smallest, self.tables["general"].share.max(), CURVE)
        )

    def largest(self, ceiling: float) -> Array:
        """(R,) per draw, the largest share whose general loss is under the ceiling; -1 where none is."""
        shares = share_grid(self.smallest, 1.0)
        return crossing(shares, self.draws("general", shares), ceiling)


def believe(
    observations: Sequence[Observation],
    params: int,
    tokens: int,
    config: ChooseConfig,
    parents: Mapping[Role, float] | None = None,
) -> Believed:
    """Every law fitted on these observations, and what of it to believe at `params` and `tokens`.

    `parents` are the target's losses before training, in nats per token, where the table has no rows of them.

    Raises ConfigError when the observations cannot carry a law, or none that reaches so far.
    """
    tables, warnings = tabulate(observations)
    refuse_far(tables, params, tokens, config)
    known = starts(observations)
    for role, loss in (parents or {}).items():
        known[role].setdefault(params, loss)
    candidates, left_out = fit_all(tables, known, params=params, tokens=tokens, config=config)
    voices = {role: _voices(candidates, role, params, tokens, config) for role in tables}
    heard = [one.candidate for both in voices.values() for one in both]
    doubts = [doubt for both in voices.values() for doubt in both[0].candidate.doubts(config)]
    warnings = [*warnings, *left_out, *doubts, *_distance(tables, heard, params, tokens, config)]
    return Believed(tables, candidates, voices, params, tokens, config, warnings)


def _voices(
    candidates: Sequence[Candidate], role: Role, params: float, tokens: float, config: ChooseConfig
) -> tuple[Voice, ...]:
    if config.law == "combined":
        # How far the laws are apart is in the pool itself.
        return tuple(
            Voice(weight, one, one.forecast(tokens, config)) for one, weight in weigh(candidates, role, config)
        )
    one = pick(candidates, role, config)
    away = spread(candidates, one, params, tokens, config)
    return (Voice(1.0, one, one.forecast(tokens, config, away)),)


class Far(NamedTuple):
    """That a target lies far from the runs: as an error, and beside an answer that was asked for all the same."""

    letter: str
    warning: str


def refuse_far(tables: dict[Role, Table], params: float, tokens: float | None, config: ChooseConfig) -> None:
    """A target so far from the runs that no law was checked there, unless that was asked for; without `tokens` its
    size alone."""
    runs = tables["general"].runs
    largest = float(runs.params.max())
    found = [one.letter for one in far(runs, config, {"N": params} if tokens is None else {"D": tokens, "N": params})]
    if count_levels(runs.params) == 1 and not 1 / config.same_size <= params / largest <= config.same_size:
        found.append(
            f"all {len(runs)} general observations are of one size ({largest:,.0f} parameters) and the target has "
            f"{params:,.0f}: one size tells nothing of another; run the target's size, or two more sizes beside this "
            f"one"
        )
    refuse_unasked(found, config)


def refuse_unasked(letters: Sequence[str], config: ChooseConfig) -> None:
    if letters and not config.extrapolate:
        raise ConfigError(
            f"{'. '.join(letters)}. To have an answer all the same, set choose.extrapolate to true (--extrapolate)"
        )


def far(runs: Runs, config: ChooseConfig, target: Mapping[str, float]) -> list[Far]:
    """What of D and N lies beyond what laws have been checked at: far above the largest of the runs, or far below the
    smallest."""
    known = {
        "D": ("tokens", "longest run", "shortest run", "proxies", config.far_tokens),
        "N": ("parameters", "largest model run", "smallest model run", "a model", config.far_size),
    }
    found = []
    for name, asked in target.items():
        unit, most, least, proxy, times = known[name]
        high, low = float(runs.inputs[name].max()), float(runs.inputs[name].min())
        if asked > times * high:
            letter = (
                f"{asked:,.0f} {unit} are {asked / high:.1f} times the {most} ({high:,.0f}), and beyond {times:g} "
                f"times no law has been checked: run {proxy} of {np.ceil(asked / times):,.0f} {unit} or more"
            )
            found.append(Far(letter, f"extrapolates beyond {times:g} times the {most} ({high:,.0f} {unit})"))
        if asked < low / times:
            letter = (
                f"{asked:,.0f} {unit} are 1/{low / asked:,.1f} of the {least} ({low:,.0f}), and below 1/{times:g} of "
                f"it no law has been checked: run {proxy} of {np.floor(asked * times):,.0f} {unit} or fewer"
            )
            found.append(Far(letter, f"extrapolates below 1/{times:g} of the {least} ({low:,.0f} {unit})"))
    return found


def _distance(
    tables: dict[Role, Table], heard: Sequence[Candidate], params: float, tokens: float, config: ChooseConfig
) -> list[str]:
    """How far the question lies from the runs, in words."""
    found = []
    runs = tables["general"].runs
    groups = min(len(set(one.table.group)) for one in heard)
    if groups < config.few_groups:
        found.append(f"few groups: {groups} independent trunks; intervals rest mostly on what was held out")
    if count_levels(runs.params) == 1 and abs(np.log(runs.params[0] / params)) > 0.02:
        found.append(
            f"extrapolates beyond the one model size run ({runs.params[0]:,.0f} parameters): the target has {params:,}"
        )
    if any(not one.eligible for one in heard):
        found.append(f"extrapolates beyond the model size run: the law has no size, the target's is {params:,}")
    if count_levels(runs.tokens) == 1 and abs(np.log(runs.tokens[0] / tokens)) > 0.05:
        found.append(
            f"extrapolates beyond the one run length tried ({runs.tokens[0]:,.0f} tokens): loss is taken as if final"
        )
    found += [one.warning for one in far(runs, config, {"D": tokens, "N": params})]
    if any(not one.fit.held_out for one in heard):
        found.append("too few runs to hold any out: intervals hold sampling error only")
    return found


def name(voices: Sequence[Voice]) -> str:
    if len(voices) == 1:
        return voices[0].candidate.name
    return " + ".join(f"{one.weight:.0%} {one.candidate.name}" for one in voices)


def portions(weights: Sequence[float], whole: int) -> list[int]:
    """`whole` things in proportion to weights that sum to 1: largest remainders."""
    exact = np.asarray(weights) * whole
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: whole - int(counts.sum())]] += 1
    return [int(count) for count in counts]


def around(value: float, draws: Array, confidence: float = SPREAD) -> Interval:
    """The interval of these draws, stretched to hold the best estimate."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value), confidence=confidence)


def share_grid(low: float, high: float) -> Array:
    return np.asarray(np.arange(round(low / GRID), round(high / GRID) + 1) * GRID, dtype=float)


def crossing(shares: Array, losses: Array, ceiling: float) -> Array:
    """(R,) where each of the rising curves (R, n) over `shares` (n,) crosses `ceiling`, by linear interpolation;
    -1 where it starts above, the last share where it ends below."""
    under = losses <= ceiling
    last = np.where(under.all(axis=1), len(shares) - 1, under.argmin(axis=1) - 1)
    rows, after = np.arange(len(losses)), np.minimum(last + 1, len(shares) - 1)
    low, high = losses[rows, last], losses[rows, after]
    rises = (after > last) & (high > low)
    part = np.where(rises, (ceiling - low) / np.where(rises, high - low, 1.0), 0.0)
    return np.where(last < 0, -1.0, shares[last] + part * (shares[after] - shares[last]))
