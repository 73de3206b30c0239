"""Runs on Prefect's page that nobody works on: of a process that was killed, of a worker that died before it began;
and places that a server which went down left taken.

Prefect's own heartbeats tell after nine minutes, and of every machine (tasks/automations.py). Of this machine it can be
known at once: each flow run notes its process below .ratoon; the next refresh, or `ratoon up`, looks whether it lives.
"""

import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
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
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed
from prefect.types._datetime import now

from ratoon import records
from tasks import embedded, owner

logger = logging.getLogger("ratoon")
FOLDER = ".ratoon/flow-runs"
NEVER_BEGAN = timedelta(minutes=10)  # twice what Prefect grants a worker to begin
HOLDS = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
MANY = 200


def claim(flow: Any, flow_run: FlowRun, state: Any) -> None:
    """Hook of every flow: this process works on that run, and what it started ends with it."""
    embedded.tie()
    folder = Path.cwd() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    records.write_text(folder / f"{flow_run.id}.json", json.dumps(owner.own()._asdict()))


def crash(root: Path) -> list[str]:
    """Mark Crashed what this machine's dead processes left Running; their names. None where no server answers."""
    dead = [
        path
        for path in sorted((root / FOLDER).glob("*.json"))
        if owner.is_gone(owner.parsed({owner.TAG: path.read_text()}))
    ]
    if not dead:
        return []
    marked: list[str] = []
    try:
        with get_client(sync_client=True) as client:
            for path in dead:
                marked += crashed(client, UUID(path.stem))
                path.unlink(missing_ok=True)
    except httpx.HTTPError as error:
        logger.warning("flow runs that were killed are not looked for: %s", error)
    if marked:
        logger.info("marked Crashed, for their process was killed: %s", ", ".join(marked))
    return marked


def crashed(client: SyncPrefectClient, id: UUID) -> list[str]:
    try:
        run = client.read_flow_run(id)
    except ObjectNotFound:  # of another server, or removed
        return []
    if run.state is not None and run.state.is_final():
        return []
    words = "its process was killed. Start it again: it goes on where it was"
    client.set_flow_run_state(id, Crashed(message=words), force=True)
    return [run.name]


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
