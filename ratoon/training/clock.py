"""How long a run has taken over all its tries: `spent.json` beside its checkpoints.

A try counts from its start to its last sign of life, steps that were taken once more after a kill included: energy and
money went into them too.
"""

import time
from pathlib import Path

from pydantic import Field

from ratoon import records
from ratoon.records import Record

EVERY_SECONDS = 5.0  # as much at most is not known of a try that was killed: each note is flushed to disk


class Spent(Record):
    identity: str = Field(description="of the run's request")
    seconds: float


class Clock:
    """Of one run; started as it is made. writes  whether this process writes it down"""

    def __init__(self, path: Path, identity: str, writes: bool = True) -> None:
        self.path, self.identity, self.writes = path, identity, writes
        self.began = self.kept = time.perf_counter()
        known = records.read(path, Spent) if path.exists() else None
        self.before = known.seconds if known and known.identity == identity else 0.0

    @property
    def own(self) -> float:
        """Seconds of this try."""
        return time.perf_counter() - self.began

    @property
    def total(self) -> float:
        """Seconds of all tries."""
        return self.before + self.own

    def tick(self) -> None:
        """A sign of life."""
        if time.perf_counter() - self.kept >= EVERY_SECONDS:
            self.keep()

    def keep(self) -> None:
        self.kept = time.perf_counter()
        if self.writes:
            records.write(self.path, Spent(identity=self.identity, seconds=self.total))
