"""What a sweep leaves behind, and several made one after the other as one."""

from collections.abc import Iterable
from pathlib import Path

from ratoon import records
from ratoon.records import Observation, Record
from ratoon.training.faults import GaveUp
from ratoon.training.hopeless import Stopped


class SweepResult(Record):
    observations: tuple[Observation, ...]
    tokens: int
    stopped: tuple[Stopped, ...] = ()  # groups that were not run to their longest horizon: hopeless, or broken


def check_measured(result: SweepResult) -> None:
    """Raises GaveUp where every proxy broke before its first measurement: no law can be fitted on the rest."""
    if not any(one.finished for one in result.observations):
        first = result.stopped[0]
        raise GaveUp(
            f"{first.group}: {first.reason}; so or alike ended all {len(result.stopped)} proxies before they were "
            f"measured: lower train.learning_rate, or leave out a rate of sweep.learning_rates"
        )


def merged(parts: Iterable[SweepResult]) -> SweepResult:
    """Sweeps made one after the other as one."""
    parts = list(parts)
    return SweepResult(
        observations=tuple(o for part in parts for o in part.observations),
        tokens=sum(part.tokens for part in parts),
        stopped=tuple(one for part in parts for one in part.stopped),
    )


def merge(parts: Iterable[SweepResult], out: Path) -> SweepResult:
    """The same, written down in `out`."""
    result = merged(parts)
    records.write_observations(out / "observations.csv", result.observations)
    records.write(out / "result.json", result)
    return result
