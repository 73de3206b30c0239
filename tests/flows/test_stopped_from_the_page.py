"""Cancelled or killed, on a real server with a real worker: the training saves, ends, and is gone on from."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest

from ratoon.training.sole import sole

pytestmark = pytest.mark.slow
WAIT_SECONDS = 300.0
ASK = {"ratio": 0.3, "tokens": 40_000_000}  # longer than any machine takes until it is stopped
LINE = "ratoon-nano"


class Page:
    """Prefect's API, as its page uses it."""

    def __init__(self, address):
        self.api = f"{address}/api"
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, path, body=None, pauses=(1, 3, 9)):
        data, headers = None, {"Content-Type": "application/json"}
        if body is not None:
            data = json.dumps(body).encode()
            token = self.call("/csrf-token?client=page")["token"]
            headers |= {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "page"}
        wanted = urllib.request.Request(f"{self.api}{path}", data, headers)
        try:
            with self.opener.open(wanted, timeout=30) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:  # 503: its database is busy; Prefect's clients ask again too
            if error.code != 503 or not pauses:
                raise
        time.sleep(pauses[0])
        return self.call(path, body, pauses[1:])

    def start(self, flow, ask):
        deployment = self.call(f"/deployments/name/{flow}/default")["id"]
        run = {"parameters": {"ask": ask}, "state": {"type": "SCHEDULED"}}
        return self.call(f"/deployments/{deployment}/create_flow_run", run)["id"]

    def state(self, run):
        return self.call(f"/flow_runs/{run}")["state_type"]

    def said(self, run):
        wanted = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200}
        return "\n".join(line["message"] for line in self.call("/logs/filter", wanted))

    def artifacts(self, run):
        found = self.call("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
        return {item["key"]: item for item in found}


def wait_for(condition, what):
    until = time.monotonic() + WAIT_SECONDS
    while not (found := condition()):
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def served(new_project):
    """A project whose text is prepared, its servers and its worker."""
    project = new_project("served", 400_000, assess={"items": 20})
    project.ratoon("prepare")
    project.ratoon("up", "--prefect-port", "4320", "--mlflow-port", "4325")
    known = json.loads((project.root / ".ratoon" / "services.json").read_text())
    yield project, Page(known["prefect"]["address"]), known
    project.ratoon("down")


READER = """
import sys
from pathlib import Path
from ratoon.layout import Layout
from tasks import texts
with texts.read(Layout(Path.cwd()), ["python-code"]):
    print("reads", flush=True)
    sys.stdin.read()
"""


def test_what_would_replace_text_that_is_read_ends_cancelled_and_its_next_run_takes_it(served):
    project, page, _ = served
    before = brought_in(project)
    new = project.root / "data" / "raw" / "python-code" / "new.jsonl"
    new.parent.mkdir(exist_ok=True)
    new.write_text(json.dumps({"text": "def newer(text):\n    return text + text[::-1]\n" * 20}) + "\n")
    command = [sys.executable, "-c", READER]
    with subprocess.Popen(
        command, cwd=project.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout.readline() == "reads\n"
        for flow in ("prepare", "drift", "refresh"):
            run = page.start(flow, {})
            wait_for(lambda run=run: page.state(run) not in ("SCHEDULED", "PENDING", "RUNNING"), f"the end of {flow}")
            state = page.call(f"/flow_runs/{run}")["state"]
            assert state["type"] == "CANCELLED", state
            assert (
                f"python-code: its edition would be replaced, and a run under way reads it (process {reader.pid})"
                in (state["message"])
            )
        reader.stdin.close()
        reader.wait(60)
    run = page.start("prepare", {})
    wait_for(lambda: page.state(run) == "COMPLETED", "the edition with the new text")
    assert brought_in(project) == before + 1


def brought_in(project):
    """Documents of the domain's edition, before any was dropped."""
    ledger = project.root / "data" / "documents" / "python-code" / "ledger.json"
    return json.loads(ledger.read_text())["funnel"]["documents_in"]


class Training:
    """The one training process of the project, and what it leaves."""

    def __init__(self, root):
        self.root = root

    def process(self):
        for found in psutil.process_iter():
            try:
                words = found.cmdline()
            except psutil.Error:
                continue
            if "ratoon.training" in words and any(word.startswith(str(self.root)) for word in words):
                return found
        return None

    @property
    def folder(self):
        return next(iter(self.root.glob(f".ratoon/refreshes/{LINE}/*/train")))

    def steps(self):
        """Of the lines it has written since its start."""
        if not list(self.root.glob(f".ratoon/refreshes/{LINE}/*/train/metrics.jsonl")):
            return []
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["step"] for line in lines if line.endswith("}")]

    def works(self, past):
        """Its process, once it has written of a step past this one."""
        return self.process() if max(self.steps(), default=-1) > past else None

    def saved(self):
        return max((int(path.name[5:]) for path in self.folder.glob("checkpoints/step-*")), default=0)


def status_in_mlflow(project):
    script = (
        "from pathlib import Path\nfrom tasks import environment, tracking\nenvironment.apply(Path.cwd())\n"
        "client = tracking.client()\nlines = [e.experiment_id for e in client.search_experiments()]\n"
        "print([r.info.status for r in client.search_runs(lines)])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=project.root, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def cancelled(served):
    """A training that `prefect flow-run cancel` stopped once its page had shown how far it was."""
    project, page, _ = served
    training = Training(project.root)
    run = page.start("train", ASK)
    child = wait_for(lambda: training.works(0), "the training's first step")
    wait_for(lambda: f"{LINE}-train-progress" in page.artifacts(run), "the progress on the page")
    environment = {**os.environ, "PREFECT_API_URL": page.api}
    cancel = [sys.executable, "-m", "prefect", "flow-run", "cancel", run]
    subprocess.run(cancel, env=environment, check=True, capture_output=True, timeout=120)
    wait_for(lambda: not child.is_running(), "the end of the training")
    wait_for(lambda: page.state(run) == "CANCELLED", "the state Cancelled")
    return training, page, run


def test_a_cancelled_training_saves_its_step_and_leaves_no_process(cancelled):
    training, _, _ = cancelled
    assert training.process() is None
    assert training.saved() > 0
    assert "was asked to end and did, at step" in (training.folder / "training.log").read_text()
    assert not list(training.folder.glob("pid"))


def test_while_it_ran_the_page_showed_how_far_it_was(cancelled):
    _, page, run = cancelled
    shown = page.artifacts(run)[f"{LINE}-train-progress"]
    assert 0 <= float(shown["data"]) < 100
    assert "/40.0M tokens" in shown["description"]
    assert "loss " in shown["description"]
    name = page.call(f"/flow_runs/{run}")["name"]
    assert name == f"train {LINE}: python-docs, python-code, at 30%, 40M tokens"
    assert "train begins: 40.0M tokens" in page.said(run)


def test_the_next_run_goes_on_and_a_killed_flow_leaves_neither_process_nor_lock(cancelled, served):
    training, page, _ = cancelled
    before = training.saved()
    run = page.start("train", ASK)
    child = wait_for(lambda: training.works(before), "a step past the saved one")
    steps = training.steps()
    assert steps == sorted(steps)  # what was done is not done again: its lines go on where they were
    flow = child.parent()
    assert "prefect.engine" in " ".join(flow.cmdline())
    flow.send_signal(signal.SIGKILL)
    wait_for(lambda: not child.is_running(), "the end of the training of a killed flow")
    assert training.saved() > before
    with sole(training.folder, 10):
        pass
    wait_for(lambda: page.state(run) == "CRASHED", "the state Crashed")


def test_a_worker_that_is_killed_takes_no_training_with_it_for_ever(cancelled, served):
    training, page, _ = cancelled
    project, _, known = served
    before = training.saved()
    page.start("train", ASK)
    child = wait_for(lambda: training.works(before), "a step past the saved one")
    flow = child.parent()
    psutil.Process(known["worker"]["pid"]).send_signal(signal.SIGKILL)
    flow.send_signal(signal.SIGKILL)
    wait_for(lambda: not child.is_running(), "the end of the training of a killed worker")
    assert training.saved() > before
    project.ratoon("up", "--prefect-port", "4320", "--mlflow-port", "4325")  # a new worker; and the dead are buried
    assert "RUNNING" not in status_in_mlflow(project)
    assert "KILLED" in status_in_mlflow(project)


def test_nothing_of_a_flow_is_kept_as_a_pickle(cancelled, served):
    project, _, _ = served
    # What drift and refresh failed of, as they could not have the text, is there in words.
    kept = [path.read_text() for path in (project.root / ".ratoon" / "prefect" / "storage").iterdir()]
    assert {json.loads(text)["__exc_type__"] for text in kept} == {"tasks.texts.BeingRead"}
