"""Whether the text has moved away from the champion, so that a refresh is due."""

from pathlib import Path

from prefect import flow

from flows.prepare import prepare
from ratoon.config import Ask
from tasks.drift import measure_drift
from tasks.names import run_name
from tasks.prepare import open_job

NOTHING_ASKED = Ask()


@flow(name="drift", flow_run_name=run_name)
def drift(ask: Ask = NOTHING_ASKED) -> dict[str, object]:
    """Bring the sources up to date, score the champion on the newest and on older text; an event if it drifted."""
    prepare(ask)
    return measure_drift(open_job(Path.cwd(), ask)).model_dump(mode="json")
