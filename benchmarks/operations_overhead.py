"""What Prefect, MLflow and DVC cost a refresh, and how soon the page says that a run has begun.

python benchmarks/operations_overhead.py overhead FOLDER [--pairs N]   a tiny refresh and its bare library calls
python benchmarks/operations_overhead.py overhead FOLDER --demo        the same of the refresh of `make demo`
python benchmarks/operations_overhead.py page FOLDER [--runs N]        from the form to the log, server and worker up

Bare is the same functions in the same order in one process, with nothing in place of the three: no flow runs, no runs
and versions in MLflow, no DVC around the stages of the text. FOLDER is emptied first. Clocks of processor time count
every process that was started and has ended.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
PORT = 4320
REST_SECONDS = 20  # a worker that takes one run at a time is busy until the process before has been cleaned up
SMALL = {
    "prepare": {"bases": ["nano"], "held_out": {"share": 0.1, "max_tokens": 20_000, "min_documents": 5}},
    "train": {"tokens": 98_304, "learning_rate": 0.002, "rows_per_step": 8, "evaluations": 3},
    "sweep": {"ratios": [0.1, 0.3, 0.5, 0.7, 0.9], "tokens": 24_576, "horizons": 2},
    "choose": {"tolerance": 0.5, "bootstrap": 50},
    "promote": {"max_general_loss": 0.5, "max_benchmark_loss": 1.0},
    "assess": {"max_documents": 30, "max_bytes": 1000, "items": 40, "bootstrap": 300},
}
# What the three cost does not grow with the model: a smaller one leaves more of what is measured.
TINY = {
    "vocabulary": 512,
    "hidden": 16,
    "layers": 1,
    "heads": 2,
    "feed_forward": 32,
    "rows_per_step": 8,
    "tokens": 65_536,
}
SOURCES = {"python-docs": ("general", "prose"), "python-code": ("domain", "code")}


class Spent(NamedTuple):
    wall: float
    processor: float


# ---------------------------------------------------------------- a tiny project


def project(folder: Path, demo: bool = False) -> Path:
    """This checkout with two small sources and small budgets, or as it is; a repository of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for path in listed.stdout.splitlines():
        if (ROOT / path).is_file() and not path.startswith(("tests/", "docs/")):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, folder / path)
    if not demo:
        shrink(folder)
    own = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
    for words in (["init", "-q"], ["add", "-A"], [*own, "commit", "-qm", "a tiny project"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def shrink(folder: Path) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for section, changes in SMALL.items():
        params[section] |= changes
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for name, (role, kind) in SOURCES.items():
        origins = [{"packages": ["networkx"], "content": kind}, {"path": f"data/raw/{name}", "optional": True}]
        declared = {"name": name, "role": role, "kind": kind, "origins": origins}
        (folder / "data" / "sources" / f"{name}.yaml").write_text(yaml.safe_dump(declared))
    file = folder / "models" / "bases" / "nano.yaml"
    declared = yaml.safe_load(file.read_text())
    declared["weights"] |= TINY
    file.write_text(yaml.safe_dump({**declared, "family": []}))


def timed(words: list[str], folder: Path) -> Spent:
    environment = {**os.environ, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1"}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 3, 4):  # refused, and asks: a verdict all the same
        raise SystemExit(f"{' '.join(words)} failed with exit code {done.returncode}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(time.monotonic() - begun, spent)


# ---------------------------------------------------------------- the same without the three


class Named(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __iter__(cls) -> Iterator[Any]:
        return iter(())


class Nothing(Exception, metaclass=Named):
    """What a silent library has under any name: a function that does nothing, a class, an error that never comes."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return None


class Silent(ModuleType):
    """A library that answers to every name, and does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing


class SilentParts:
    """Finder of every part of Prefect's that is not named below: one that does nothing."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, SilentParts, is_package=True) if name.startswith("prefect.") else None

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        return Silent(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None: ...


class Plain:
    """Of a flow or a task: the function itself."""

    def __class_getitem__(cls, of: Any) -> Any:
        return cls

    def __new__(cls, function: Callable[..., Any] | None = None, **options: Any) -> Any:
        if function is None:
            return lambda given: given
        return function


class Untracked(SimpleNamespace):
    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


@contextlib.contextmanager
def untracked(*args: Any, **kwargs: Any) -> Iterator[Untracked]:
    yield Untracked(id="bare")


def without_the_three(root: Path) -> None:
    """Prefect and MLflow give way to nothing, DVC to the stages themselves. Before anything imports them."""
    from tasks import versions

    class Away(ConnectionError):
        pass

    def away() -> None:
        raise Away("there is no store")

    of_prefect = {
        "prefect": {"task": Plain, "flow": Plain, "Task": Plain},
        "prefect.artifacts": {},
        "prefect.cache_policies": {"NO_CACHE": None},
        "prefect.events": {},
        "prefect.exceptions": {"MissingContextError": LookupError},
        "prefect.runtime": {"flow_run": SimpleNamespace(), "task_run": SimpleNamespace()},
        "prefect.settings": {"get_current_settings": lambda: SimpleNamespace(api=SimpleNamespace(url=None))},
        "prefect.states": {"State": object, "Completed": lambda message: message},
        "prefect.context": {"FlowRunContext": Silent("none"), "TaskRunContext": Silent("none")},
    }
    of_mlflow = {
        "run": untracked,
        "register": lambda *args, **kwargs: 1,
        "log_run": lambda *args, **kwargs: "bare",
        "TrackingUnavailable": Away,
        "client": away,
        "store": lambda: "none",
        "CARD": "README.md",
        "SAID": {"promote": "promoted", "refuse": "refused", "ask": "asks"},
        "Version": object,
    }
    for name, known in {**of_prefect, "tasks.tracking": of_mlflow}.items():
        sys.modules[name] = Silent(name)
        vars(sys.modules[name]).update(known, __path__=[])
    sys.meta_path.insert(0, SilentParts)  # type: ignore[arg-type]
    import tasks

    tasks.tracking = sys.modules["tasks.tracking"]  # type: ignore[attr-defined]
    versions.repro = bare_stages  # type: ignore[assignment]
    versions.push = lambda root: None


def bare_stages(root: Path, targets: Any, heard: Callable[[str], None], **options: Any) -> Any:
    from ratoon import config, stages
    from tasks import versions

    params = config.load(root)
    for name in params.refresh.sources:
        stages.ingest(root, name)
    stages.scorers(root)
    for name in params.refresh.sources:
        stages.score(root, name)
        stages.clean(root, name)
    stages.tokenizer(root, params.refresh.base)
    for name in params.refresh.sources:
        stages.pack(root, params.refresh.base, name)
    return versions.Repro(tuple(targets), {})


def bare(root: Path) -> None:
    os.environ["RATOON_LIVE"] = "1"
    without_the_three(root)
    from flows.refresh import refresh

    print(refresh(), flush=True)
    os._exit(0)  # as `ratoon` ends (ratoon/leave.py)


def overhead(folder: Path, pairs: int, demo: bool) -> None:
    """One pair after the other, which of the two is first changing from pair to pair."""
    arms = {
        "refresh": ["-m", "ratoon", "refresh"],
        "bare": [str(Path(__file__).resolve()), "bare", "."],
    }
    found: dict[str, list[Spent]] = {name: [] for name in arms}
    for number in range(pairs):
        for name in sorted(arms, reverse=bool(number % 2)):
            found[name].append(timed(arms[name], project(folder / name, demo)))
            print(json.dumps({"pair": number, "arm": name, **found[name][-1]._asdict()}), flush=True)
    for clock in Spent._fields:
        whole, alone = ([getattr(spent, clock) for spent in found[name]] for name in ("refresh", "bare"))
        more = [a - b for a, b in zip(whole, alone, strict=True)]
        said = ", ".join(f"{x:+.1f} s ({x / b:+.1%})" for x, b in zip(more, alone, strict=True))
        print(
            f"{clock}: refresh {statistics.median(whole):.1f} s, bare {statistics.median(alone):.1f} s; by pair {said}"
        )


# ---------------------------------------------------------------- from the form to the log


class Api:
    def __init__(self, address: str) -> None:
        self.address = f"{address}/api"
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __call__(self, path: str, body: Any = None) -> Any:
        data, headers = None, {"Content-Type": "application/json"}
        if body is not None:
            data = json.dumps(body).encode()
            token = self("/csrf-token?client=page")["token"]
            headers |= {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "page"}
        with self.opener.open(urllib.request.Request(f"{self.address}{path}", data, headers), timeout=30) as reply:
            return json.load(reply)


def ended(api: Api, run: str) -> bool:
    return api(f"/flow_runs/{run}")["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def first_lines(api: Api, flow: str, ask: dict[str, Any]) -> dict[str, float]:
    """Seconds from sending the form: the first line of the page, of the flow's process, and that the flow begins."""
    deployment = api(f"/deployments/name/{flow}/default")["id"]
    begun = time.time()
    sent = {"parameters": {"ask": ask}, "state": {"type": "SCHEDULED"}}
    run = api(f"/deployments/{deployment}/create_flow_run", sent)["id"]
    while not ended(api, run):
        time.sleep(0.5)
    time.sleep(REST_SECONDS)
    wanted = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200, "sort": "TIMESTAMP_ASC"}
    lines = api("/logs/filter", wanted)

    def at(is_it: Callable[[Any], bool]) -> float:
        stamp = next(line["timestamp"] for line in lines if is_it(line))
        return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp() - begun

    return {
        "first line": at(lambda line: True),
        "first line of the flow's process": at(lambda line: line["name"].endswith("flow_runs")),
        "the flow begins": at(lambda line: line["message"].startswith("Beginning flow run")),
    }


def page(folder: Path, runs: int) -> None:
    """Of runs that end as soon as they begin: what is waited for is the start, not the work. The first warms up."""
    root = project(folder)
    command = [sys.executable, "-m", "ratoon"]
    environment = {**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
    ports = ["--prefect-port", str(PORT), "--mlflow-port", str(PORT + 5)]
    subprocess.run([*command, "up", *ports], cwd=root, env=environment, check=True)
    try:
        known = json.loads((root / ".ratoon" / "services.json").read_text())
        api = Api(known["prefect"]["address"])
        for flow in ("rollback", "refresh"):
            ask = {} if flow == "rollback" else {"base": "nobody"}
            found = [first_lines(api, flow, ask) for _ in range(runs + 1)][1:]
            for what in found[0]:
                seconds = sorted(one[what] for one in found)
                print(
                    f"{flow}: {what}: median {statistics.median(seconds):.1f} s, worst {seconds[-1]:.1f} s", flush=True
                )
    finally:
        subprocess.run([*command, "down"], cwd=root, env=environment, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "page", "bare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--demo", action="store_true", help="overhead: of the refresh that `make demo` is")
    asked = parser.parse_args()
    if asked.what == "bare":
        bare(asked.folder.resolve())
    elif asked.what == "overhead":
        overhead(asked.folder.resolve(), asked.pairs, asked.demo)
    else:
        page(asked.folder.resolve(), asked.runs)


if __name__ == "__main__":
    main()
