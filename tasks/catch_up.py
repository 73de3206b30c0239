"""After a downtime the runs that fell due stand in a queue. One is enough: the newest; the others give way to it."""

from datetime import datetime

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.runtime import flow_run
from prefect.types._datetime import now

from tasks.embedded import served

MANY = 200  # the newest are read first
# Waiting, at work or over: the order in which a worker takes them is its own. One that failed has told a person, and
# older ones would fail of the same; one that was cancelled stands for nothing.
STANDS = [type for type in StateType if type not in (StateType.CANCELLED, StateType.CANCELLING)]


def given_way() -> str | None:
    """Why this run need not do anything; None: it is to go on.

    Only runs that a schedule or a trigger made give way, never one that a person asked for. They ask the same of the
    text as it is, so a later one of the same deployment and parameters does what both were for.
    """
    if not served() or flow_run.id is None:
        return None
    with get_client(sync_client=True) as client:
        mine = client.read_flow_run(flow_run.id)
        again = mine.run_count > 1  # tried again, by Prefect or by a person: it goes on where it was
        if mine.deployment_id is None or again or not by_machine(mine):
            return None
        due = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=STANDS)),
                expected_start_time=FlowRunFilterExpectedStartTime(before_=now("UTC")),
            ),
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[mine.deployment_id])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=MANY,
        )
    return reason(mine, due)


def by_machine(run: FlowRun) -> bool:
    return run.auto_scheduled or (run.created_by is not None and run.created_by.type == "AUTOMATION")


def reason(mine: FlowRun, due: list[FlowRun]) -> str | None:
    later = [run for run in due if by_machine(run) and run.parameters == mine.parameters and asked(run) > asked(mine)]
    if not later:
        return None
    newest = max(later, key=asked)
    return f"gave way to {newest.name}, due {asked(newest):%Y-%m-%d %H:%M} UTC: the newest catches up for all"


def asked(run: FlowRun) -> datetime:
    """When it was first to start, whatever it waited for since."""
    found = run.expected_start_time or run.created
    assert found is not None
    return found
