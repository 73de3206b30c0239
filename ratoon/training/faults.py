"""What went wrong in a run and what was done about it: `faults.json` beside its checkpoints.

The file is written before anything is done, so that a run killed half-way back goes on as if it had not been.
Needs no torch: the supervisor writes here too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from ratoon import records
from ratoon.config import ConfigError
from ratoon.records import Record

GAVE_UP = 4  # exit codes of a training process; 2 and 3 are those of the command line
ENDED = 75  # what sysexits.h calls a temporary failure: run again to go on

Kind = Literal["gradient", "weights", "spike", "memory"]
LeftOut = Mapping[int, tuple[int, ...]]  # step -> its rows that are not read, by their place in the step


class GaveUp(RuntimeError):
    """The run broke more often than it may go back. The message is the whole letter."""


class Ended(RuntimeError):
    """The run was asked to end, and did: its state is saved."""


class Fault(Record):
    kind: Kind
    step: int = Field(description="the update that failed, from 0")
    why: str
    left_out: dict[int, tuple[int, ...]] = Field(default_factory=dict, description="step -> its rows not read any more")
    sources: dict[str, tuple[int, ...]] = Field(default_factory=dict, description="the same as source -> row numbers")
    micro_rows: int | None = Field(None, description="rows per forward pass from here on; none: as before")


class Faults(Record):
    identity: str = Field(description="of the run's request")
    faults: tuple[Fault, ...] = ()


class Book:
    """The faults of one run, those of its earlier tries too. writes  whether this process writes them down"""

    def __init__(self, path: Path, identity: str, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self.kept = records.read(path, Faults) if path.exists() else Faults(identity=identity)
        if self.kept.identity != identity:
            raise ConfigError(
                f"{path}: written by another run (request {self.kept.identity}, this one is {identity}); "
                f"give this run a folder of its own"
            )

    def add(self, fault: Fault) -> None:
        self.kept = self.kept.model_copy(update={"faults": (*self.kept.faults, fault)})
        if self.writes:
            records.write(self.path, self.kept)

    @property
    def faults(self) -> tuple[Fault, ...]:
        return self.kept.faults

    @property
    def rollbacks(self) -> int:
        return sum(fault.kind != "memory" for fault in self.faults)

    @property
    def left_out(self) -> dict[int, tuple[int, ...]]:
        found: dict[int, set[int]] = {}
        for fault in self.faults:
            for step, rows in fault.left_out.items():
                found.setdefault(step, set()).update(rows)
        return {step: tuple(sorted(rows)) for step, rows in sorted(found.items())}

    @property
    def micro_rows(self) -> int | None:
        """What memory allowed last; None: it was never short."""
        return next((fault.micro_rows for fault in reversed(self.faults) if fault.micro_rows), None)


def halved(rows_per_step: int, micro_rows: int) -> int:
    """The largest number of rows per forward pass that divides the step and is at most half of `micro_rows`.

    Raises ConfigError where one row is too much already.
    """
    if micro_rows <= 1:
        raise ConfigError(
            "train.micro_rows: out of memory with one row per forward pass, and fewer there are not; allowed: a "
            "smaller base, shorter rows (row_tokens of the base), train.precision: bf16, or a machine with more memory"
        )
    return next(n for n in range(micro_rows // 2, 0, -1) if rows_per_step % n == 0)
