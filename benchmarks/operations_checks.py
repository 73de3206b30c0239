"""What must hold after every week of benchmarks/operations_soak.py."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

LINE = "ratoon-nano"
LOADS = """
import sys, torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
assert torch.isfinite(model(torch.arange(16)[None]).logits).all()
"""


def check(project, week: int, told: list[dict]) -> dict:
    """`wrong`: what does not hold, in words; `disk`: MiB of the project."""
    wrong: list[str] = []
    for look in (champion, records, runs, flow_runs, corpora, matrix, processes):
        try:
            wrong += look(project, told)
        except Exception as error:  # one look that fails must not hide what the others see
            wrong.append(f"{look.__name__}: {type(error).__name__} {error}"[:300])
    return {"wrong": wrong, "disk": disk(project.root)}


def refreshes(project) -> list[dict]:
    folder = project.root / ".ratoon" / "refreshes" / LINE
    found = [json.loads(path.read_text()) for path in folder.glob("*/refresh.json")]
    return sorted(found, key=lambda each: each["started"])


def client(project):
    import mlflow

    services = json.loads((project.root / ".ratoon" / "services.json").read_text())
    return mlflow.MlflowClient(services["mlflow"]["address"])


def champion(project, told) -> list[str]:
    """It loads and computes; it is the version promoted last."""
    asked = project.ratoon("status", "--json")[1]
    said = json.loads(asked[asked.index("{") :])["champion"]
    promoted = [each["version"] for each in refreshes(project) if each["verdict"]["promoted"]]
    if not promoted:
        return [] if said is None else [f"champion {said} and nothing promoted"]
    if said is None or said["version"] != promoted[-1]:
        return [f"champion is {said}, promoted last was {promoted[-1]}"]
    path = Path(said["path"])
    code, words = project.run("-c", LOADS, str(path if path.is_absolute() else project.root / path))
    return [] if code == 0 else [f"champion does not load: {words[-200:]}"]


def records(project, told) -> list[str]:
    """One record, one registered version and one verdict for each week that ended."""
    found, versions = refreshes(project), client(project).search_model_versions(f"name='{LINE}'")
    ended = sum(week["ended"] != "NOT ENDED" for week in told)
    wrong = []
    if len(found) != ended:
        wrong.append(f"{len(found)} records for {ended} weeks")
    if {each["version"] for each in found} != {int(v.version) for v in versions}:
        wrong.append(f"versions {sorted(int(v.version) for v in versions)}, recorded {[e['version'] for e in found]}")
    return wrong


def runs(project, told) -> list[str]:
    """No run is open for ever; each training's metrics are all there."""
    asked = client(project)
    experiments = [each.experiment_id for each in asked.search_experiments()]
    found = asked.search_runs(experiments, max_results=5000)
    wrong = [f"MLflow run {run.info.run_name} still RUNNING" for run in found if run.info.status == "RUNNING"]
    last = refreshes(project)[-1]
    folder = newest(project)
    written = {json.loads(line)["step"] for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()}
    run = asked.get_run(last["lineage"]["mlflow_runs"]["train"])
    for key in (each for each in run.data.metrics if each in ("loss", "train/loss", "loss_nats")):
        kept = {point.step for point in asked.get_metric_history(run.info.run_id, key)}
        if missing := written - kept - {0}:
            wrong.append(f"{len(missing)} of {len(written)} points of {key} are not in MLflow")
    return wrong


def newest(project) -> Path:
    folder = project.root / ".ratoon" / "refreshes" / LINE
    return folder / json.loads((folder / "latest.json").read_text())["folder"]


def flow_runs(project, told) -> list[str]:
    """Prefect holds no run for alive whose process is gone."""
    services = json.loads((project.root / ".ratoon" / "services.json").read_text())
    api = f"{services['prefect']['address']}/api"
    with urllib.request.urlopen(f"{api}/csrf-token?client=soak", timeout=20) as reply:
        token = json.load(reply)["token"]
    headers = {"Content-Type": "application/json", "Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "soak"}
    body = json.dumps({"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{api}/flow_runs/filter", body, headers), timeout=20) as reply:
        return [f"Prefect run {each['name']} still {each['state_name']}" for each in json.load(reply)]


def corpora(project, told) -> list[str]:
    """DVC sees what dvc.lock names, here and in its remote."""
    wrong = []
    for more in ([], ["--cloud"]):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "status", "--json", *more], cwd=project.root, capture_output=True, text=True,
            env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        )  # fmt: skip
        try:
            said = json.loads(done.stdout or "{}")
        except ValueError:
            wrong.append(f"dvc status {more}: {done.stdout[-100:]} {done.stderr[-200:]}")
            continue
        # Sources that this project declares and does not use are never brought up to date.
        said = {name: what for name, what in said.items() if "python-" not in name and "smollm2" not in name}
        if said:
            wrong.append(f"dvc status {' '.join(more)}: {list(said)[:4]}")
    return wrong


def matrix(project, told) -> list[str]:
    """Every promoted version against all slices up to its successor's, and the base against all: what is ever asked.

    A version is scored on its successor's text as its parent, for forward transfer; on later text nobody asks it.
    """
    code, said = project.ratoon("history", "--json")
    if code:
        return [f"ratoon history: {said[-200:]}"]
    found = json.loads(said[said.index("{") :])["matrix"]
    promoted = sum(each["verdict"]["promoted"] for each in refreshes(project))
    holes = 0
    for number, row in enumerate(found["scores"]):
        for value, born in zip(row, found["born"], strict=True):
            holes += value is None and (number == 0 or born <= number + 1)
    wrong = [f"{holes} holes in the matrix"] if holes else []
    if len(found["models"]) < promoted + 1:
        wrong.append(f"{len(found['models'])} models in the matrix, {promoted} promoted")
    return wrong


def processes(project, told) -> list[str]:
    """Nobody is left behind but the services."""
    services = json.loads((project.root / ".ratoon" / "services.json").read_text())
    ours = set()
    for each in services.values():
        try:
            leader = psutil.Process(each["pid"])
            ours |= {leader.pid, *(child.pid for child in leader.children(recursive=True))}
        except psutil.NoSuchProcess:
            continue
    deadline = time.monotonic() + 15
    while (left := strangers(project.root, ours)) and time.monotonic() < deadline:
        time.sleep(1)
    return [f"left behind: {words}" for words in left]


def strangers(root: Path, ours: set[int]) -> list[str]:
    """Who works in the project's folder and is none of ours."""
    found = psutil.process_iter(["pid", "cwd", "cmdline"])
    return [
        f"{each.pid} {' '.join(each.info['cmdline'] or [])[:80]}"
        for each in found
        if each.info["cwd"] == str(root) and each.pid not in ours | {os.getpid()}
    ]


def disk(root: Path) -> int:
    done = subprocess.run(["du", "-sm", str(root)], capture_output=True, text=True)
    return int(done.stdout.split()[0])
