"""Whether columns hold what a law reads: plain counts, shares in 0..1, nats per token.

Each refusal names the rows, what was found there, and the expression that would make of it what is wanted.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ratoon.config import ConfigError
from ratoon.laws.fitting.refuse import SHARES
from ratoon.laws.form import Array, Mask
from ratoon.laws.tables.nats import WORST
from ratoon.laws.tables.reading import Sheet

FEW = 1e4  # no language model has fewer parameters, and no run that a law can use fewer tokens
TOO_SHORT = 1e-5  # tokens per parameter: fewer are counted in another unit (the shortest known fine-tuning: 2e-4)
ROUNDING = 1e-9  # by which arithmetic on shares may miss 0 and 1
BITS = re.compile(r"(^|[^a-z])(bits?|bpt|bit_per_token)([^a-z]|$)", re.IGNORECASE)
BYTES = re.compile(r"(^|[^a-z])(bpb|bits?_per_byte|bits?_per_char|bpc)([^a-z]|$)", re.IGNORECASE)
PERPLEXITY = re.compile(r"(^|[^a-z])(ppl|perplexity|perplexities)([^a-z]|$)", re.IGNORECASE)


class Column(NamedTuple):
    """One thing a law reads, and where it came from."""

    sheet: Sheet
    field: str  # as in --columns
    expression: str
    values: Array  # (n,)

    def letter(self, which: Sequence[int], found: str, do: str) -> ConfigError:
        said = f"{self.sheet.where}: {self.sheet.listed(which)}: {self.field} (column {self.expression})"
        return ConfigError(f"{said} {found}; {do}")

    def take(self, conversion: str) -> str:
        """The option that reads this column in another unit."""
        of = f"({self.expression})" if self.sheet.is_sum(self.expression) else self.expression
        return f"--columns {self.field}={conversion.format(of)}"

    def refuse(self, wrong: Mask, found: str, do: str) -> None:
        if wrong.any():
            raise self.letter(np.flatnonzero(wrong).tolist(), found, do)


def check_present(column: Column) -> None:
    """Where a loss was measured, what it was measured at must be known."""
    column.refuse(np.isnan(column.values), "is empty", "fill it in, or delete these rows")
    column.refuse(np.isinf(column.values), "is not a finite number", "fill it in, or delete these rows")


def check_count(column: Column) -> None:
    """N, D, U: plain counts. D of 0 is a row of the parent."""
    values, of = column.values, {"N": "parameters", "D": "tokens"}.get(column.field, "tokens")
    low, high = float(values.min()), float(values.max())
    zero = column.field == "D"
    column.refuse(values < 0 if zero else values <= 0, f"is {low:g}", f"{of} are plain counts above 0")
    if 0 < high < FEW:
        raise column.letter(
            np.flatnonzero(values > 0).tolist(),
            f"runs up to {high:g}, and {of} are plain counts here, 1.8e9 for 1.8 billion",
            f"in billions, pass {column.take('{}*1e9')}; in millions, {column.take('{}*1e6')}",
        )


def check_length(sizes: Column, tokens: Column) -> None:
    """Tokens that are far too few for the models they train."""
    per_parameter = tokens.values / sizes.values
    if 0 < per_parameter.max() < TOO_SHORT:
        raise tokens.letter(
            np.flatnonzero(tokens.values > 0).tolist(),
            f"at most {tokens.values.max():g} tokens into {sizes.values.min():g} parameters and more",
            f"in millions, pass {tokens.take('{}*1e6')}; in billions, {tokens.take('{}*1e9')}",
        )


def rounded(shares: Array) -> Array:
    """Shares that miss 0 or 1 by what arithmetic leaves are 0 or 1."""
    near = np.clip(shares, 0.0, 1.0)
    return np.where(np.abs(near - shares) <= ROUNDING, near, shares)


def check_share(column: Column) -> None:
    values = column.values
    column.refuse(values < 0, f"is {values.min():g}", "a share of the training tokens is in 0..1")
    high = float(values.max())
    if 1 < high <= 100:
        raise column.letter(
            np.flatnonzero(values > 1).tolist(),
            f"runs up to {high:g}, and shares are in 0..1",
            f"in percent, pass {column.take('{}/100')}",
        )
    column.refuse(values > 1, f"is {high:g}", "a share of the training tokens is in 0..1")


def check_mixture(sheet: Sheet, expression: str, values: Array) -> None:
    """h: shares of all domains, (n, d)."""
    total = values.sum(axis=1)
    if len(wrong := np.flatnonzero((np.abs(total - 1) > SHARES) | (values < 0).any(axis=1))):
        raise Column(sheet, "h", expression, total).letter(
            wrong.tolist(),
            f"the shares sum to {total[wrong].min():.4g} to {total[wrong].max():.4g}, and should sum to 1",
            f"for counts of tokens, or shares that were rounded, pass --columns 'h=shares({expression})'",
        )


def check_loss(column: Column) -> None:
    """Nats per token. NaN is not measured; anything else that is no loss is refused."""
    values, name = column.values, column.expression
    column.refuse(
        np.isinf(values), "is not a finite number", "a run that diverged is no observation: delete it or empty the cell"
    )
    column.refuse(values <= 0, f"is {np.nanmin(values):g}", "a loss is above 0; leave the cell empty if not measured")
    if name in column.sheet.columns:  # not in an expression: who converts has thought of the unit
        measured = np.flatnonzero(~np.isnan(values)).tolist()
        if BYTES.search(name):
            raise column.letter(
                measured,
                "is named like bits per byte, and a law reads nats per token",
                f"with b bytes per token on that text, pass {column.take('{}*B')} with B = b * ln 2",
            )
        if PERPLEXITY.search(name):
            raise column.letter(measured, "is named like a perplexity", f"for nats, pass {column.take('ln({})')}")
        if BITS.search(name):
            raise column.letter(measured, "is named like bits per token", f"for nats, pass {column.take('{}*ln2')}")
    column.refuse(
        values > WORST,
        f"is up to {np.nanmax(values):.4g}, worse than guessing from any vocabulary ({WORST:g} nats)",
        f"a perplexity becomes nats with {column.take('ln({})')}; a sum over a text, divided by its tokens; "
        f"a run that diverged is deleted",
    )
