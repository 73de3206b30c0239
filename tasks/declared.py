"""What every flow is declared with, and what one ends with that has to wait for text."""

from typing import Any

from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, State

from tasks.names import run_name
from tasks.orphans import claim
from tasks.texts import BeingRead

# Prefect writes down what a flow failed of, whatever `persist_result` says, and would pickle it.
FLOW: dict[str, Any] = {
    "flow_run_name": run_name,
    "on_running": [claim],
    "persist_result": False,
    "result_serializer": "json",
}


def left_for_later(error: BeingRead) -> State:
    """What a deployment ends with: nothing failed, and its next run takes the text. To a person, and to the flow that
    this one is a part of, the letter itself is raised.
    """
    if deployment.id is None or flow_run.parent_flow_run_id is not None:
        raise error
    return Cancelled(message=str(error))
