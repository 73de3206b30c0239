"""What a Prefect server is told of a project: work pools, the deployments of prefect.yaml, GPU slots, automations.

As often as one likes: what is there is brought to what is declared, and a switch that a person turned on the page
stays as it is until its line in prefect.yaml says something new.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.workers.process import ProcessWorker

from ratoon import config
from ratoon.config import ConfigError, OperateConfig, Pool
from ratoon.config.reading import read_yaml
from tasks import automations, forms, notify, orphans, slots, switches
from tasks.embedded import served

POOLS: tuple[Pool, ...] = ("cpu", "gpu")
HEAVY = "model"  # the tag of deployments that train or score: where there is a GPU, they belong to it
DEPLOY_SECONDS = 600
Say = Callable[[str], None]


def register(root: Path, say: Say) -> None:
    """Raises ConfigError where there is no server to tell, or where it refuses."""
    if not served():
        raise ConfigError("no Prefect server to tell: `ratoon up` starts one here, PREFECT_API_URL names another")
    asked = config.load(root).operate
    gpus = gpus_here()
    with get_client(sync_client=True) as client:
        make_pools(client)
        orphans.free(client)
        kept = switches.found(client)
        declare(root)
        registered = {f"{it.flow_name}/{it.name}": it for it in by_name(client)}
        ours = named(root)
        for name in ours:
            adapt(client, registered[name], forms.choices(root), pool_of(registered[name], asked, gpus))
        switches.settle(client, switches.declared(root), kept)
        client.upsert_global_concurrency_limit_by_name(slots.LIMIT, asked.gpu_slots or max(1, gpus))
        notify.take_from_environment()
        tell(asked, client)
        for line in switches.told(client, ours):
            say(line)


def tell(asked: OperateConfig, client: SyncPrefectClient | None = None) -> bool:
    """Bring our automations up to date; whether there is a server that carries them out."""
    if client is not None:
        automations.settle(client, [automations.silent(), *notify.automations(client, asked.notify)])
    elif served():
        with get_client(sync_client=True) as mine:
            return tell(asked, mine)
    return client is not None


def gpus_here() -> int:
    import torch  # late: whoever only asks for a form need not wait for it

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def make_pools(client: SyncPrefectClient) -> None:
    """Both, always: a pool without a worker costs nothing, and a run that was sent there waits for one."""
    present = {pool.name for pool in client.read_work_pools()}
    for name in POOLS:
        if name not in present:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


def declare(root: Path) -> None:
    """By Prefect's own command, which alone knows all that prefect.yaml may say."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    environment = {"RATOON_ROOT": str(root), **os.environ}
    done = subprocess.run(
        command,
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEPLOY_SECONDS,
        check=False,
    )
    if done.returncode:
        words = f"{done.stdout}\n{done.stderr}".strip()[-3000:]
        raise ConfigError(f"prefect.yaml: `prefect deploy --all` failed (exit code {done.returncode}):\n{words}")


def named(root: Path) -> list[str]:
    """flow/deployment of every deployment of prefect.yaml; a flow is called like its function."""
    listed = read_yaml(root / "prefect.yaml").get("deployments") or []
    return [f"{it['entrypoint'].rsplit('.', 1)[-1]}/{it['name']}" for it in listed]


def by_name(client: SyncPrefectClient) -> list[Any]:
    flows = {flow.id: flow.name for flow in client.read_flows(limit=200)}
    found = client.read_deployments(limit=200)
    return [Named(it, flows.get(it.flow_id, "?")) for it in found]


class Named:
    """A deployment and the name of its flow."""

    def __init__(self, deployment: DeploymentResponse, flow_name: str) -> None:
        self.deployment, self.flow_name, self.name = deployment, flow_name, deployment.name


def pool_of(found: Named, asked: OperateConfig, gpus: int) -> Pool:
    """prefect.yaml says cpu of every deployment; what trains or scores moves to where it is asked for."""
    if HEAVY not in found.deployment.tags:
        return "cpu"
    return asked.pool or ("gpu" if gpus else "cpu")


def adapt(client: SyncPrefectClient, found: Named, names: dict[str, list[str]], pool: Pool) -> None:
    """What a file cannot know: today's names as choices of the form, and where there is a GPU."""
    schema = forms.offered(found.deployment.parameter_openapi_schema or {}, names)
    changes = DeploymentUpdate(parameter_openapi_schema=schema, work_pool_name=pool)  # type: ignore[arg-type]
    client.update_deployment(found.deployment.id, changes)
