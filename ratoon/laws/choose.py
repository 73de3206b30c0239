"""The domain share for the target run: the largest that keeps general loss under its ceiling, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ratoon.config import ChooseConfig, ConfigError, Role
from ratoon.laws.candidates import MANY_GROUPS, Candidate, fit_all, pick, spread
from ratoon.laws.form import Array, count_levels
from ratoon.laws.table import Table, own_share, tabulate
from ratoon.laws.uncertainty import Forecast
from ratoon.records import Choice, Interval, LawReport, Observation, RatioPoint

GRID = 0.01  # shares are whole hundredths: exact in blocks of 100 rows
CURVE = 25  # points of the curve for the report
SPREAD = 0.9  # of every interval
FAR_TOKENS, FAR_SIZE = 10.0, 4.0

TOLERANCE = "limited by general tolerance"
DATA = "limited by domain data"
INTERIOR = "interior"
FREE = "not limited: domain only keeps general loss within tolerance"
FIXED = "fixed by the user"


@dataclass(frozen=True)
class FitReport:
    """The laws without a choice: what `ratoon fit` prints."""

    laws: tuple[LawReport, ...]
    general_law: str  # the one that would be believed
    domain_law: str
    curve: tuple[RatioPoint, ...]  # at the target size and tokens
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Believed:
    tables: dict[Role, Table]
    candidates: list[Candidate]
    picked: dict[Role, Candidate]
    forecasts: dict[Role, Forecast]
    params: float
    tokens: float
    warnings: list[str]

    @property
    def law(self) -> str:
        general, domain = self.picked["general"].name, self.picked["domain"].name
        return general if general == domain else f"{general} for general, {domain} for domain"

    @property
    def smallest(self) -> float:
        """The smallest domain share a choice may fall on: the smallest tried that has any domain text."""
        tried = self.tables["general"].share
        return float(max(tried.min(), GRID))

    def draws(self, role: Role, shares: Array) -> Array:
        return self.forecasts[role].draws(self.params, self.tokens, own_share(role, shares))

    def best(self, role: Role, shares: Array) -> Array:
        return self.picked[role].fit.loss(self.params, self.tokens, own_share(role, shares))

    def interval(self, role: Role, share: float) -> Interval:
        at = np.array([share])
        low, high = np.quantile(self.draws(role, at)[:, 0], [(1 - SPREAD) / 2, (1 + SPREAD) / 2])
        value = float(self.best(role, at)[0])
        return Interval(value=value, low=min(float(low), value), high=max(float(high), value), confidence=SPREAD)

    def curve(self) -> tuple[RatioPoint, ...]:
        return tuple(
            RatioPoint(share=float(x), general=self.interval("general", x), domain=self.interval("domain", x))
            for x in np.linspace(self.smallest, self.tables["general"].share.max(), CURVE)
        )


def choose(
    observations: Sequence[Observation],
    *,
    params_non_embedding: int,
    tokens: int,
    parent_general: float,
    parent_domain: float,
    config: ChooseConfig,
    available_domain_tokens: int | None = None,
) -> Choice:
    """The share for a run of `tokens` at `params_non_embedding`, from finished runs with a loss.

    The parent's losses are nats per token on the same held-out text. `available_domain_tokens` is the domain text
    there is, which may be read `config.domain_epochs` times. The share is the one that stays under the ceiling
    with `config.confidence`, rounded down to a hundredth; where none is that sure but the best estimate keeps under
    the ceiling, the smallest share tried, with a warning.

    Raises ConfigError when the observations cannot carry a choice, or no share meets the tolerance.
    """
    _check_parent(parent_general, parent_domain)
    believed = _believe(observations, params_non_embedding, tokens, config)
    ceiling = parent_general * (1 + config.tolerance)
    largest = _largest(believed.forecasts["general"], believed, ceiling)
    share, reason = _decide(believed, largest, ceiling, parent_general, config, available_domain_tokens)
    median, low, high = np.quantile(np.maximum(largest, 0), [0.5, (1 - SPREAD) / 2, (1 + SPREAD) / 2])
    return Choice(
        share=share,
        interval=Interval(value=float(median), low=float(low), high=float(high), confidence=SPREAD),
        reason=reason,
        law=believed.law,
        laws=tuple(one.report() for one in believed.candidates),
        params_non_embedding=params_non_embedding,
        tokens=tokens,
        parent_general_nats=parent_general,
        parent_domain_nats=parent_domain,
        ceiling_nats=ceiling,
        tolerance=config.tolerance,
        predicted_general=believed.interval("general", share),
        predicted_domain=believed.interval("domain", share),
        curve=believed.curve(),
        second_opinion=_second_opinion(believed, ceiling, config),
        warnings=(
            *_unsure(believed, share, ceiling, config),
            *believed.warnings,
            *_after(believed, share, ceiling, parent_general),
        ),
    )


def _check_parent(general: float, domain: float) -> None:
    for name, loss in (("parent_general", general), ("parent_domain", domain)):
        if not np.isfinite(loss) or loss <= 0:
            raise ConfigError(f"{name} is {loss}; expected its held-out loss in nats per token")


def fit_report(
    observations: Sequence[Observation],
    *,
    params_non_embedding: int | None = None,
    tokens: int | None = None,
    config: ChooseConfig | None = None,
) -> FitReport:
    """Every law on both roles with its evidence, and the curve at the target; the largest run when none is given."""
    usable = [x for x in observations if x.finished and x.tokens > 0]
    params = params_non_embedding or max((x.params_non_embedding for x in usable), default=1)
    tokens = tokens or max((x.tokens for x in usable), default=1)
    believed = _believe(observations, params, tokens, config or ChooseConfig.model_validate({}))
    return FitReport(
        laws=tuple(one.report() for one in believed.candidates),
        general_law=believed.picked["general"].name,
        domain_law=believed.picked["domain"].name,
        curve=believed.curve(),
        warnings=tuple(believed.warnings),
    )


def _believe(observations: Sequence[Observation], params: int, tokens: int, config: ChooseConfig) -> _Believed:
    tables, warnings = tabulate(observations)
    candidates, left_out = fit_all(tables, params=params, tokens=tokens, wanted=config.law, seed=config.seed)
    picked = {role: pick(candidates, role, config.law) for role in tables}
    forecasts = {
        role: one.forecast(tokens, config.bootstrap, config.seed, spread(candidates, one, params, tokens))
        for role, one in picked.items()
    }
    doubts = [doubt for one in picked.values() for doubt in one.doubts()]
    warnings = [*warnings, *left_out, *doubts, *_before(tables, picked, params, tokens)]
    return _Believed(tables, candidates, picked, forecasts, params, tokens, warnings)


def _before(tables: dict[Role, Table], picked: dict[Role, Candidate], params: float, tokens: float) -> list[str]:
    """How far the question lies from the runs."""
    found = []
    runs = tables["general"].runs
    groups = min(len(set(one.table.group)) for one in picked.values())
    if groups < MANY_GROUPS:
        found.append(f"few groups: {groups} independent trunks; intervals rest mostly on what was held out")
    if count_levels(runs.params) == 1 and abs(np.log(runs.params[0] / params)) > 0.02:
        found.append(
            f"one model size ({runs.params[0]:,.0f} parameters) was run, and the target is another: {params:,}"
        )
    if any(not one.eligible for one in picked.values()):
        found.append(f"extrapolates beyond the model size run: the law has no size, the target's is {params:,}")
    if count_levels(runs.tokens) == 1 and abs(np.log(runs.tokens[0] / tokens)) > 0.05:
        found.append(
            f"extrapolates beyond the one run length tried ({runs.tokens[0]:,.0f} tokens): loss is taken as if final"
        )
    if tokens > FAR_TOKENS * runs.tokens.max():
        found.append(f"extrapolates beyond {FAR_TOKENS:g} times the longest run ({runs.tokens.max():,.0f} tokens)")
    if params > FAR_SIZE * runs.params.max():
        found.append(
            f"extrapolates beyond {FAR_SIZE:g} times the largest model run ({runs.params.max():,.0f} parameters)"
        )
    if any(not one.fit.held_out for one in picked.values()):
        found.append("too few runs to hold any out: intervals hold sampling error only")
    return found


def _after(believed: _Believed, share: float, ceiling: float, parent_general: float) -> list[str]:
    found = []
    table = believed.tables["general"]
    if share > table.share.max() + GRID / 2:
        found.append(f"extrapolates beyond the largest domain share tried, {table.share.max():g}")
    if share < table.share.min() - GRID / 2:
        found.append(f"extrapolates beyond the smallest domain share tried, {table.share.min():g}")
    if not table.runs.loss.min() / 1.3 < parent_general < table.runs.loss.max() * 1.3:
        found.append(
            f"the parent's general loss, {parent_general:.3g}, is far from the runs' "
            f"({table.runs.loss.min():.3g} to {table.runs.loss.max():.3g}): are both nats per token on the same text?"
        )
    if believed.interval("general", share).value > ceiling:
        found.append(f"at {share:g} general loss is predicted above its ceiling of {ceiling:.4f} nats")
    return found


def _unsure(believed: _Believed, share: float, ceiling: float, config: ChooseConfig) -> list[str]:
    """Said where the confidence asked for could not be had."""
    if config.ratio is not None or share > believed.smallest:
        return []
    under = float((believed.draws("general", np.array([share]))[:, 0] <= ceiling).mean())
    if under >= config.confidence:
        return []
    return [
        f"general loss stays under its ceiling with {under:.0%} confidence only, {config.confidence:.0%} was asked "
        f"for: {share:g} is the most careful share tried; longer proxy runs (sweep.tokens) would tell more, and "
        f"the gate decides"
    ]


def _largest(forecast: Forecast, believed: _Believed, ceiling: float) -> Array:
    """(R,) per draw, the largest share whose general loss is under the ceiling; -1 where none is."""
    shares = _grid(believed.smallest, 1.0)
    return crossing(shares, forecast.draws(believed.params, believed.tokens, own_share("general", shares)), ceiling)


def crossing(shares: Array, losses: Array, ceiling: float) -> Array:
    """(R,) where each of the rising curves (R, n) over `shares` (n,) crosses `ceiling`, by linear interpolation;
    -1 where it starts above, the last share where it ends below."""
    under = losses <= ceiling
    last = np.where(under.all(axis=1), len(shares) - 1, under.argmin(axis=1) - 1)
    rows, after = np.arange(len(losses)), np.minimum(last + 1, len(shares) - 1)
    low, high = losses[rows, last], losses[rows, after]
    part = np.where(after > last, (ceiling - low) / np.maximum(high - low, 1e-300), 0.0)
    return np.where(last < 0, -1.0, shares[last] + part * (shares[after] - shares[last]))


def _decide(
    believed: _Believed,
    largest: Array,
    ceiling: float,
    parent_general: float,
    config: ChooseConfig,
    available: int | None,
) -> tuple[float, str]:
    """(share, reason)."""
    if config.ratio is not None:
        return config.ratio, FIXED
    limit = float(np.quantile(largest, 1 - config.confidence, method="lower"))
    if limit < believed.smallest:
        # Unsure is not hopeless: where the best estimate keeps under the ceiling, the most careful run there is goes
        # ahead with a warning, and the gate has the last word. Otherwise a run would only be waste.
        if believed.interval("general", believed.smallest).value > ceiling:
            raise ConfigError(_letter(believed, parent_general, config))
        limit = believed.smallest
    share, reason = _down(limit), TOLERANCE
    if share >= 1:
        share, reason = (1.0, FREE) if _domain_only_held(believed, ceiling) else (1 - GRID, TOLERANCE)
    if available is not None and (cap := _down(config.domain_epochs * available / believed.tokens)) < share:
        if cap < GRID:
            raise ConfigError(
                f"{available:,} domain tokens, read at most {config.domain_epochs:g} times, are less than "
                f"{GRID:.0%} of the run's {believed.tokens:,}; add domain text, shorten the run (train.tokens) or "
                f"raise choose.domain_epochs"
            )
        share, reason = cap, DATA
    shares = _grid(min(believed.smallest, share), share)
    return lowest(shares, believed.best("domain", shares), reason)


def lowest(shares: Array, domain: Array, reason: str) -> tuple[float, str]:
    """The share of least domain loss among those allowed: the last one, for `reason`, unless one inside is lower."""
    best = int(domain.argmin())
    if best < len(shares) - 1 and domain[best] < domain[-1]:
        return round(float(shares[best]), 2), INTERIOR
    return round(float(shares[-1]), 2), reason


def _grid(low: float, high: float) -> Array:
    return np.asarray(np.arange(round(low / GRID), round(high / GRID) + 1) * GRID, dtype=float)


def _down(share: float) -> float:
    """To a hundredth, never up."""
    return float(np.floor(min(share, 1.0) / GRID + 1e-9) * GRID)


def _domain_only_held(believed: _Believed, ceiling: float) -> bool:
    """Whether the domain-only runs, where there are any, stayed under the ceiling: at its edge no law outranks them."""
    table = believed.tables["general"].near_size(believed.params)
    measured = table.runs.loss[table.share >= 1]
    return bool((measured <= ceiling).all())


def _letter(believed: _Believed, parent_general: float, config: ChooseConfig) -> str:
    at = np.array([believed.smallest])
    needed = float(np.quantile(believed.draws("general", at)[:, 0], config.confidence)) / parent_general - 1
    expected = believed.interval("general", believed.smallest)
    return (
        f"no share keeps general loss within tolerance; at the smallest domain share tried, {believed.smallest:g}, it "
        f"is predicted to be {expected.value:.4f} nats ({expected.low:.4f} to {expected.high:.4f}) after "
        f"{believed.tokens:,} tokens, and {config.tolerance:.1%} above the parent's {parent_general:.4f} allows "
        f"{parent_general * (1 + config.tolerance):.4f}. The smallest tolerance met with confidence "
        f"{config.confidence:g} is {np.ceil(needed * 1e4) / 1e4:.2%}: set choose.tolerance to it, try smaller ratios "
        f"in sweep.ratios, lower train.learning_rate, or fix choose.ratio yourself"
    )


def _second_opinion(believed: _Believed, ceiling: float, config: ChooseConfig) -> dict[str, float]:
    """The share each other law of general loss would choose under the tolerance; 0 where it finds none."""
    found = {}
    for one in believed.candidates:
        if one.role == "general" and one is not believed.picked["general"]:
            drawn = one.forecast(believed.tokens, config.bootstrap, config.seed)
            limit = float(np.quantile(_largest(drawn, believed, ceiling), 1 - config.confidence, method="lower"))
            found[one.name] = round(max(_down(limit), 0.0), 2)
    return found
