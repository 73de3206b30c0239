"""How each long-lived process is started: its command line, its environment, its health page."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks import access, environment, processes
from tasks.access import LOCAL, Bind
from tasks.processes import Service

# The order of starting; stopped in the reverse order.
KEEPER = "keeper"
POOLS = {"worker": "cpu", "worker-gpu": "gpu"}
NAMES = (KEEPER, "prefect", "mlflow", *POOLS)
ALWAYS = ("prefect", "mlflow", "worker")
# What a flow prints belongs on its page, not on the terminal `up` was called from.
NOT_THEIRS = ("RATOON_LIVE", environment.OURS, "PREFECT_SERVER_EPHEMERAL_ENABLED", "PREFECT_API_URL")


def surroundings(root: Path, services: Mapping[str, Service]) -> dict[str, str]:
    """For servers and workers: fixed addresses, and logs that say what happens."""
    ours = environment.prepare(root)
    changed = {**os.environ, **ours}
    for name in (*NOT_THEIRS, *(environment.EMBEDDED.keys() & ours.keys())):
        changed.pop(name, None)
    changed |= {
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
        "PYTHONUNBUFFERED": "1",
        # MLflow's runner of background jobs: nothing here uses it, and it is one process more per server.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    changed |= access.for_clients(changed)
    if "prefect" in services:
        changed["PREFECT_API_URL"] = f"{services['prefect'].address}/api"
    if "mlflow" in services:
        changed["MLFLOW_TRACKING_URI"] = str(services["mlflow"].address)
    return changed


def log(root: Path, name: str) -> Path:
    path = root / ".ratoon" / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def prefect(root: Path, port: int, bind: Bind = LOCAL) -> Service:
    command = ["prefect", "server", "start", "--host", bind.host, "--port", str(port), "--analytics-off"]
    given = surroundings(root, {})
    return _served(root, "prefect", command, given | access.for_prefect(bind, port, given), port, bind, "/api/health")


def mlflow(root: Path, port: int, bind: Bind = LOCAL) -> Service:
    command = ["mlflow", "server", "--host", bind.host, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", environment.store(root)]
    # Clients are on this machine and write files themselves; so embedded runs and served ones share one folder,
    # and a run begun under a server can be read without one.
    command += ["--default-artifact-root", (root / ".ratoon" / "mlartifacts").as_uri()]
    command += ["--app-name", "basic-auth"] if bind.login else []
    given = surroundings(root, {})
    return _served(root, "mlflow", command, given | access.for_mlflow(root, bind, given), port, bind, "/health")


def worker(root: Path, services: Mapping[str, Service], name: str = "worker") -> Service:
    command = ["prefect", "worker", "start", "--pool", POOLS[name], "--type", "process", "--limit", "1"]
    command += ["--name", worker_name(name), "--install-policy", "never"]
    return _started(root, name, ["-m", *command], surroundings(root, services))


def worker_name(name: str) -> str:
    return f"ratoon-{POOLS[name]}"


def keeper(root: Path) -> Service:
    """Keeps logs bounded. Alone, without site packages: it is there for months and should cost nothing."""
    script = Path(__file__).with_name("rotation.py")
    return _started(root, KEEPER, ["-I", "-S", str(script), str(log(root, KEEPER).parent)], {"PATH": os.defpath})


def _started(root: Path, name: str, arguments: Sequence[str], given: Mapping[str, str]) -> Service:
    return processes.start(name, [sys.executable, *arguments], given, root=root, log=log(root, name))


def _served(
    root: Path, name: str, command: Sequence[str], given: Mapping[str, str], port: int, bind: Bind, health: str
) -> Service:
    address = f"http://{bind.client_host}:{port}"
    known = {"address": address, "health": address + health, "host": bind.host, "login": bind.login}
    return _started(root, name, ["-m", *command], given).model_copy(update=known)


def sees_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())
