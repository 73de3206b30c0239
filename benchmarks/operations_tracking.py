"""How long MLflow takes for many proxy runs: to write them as a sweep does, and to open its pages in a browser.

python benchmarks/operations_tracking.py [--runs 1000] [--keep FOLDER]

Opened: the view of all proxies, its table and its charts; and the compare page, of the first 100 (what the table loads,
and a person selects with one click) and of all. Painted: rows or charts are there, and none is loading. Needs Chromium
(CHROMIUM names it), driven by its DevTools protocol; SQLite and one worker, as `ratoon up` starts it.
Processor seconds, of server and browser together, are told beside the wall's: of two cores they are a bound for it.
"""

import argparse
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from websockets.sync.client import connect

from ratoon.records import Observation
from tasks import environment, processes

LINE, STEPS = "many", 10
# A table with rows, or a chart with marks; nothing that is still loading.
TABLE = "document.querySelectorAll('[role=row] a[href*=\"/runs/\"]').length >= 10"
CHART = "document.querySelectorAll('.js-plotly-plot .points path').length >= 100"
COMPARED = "document.querySelectorAll('.js-plotly-plot .parcoords').length >= 1"  # its chart of parameters and metrics
STILL = "document.querySelectorAll('[class*=skeleton i], [class*=spinner i], .ant-spin').length == 0"


def observations(runs: int) -> list[Observation]:
    """Of a sweep of that many proxies, each evaluated ten times on two sources: losses by a law, as they come."""
    known: dict[str, Any] = dict(commit=None, config="c", finished=False)
    found = []
    for number in range(runs):
        share, size = 0.05 + 0.9 * (number % 19) / 18, (150_976, 600_064)[number % 2]
        name, rate = f"{('nano', 'pico')[number % 2]}-r{share:.2f}-{number:04d}", 5e-4 * (1 + number % 5)
        known |= dict(run=name, group=name, model=name[:4], params_non_embedding=size, share=share, learning_rate=rate)
        for step in range(1, STEPS + 1):
            tokens = step * 25_600
            for source, role, part in (("python-code", "domain", share), ("python-docs", "general", 1 - share)):
                loss = 2.5 + 40 / math.sqrt(tokens * (0.05 + part)) + number % 7 / 100
                more: dict[str, Any] = dict(evaluated=source, role=role, loss_nats=loss, bits_per_byte=loss / 2.1)
                found.append(Observation(step=step, tokens=tokens, **known, **more))
    return found


def spent(*roots: int) -> float:
    """Processor seconds of processes and all below them, ended children among them."""
    total = 0.0
    for root in roots:
        top = psutil.Process(root)
        for one in [top, *top.children(recursive=True)]:
            try:
                total += sum(one.cpu_times()[:4])
            except psutil.NoSuchProcess:
                continue
    return total


@contextmanager
def server(root: Path) -> Iterator[tuple[str, int]]:
    port = processes.free_port(5310)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", environment.store(root)]
    command += ["--default-artifact-root", (root / ".ratoon" / "mlartifacts").as_uri()]
    quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (root / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=quiet, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        while not processes.answers(f"{address}/health"):
            if process.poll() is not None:
                raise SystemExit((root / "server.log").read_text())
            time.sleep(0.3)
        yield address, process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


class Page:
    """A tab of a browser of its own, with nothing in its cache."""

    def __init__(self, port: int, pid: int) -> None:
        self.pid = pid
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as reply:
            tab = next(item for item in json.load(reply) if item["type"] == "page")
        self.socket = connect(tab["webSocketDebuggerUrl"], max_size=None)
        self.number = 0
        self.call("Page.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            reply = json.loads(self.socket.recv(timeout=120))
            if reply.get("id") == self.number:
                return reply.get("result", {})

    def value(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found.get("result", {}).get("value")

    def open(self, address: str, painted: str, limit: float = 120.0) -> float:
        """Seconds until `painted` holds, from an empty page, and stays so for half a second; infinite past `limit`."""
        self.call("Page.navigate", url="about:blank")
        time.sleep(0.5)
        begun = time.monotonic()
        self.call("Page.navigate", url=address)
        since = None
        while (now := time.monotonic()) - begun < limit:
            holds = self.value(f"Boolean({painted} && {STILL})")
            since = (since or now) if holds else None
            if since is not None and now - since > 0.5:
                return since - begun
            time.sleep(0.05)
        return math.inf

    def picture(self, path: Path) -> None:
        import base64

        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        raise SystemExit("no chromium found; install it, or name it in CHROMIUM")
    command = [found, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    command += [f"--user-data-dir={folder}", "--window-size=1600,1000", "about:blank"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen(command, **quiet)
    try:
        told = folder / "DevToolsActivePort"
        while not told.exists() or not told.read_text():
            time.sleep(0.1)
        yield Page(int(told.read_text().splitlines()[0]), process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def pages(address: str, runs: int) -> dict[str, tuple[str, str]]:
    """What is opened: address, and when it is painted."""
    from tasks import tracking

    experiment = tracking.client().get_experiment_by_name(LINE).experiment_id
    proxies = "tags.`ratoon.kind` = 'proxy'"
    ids = [run.info.run_id for run in tracking.client().search_runs([experiment], proxies, max_results=runs)]
    view = f"{address}/#/experiments/{experiment}/runs?viewStateShareKey=proxies"

    def compare(many: list[str]) -> str:
        return f"{address}/#/compare-runs?runs={json.dumps(many)}&experiments={json.dumps([experiment])}".replace(
            '"', "%22"
        )

    return {
        f"view of {runs:,} proxies, table": (f"{view}&compareRunsMode=", TABLE),
        f"view of {runs:,} proxies, charts": (f"{view}&compareRunsMode=CHART", CHART),
        "compare page, 100 runs": (compare(ids[:100]), COMPARED),
        f"compare page, {len(ids):,} runs": (compare(ids), COMPARED),
    }


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--runs", type=int, default=1000)
    asked.add_argument("--keep", type=Path, help="leave the store and pictures of the pages there, or take the store")
    given = asked.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # server and browser are stopped then too
    with tempfile.TemporaryDirectory() as scratch:
        root = given.keep or Path(scratch)
        root.mkdir(parents=True, exist_ok=True)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        environment.apply(root)
        from tasks import tracking

        if not (root / ".ratoon" / "mlflow.db").exists():
            tracking.lay_out(LINE, {"python-code": "domain", "python-docs": "general"})
            begun, cpu = time.monotonic(), time.process_time()
            tracking.log_sweep(LINE, "of a benchmark", observations(given.runs), root)
            wall, cpu = time.monotonic() - begun, time.process_time() - cpu
            print(f"| write {given.runs:,} proxy runs | {wall:.0f} s, of processor time {cpu:.0f} s |", flush=True)
        with server(root) as (address, pid):
            for what, (page, painted) in pages(address, given.runs).items():
                told = [opened(Path(scratch) / f"{time.monotonic_ns()}", page, painted, pid, root / picture(what))]
                again = range(2 if told[0][0] < 30 else 0)
                told += [opened(Path(scratch) / f"{time.monotonic_ns()}", page, painted, pid) for _ in again]
                wall, cpu = (statistics.median(one[place] for one in told) for place in (0, 1))
                print(f"| {what} | {wall:.1f} s, of processor time {cpu:.1f} s |", flush=True)


def picture(what: str) -> str:
    return what.replace(" ", "-").replace(",", "") + ".png"


def opened(folder: Path, page: str, painted: str, server: int, into: Path | None = None) -> tuple[float, float]:
    """Seconds of the wall and of the processors, by a browser that has seen nothing of MLflow."""
    with browser(folder) as tab:
        before = spent(server, tab.pid)
        wall = tab.open(page, painted)
        cpu = spent(server, tab.pid) - before
        if into is not None:
            tab.picture(into)
    return wall, cpu


if __name__ == "__main__":
    main()
