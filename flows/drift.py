"""Whether the text has moved away from the champion, so that a refresh is due."""

from pathlib import Path

from prefect import flow

from flows.prepare import prepare
from ratoon.config import Ask
from tasks.drift import measure_drift
from tasks.names import run_name
from tasks.orphans import claim
from tasks.prepare import open_job
from tasks.slots import gpu_slots

NOTHING_ASKED = Ask()


@flow(name="drift", flow_run_name=run_name, on_running=[claim])
def drift(ask: Ask = NOTHING_ASKED) -> dict[str, object]:
    """Bring the sources up to date, score the champion on the newest and on older text; an event if it drifted."""
    prepare(ask)
    job = open_job(Path.cwd(), ask)
    with gpu_slots(job):
        return measure_drift(job).model_dump(mode="json")
