"""Whether MLflow's store answers: asked in seconds, asked again with patience, and said without secrets.

Left to itself MLflow tries an unreachable store for minutes before it says so.
"""

import logging
import os
import re
import socket
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from ratoon.config import ConfigError

T = TypeVar("T")
said = logging.getLogger("ratoon.tracking")
WAITS_SECONDS: Sequence[float] = (0.5, 1.0, 2.0, 4.0)
PATIENCE = "RATOON_MLFLOW_PATIENCE"  # seconds a store that has answered before is waited for
PATIENCE_SECONDS = 300.0
LOOK_SECONDS = 5.0
SILENT_SECONDS = 5.0  # of waiting, before a person is told what for
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
OUTAGES = (
    "database is locked",
    "unable to open database",
    "disk i/o error",
    "readonly database",
    "operationalerror",
    "max retries exceeded",
    "connection refused",
    "connection reset",
    "timed out",
    "error code 50",
    "error code 429",
)


class TrackingUnavailable(ConnectionError):
    """MLflow's store did not answer. It may do so again: worth another try."""


def shown(text: str) -> str:
    """`text` without user, password or query in any address within: it goes to terminals, logs and pages."""
    return re.sub(r"(\w://[^\s?'\"]*)\?[^\s'\"]*", r"\1", re.sub(r"(\w://)[^/\s]+@", r"\1***@", text))


def database(uri: str) -> Path | None:
    """The file of a SQLite store; None for any other."""
    parts = urlsplit(uri)
    if not parts.scheme.startswith("sqlite"):
        return None
    return Path(unquote(uri.split("://", 1)[1].split("?")[0])[1:])


def served(uri: str) -> bool:
    """Whether a server with a page is behind it, and not a database."""
    return uri.startswith(("http://", "https://"))


def artifacts(uri: str) -> str | None:
    """Where a new experiment keeps its files: beside a SQLite store; elsewhere as the server has it (None)."""
    path = database(uri)
    return (path.resolve().parent / "mlartifacts").as_uri() if path else None


def letter(uri: str, found: object) -> str:
    what = (
        "see that its folder exists, can be written and has room, and that no other program holds the file"
        if database(uri)
        else "see that the server runs (`ratoon status`, `ratoon up`) and that the address is right"
    )
    return f"MLflow at {shown(uri)} does not answer: {shown(str(found))}\n  {what}; MLFLOW_TRACKING_URI names it"


@contextmanager
def opened(uri: str) -> Iterator[None]:
    """Refuse an unreachable store within seconds; inside the block nobody else makes the tables of a SQLite one."""
    path = database(uri)
    if path is None:
        look(uri)
        yield
        return
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock").open("w")
    except OSError as error:
        raise TrackingUnavailable(letter(uri, error)) from error
    # Two first users at once would both make the tables, and one would fail.
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            look(uri)
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)


def look(uri: str) -> None:
    """One quick question to the store. Raises TrackingUnavailable, or ConfigError for an address MLflow refuses."""
    parts = urlsplit(uri)
    scheme = parts.scheme.split("+")[0]
    try:
        if path := database(uri):
            _look_sqlite(path)
        elif scheme in ("http", "https"):
            _look_http(uri)
        elif scheme in PORTS and parts.hostname:
            socket.create_connection((parts.hostname, parts.port or PORTS[scheme]), timeout=LOOK_SECONDS).close()
        elif scheme in ("", "file"):
            raise ConfigError(
                f"MLFLOW_TRACKING_URI is {shown(uri)}: MLflow 3 keeps no runs in plain folders; "
                f"use sqlite:///path/mlflow.db or http://host:port (`mlflow migrate-filestore` moves old ones)"
            )
    except (OSError, sqlite3.Error) as error:
        raise TrackingUnavailable(letter(uri, error)) from error


def _look_sqlite(path: Path) -> None:
    connection = sqlite3.connect(path, timeout=LOOK_SECONDS)
    try:
        connection.execute("BEGIN IMMEDIATE")  # writable, and a database at all
        connection.rollback()
    finally:
        connection.close()


def _look_http(uri: str) -> None:
    parts = urlsplit(uri)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({} if local else None))
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    address = f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path.rstrip('/')}/health"
    try:
        opener.open(address, timeout=LOOK_SECONDS).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise ConnectionError(f"HTTP {error.code}") from error
    except urllib.error.URLError as error:
        raise ConnectionError(error.reason) from error


def patiently(uri: str, call: Callable[..., T], *args: Any, waits: Iterable[float] | None = None, **kwargs: Any) -> T:
    """`call`, again after each wait while the store is away; then TrackingUnavailable. Mistakes are not repeated."""
    pauses = iter(WAITS_SECONDS if waits is None else waits)
    begun, told = time.monotonic(), False
    while True:
        try:
            return call(*args, **kwargs)
        except Exception as error:
            if not outage(error):
                raise
            pause = next(pauses, None)
            if pause is None:
                raise TrackingUnavailable(letter(uri, _first_line(error))) from error
            if not told and time.monotonic() - begun > SILENT_SECONDS:
                said.warning("MLflow at %s does not answer; waiting for it", shown(uri))
                told = True
            time.sleep(pause)


def long_waits() -> Iterator[float]:
    """For a store that has answered before: work was done since, and a server that restarts is back in a minute."""
    asked = os.environ.get(PATIENCE, "")
    try:
        ends = time.monotonic() + (float(asked) if asked else PATIENCE_SECONDS)
    except ValueError:
        raise ConfigError(f"{PATIENCE} is {asked!r}; a number of seconds was expected, such as 300") from None
    pause = 0.5
    while (left := ends - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(2 * pause, 15.0)


def outage(error: BaseException) -> bool:
    """Of the kind that may heal by itself, by its type or by what MLflow wrapped into its text."""
    if (
        isinstance(error, ConnectionError | TimeoutError)
        or getattr(error, "error_code", "") == "TEMPORARILY_UNAVAILABLE"
    ):
        return True
    if type(error).__module__.startswith(("requests", "urllib3")):
        return True
    name = type(error).__name__
    mlflows = name in ("MlflowException", "RestException", "OperationalError")
    return mlflows and any(sign in str(error).lower() for sign in OUTAGES)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
