"""Whether the text has moved away from the champion, so that a refresh is due."""

from pathlib import Path

from prefect import flow
from prefect.states import State

from flows.prepare import prepare
from ratoon.config import Ask
from tasks.declared import FLOW, left_for_later
from tasks.drift import measure_drift
from tasks.job import reading
from tasks.prepare import open_job
from tasks.slots import gpu_slots
from tasks.texts import BeingRead

NOTHING_ASKED = Ask()


@flow(name="drift", **FLOW)
def drift(ask: Ask = NOTHING_ASKED) -> dict[str, object] | State:
    """Bring the sources up to date, score the champion on the newest and on older text; an event if it drifted.

    Where a run under way reads a source that has new text, a deployment ends Cancelled, as prepare does.
    """
    try:
        prepare(ask)
    except BeingRead as error:
        return left_for_later(error)
    job = open_job(Path.cwd(), ask)
    with gpu_slots(job), reading(job):
        return measure_drift(job).model_dump(mode="json")
