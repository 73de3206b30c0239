"""The matrix of a model line as a record: slices by models, figures with intervals, by role, source and portion.

Along one line of descent: the base, then each model continued from the one before. A refused candidate is on it only
while it is the newest; text that came with it counts as learned by the first model after it.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from pydantic import Field

from ratoon.config import AssessConfig, ConfigError
from ratoon.evaluation import history as past
from ratoon.evaluation import matrix
from ratoon.evaluation.history import History, Row, Slice
from ratoon.records import Interval, Record

WATCHED = ("acc", "step", "total")  # the figures of text that nobody learns


class Matrix(Record):
    """`matrix.json` of a refresh: how well each model of its line predicts the text of each refresh."""

    line: str
    models: tuple[Row, ...] = Field(description="the base first, the newest last")
    slices: tuple[Slice, ...]
    born: tuple[int, ...] = Field(description="of each slice: the first row whose text held it")
    scores: tuple[tuple[float | None, ...], ...] = Field(description="bits per byte, a row per model; None: not asked")
    figures: dict[str, dict[str, Interval | None]] = Field(
        description="group (all, a role, a source or portion, watched) -> figure -> in bits per byte with the sign "
        "turned, so that more is better; forgetting is what was lost. None: undefined yet"
    )
    notes: tuple[str, ...] = ()


def matrix_of(folder: Path, history: History, name: str, config: AssessConfig) -> Matrix:
    """Of the line of descent that ends in the row `name`. Raises ConfigError where there is no refresh on it."""
    rows = history.chain(name)
    if len(rows) < 2:
        raise ConfigError(f"{history.line}: no refresh left its scores in {folder} yet; run `ratoon refresh`")
    rows, notes = _comparable(rows)
    inside = {each: number for number, row in reversed(list(enumerate(rows))) for each in row.slices}
    found = [each for each in history.slices if each.name in inside and each.name in rows[-1].scores]
    if lost := [each.name for each in history.slices if each.name in rows[-1].spoiled]:
        notes.append(f"left out, because their text is no longer held out: {', '.join(lost)}")
    columns = [past.column(folder, rows, each) for each in found]
    born = [inside[each.name] for each in found]
    scores = matrix.bits_per_byte(columns) if columns else np.empty((len(rows), 0))
    return Matrix(
        line=history.line,
        models=tuple(rows),
        slices=tuple(found),
        born=tuple(born),
        scores=tuple(tuple(None if math.isnan(x) else float(x) for x in row) for row in scores),
        figures=figures(columns, np.array(born, np.int64), dict(groups(found)), config),
        notes=tuple(notes),
    )


def _comparable(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Scores under other settings than the newest model's are taken out, and that is said."""
    kept, notes = [], []
    for row in rows:
        if row.scores and row.settings != rows[-1].settings:
            changed = sorted(k for k, v in rows[-1].settings.items() if row.settings.get(k) != v)
            notes.append(
                f"{row.label} was scored with another {', '.join(changed) or 'setting'}; its scores are left out"
            )
            row = row.model_copy(update={"scores": {}})
        kept.append(row)
    return kept, notes


def groups(found: list[Slice]) -> Iterator[tuple[str, list[int]]]:
    """Name -> columns. What is watched is a group of its own: nobody learned it."""
    own = [k for k, each in enumerate(found) if not each.watched]
    yield "all", own
    for role in ("general", "domain"):
        yield role, [k for k in own if found[k].role == role]
    yield "watched", [k for k, each in enumerate(found) if each.watched]
    for source in sorted({each.source for each in found}):
        yield source, [k for k, each in enumerate(found) if each.source == source]


def figures(
    columns: list[matrix.Slice], born: matrix.I64, named: Mapping[str, list[int]], config: AssessConfig
) -> dict[str, dict[str, Interval | None]]:
    """Every figure of every group, with the interval of drawing other documents."""
    if not columns:
        return {}
    # A loss is a score with its sign turned.
    scores, drawn = -matrix.bits_per_byte(columns), -matrix.resampled(columns, config.bootstrap, config.seed)
    made: dict[str, dict[str, Interval | None]] = {}
    for group, members in named.items():
        if not members:
            continue
        of = np.array(members)
        values = matrix.figures(scores[:, of], born[of])
        draws = matrix.figures(drawn[:, :, of], born[of])
        wanted = WATCHED if group == "watched" else matrix.NAMES
        made[group] = {name: interval(values[name], draws[name], config.confidence) for name in wanted}
    return made


def interval(value: matrix.F64, draws: matrix.F64, confidence: float) -> Interval | None:
    if not math.isfinite(value):
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value=float(value), low=float(low), high=float(high), confidence=confidence)
