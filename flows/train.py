"""One continued pretraining."""

from pathlib import Path

from prefect import flow

from ratoon.config import Ask
from tasks.declared import FLOW
from tasks.job import alone_or_within
from tasks.prepare import open_job
from tasks.room import check_train
from tasks.slots import gpu_slots
from tasks.train import chosen_share, train_target


@flow(name="train", **FLOW)
def train(ask: Ask, parent_run: str | None = None) -> dict[str, str]:
    """Continue the parent at the chosen ratio, or at the one asked for. A killed run resumes by itself."""
    from tasks.estimate import check_budget  # with torch: a run is said to begin before that is loaded

    job = open_job(Path.cwd(), ask)
    check_budget(job)
    check_train(job)
    with alone_or_within(job), gpu_slots(job):
        result, run_id = train_target(job, chosen_share(job), parent_run)
    return {"model": result.model, "run": run_id}
