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


def together(runs: Sequence[Trajectory], asked: QualityConfig, *, refresh: str, line: str, parent: str) -> Judges:
    """Raises ConfigError where the runs did not start alike: their parent's scores differ, so it is not the same."""
    first, *others = runs
    for run in others:
        for curve in run.curves:
            same = next((one for one in first.curves if one.task == curve.task), None)
            if same is None or (same.values[0] != curve.values[0]):
                raise ConfigError(
                    f"{curve.task}: {first.run} and {run.run} did not begin at the same score, so they are of another "
                    f"parent or of other items; remove the older one's folder below judges/ and measure it again"
                )
    found = qualities(runs, asked)
    return Judges(
        refresh=refresh, line=line, parent=parent, runs=tuple(run.run for run in runs), asked=asked, qualities=found
    )
