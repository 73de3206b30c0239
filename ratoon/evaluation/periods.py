"""Held-out documents by date, and how well each model predicts each period.

Borders are the base's cut-off and the days of the refreshes of the line; a period begins the day after one and ends on
the next. A document belongs to the period that holds all days its date may mean: one dated 2024 is in no period that
ends in June. Documents without a date are counted, and in none.

slope: weighted least squares of bits per byte on years since the cut-off, over the documents dated after it, bytes as
weights: the b of  min_{a, b} sum_i bytes_i (bits_i / bytes_i - a - b t_i)^2.  Above 0: text gets harder to predict.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from pydantic import Field

from ratoon.config import AssessConfig, PeriodsConfig, Role
from ratoon.corpus.filters.dates import days
from ratoon.evaluation import slices
from ratoon.evaluation.held_out import Document, held_out_documents
from ratoon.evaluation.slices import Place, Score
from ratoon.evaluation.suite import Suite
from ratoon.records import Interval, Record

YEAR = 365.25
Bits = dict[str, dict[str, tuple[float, int]]]  # source and period -> document -> bits, bytes


class Period(Record):
    name: str = Field(description="before, between or after, and the days")
    first: str | None = Field(description="its first day; None: all before")
    last: str | None = Field(description="its last day; None: all since")

    def holds(self, begin: date, end: date) -> bool:
        first, last = (date.fromisoformat(day) if day else None for day in (self.first, self.last))
        return (first is None or begin >= first) and (last is None or end <= last)


class PeriodScore(Record):
    source: str
    role: Role
    period: str
    documents: int
    bytes: int
    scores: dict[str, float] = Field(description="model -> bits per byte")


class Slope(Record):
    source: str
    model: str
    documents: int = Field(description="dated after the cut-off")
    per_year: Interval = Field(description="bits per byte")


class Periods(Record):
    """`periods.json` of a refresh."""

    cutoff: str | None = Field(description="of the base; None: not declared in models/bases")
    periods: tuple[Period, ...]
    scores: tuple[PeriodScore, ...]
    slopes: tuple[Slope, ...] = Field((), description="after the cut-off, of sources with documents of several days")
    undated: dict[str, int] = Field(default_factory=dict, description="source -> held-out documents without a date")
    unplaced: dict[str, int] = Field(default_factory=dict, description="source -> dated over more than one period")
    scarce: tuple[str, ...] = Field((), description="source and period with fewer than min_documents")


def between(cutoff: str | None, refreshes: list[str]) -> tuple[Period, ...]:
    """Periods from the base's cut-off and the days of refreshes, both ISO 8601."""
    borders = sorted({day for day in (cutoff, *(moment[:10] for moment in refreshes)) if day})
    if not borders:
        return ()
    names = {day: "the refresh" for day in borders} | ({cutoff: "the cut-off"} if cutoff else {})
    found = []
    for before, after in zip([None, *borders], [*borders, None], strict=True):
        first = str(date.fromisoformat(before) + timedelta(days=1)) if before else None
        span = f"until {after}" if before is None else f"since {first}" if after is None else f"{first} to {after}"
        words = "before" if before is None else "after" if after is None else "between"
        found.append(Period(name=f"{words} {names[after or before]}, {span}", first=first, last=after))  # type: ignore[index]
    return tuple(found)


def place(document: Document, periods: tuple[Period, ...]) -> int | None:
    """The period that holds every day the document's date may mean. Raises KeyError for a document without one."""
    found = days(document.date) if document.date else None
    if found is None:
        raise KeyError(document.id)
    return next((k for k, period in enumerate(periods) if period.holds(*found)), None)


def measure(
    places: Mapping[str, Place],
    periods: tuple[Period, ...],
    cutoff: str | None,
    models: Mapping[str, Path],
    out: Path,
    config: AssessConfig,
    score: Score,
) -> Periods | None:
    """Every model on up to `documents` of each source and period. None where no document has a date that tells."""
    asked = config.periods or PeriodsConfig()
    undated, unplaced = Counter[str](), Counter[str]()
    folders: dict[str, tuple[Role, Path]] = {}
    scarce: list[str] = []
    cells: dict[str, tuple[str, Period, list[Document]]] = {}
    for source, where in sorted(places.items()):
        parts = [slices.Lowest(asked.documents, config.seed) for _ in periods]
        _sort(source, where, periods, parts, undated, unplaced)
        for k, part in enumerate(parts):
            kept = part.documents()
            if not kept:
                continue
            if len(kept) < asked.min_documents:
                scarce.append(f"{source} {periods[k].name}: {len(kept)} documents")
                continue
            name = f"{source}.p{k}"
            slices.keep(kept, config.max_bytes, out / "text" / name)
            folders[name] = (where.role, out / "text" / name)
            cells[name] = (source, periods[k], kept)
    if not cells:
        return None
    tests = slices.suite_of(folders, config, out / "suite")
    bits: dict[str, Bits] = {}
    for model, path in models.items():
        score(path, out / "suite", out / model)
        bits[model] = _bits(out / model, tests)
    return Periods(
        cutoff=cutoff,
        periods=periods,
        scores=tuple(_cell(cells[name], folders[name][0], name, bits) for name in cells),
        slopes=tuple(_slopes(cells, bits, cutoff, asked.min_documents, config)) if cutoff else (),
        undated=dict(undated),
        unplaced=dict(unplaced),
        scarce=tuple(scarce),
    )


def _sort(
    source: str,
    where: Place,
    periods: tuple[Period, ...],
    parts: list[slices.Lowest],
    undated: Counter[str],
    unplaced: Counter[str],
) -> None:
    """Every document into the part of its period, or counted as having none."""
    for document in held_out_documents(where.clean):
        try:
            k = place(document, periods)
        except KeyError:
            undated[source] += 1
            continue
        if k is None:
            unplaced[source] += 1
        else:
            parts[k].add(document)


def _bits(scores: Path, tests: Suite) -> Bits:
    return {
        task.source: {key: (b, n) for key, b, n in zip(*slices.bits_of(scores, task.name), strict=True)}
        for task in tests.tasks
    }


def _cell(cell: tuple[str, Period, list[Document]], role: Role, name: str, bits: Mapping[str, Bits]) -> PeriodScore:
    source, period, kept = cell
    any_model = next(iter(bits.values()))[name].values()
    size = sum(n for _, n in any_model)
    return PeriodScore(
        source=source,
        role=role,
        period=period.name,
        documents=len(kept),
        bytes=size,
        scores={model: sum(b for b, _ in found[name].values()) / size for model, found in bits.items()},
    )


def _slopes(
    cells: dict[str, tuple[str, Period, list[Document]]],
    bits: Mapping[str, Bits],
    cutoff: str,
    least: int,
    config: AssessConfig,
) -> list[Slope]:
    since = date.fromisoformat(cutoff)
    found = []
    for source in sorted({cell[0] for cell in cells.values()}):
        late = {n: d for n, (of, period, d) in cells.items() if of == source and (period.first or "") > cutoff}
        years = [_years(document, since) for name in late for document in late[name]]
        if len(years) < least or len(set(years)) < 2:
            continue
        for model, each in bits.items():
            pairs = [each[name][document.id] for name in late for document in late[name]]
            values = np.array(pairs, np.float64)
            found.append(
                Slope(
                    source=source,
                    model=model,
                    documents=len(years),
                    per_year=slope(np.array(years), values[:, 0], values[:, 1], config),
                )
            )
    return found


def _years(document: Document, since: date) -> float:
    """The middle of the days its date may mean."""
    found = days(document.date or "")
    assert found is not None, "only dated documents are placed"
    return ((found[0] - since).days + (found[1] - since).days) / 2 / YEAR


def slope(years: np.ndarray, bits: np.ndarray, sizes: np.ndarray, config: AssessConfig) -> Interval:
    """With the percentile interval of drawing other documents."""

    def fit(times_BD: np.ndarray) -> np.ndarray:
        weight = times_BD @ sizes
        t, y = times_BD @ (sizes * years) / weight, times_BD @ bits / weight
        cross = times_BD @ (years * bits) / weight - t * y
        spread = times_BD @ (sizes * years**2) / weight - t**2
        return cross / np.where(spread > 0, spread, np.nan)

    rng = np.random.default_rng(config.seed)
    count = len(years)
    draws = fit(rng.multinomial(count, np.full(count, 1 / count), size=config.bootstrap))
    tail = (1 - config.confidence) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    value = float(fit(np.ones((1, count)))[0])
    return Interval(value=value, low=float(low), high=float(high), confidence=config.confidence)
