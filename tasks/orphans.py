"""What a server that went down in the middle left behind: runs that never began, places that nobody holds."""

from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.states import Crashed
from prefect.types._datetime import now

NEVER_BEGAN = timedelta(minutes=10)  # twice what Prefect grants a worker to begin
HOLDS = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
MANY = 200


def free(client: SyncPrefectClient) -> None:
    """A worker that died between taking a run and starting it leaves it Pending for ever; a server that died forgets
    who held the places of a deployment, and then nobody gives them back.
    """
    for deployment in client.read_deployments(limit=MANY):
        holding = begun(client, deployment)
        limit = deployment.global_concurrency_limit
        if limit is not None and limit.active_slots > len(holding):
            taken = GlobalConcurrencyLimitUpdate(active_slots=len(holding))
            client.update_global_concurrency_limit(limit.name, taken)


def begun(client: SyncPrefectClient, deployment: DeploymentResponse) -> list[FlowRun]:
    """Runs that hold a place, without those that never began: they are marked Crashed."""
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(HOLDS)))),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        limit=MANY,
    )
    stale = [run for run in found if stuck(run)]
    for run in stale:
        words = "its worker took it and went down before it began; start it again"
        client.set_flow_run_state(run.id, Crashed(message=words), force=True)
    return [run for run in found if run not in stale]


def stuck(run: FlowRun) -> bool:
    since = run.state.timestamp if run.state else None
    return run.state_type == StateType.PENDING and since is not None and now("UTC") - since > NEVER_BEGAN
