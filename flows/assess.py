"""A model against its parent, on the same items."""

from pathlib import Path

from prefect import flow

from ratoon.config import Ask
from ratoon.report import health
from tasks.assess import LATER, candidate_of, is_later, judge, last_judged, score_both
from tasks.declared import FLOW
from tasks.job import alone_or_within
from tasks.prepare import open_job
from tasks.slots import gpu_slots
from tasks.writing import look_at_writing


@flow(name="assess", **FLOW)
def assess(ask: Ask, parent_run: str | None = None) -> dict[str, str | bool]:
    """Score parent and candidate on held-out text and benchmarks, compare them in pairs, and judge.

    By itself and after a refresh has ended, it looks once more: nothing the refresh came to is changed by it.
    """
    job = open_job(Path.cwd(), ask)
    job = last_judged(job) if parent_run is None else job
    candidate = candidate_of(job)
    with alone_or_within(job):
        with gpu_slots(job):
            scored = score_both(job, candidate)
            written = "" if scored.fault else health.text(look_at_writing(job, scored.folders, candidate, parent_run))
        verdict = judge(job, scored, parent_run)
    said: dict[str, str | bool] = {"decision": verdict.decision, "promoted": verdict.promoted}
    said["reasons"] = " ".join(verdict.reasons)
    if is_later(job, parent_run):
        said["note"] = f"the refresh stands as it was recorded; this verdict is in {job.folder / LATER}"
    return said | ({"health": "\n" + written} if written else {})
