"""A table of runs as columns of numbers: CSV, Parquet or a mapping, and small expressions over its columns.

An expression is a column, or one of

    column*1e9   column/100   column*ln2     other units           ln(column)      a perplexity
    1-column                                 the other share       a+b, mix_*      several columns
    shares(a+b), shares(mix_*)               columns over their sum, row by row
    (a+b)*1e9, 1-(a+b)                       of a sum

Several columns of a count or a share are added up; those of losses and of a mixture are read one by one. A column
whose name is the whole expression comes first, so that names with such signs in them can be asked for.
"""

import csv
import difflib
import fnmatch
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ratoon.config import ConfigError
from ratoon.laws.form import Array

EMPTY = {"", "na", "n/a", "<na>", "null", "none", "-"}  # not measured; "nan" is a result, and a bad one
NAMELESS = EMPTY | {"nan"}  # but as a name it is a cell that pandas found empty
SEPARATORS = ",;\t|"
LN2 = math.log(2)
THOUSANDS = re.compile(r"^-?\d{1,3}(?:,\d{3})+$|^-?\d{1,3}(?:[ '\u00a0\u202f]\d{3})+$")
WITH_UNIT = re.compile(r"^(-?\d+(?:\.\d+)?)\s*([%kKMBT])$")
POWERS = {"k": 3, "K": 3, "M": 6, "B": 9, "T": 12}
SHOWN = 6  # rows named in a letter
SCALED = re.compile(r"^(.+?)\s*([*/])\s*(ln2|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)$")
LOGARITHM = re.compile(r"^(?:ln|log)\((.+)\)$")
OTHER = re.compile(r"^1\s*-\s*(.+)$")
PARTS = re.compile(r"^shares\((.+)\)$")
GROUPED = re.compile(r"^\((.+)\)$")
PATTERNS = (LOGARITHM, OTHER, PARTS, GROUPED, SCALED)


@dataclass(frozen=True)
class Sheet:
    """Columns of equal length, as they were found."""

    where: str  # file or experiment, for letters
    columns: Mapping[str, Sequence[Any]]
    rows: tuple[str, ...]  # what a person calls each row: "row 7", "run warm-2"

    def __len__(self) -> int:
        return len(self.rows)

    def find(self, expression: str) -> list[str]:
        """The columns that an expression names. Raises ConfigError, with the nearest name, if there is none."""
        if expression in self.columns:
            return [expression]
        if "*" in expression or "?" in expression or "[" in expression:
            if matched := [name for name in self.columns if fnmatch.fnmatchcase(name, expression)]:
                return matched
            raise ConfigError(f"{self.where}: no column matches {expression!r}; columns are {self.names}")
        if "+" in expression:
            return [name for part in expression.split("+") for name in self.find(part.strip())]
        near = closest(expression, self.columns)
        raise ConfigError(f"{self.where}: no column {expression!r}{near}; columns are {self.names}")

    @property
    def names(self) -> str:
        return ", ".join(self.columns)

    def numbers(self, expression: str) -> Array:
        """(n,) values of an expression over one column, or over the sum of several; empty cells are NaN, and infinite
        is what was NaN.

        A diverged run's loss and one that nobody measured are different things: the first stays a number that every
        later check refuses.
        """
        return self._values(expression, add=True)[:, 0]

    def each(self, expression: str) -> Array:
        """(n, d) values, one column each."""
        return self._values(expression, add=False)

    def _values(self, expression: str, add: bool) -> Array:
        if self.is_plain(expression):
            values = np.stack([self._column(name) for name in self.find(expression)], axis=1)
            return values.sum(axis=1, keepdims=True) if add else values
        pattern, found = next((each, x) for each in PATTERNS if (x := each.match(expression)))
        inner = found[1].strip()
        if add:
            self._refuse_unclear(expression, pattern, inner)
        values = self._values(inner, add)
        if pattern is LOGARITHM:
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.log(values)
        if pattern is OTHER:
            return 1 - values
        if pattern is PARTS:
            return np.asarray(values / values.sum(axis=1, keepdims=True))
        if pattern is GROUPED:
            return values
        factor = LN2 if found[3] == "ln2" else float(found[3])
        if factor == 0:
            raise ConfigError(f"{self.where}: {expression} says nothing; other units are a factor that is not 0")
        return values * (factor if found[2] == "*" else 1 / factor)

    def _refuse_unclear(self, expression: str, pattern: re.Pattern[str], inner: str) -> None:
        """Arithmetic on a sum that can be read in two ways, or comes to nothing."""
        if pattern is PARTS:
            raise ConfigError(
                f"{self.where}: {expression} are several shares, which add up to 1; name the column of the one meant"
            )
        if pattern in (OTHER, SCALED) and self.is_sum(inner):
            meant = expression.replace(inner, f"({inner})", 1)
            raise ConfigError(
                f"{self.where}: {expression} may be of the sum or of one column alone; for the sum, write {meant}"
            )

    def names_in(self, expression: str) -> list[str]:
        """The columns an expression reads."""
        if not self.is_plain(expression):
            found = next(x for pattern in PATTERNS if (x := pattern.match(expression)))
            return self.names_in(found[1].strip())
        return self.find(expression)

    def words(self, expression: str) -> list[str]:
        (name,) = self.find(expression)[:1]
        found = ("" if value is None else str(value).strip() for value in self.columns[name])
        return ["" if word.lower() in NAMELESS else word for word in found]

    def _column(self, name: str) -> Array:
        return np.array(
            [self._number(value, name, row) for value, row in zip(self.columns[name], self.rows, strict=True)]
        )

    def _number(self, value: Any, name: str, row: str) -> float:
        if _empty(value):
            return math.nan
        try:
            number = float(value)
        except (TypeError, ValueError):
            said = f"{value!r} is not a number{_meant(str(value).strip())}"
            raise ConfigError(f"{self.where}: {row}, column {name}: {said}") from None
        return math.inf if math.isnan(number) else number

    def listed(self, which: Iterable[int]) -> str:
        """Rows as a letter names them: "row 7", "rows 3, 5 and 12 more"."""
        named = [self.rows[k] for k in which]
        kind, _, _ = named[0].partition(" ")
        if len(named) > 1 and all(name.startswith(f"{kind} ") for name in named):
            named = [
                f"{kind}s {named[0].removeprefix(f'{kind} ')}",
                *(name.removeprefix(f"{kind} ") for name in named[1:]),
            ]
        more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        return ", ".join(named[:SHOWN]) + more

    def is_plain(self, expression: str) -> bool:
        """Whether an expression only names columns, with no arithmetic on them."""
        return expression in self.columns or not any(pattern.match(expression) for pattern in PATTERNS)

    def is_sum(self, expression: str) -> bool:
        """Whether an expression is a+b, and no column's name."""
        return "+" in expression and expression not in self.columns and self.is_plain(expression)

    def keep(self, keep: Sequence[bool]) -> "Sheet":
        chosen = [k for k, kept in enumerate(keep) if kept]
        columns = {name: [values[k] for k in chosen] for name, values in self.columns.items()}
        return Sheet(self.where, columns, tuple(self.rows[k] for k in chosen))


def _empty(value: Any) -> bool:
    return value is None or str(value).strip().lower() in EMPTY


def _meant(text: str) -> str:
    """What to write for a number as people write it, or nothing."""
    if THOUSANDS.match(text):
        decimal = f" (or {text.replace(',', '.')}, if the comma is a decimal one)" if text.count(",") == 1 else ""
        return f"; thousands are written without separators, {re.sub('[^-0-9]', '', text)}{decimal}"
    if re.match(r"^-?\d+,\d+$", text):
        return "; decimals are written with a point"
    if found := WITH_UNIT.match(text):
        number, unit = found[1], found[2]
        return f"; write {float(number) / 100:g} for {text}" if unit == "%" else f"; write {number}e{POWERS[unit]}"
    return ""


def closest(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?' or nothing."""
    folded = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def read_sheet(source: Path | str | Mapping[str, Sequence[Any]]) -> Sheet:
    """A .csv (also with ; or tabs) or .parquet file, or columns by name.

    Raises ConfigError with what was found and what to do.
    """
    if isinstance(source, Mapping):
        return from_columns("the table", source)
    path = Path(source)
    if not path.exists():
        raise ConfigError(f"{path}: not found; name a CSV or Parquet table with one row per run")
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name the CSV or Parquet table in it")
    return _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _read_csv(path)


def from_columns(where: str, columns: Mapping[str, Sequence[Any]], rows: Sequence[str] | None = None) -> Sheet:
    found = {str(name): list(values) for name, values in columns.items()}
    lengths = {name: len(values) for name, values in found.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigError(f"{where}: columns differ in length: {lengths}")
    count = next(iter(lengths.values()), 0)
    if count == 0:
        raise ConfigError(f"{where}: no rows; one row per finished run is needed")
    return Sheet(where, found, tuple(rows) if rows else tuple(f"row {k}" for k in range(1, count + 1)))


def _read_parquet(path: Path) -> Sheet:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(path)
    except (arrow.ArrowInvalid, OSError) as error:
        raise ConfigError(f"{path}: not a Parquet file: {error}") from error
    return from_columns(str(path), {name: table[name].to_pylist() for name in table.column_names})


def _read_csv(path: Path) -> Sheet:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next((line for line in file if line.strip()), "")
            file.seek(0)
            reader = csv.reader(file, delimiter=max(SEPARATORS, key=first.count))
            written = ((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))
            header = [name.strip() for name in next(written, (0, []))[1]]
            lines = list(written)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise ConfigError(f"{path}: not CSV ({error}); is a quote left open, or text in a cell?") from error
    if repeated := sorted({name for name in header if name and header.count(name) > 1}):
        raise ConfigError(f"{path}: columns named twice: {', '.join(repeated)}; give each its own name")
    for number, cells in lines:
        if len(cells) != len(header):
            raise ConfigError(f"{path}: row {number} has {len(cells)} cells, the header {len(header)}")
    columns = {name: [cells[k] for _, cells in lines] for k, name in enumerate(header) if name}
    return from_columns(str(path), columns, [f"row {number}" for number, _ in lines])


def parse_columns(text: str | None) -> dict[str, str]:
    """'N=params,D=tokens*1e9' as {'N': 'params', 'D': 'tokens*1e9'}."""
    found: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in (text or "").split(","))):
        name, _, expression = item.partition("=")
        if not name.strip() or not expression.strip():
            raise ConfigError(f"--columns: {item!r} is not NAME=COLUMN; for example N=params,D=tokens*1e9,share=ratio")
        if name.strip() in found:
            raise ConfigError(f"--columns: {name.strip()} is given twice")
        found[name.strip()] = expression.strip()
    return found
