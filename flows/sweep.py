"""Proxy runs over ratio, size and tokens; laws; the ratio they advise."""

from pathlib import Path

from prefect import flow

from ratoon.config import Ask
from tasks.declared import FLOW
from tasks.job import alone_or_within
from tasks.prepare import open_job
from tasks.room import check_sweep
from tasks.slots import gpu_slots


@flow(name="sweep", **FLOW)
def sweep(ask: Ask, parent_run: str | None = None) -> dict[str, str | float]:
    """Train the proxies, fit the laws, choose the domain share of the target run."""
    from tasks.sweep import choose_ratio, run_proxies  # with torch and scipy: a run is said to begin before that

    job = open_job(Path.cwd(), ask)
    check_sweep(job)
    with alone_or_within(job):
        with gpu_slots(job):
            observations = run_proxies(job, parent_run)
        choice = choose_ratio(job, observations)
    return {"folder": str(job.folder), "share": choice.share, "reason": choice.reason}
