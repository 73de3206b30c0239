"""The one place where the environment of Prefect, MLflow and DVC is set, before any of them is imported.

What a person has set wins, always. What `ratoon up` runs is used; without it everything is embedded under
`.ratoon/`: Prefect's own in-process API, MLflow on SQLite, DVC with a folder as its remote.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tasks import access, processes

# What we set, as JSON: a later call, or a child of this process, may set it anew without touching a person's own. The
# values are kept too: a variable that has since become another is a person's.
OURS = "RATOON_DEFAULTS"
# Of Prefect's API where no server runs: it lives as long as one command, and nobody fills in a form there. The types of
# blocks that it would write down first are some hundred requests; `ratoon up` has them written, and so must not be told
# that they are, as Prefect's memo of it would.
EMBEDDED = {
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
}
SPINS, WAITING = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"  # the first overrules the second, which a person may have set
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def defaults(root: Path) -> dict[str, str]:
    """The embedded default, whatever else is set or runs."""
    home = root.resolve() / ".ratoon"
    return {
        "RATOON_ROOT": str(root.resolve()),  # prefect.yaml names it: where a worker goes before a flow starts
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # Only the console is quiet: the page still gets every line of a flow.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # In memory, as by default, a restart forgets who holds a slot, and nobody ever gives it back.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # Prefect's 20 s are too few for a first start on a slow disk.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        # A worker that looks every 10 s, Prefect's own default, is 10 s of silence after a form is sent.
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "MLFLOW_TRACKING_URI": store(root),
        # It prints an address at the end of every run, into what may be a script's JSON.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # MLflow's own 7 tries of 120 s would hold a run for a quarter of an hour before it says a word.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
        # DO_NOT_TRACK=1 is not enough: MLflow 3.17 compares it with "true".
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # A thread that waits for another spins, by default so long that beside other work it keeps the one it waits
        # for from running (benchmarks/training_crowded.py).
        SPINS: "10000",
        # A tokenizer that has used its threads may hang in a forked child.
        "TOKENIZERS_PARALLELISM": "false",
    }


def store(root: Path) -> str:
    """MLflow's store of this project, as the URI of a SQLite file."""
    return f"sqlite:///{root.resolve() / '.ratoon' / 'mlflow.db'}"


def prepare(root: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables to lay over `environ` (None: this process's) so that work in `root` finds its services."""
    given = os.environ if environ is None else environ
    ours = _ours(given)
    wanted = {**defaults(root), **_running(root)}
    if any(name in given for name in PROXIES):
        wanted |= {"NO_PROXY": f"{processes.HOST},localhost", "no_proxy": f"{processes.HOST},localhost"}
    if "PREFECT_API_URL" not in wanted and ("PREFECT_API_URL" not in given or "PREFECT_API_URL" in ours):
        wanted |= EMBEDDED
    if WAITING in given:
        del wanted[SPINS]
    chosen = {name: value for name, value in wanted.items() if name not in given or name in ours}
    # A login is given on beside our record of what we set: one place more would be one too many for a secret.
    record = json.dumps(chosen, sort_keys=True)
    return {**chosen, **access.for_clients(given), "PATH": _path(given.get("PATH", os.defpath)), OURS: record}


def apply(root: Path) -> dict[str, str]:
    """`prepare`, put into this process's environment. Call it before anything imports prefect or mlflow."""
    changes = prepare(root)
    for name in _ours(os.environ) - changes.keys():
        # Set by an earlier call and no longer wanted: the services it pointed to are down.
        os.environ.pop(name)
    os.environ.update(changes)
    (root.resolve() / ".ratoon").mkdir(parents=True, exist_ok=True)
    return changes


def _ours(given: Mapping[str, str]) -> set[str]:
    """Names whose value in `given` is still the one that we set."""
    try:
        record = dict(json.loads(given.get(OURS) or "{}"))
    except (TypeError, ValueError):  # not of our making: nothing of it is ours
        return set()
    return {name for name, value in record.items() if given.get(name) == value}


def _running(root: Path) -> dict[str, str]:
    """Where `ratoon up` answers. A connection is asked for, not a page: a busy server is still the one to use."""
    services = processes.recorded(root)
    addresses = {name: service.address for name, service in services.items() if processes.listening(service)}
    found = {}
    if address := addresses.get("prefect"):
        found["PREFECT_API_URL"] = f"{address}/api"
    if address := addresses.get("mlflow"):
        found["MLFLOW_TRACKING_URI"] = address
    return found


def _path(path: str) -> str:
    """`python` in a DVC stage is this interpreter. Not resolved: a venv's python is a link, and the link matters."""
    first = str(Path(sys.executable).parent)
    rest = [part for part in path.split(os.pathsep) if part and part != first]
    return os.pathsep.join([first, *rest])
