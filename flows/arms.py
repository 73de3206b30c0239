"""A refresh that has ended, against cheaper ways to the same end."""

from pathlib import Path

from prefect import flow

from ratoon.config import Ask
from tasks import tracking
from tasks.arms import RECORD, conclude_arms, measure, open_study
from tasks.declared import FLOW
from tasks.job import alone
from tasks.promote import tell_again
from tasks.slots import gpu_slots

LAST = Ask()


@flow(name="arms", **FLOW)
def arms(ask: Ask = LAST, names: tuple[str, ...] = (), parent_run: str | None = None) -> dict[str, str]:
    """Measure the arms of these names, or those of params.yaml, on the items of the line's last refresh."""
    study = open_study(Path.cwd(), ask, names)
    with alone(study.job), gpu_slots(study.job):
        if study.missing:
            above = parent_run or study.refresh.lineage.mlflow_runs.get("refresh")
            with tracking.run(study.job.line, "arms", kind="arms", parent_run_id=above) as run:
                found = conclude_arms(study, [measure(study, name, run.id) for name in study.asked.asked])
                run.artifact(study.job.folder / RECORD)
        else:
            found = conclude_arms(study, [measure(study, name, None) for name in study.asked.asked])
        tell_again(study.job, study.refresh)
    return {arm.name: arm.standing for arm in found.arms}
