"""A section of the page that a record beside the refresh fills: shown where the record is, and nowhere else."""

from typing import NamedTuple

from markupsafe import Markup

from ratoon.records import Interval
from ratoon.report import wording


class Figure(NamedTuple):
    title: str
    role: str
    drawing: Markup


class Table(NamedTuple):
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # the first cell is the row's name


class Section(NamedTuple):
    id: str
    title: str
    lead: str
    file: str  # the record it is of, beside the page
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()


def with_ends(found: Interval | None, digits: int = 3) -> str:
    """A number with its range: +0.120 (+0.100 to +0.140)."""
    if found is None or not wording.known(found.value):
        return wording.ABSENT
    value, low, high = (signed(x, digits) for x in (found.value, found.low, found.high))
    return f"{value} ({wording.span(low, high)})"


def signed(x: float, digits: int = 3) -> str:
    text = f"{x:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", wording.MINUS)


def in_points(found: Interval | None) -> str:
    if found is None:
        return wording.ABSENT
    return f"{wording.points(found.value)} ({wording.span(wording.points(found.low), wording.points(found.high))})"
