"""When documents are from: `max_date` keeps the future out of a corpus (arXiv:2404.18543), `min_date` the past.

A document outside is dropped before it has a key, so later text is no duplicate of earlier text, stands for no cluster
and is never held out: adding it changes no byte of what earlier text became. A date of a month or a year only is
outside if any of its days is. A date that cannot be read, such as seconds or milliseconds of a clock, counts as none:
it is never "today".
"""

import calendar
import re
from datetime import UTC, date, datetime
from typing import NamedTuple

from ratoon.config import DateFilter
from ratoon.corpus.judge import Ask, Documents, Findings

VERSION = 2
# Python parts the day from the time at any letter, so that it reads 1711110211726, milliseconds, as a day of 1711.
COUNT = re.compile(r"\d{9}")
PARTIAL = re.compile(r"(\d{4})(?:-(\d{2}))?")


class Dates(NamedTuple):
    min_date: date | None
    max_date: date | None
    keep_undated: bool
    fields: tuple[()] = ()

    def content(self) -> tuple[object, ...]:
        return ("dates", VERSION, str(self.min_date), str(self.max_date), self.keep_undated)

    def open(self) -> Ask:
        return self._ask

    def _ask(self, documents: Documents) -> Findings:
        return Findings([self.reason(text) for text in documents.column("date")])

    def reason(self, text: str | None) -> str | None:
        found = days(text) if text else None
        if found is None:
            return None if self.keep_undated else "unreadable_date" if text else "undated"
        first, last = found
        if self.max_date and last > self.max_date:
            return "after_max_date"
        return "before_min_date" if self.min_date and first < self.min_date else None


def dates(config: DateFilter) -> Dates:
    least, most = (date.fromisoformat(day) if day else None for day in (config.min_date, config.max_date))
    return Dates(least, most, config.undated == "keep")


def days(text: str) -> tuple[date, date] | None:
    """First and last day that an ISO 8601 date, time, month or year may mean; None: not one."""
    text = text.strip()
    if match := PARTIAL.fullmatch(text):
        year, month = int(match[1]), int(match[2] or 0)
        if not year or month > 12 or (match[2] and not month):
            return None
        last = month or 12
        return date(year, month or 1, 1), date(year, last, calendar.monthrange(year, last)[1])
    if COUNT.match(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        day = (moment.astimezone(UTC) if moment.tzinfo else moment).date()
    except (ValueError, OverflowError):
        return None
    return day, day
