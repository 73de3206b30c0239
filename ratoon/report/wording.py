"""Numbers as people read them. A number that was not measured says so; it never becomes 0."""

import math
import re
from datetime import UTC, datetime
from typing import TypeGuard

from ratoon.evaluation.sentences import decimals
from ratoon.records import Interval

ABSENT = "not measured"
MINUS = "\N{MINUS SIGN}"
# Not strftime's names: those follow the locale of the machine, and the same record must give the same page.
MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905


def known(x: float | None) -> TypeGuard[float]:
    """Measured, and a number: a diverged run leaves nan or inf, and these are not results."""
    return x is not None and math.isfinite(x)


def whole(n: int | None) -> str:
    """1234567 -> 1,234,567"""
    return ABSENT if n is None else f"{n:,}".replace("-", MINUS)


def compact(n: float | None) -> str:
    """Three significant digits: 1234567 -> 1.23M, 500000 -> 500k."""
    if not known(n):
        return ABSENT
    for letter, unit in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        # 999,600 is 1M, not 1000k: the next letter starts where three digits round up.
        if abs(n) >= unit * 0.9995:
            return f"{n / unit:.3g}{letter}"
    return f"{n:.3g}"


def size(num_bytes: float | None) -> str:
    """Bytes in decimal units: 16400000 -> 16.4 MB."""
    if not known(num_bytes):
        return ABSENT
    for letter, unit in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= unit * 0.9995:
            return f"{num_bytes / unit:.3g} {letter}"
    return f"{num_bytes:.0f} B"


def loss(x: float | None) -> str:
    """Nats per token or bits per byte. Three decimals: changes of a few tenths of a percent must show."""
    return f"{x:.3f}".replace("-", MINUS) if known(x) else ABSENT


def share(x: float | None) -> str:
    """A part of the whole: 0.4625 -> 46.2%, 1 -> 100%."""
    return f"{100 * x:.3g}%" if known(x) else ABSENT


def rate(x: float | None) -> str:
    """A share of items, one decimal, so that ranges line up: 0.38 -> 38.0%."""
    return f"{100 * x:.1f}%" if known(x) else ABSENT


def error(x: float | None) -> str:
    """A relative error, two significant digits: 0.0031 -> 0.31%."""
    return f"{100 * x:.2g}%" if known(x) else ABSENT


def change(x: float | None, digits: int = 1) -> str:
    """A change, always with its sign: -0.095 -> −9.5%."""
    if not known(x):
        return ABSENT
    text = f"{100 * x:+.{digits}f}"
    return (text[1:] if float(text) == 0 else text.replace("-", MINUS)) + "%"


def points(x: float | None, digits: int = 1) -> str:
    """A difference between two accuracies, in percentage points: 0.031 -> +3.1 pp."""
    return change(x, digits).replace("%", " pp")


def digits_for(interval: Interval) -> int:
    """Decimals of a percentage that keep an interval's ends apart and on their side of zero, as the gate's reasons."""
    return decimals(interval)


def span(low: str, high: str) -> str:
    """A range; "to", because a dash before a minus sign cannot be read."""
    return low if low == high else f"{low} to {high}"


def typeset(text: str) -> str:
    """A sentence of the gate, which is plain ASCII in its record, with minus signs before its numbers."""
    return re.sub(r"(?<=[\s\[(])-(?=\d)", MINUS, text)


def duration(seconds: float | None) -> str:
    if not known(seconds):
        return ABSENT
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def moment(iso: str) -> str:
    """2026-05-04T09:12:44Z -> 4 May 2026, 09:12 UTC; what cannot be read as a time is shown as it is."""
    try:
        when = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    when = when.astimezone(UTC) if when.tzinfo else when
    return f"{when.day} {MONTHS[when.month - 1]} {when.year}, {when:%H:%M} UTC"
