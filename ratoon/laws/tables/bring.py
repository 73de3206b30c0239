"""Anybody's table of runs as what laws are fitted on: columns found or named, units checked, rows accounted for.

Wide tables have one row per run (or checkpoint) and a column per loss; long ones, such as observations.csv, one row
per run and evaluated text, with its role.
"""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ratoon.config import ConfigError, Role
from ratoon.laws.form import Array
from ratoon.laws.tables import units
from ratoon.laws.tables.reading import Sheet, closest, parse_columns, read_sheet
from ratoon.laws.tables.runtable import RunTable
from ratoon.laws.tables.units import Column

# What a table may call it when it is not told: names that can mean nothing else. A "ratio" can be either way round.
ALIASES: dict[str, tuple[str, ...]] = {
    "N": (
        "params_non_embedding",
        "non_embedding_params",
        "model_params",
        "num_params",
        "n_params",
        "params",
        "parameters",
    ),
    "D": ("tokens", "num_tokens", "n_tokens", "tokens_seen", "train_tokens"),
    "share": ("domain_share", "domain_proportion"),
    "lr": ("learning_rate", "peak_lr"),
    "general": ("general_loss", "loss_general"),
    "domain": ("domain_loss", "loss_domain"),
    "loss": ("loss_nats", "eval_loss", "val_loss", "validation_loss"),
    "run": ("run_id", "run_name"),
    "group": ("trunk",),
}
LOSSES = ("general", "domain", "loss")
COUNTS = ("N", "D", "U", "N_mean")
SHARES = ("share", "r", "p")
LABELS = ("run", "group", "finished", "role", "evaluated", "bits_per_byte")
# What the laws are laws of; S.. and `new` are a schedule's (equations/dynamics.py).
INPUTS = (
    *("N", "D", "share", "r", "h", "lr", "U", "p", "N_mean", "L0", "k1", "k2"),
    *("S1pt", "S2pt", "S1cpt", "S2cpt", "new"),
)
FIELDS = (*INPUTS, *LOSSES, *LABELS)
# Of these is every choice, and most laws are. Other columns that only have the name of an input may be something else.
NEEDED = frozenset(("N", "D", "share", "r"))
OF_TRAINING = ("share", "lr")  # a model that was not trained has none: its rows, at 0 tokens, may leave them empty
SEVERAL = (*COUNTS, *SHARES, *LOSSES, "h")  # read from more than one column: added up, or one by one
FALSE = {"false", "f", "0", "0.0", "no", "n", "running", "scheduled", "failed", "killed"}
TRUE = {"true", "t", "1", "1.0", "yes", "y", "finished", "done", "completed", ""}


def read_runs(
    source: Path | str | Mapping[str, Sequence[Any]] | Sheet, columns: str | Mapping[str, str] = ""
) -> RunTable:
    """Runs from a CSV or Parquet file, or from columns by name.

    `columns` says which column, or expression over columns, is what: "N=params,D=tokens*1e9,share=ratio/100". Names
    that can mean one thing only are found without. Raises ConfigError with the rows and what to do about them.
    """
    sheet = source if isinstance(source, Sheet) else read_sheet(source)
    told = parse_columns(columns) if isinstance(columns, str) else columns
    mapping = match(sheet, told)
    unasked = mapping.keys() - told.keys() - NEEDED
    notes: list[str] = []
    sheet = _finished(sheet, mapping, notes)
    read = _long if "role" in mapping else _wide
    return read(sheet, mapping, unasked, notes)


def match(sheet: Sheet, told: Mapping[str, str]) -> dict[str, str]:
    """Field -> expression: what was told, and what can be found by its name."""
    for name, expression in told.items():
        if name not in FIELDS:
            raise ConfigError(
                f"--columns: {name!r} is nothing a law reads{_meant(name)}; known are {', '.join(FIELDS)}"
            )
        if len(of := sheet.names_in(expression)) > 1 and name not in SEVERAL:
            raise ConfigError(f"--columns: {name}={expression} is {', '.join(of)}; {name} is read from one column")
    found = dict(told)
    folded = {name.lower(): name for name in sheet.columns}
    taken = {name for expression in told.values() for name in sheet.names_in(expression)}
    for name in FIELDS:
        wanted = () if name in found else (name, *ALIASES.get(name, ()))
        # Words in any case; single letters as they are written: p and P need not be the same thing.
        hits = [folded.get(word.lower()) if len(word) > 2 else word for word in wanted]
        if hit := next((x for x in hits if x in sheet.columns and x not in taken), None):
            found[name] = hit
    roles = any(role in found for role in get_args(Role))
    return {name: at for name, at in found.items() if name in told or not (roles and name in ("loss", "r"))}


def _meant(name: str) -> str:
    """A field by its own name, or by what tables call it."""
    words = {word: field for field in FIELDS for word in (field, *ALIASES.get(field, ()))}
    return next((f"; did you mean {words[word]!r}?" for word in words if closest(name, [word])), "")


def _finished(sheet: Sheet, mapping: Mapping[str, str], notes: list[str]) -> Sheet:
    """Without the rows of runs whose schedule had not ended; the parent's, at 0 tokens, stay."""
    if "finished" not in mapping:
        return sheet
    start = sheet.numbers(mapping["D"]) == 0 if "D" in mapping else np.zeros(len(sheet), dtype=bool)
    words = sheet.words(mapping["finished"])
    if unknown := [k for k, word in enumerate(words) if word.lower() not in FALSE | TRUE]:
        raise ConfigError(
            f"{sheet.where}: {sheet.listed(unknown)}, column {mapping['finished']}: {words[unknown[0]]!r} says neither "
            f"that a run had finished nor that it had not; write true or false"
        )
    going = np.array([word.lower() in FALSE for word in words]) & ~start
    if (going | start).all():
        raise ConfigError(f"{sheet.where}: no row is of a finished run, by its column {mapping['finished']}")
    if going.any():
        notes.append(f"left out, not finished: {sheet.listed(np.flatnonzero(going))}")
    return sheet.keep((~going).tolist())


# ---------------------------------------------------------------- a row per run


def _wide(sheet: Sheet, mapping: Mapping[str, str], unasked: Set[str], notes: list[str]) -> RunTable:
    named = [name for name in LOSSES if name in mapping]
    if not named:
        raise ConfigError(
            f"{sheet.where}: which column is a loss? Say --columns general=COLUMN,domain=COLUMN, or loss=COLUMN for "
            f"one text; columns are {sheet.names}"
        )
    sheet = _measured(sheet, [mapping[name] for name in named], notes)
    sources = {name: _losses(sheet, name, mapping[name]) for name in named}
    inputs = _inputs(sheet, mapping, unasked, notes)
    run, group = _labels(sheet, mapping, inputs, notes)
    _refuse_repeats(sheet, inputs, run, ["" for _ in run], [tuple(row) for row in np.hstack(list(sources.values()))])
    return RunTable(
        inputs=inputs,
        sources=sources,
        texts={name: tuple(sheet.names_in(mapping[name])) for name in named},
        run=run,
        group=group,
        sheet=sheet,
        domains=tuple(sheet.names_in(mapping["h"])) if "h" in inputs else (),
        notes=tuple(notes),
    )


def _measured(sheet: Sheet, expressions: Sequence[str], notes: list[str]) -> Sheet:
    """Without the rows that have no loss at all."""
    empty = np.logical_and.reduce([np.isnan(sheet.each(each)).any(axis=1) for each in expressions])
    if empty.all():
        raise ConfigError(f"{sheet.where}: no row has a loss in {', '.join(expressions)}")
    if empty.any():
        notes.append(f"left out, no loss: {sheet.listed(np.flatnonzero(empty))}")
    some = {each: np.flatnonzero(np.isnan(sheet.each(each)).any(axis=1) & ~empty) for each in expressions}
    notes += [f"no {each}, so not fitted for that loss: {sheet.listed(x)}" for each, x in some.items() if len(x)]
    return sheet.keep((~empty).tolist())


def _losses(sheet: Sheet, name: str, expression: str) -> Array:
    """(n, texts), each checked."""
    values, texts = sheet.each(expression), sheet.names_in(expression)
    plain = expression in sheet.columns or sheet.is_plain(expression)
    for text, column in zip(texts, values.T, strict=True):
        units.check_loss(Column(sheet, name, text if plain else expression, column))
    return values


def _inputs(sheet: Sheet, mapping: Mapping[str, str], unasked: Set[str], notes: list[str]) -> dict[str, Array]:
    """What the laws are laws of, each checked."""
    found: dict[str, Array] = {}
    for name in (each for each in INPUTS if each in mapping):
        try:
            found[name] = _input(sheet, name, mapping[name], found.get("D"))
        except ConfigError as error:
            if name not in unasked:
                raise
            notes.append(f"{name} left unread: {error}")
    if "N" in found and "D" in found:
        units.check_length(*(Column(sheet, name, mapping[name], found[name]) for name in ("N", "D")))
    return found


def _input(sheet: Sheet, name: str, expression: str, tokens: Array | None) -> Array:
    values = sheet.each(expression) if name == "h" else sheet.numbers(expression)[:, None]
    values = units.rounded(values) if name in (*SHARES, "h") else values
    if name in OF_TRAINING and tokens is not None:
        values = np.where(np.isnan(values) & (tokens == 0)[:, None], 0.0, values)
    for column in (Column(sheet, name, expression, each) for each in values.T):
        units.check_present(column)
        if name in COUNTS:
            units.check_count(column)
        elif name in SHARES:
            units.check_share(column)
    if name == "h":
        units.check_mixture(sheet, expression, values)
        return values
    return values[:, 0]


def _labels(
    sheet: Sheet, mapping: Mapping[str, str], inputs: Mapping[str, Array], notes: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of runs, and of the trunks they share. Without names, rows that differ in tokens alone are one run's."""
    if "run" in mapping:
        run = [word or row for word, row in zip(sheet.words(mapping["run"]), sheet.rows, strict=True)]
    else:
        alike = [_key(inputs, k, but="D") for k in range(len(sheet))]
        names = {key: f"run {number}" for number, key in enumerate(dict.fromkeys(alike), start=1)}
        run = [names[key] for key in alike]
    if "group" in mapping:
        group = [word or name for word, name in zip(sheet.words(mapping["group"]), run, strict=True)]
        return tuple(run), tuple(group)
    if "run" not in mapping and len(set(run)) < len(run):
        notes.append(
            f"no column names runs: rows that differ in nothing but tokens are taken as checkpoints of one run, "
            f"{len(set(run))} runs in all, resampled whole; run=COLUMN or group=COLUMN says otherwise"
        )
    return tuple(run), tuple(run)


def _key(inputs: Mapping[str, Array], k: int, but: str = "") -> tuple[float, ...]:
    return tuple(float(x) for name, values in inputs.items() if name != but for x in np.ravel(values[k]))


def _refuse_repeats(
    sheet: Sheet,
    inputs: Mapping[str, Array],
    run: Sequence[str],
    text: Sequence[str],
    losses: Sequence[tuple[float, ...]],
) -> None:
    seen: dict[tuple[Any, ...], int] = {}
    for k in range(len(sheet)):
        first = seen.setdefault((run[k], text[k], *_key(inputs, k)), k)
        if first == k:
            continue
        same = np.array_equal(np.array(losses[k]), np.array(losses[first]), equal_nan=True)
        seeds = ", or, if they are two seeds, name the column that tells them apart: --columns run=COLUMN"
        raise ConfigError(
            f"{sheet.where}: {sheet.rows[first]} and {sheet.rows[k]} are the same run ({run[k]}) at the same "
            f"{', '.join(inputs)}, with {'the same' if same else 'different'} losses; delete one"
            f"{'' if same else seeds}"
        )


# ---------------------------------------------------------------- a row per run and evaluated text


def _long(sheet: Sheet, mapping: Mapping[str, str], unasked: Set[str], notes: list[str]) -> RunTable:
    if "loss" not in mapping:
        raise ConfigError(
            f"{sheet.where}: which column is the loss? Say --columns loss=COLUMN; columns are {sheet.names}"
        )
    if len(several := sheet.names_in(mapping["loss"])) > 1:
        raise ConfigError(
            f"{sheet.where}: loss={mapping['loss']} is {', '.join(several)}; in a table with a role per row the "
            f"loss is one column"
        )
    sheet = _measured(sheet, [mapping["loss"]], notes)
    loss = _losses(sheet, "loss", mapping["loss"])[:, 0]
    inputs = _inputs(sheet, mapping, unasked, notes)
    run, group = _labels(sheet, mapping, inputs, notes)
    roles = _roles(sheet, mapping["role"])
    text = sheet.words(mapping["evaluated"]) if "evaluated" in mapping else roles
    _refuse_repeats(sheet, inputs, run, text, [(x,) for x in loss])
    points: dict[tuple[Any, ...], int] = {}  # run and inputs -> row of the table that comes out
    row = [points.setdefault((run[k], *_key(inputs, k)), len(points)) for k in range(len(sheet))]
    first = [row.index(point) for point in range(len(points))]
    texts = {
        role: tuple(dict.fromkeys(t for t, r in zip(text, roles, strict=True) if r == role)) for role in set(roles)
    }

    def spread(values: Array) -> dict[str, Array]:
        found = {role: np.full((len(points), len(names)), np.nan) for role, names in texts.items()}
        for k, role in enumerate(roles):
            found[role][row[k], texts[role].index(text[k])] = values[k]
        return found

    return RunTable(
        inputs={name: values[first] for name, values in inputs.items()},
        sources=spread(loss),
        bits=spread(sheet.numbers(mapping["bits_per_byte"])) if "bits_per_byte" in mapping else {},
        texts=texts,
        run=tuple(run[k] for k in first),
        group=tuple(group[k] for k in first),
        sheet=sheet,
        notes=tuple(notes),
    )


def _roles(sheet: Sheet, column: str) -> list[str]:
    found = sheet.words(column)
    if wrong := [k for k, word in enumerate(found) if word not in get_args(Role)]:
        raise ConfigError(
            f"{sheet.where}: {sheet.listed(wrong)}, column {column}: {found[wrong[0]]!r} is no role; it is general for "
            f"text that must be kept, domain for text to be learned"
        )
    return found
