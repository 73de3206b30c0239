"""What a run has measured and MLflow has not taken yet: in memory, and in a file that outlives the process.

A record is written down before it is sent, and the file is emptied once the store has all of it. What was sent just
before a kill goes twice: the store knows a point by run, name, step, value and time, all kept here, and takes it once.
The file is locked by its run as long as that lives; what ended runs left is sent by the next run or `ratoon sync`.
"""

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

from tasks import reach
from tasks.reach import TrackingUnavailable, patiently, shown
from tasks.tracking.connection import client, client_of, store

FLUSH_SECONDS = 2.0
PAUSE_SECONDS = 15.0  # between looks at a store that did not answer while a run went on
BATCH = 900  # MLflow takes 1000 metrics, parameters and tags in one request, of the latter two 100 each
Metrics = Mapping[str, float | None]
# {"metrics": [[name, value, milliseconds, step], ...]}, {"tags": {...}}, or {"end": status, "at": milliseconds}
Record = dict[str, Any]
said = logging.getLogger("ratoon.tracking")


def folder() -> Path | None:
    """Beside the project's other state, whose place tasks.environment has set; None: no project, memory alone."""
    root = os.environ.get("RATOON_ROOT")
    return Path(root) / ".ratoon" / "unsent" if root else None


class Outbox:
    """Of one open run. `add` takes no longer than writing a line; a thread does the sending."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.uri = store()
        self.waiting: list[Record] = []
        self._client = client()
        self._file = _created(run_id)
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._fault: Exception | None = None
        self._torn = False

    @property
    def path(self) -> Path | None:
        """Where it is written down; None: it is in memory alone."""
        return Path(self._file.name) if self._file and not self._torn else None

    def add(self, record: Record, *, later: bool = True) -> None:
        """Write down, and have it sent soon. Raises what MLflow has refused before: that would not heal."""
        self._keep(record)
        if self._fault is not None:
            raise self._fault
        if later and self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"mlflow {self.run_id[:8]}", daemon=True)
            self._thread.start()

    def last(self, records: Sequence[Record]) -> None:
        """How it ended, without waiting; said even where MLflow refuses what was measured, which stays in the file."""
        for record in records:
            self._keep(record)
        try:
            self.send(waits=())
        except TrackingUnavailable:
            raise
        except Exception:
            deliver(self._client, self.uri, self.run_id, records, ())

    def _keep(self, record: Record) -> None:
        with self._lock:
            self.waiting.append(record)
            self._write(record)

    def _write(self, record: Record) -> None:
        if self._file is None:
            return
        try:
            # Begins with a line's end: a full disk may have cut the one before short.
            self._file.write("\n" + json.dumps(record))
            self._file.flush()
        except OSError as error:
            self._torn = True
            said.warning("%s: %s; metrics are kept in memory until MLflow takes them", self._file.name, error)

    def _work(self) -> None:
        pause = FLUSH_SECONDS
        while not self._over.wait(pause):
            try:
                self.send(waits=())
                pause = FLUSH_SECONDS
            except TrackingUnavailable:
                pause = PAUSE_SECONDS
            except Exception as fault:
                self._fault = fault  # told by the next `add`, or at the end
                return

    def send(self, waits: Sequence[float] | Iterator[float] | None = None) -> None:
        """All that waits. Raises TrackingUnavailable, and keeps it, if the store does not answer."""
        with self._sending:
            with self._lock:
                batch = list(self.waiting)
            if not batch:
                return
            deliver(self._client, self.uri, self.run_id, batch, waits)
            with self._lock:
                del self.waiting[: len(batch)]
                if not self.waiting:
                    self._empty()

    def _empty(self) -> None:
        if self._file is None:
            return
        try:
            self._file.truncate(0)
            self._torn = False
        except OSError as error:
            said.warning("%s: %s", self._file.name, error)

    def close(self) -> None:
        """No more is sent by the thread, and another process may send what is left."""
        self._over.set()
        with self._sending:
            if self._file is not None:
                if not self.waiting:
                    Path(self._file.name).unlink(missing_ok=True)
                self._file.close()
                self._file = None


def _created(run_id: str) -> IO[str] | None:
    place = folder()
    if place is None:
        return None
    try:
        place.mkdir(parents=True, exist_ok=True)
        file = (place / f"{run_id}.jsonl").open("a", encoding="utf-8")
    except OSError as error:
        said.warning("%s: %s; metrics are kept in memory until MLflow takes them", place, error)
        return None
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def deliver(found: Any, uri: str, run_id: str, records: Sequence[Record], waits: Any = None) -> None:
    """Metrics and tags in as few requests as MLflow allows, then the run's end. May be done twice."""
    from mlflow.entities import Metric, RunTag

    points = [Metric(*point) for record in records for point in record.get("metrics", ())]
    tags: dict[str, str] = {}
    for record in records:
        tags |= record.get("tags", {})
    named = [RunTag(key, value) for key, value in tags.items()]
    for few, words in zip_longest(_parts(points, BATCH), _parts(named, 1000 - BATCH), fillvalue=()):
        patiently(uri, found.log_batch, run_id, few, tags=words, waits=waits)
    for record in records:
        if "end" in record:
            patiently(uri, found.set_terminated, run_id, record["end"], record["at"], waits=waits)


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))


# ---------------------------------------------------------------- what ended runs left


@dataclass
class Left:
    """What became of the files of runs that have ended."""

    points: int = 0
    runs: int = 0
    kept: tuple[str, ...] = ()  # why a file is still there


def left_behind() -> list[Path]:
    """Files of runs whose records were not all sent; those of runs under way among them."""
    place = folder()
    return sorted(place.glob("*.jsonl")) if place and place.exists() else []


def recover(*, patient: bool = False) -> Left:
    """Send what runs before this left, in this process or another. Raises TrackingUnavailable if patience ends."""
    found = Left()
    for path in left_behind():
        try:
            file = path.open("r+", encoding="utf-8")
        except FileNotFoundError:
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its run is under way, and sends it itself
            _recover(path, file, found, reach.WAITS_SECONDS if patient else ())
    return found


def _recover(path: Path, file: IO[str], found: Left, waits: Sequence[float]) -> None:
    from mlflow.exceptions import MlflowException

    records = list(_records(file))
    try:
        if records:
            deliver(client_of(store()), store(), path.stem, records, waits)
    except MlflowException as error:
        # Of another store perhaps, to which a person may go back: never thrown away.
        where = f"MLflow at {shown(store())} does not take it: {shown(str(error).splitlines()[0])}"
        found.kept += (f"{path}: {where}",)
        return
    path.unlink(missing_ok=True)
    found.points += sum(len(record.get("metrics", ())) for record in records)
    found.runs += bool(records)


def _records(file: IO[str]) -> Iterator[Record]:
    for line in file:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # an empty line, or one that a kill or a full disk cut short
        if isinstance(record, dict):
            yield record


def milliseconds(seconds: float | None = None) -> int:
    return int((time.time() if seconds is None else seconds) * 1000)


def points_of(values: Metrics, step: int, at: int) -> list[list[Any]]:
    return [[key, float(value), at, step] for key, value in values.items() if value is not None]
