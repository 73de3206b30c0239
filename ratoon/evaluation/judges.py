"""Several runs of one training, such as seeds, taken together: which tasks are low-noise and monotone, and may gate.

What each number is: quality.py. All runs start from one parent and are scored on one part of one suite.
"""

from collections.abc import Sequence

from pydantic import Field

from ratoon.config import ConfigError, QualityConfig
from ratoon.evaluation.quality import TaskQuality
from ratoon.evaluation.trajectory import Trajectory, qualities
from ratoon.records import Record


class Judges(Record):
    """`judges.json` of a refresh."""

    refresh: str
    line: str
    parent: str
    runs: tuple[str, ...] = Field(description="whose checkpoints these are: the refresh's own, and one per seed")
    asked: QualityConfig
    qualities: tuple[TaskQuality, ...]

    @property
    def gating(self) -> tuple[str, ...]:
        return tuple(each.task for each in self.qualities if each.use == "gate")


def parted(runs: Sequence[Trajectory]) -> tuple[str, str, str] | None:
    """A task at which two runs, named, did not begin at the same score; None: all began alike."""
    first, *others = runs
    begun = {curve.task: curve.values[0] for curve in first.curves}
    for run in others:
        for curve in run.curves:
            if begun.get(curve.task) != curve.values[0]:
                return curve.task, first.run, run.run
    return None


def together(runs: Sequence[Trajectory], asked: QualityConfig, *, refresh: str, line: str, parent: str) -> Judges:
    """Raises ConfigError where the runs did not start alike: their parent's scores differ, so it is not the same."""
    if apart := parted(runs):
        task, one, other = apart
        raise ConfigError(
            f"{task}: {one} and {other} did not begin at the same score, so they are of another parent or of other "
            f"items; remove the older one's folder below judges/ and measure it again"
        )
    found = qualities(runs, asked)
    return Judges(
        refresh=refresh, line=line, parent=parent, runs=tuple(run.run for run in runs), asked=asked, qualities=found
    )
