"""Has the newest text moved away from the champion?"""

from datetime import UTC, datetime

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from ratoon.evaluation import drift, history
from ratoon.evaluation.drift import Drift, Sides
from ratoon.evaluation.slices import Place
from ratoon.records import write
from tasks.history import parent_row, places, scorer
from tasks.job import Job

EVENT = "ratoon.drift"


@task(task_run_name="drift of {job.line}", cache_policy=NO_CACHE)
def measure_drift(job: Job) -> Drift:
    """The champion on the newest text and on older text of each source; nothing is trained."""
    asked = job.params.assess.drift
    folder = job.layout.history(job.line)
    found = history.load(folder, job.line)
    row = parent_row(job, found)
    since = row.started or job.base.cutoff
    known = {key for each in found.slices if each.name in row.slices for key in history.ids(folder, each)}
    known |= set(row.waiting)
    drift.known_border(asked.by, known or None, since, job.line)
    sides = {source: (place, sides_of(job, place, known, since or "")) for source, place in places(job).items()}
    sources = drift.measure(sides, job.parent, folder / "drift", job.params.assess, scorer(job))
    made = Drift(
        line=job.line,
        champion=row.label,
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        by=asked.by,
        since=since or row.label,
        threshold=asked.threshold,
        sources=sources,
        drifted=any(each.over and each.role in asked.roles for each in sources),
    )
    write(folder / "drift.json", made)
    if made.drifted:
        announce(made, job.base.name)
    return made


def sides_of(job: Job, place: Place, known: set[str], since: str) -> Sides:
    asked = job.params.assess
    return drift.by_arrival(place, known, asked) if asked.drift.by == "arrival" else drift.by_date(place, since, asked)


def announce(found: Drift, base: str) -> None:
    """As a Prefect event, which an automation or the trigger of a deployment may wait for."""
    over = {each.source: each.drift.value for each in found.sources if each.over and each.drift}
    payload = {"base": base, "drift": over, "threshold": found.threshold, "since": found.since}
    resource = {"prefect.resource.id": f"ratoon.line.{found.line}", "prefect.resource.name": found.line}
    emit_event(EVENT, resource=resource, payload=payload)
