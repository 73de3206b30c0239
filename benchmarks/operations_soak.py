"""A year of weekly refreshes on drifting real text, with faults: does every one end, and is nothing lost?

Each week brings the source of other installed libraries, cut into small files with that week's date, so that the text
drifts as it does in life; every few weeks prose comes too. Servers and a worker run all year (`ratoon up`). Every third
week a fault of benchmarks/operations_faults.py strikes while the refresh runs, and the week's command is given again,
as a person would; every fourth week `ratoon gc --yes` removes what nobody needs. After each week the state is held
together: champion, registry, runs, corpora, matrix.

    python benchmarks/operations_soak.py --weeks 52 --seed 0 --out soak.json

Faults that want root (a disk of their own that fills up, a cut network) are left out without it, and it says so.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date, timedelta
from pathlib import Path

import operations_faults as faults
import psutil
import yaml
from operations_checks import check

ROOT = Path(__file__).resolve().parents[1]
ENDED = {0: "promoted", 3: "refused", 4: "asks"}
CLEAN = {1, 2, 75, 130, 143, *ENDED}  # a letter and an exit code; anything else is a crash
PARAMS = {
    "refresh": {"base": "nano", "sources": ["prose", "code"], "watch": ["notes"]},
    "prepare": {"bases": ["nano"], "held_out": {"share": 0.2, "max_tokens": 12_000, "min_documents": 5}},
    "train": {
        "tokens": 65_536,
        "learning_rate": 0.002,
        "rows_per_step": 8,
        "evaluations": 3,
        "schedule": {"name": "wsd", "warmup_steps": 6, "decay_share": 0.2},
    },
    "sweep": {"ratios": [0.1, 0.3, 0.5, 0.7, 0.9], "tokens": 24_576, "horizons": 2},
    "choose": {"tolerance": 0.05, "bootstrap": 50},
    "promote": {"max_general_loss": 0.1, "max_benchmark_loss": 1.0},
    "assess": {"max_documents": 24, "max_bytes": 800, "items": 24, "bootstrap": 300},
    "retention": {"days": 0},  # a year here takes two hours
}
GC_WEEKS = 4


class Project:
    """The checkout in a folder of its own, with small budgets; commands are given to it as a person does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.through: list[str] = []  # what comes before each command: the network namespace, for one
        self.environment: dict[str, str] = {}

    def start(self, *arguments: str) -> subprocess.Popen:
        log = (self.root.parent / "last.log").open("wb")
        return subprocess.Popen(
            [*self.through, sys.executable, *arguments],
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(self.root), "HF_HUB_OFFLINE": "1", **self.environment},
            start_new_session=True,
        )

    def run(self, *arguments: str, seconds: float = 900) -> tuple[int, str]:
        """Exit code and what was printed."""
        process = self.start(*arguments)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return -99, f"not ended after {seconds:.0f} s\n{self.said()}"
        return process.returncode, self.said()

    def said(self) -> str:
        return (self.root.parent / "last.log").read_text(errors="replace")

    def ratoon(self, *arguments: str) -> tuple[int, str]:
        return self.run("-m", "ratoon", *arguments)


def make(folder: Path) -> Project:
    root = folder / "project"
    root.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for path in listed.stdout.splitlines():
        if (ROOT / path).is_file() and not path.startswith(("tests/", "docs/", "benchmarks/")):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, root / path)
    edit(root / "params.yaml", lambda raw: [raw.setdefault(name, {}).update(more) for name, more in PARAMS.items()])
    prose = [{"packages": ["networkx"], "content": "prose"}, {"path": "data/raw/prose", "optional": True}]
    declare(root, "prose", "general", "prose", prose)
    declare(root, "code", "domain", "code", [{"path": "data/raw/code"}])
    declare(root, "notes", "general", "prose", [{"packages": ["numpy"], "content": "prose"}])
    for benchmark in (root / "data" / "benchmarks").glob("*.yaml"):
        edit(benchmark, lambda raw: raw.update(min_documents=5))
    for base in ("nano", "pico"):
        edit(root / "models" / "bases" / f"{base}.yaml", smaller)
    as_s = ["-c", "user.name=soak", "-c", "user.email=soak@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*as_s, "commit", "-qm", "A year begins"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return Project(root)


def smaller(base: dict) -> None:
    base["weights"].update(tokens=400_000, vocabulary=1024)


def edit(path: Path, change) -> None:
    raw = yaml.safe_load(path.read_text())
    change(raw)
    path.write_text(yaml.safe_dump(raw, sort_keys=False))


def declare(root: Path, name: str, role: str, kind: str, origins: list[dict]) -> None:
    said = {"name": name, "role": role, "kind": kind, "origins": origins}
    (root / "data" / "sources" / f"{name}.yaml").write_text(yaml.safe_dump(said))


# ---------------------------------------------------------------- the text of a week


def libraries() -> list[Path]:
    """Folders of installed libraries with enough source to fill a week, in an order that is always the same."""
    site = Path(json.__file__).parents[1] / "site-packages"
    site = next((Path(p) for p in sys.path if p.endswith("site-packages")), site)
    found = sorted(p for p in site.iterdir() if (p / "__init__.py").exists())
    return [p for p in found if sum(f.stat().st_size for f in p.rglob("*.py")) > 200_000]


def week_text(library: Path, draw: random.Random, size: int = 160_000) -> list[str]:
    """Pieces of about 2,000 characters, whole lines, of this library's files."""
    files = sorted(library.rglob("*.py"))
    draw.shuffle(files)
    texts: list[str] = []
    for file in files:
        piece = ""
        for line in file.read_text(errors="replace").splitlines(keepends=True):
            piece += line
            if len(piece) > 2000 and not line.strip():
                texts.append(piece)
                piece = ""
        if sum(map(len, texts)) > size:
            break
    return texts


def arrive(project: Project, week: int, library: Path, draw: random.Random) -> str:
    """New files under data/raw, as they would be dropped there. Returns the library's name."""
    day = date(2026, 1, 5) + timedelta(weeks=week)
    lines = [json.dumps({"text": text, "date": day.isoformat()}) for text in week_text(library, draw)]
    folder = project.root / "data" / "raw" / "code"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"week-{week:02}.jsonl").write_text("\n".join(lines) + "\n")
    return library.name


# ---------------------------------------------------------------- one week


class Watch(threading.Thread):
    """Peak resident memory of a process and all its children, MiB."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.over = pid, 0.0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.5):
            try:
                leader = psutil.Process(self.pid)
                family = [leader, *leader.children(recursive=True)]
                self.peak = max(self.peak, sum(p.memory_info().rss for p in family) / 2**20)
            except psutil.Error:
                continue

    def stop(self) -> float:
        self.over.set()
        return self.peak


def attempt(project: Project, fault: faults.Fault | None, usual: float, draw: random.Random) -> dict:
    """The week's command once, with the fault in its midst."""
    begun = time.monotonic()
    process = project.start("-m", "ratoon", "refresh")
    watch = Watch(process.pid)
    if fault:
        time.sleep(usual * draw.uniform(0.1, 0.85))
        fault.strike(project, process)
    try:
        process.wait(1200)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if fault:
        fault.mend(project)
    code, said = process.returncode, project.said().strip()
    last = said.splitlines()[-1] if said else ""
    seconds = round(time.monotonic() - begun, 1)
    return {"code": code, "seconds": seconds, "peak": round(watch.stop()), "said": last[:200], "log": said[-3000:]}


def live_week(project: Project, week: int, fault: faults.Fault | None, usual: float, draw: random.Random) -> dict:
    """Attempts until the week has ended in a verdict, at most five; the first meets the fault."""
    tries: list[dict] = []
    if fault:
        fault.prepare(project, week)
    while len(tries) < 5 and (not tries or tries[-1]["code"] not in ENDED):
        tries.append(attempt(project, None if tries else fault, usual, draw))
        if tries[-1]["code"] not in ENDED:
            print(f"     week {week}: exit code {tries[-1]['code']}: {tries[-1]['said']}", flush=True)
            if fault is None:
                break  # nothing was done to it: trying again would hide what is wrong
            fault.heal(project, week)
    ended = ENDED.get(tries[-1]["code"], "NOT ENDED")
    crashed = [t["code"] for t in tries if t["code"] not in CLEAN and not (fault and fault.kills)]
    return {"week": week, "fault": fault.name if fault else "", "ended": ended, "tries": tries, "crashed": crashed}


def year(project: Project, weeks: int, seed: int, every: int, only: str | None, out: Path | None) -> list[dict]:
    draw = random.Random(seed)
    shelf = libraries()
    able = [kind for kind in faults.KINDS if kind.able() and (only is None or kind.name == only)]
    for kind in faults.KINDS:
        if not kind.able():
            print(f"left out: {kind.name}, which wants {kind.wants}", flush=True)
    told, usual, line = [], 60.0, "{:>4} {:<16} {:<10} {:>5} {:>6} {:>7} {:>7}  {}"
    print(line.format("week", "fault", "ended", "tries", "s", "MiB", "disk", "wrong"), flush=True)
    queue: list[type[faults.Fault]] = []
    for week in range(weeks):
        arrive(project, week, shelf[week % len(shelf)], draw)
        strikes = able and week and week % every == 0
        if strikes and not queue:
            queue = draw.sample(able, len(able))  # each once before any comes again
        found = live_week(project, week, queue.pop()() if strikes else None, usual, draw)
        if not strikes:
            calm = [w["tries"][0]["seconds"] for w in told[1:] if not w["fault"]]
            usual = statistics.median([*calm, found["tries"][0]["seconds"]])
        if week % GC_WEEKS == GC_WEEKS - 1 and project.ratoon("gc", "--yes")[0]:
            found["crashed"].append(f"ratoon gc: {project.said()[-200:]}")
        found |= check(project, week, [*told, found])
        told.append(found)
        if out:
            out.write_text(json.dumps(told, indent=1))
        seconds = sum(t["seconds"] for t in found["tries"])
        peak = max(t["peak"] for t in found["tries"])
        wrong = "; ".join([*map(str, found["crashed"]), *found["wrong"]]) or "-"
        print(line.format(week, found["fault"], found["ended"], len(found["tries"]), f"{seconds:.0f}", peak,
                          found["disk"], wrong), flush=True)  # fmt: skip
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=52)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=3, help="a fault every so many weeks; 0: none")
    parser.add_argument("--only", choices=[kind.name for kind in faults.KINDS])
    parser.add_argument("--folder", type=Path, help="where to live; kept (default: a temporary one)")
    parser.add_argument("--out", type=Path, help="write every week's record there")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="ratoon-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    disk = faults.own_disk(folder)
    project = make(folder)
    try:
        code, said = project.ratoon("up")
        if code:
            print(said)
            return 1
        told = year(project, asked.weeks, asked.seed, asked.every or asked.weeks + 1, asked.only, asked.out)
    finally:
        project.ratoon("down")
        if disk and not asked.folder:
            faults.give_back_disk(folder)
        if not asked.folder:
            shutil.rmtree(folder, ignore_errors=True)
    bad = [w["week"] for w in told if w["wrong"] or w["crashed"] or w["ended"] == "NOT ENDED"]
    struck = [w for w in told if w["fault"]]
    print(f"\n{len(told)} weeks, {len(struck)} faults; weeks with something wrong: {bad or 'none'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
