"""`ratoon status`: what runs here, whether it answers, which model is the champion, and where to look at its line."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ratoon import config
from ratoon.layout import Layout
from tasks import access, disk, launch, processes
from tasks.processes import Service


def status(root: Path) -> list[dict[str, Any]]:
    """Each service: name, address, pid, log, and state: `healthy`, `starting or stuck`, `dead` or `not started`."""
    services = processes.recorded(root.resolve())
    return [_state(name, services) for name in launch.NAMES if name in services or name in launch.ALWAYS]


def _state(name: str, services: Mapping[str, Service]) -> dict[str, Any]:
    service = services.get(name)
    if service is None:
        return {"name": name, "state": "not started", "address": None, "pid": None, "log": None}
    well = worker_online(services, name) if name in launch.POOLS else processes.healthy(service)
    state = "healthy" if well else "starting or stuck" if processes.alive(service) else "dead"
    return {"name": name, "state": state, "address": service.address, "pid": service.pid, "log": service.log}


def worker_online(services: Mapping[str, Service], name: str = "worker") -> bool:
    """Whether Prefect hears our worker: a process alone may hang."""
    if "prefect" not in services or name not in services or not processes.alive(services[name]):
        return False
    api = f"{services['prefect'].address}/api"
    found = _post(api, f"/work_pools/{launch.POOLS[name]}/workers/filter", {})
    return any(item.get("name") == launch.worker_name(name) and item.get("status") == "ONLINE" for item in found or [])


def _post(api: str, path: str, body: Mapping[str, Any]) -> Any:
    """The JSON answer; None if there is none."""
    headers = {**access.headers(), "Content-Type": "application/json"}
    # A server that other pages in a person's browser must not reach takes nothing without a token of its own.
    token = _ask(urllib.request.Request(f"{api}/csrf-token?client=ratoon", headers=access.headers()))
    if token:
        headers |= {"Prefect-Csrf-Token": token["token"], "Prefect-Csrf-Client": "ratoon"}
    return _ask(urllib.request.Request(f"{api}{path}", json.dumps(body).encode(), headers))


def _ask(request: urllib.request.Request) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as reply:
            return json.load(reply)
    except (urllib.error.URLError, OSError, ValueError):
        return None


def show(root: Path, *, as_json: bool = False) -> int:
    """Print what runs, the champion and the pages of each line. Exit code 0, or 1 if something started is not well."""
    found = status(root)
    line = config.load(root).refresh.line
    model = _champion(root, line)
    links = pages(root)
    used = disk.usage(root)
    if as_json:
        held = {"free": disk.free(root), "used": used}
        said = {"services": found, "model": line, "champion": model, "pages": links, "disk": held}
        print(json.dumps(said, indent=2))
    else:
        print("\n".join(_line(item) for item in found))
        print(
            f"{line}: " + (f"champion is version {model['version']}, {model['path']}" if model else "no champion yet")
        )
        print("\n".join([*pages_told(links), disk.told(root, used)]))
    return 1 if any(item["state"] not in ("healthy", "not started") for item in found) else 0


def _line(item: Mapping[str, Any]) -> str:
    if item["state"] == "dead":
        return f"{item['name']:<11}{item['state']:<19}`ratoon up` starts it again; log {item['log']}"
    more = item["address"] or (f"log {item['log']}" if item["log"] else "`ratoon up` starts it")
    pid = f"  pid {item['pid']}" if item["pid"] else ""
    return f"{item['name']:<11}{item['state']:<19}{more}{pid}"


def pages(root: Path) -> dict[str, dict[str, str]]:
    """Model line -> view -> its address in MLflow, of the lines that were refreshed here; none without a server."""
    from tasks import retention, tracking

    return tracking.view_links(retention.lines(Layout(root)))


def pages_told(links: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A line for each view: what to open, and its address."""
    return [
        row
        for line, views in links.items()
        for row in (f"{line} in MLflow", *(f"  {name:<11}{link}" for name, link in views.items()))
    ]


def _champion(root: Path, line: str) -> dict[str, Any] | None:
    from tasks import reach, tracking

    path = reach.database(tracking.store())
    if path is not None and not path.exists():
        return None  # nothing was ever tracked; asking would make the database
    found = tracking.champion(line)
    return {"version": found.version, "path": str(found.path)} if found else None
