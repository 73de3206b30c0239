"""Which tasks may judge: the last refresh's training under other seeds."""

from pathlib import Path

from prefect import flow

from ratoon.config import Ask
from tasks import tracking
from tasks.declared import FLOW
from tasks.job import alone
from tasks.judges import RECORD, conclude_judges, follow_seed, open_judges, seeds_of
from tasks.promote import tell_again
from tasks.slots import gpu_slots

LAST = Ask()


@flow(name="judges", **FLOW)
def judges(ask: Ask = LAST, seeds: tuple[int, ...] = ()) -> dict[str, str]:
    """Train with these seeds, or as many as are needed, score all checkpoints, and say what each task is worth."""
    study = open_judges(Path.cwd(), ask)
    above = study.refresh.lineage.mlflow_runs.get("refresh")
    with (
        alone(study.job),
        gpu_slots(study.job),
        tracking.run(study.job.line, "judges", kind="judges", parent_run_id=above) as run,
    ):
        found = conclude_judges(study, [follow_seed(study, seed, run.id) for seed in seeds_of(study, seeds)])
        run.artifact(study.job.folder / RECORD)
        tell_again(study.job, study.refresh)
    return {each.task: each.use for each in found.qualities}
