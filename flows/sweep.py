"""Proxy runs over ratio, size and tokens; laws; the ratio they advise."""

from pathlib import Path

from prefect import flow

from ratoon.config import Ask
from tasks.names import run_name
from tasks.prepare import open_job
from tasks.room import check_sweep
from tasks.sweep import choose_ratio, run_proxies


@flow(name="sweep", flow_run_name=run_name)
def sweep(ask: Ask, parent_run: str | None = None) -> dict[str, str | float]:
    """Train the proxies, fit the laws, choose the domain share of the target run."""
    job = open_job(Path.cwd(), ask)
    check_sweep(job)
    choice = choose_ratio(job, run_proxies(job, parent_run))
    return {"folder": str(job.folder), "share": choice.share, "reason": choice.reason}
