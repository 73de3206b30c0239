"""From the verdict to the record: what a refresh that was cut short in between left, so that the next one ends it.

The champion's alias moves before the record is there: begun anew, the same text would be trained on a second time, on
the champion it made.
"""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from ratoon import records
from ratoon.records import Record, Verdict
from tasks.job import Job


class Begun(Record):
    """A refresh whose verdict is there. Kept from then until all that tells of it is written."""

    folder: str
    question: str
    parent_version: int | None
    started: datetime
    seconds: dict[str, float]
    train_run: str
    version: int | None = None  # as it was registered

    def reopened(self, job: Job) -> Job:
        """The job it was: from its own parent, which the registry may have left behind."""
        folder = job.layout.refreshes(job.line) / self.folder
        parent = Path(verdict_in(folder).parent)
        return replace(job, folder=folder, parent=parent, parent_version=self.parent_version)


def place(job: Job) -> Path:
    return job.layout.refreshes(job.line) / "concluding.json"


def begin(job: Job, started: datetime, seconds: dict[str, float], train_run: str) -> Begun:
    begun = Begun(
        folder=job.folder.name,
        question=job.question,
        parent_version=job.parent_version,
        started=started,
        seconds=seconds,
        train_run=train_run,
    )
    records.write(place(job), begun)
    return begun


def registered(job: Job, begun: Begun, version: int) -> Begun:
    begun = begun.model_copy(update={"version": version})
    records.write(place(job), begun)
    return begun


def end(job: Job) -> None:
    place(job).unlink(missing_ok=True)


def cut_short(job: Job) -> Begun | None:
    """The refresh of this very question that has a verdict and no record yet; None: there is none."""
    if not place(job).exists():
        return None
    begun = records.read(place(job), Begun)
    folder = job.layout.refreshes(job.line) / begun.folder
    if begun.question != job.question or not (folder / "verdict.json").exists():
        return None
    there = (Path(verdict_in(folder).candidate) / "config.json").exists()
    return begun if begun.version is not None or there else None  # weights that are gone cannot be registered


def verdict_in(folder: Path) -> Verdict:
    return records.read(folder / "verdict.json", Verdict)
