"""robots.txt as it was fetched with the pages (RFC 9309)."""

import bisect
import hashlib
from typing import Any, NamedTuple
from urllib.parse import urlsplit

MAX_BYTES = 500 << 10  # RFC 9309, section 2.5: at least this much is read


class Fetched(NamedTuple):
    date: str
    digest: str
    rules: Any  # Protego; None: all is allowed, False: nothing is


def site(address: str) -> str:
    """What one robots.txt speaks for: scheme, host and port."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}".lower()


class Robots:
    """agent None: nobody asks, all is allowed."""

    def __init__(self, agent: str | None) -> None:
        self.agent = agent
        self.fetched: dict[str, list[Fetched]] = {}

    def learn(self, address: str, record: Any) -> None:
        """Of a record of an archive, if it is a robots.txt."""
        if self.agent is None or not is_robots(address) or record.http_headers is None:
            return
        raw = record.content_stream().read(MAX_BYTES)
        status = record.http_headers.get_statuscode()
        rules = _rules(int(status) if status.isdigit() else 500, raw)
        found = Fetched(record.rec_headers.get_header("WARC-Date") or "", hashlib.sha256(raw).hexdigest()[:16], rules)
        bisect.insort(self.fetched.setdefault(site(address), []), found, key=lambda one: (one.date, one.digest))

    def allows(self, address: str, date: str | None) -> bool:
        """By the last robots.txt of the site fetched before the page, else the first after it; none: allowed."""
        if self.agent is None:
            return True
        one = self._asked(address, date)
        if one is None or one.rules is None:
            return True
        return bool(one.rules and one.rules.can_fetch(address, self.agent))

    def digest(self, address: str, date: str | None) -> str | None:
        one = self._asked(address, date)
        return one.digest if one else None

    def _asked(self, address: str, date: str | None) -> Fetched | None:
        known = self.fetched.get(site(address), [])
        before = [one for one in known if one.date <= (date or "")]
        return before[-1] if before else (known[0] if known else None)


def is_robots(address: str) -> bool:
    try:
        return urlsplit(address).path == "/robots.txt"
    except ValueError:
        return False


def _rules(status: int, raw: bytes) -> Any:
    if 200 <= status < 300:
        from protego import Protego

        return Protego.parse(raw.decode("utf-8", "replace"))
    # "Unavailable" allows everything, "unreachable" nothing: RFC 9309, sections 2.3.1.3 and 2.3.1.4.
    return None if 300 <= status < 500 else False
