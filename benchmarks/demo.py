"""The figures of the demo: wall time per stage, memory of the whole process tree, gain, cost, prediction, forgetting.

python benchmarks/demo.py            run a refresh in a clean clone of this checkout, then print the table
python benchmarks/demo.py FOLDER     print the table of the last refresh in a project's folder
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil


def tree_megabytes(process: psutil.Process) -> float:
    """Memory of a process and all below it; shared pages are counted once per process, so this is an upper bound."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


def run(folder: Path) -> tuple[float, float]:
    """Seconds and peak megabytes of one refresh in `folder`."""
    begun, peak = time.monotonic(), 0.0
    environment = {**os.environ, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1"}
    process = psutil.Popen([sys.executable, "-m", "ratoon", "refresh"], cwd=folder, env=environment)
    while process.poll() is None:
        peak = max(peak, tree_megabytes(process))
        time.sleep(0.5)
    if process.returncode not in (0, 3):
        raise SystemExit(f"the refresh failed with exit code {process.returncode}")
    return time.monotonic() - begun, peak


def table(refresh: dict, seconds: float | None, megabytes: float | None) -> str:
    rows = []
    if seconds is not None and megabytes is not None:
        rows.append(("wall time of the whole command", f"{seconds:.0f} s", "at most 600 s"))
        rows.append(("memory of the process tree, peak", f"{megabytes:,.0f} MiB", "at most 4,096 MiB"))
    stages = ", ".join(f"{name} {value:.0f} s" for name, value in refresh["seconds"].items())
    rows.append(("stages", stages, ""))
    choice = refresh["choice"]
    largest = choice["interval"]
    rows.append(
        (
            "domain share chosen",
            f"{choice['share']:.2f} ({choice['reason']})",
            f"{largest['low']:.2f}..{largest['high']:.2f}",
        )
    )
    for item in refresh["verdict"]["comparisons"]:
        change = item["relative"] or item["difference"]
        said = f"{change['value']:+.1%} [{change['low']:+.1%}, {change['high']:+.1%}]"
        asked = {"domain": "at least -10%", "general": "at most +2%"}[item["role"]] if item["relative"] else ""
        rows.append((f"{item['benchmark']}, {item['source']} ({item['role']})", said, asked))
    last = max(o["step"] for o in refresh["curve"])
    for role in ("general", "domain"):
        measured = [o["loss_nats"] for o in refresh["curve"] if o["step"] == last and o["role"] == role]
        value, predicted = sum(measured) / len(measured), choice[f"predicted_{role}"]["value"]
        rows.append(
            (
                f"predicted against measured, {role}",
                f"{predicted:.3f} / {value:.3f} nats, {predicted / value - 1:+.2%}",
                "within 3%",
            )
        )
    if (rise := forgetting(refresh)) is not None:
        rows.append(("general loss, domain only", f"{rise:+.1%}", f"above {choice['tolerance']:.0%}"))
    rows.append(("verdict", "promoted" if refresh["verdict"]["promoted"] else "refused", ""))
    lines = ["| what | measured | asked |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def forgetting(refresh: dict) -> float | None:
    """Relative rise of general loss in the longest domain-only run of the largest size; None: none was run."""
    alone = [o for o in refresh["observations"] if o["share"] == 1.0 and o["role"] == "general"]
    if not alone:
        return None
    size = max(o["params_non_embedding"] for o in alone)
    of_size = [o for o in alone if o["params_non_embedding"] == size]
    start = next(o["loss_nats"] for o in of_size if o["step"] == 0)
    return max(of_size, key=lambda o: o["tokens"])["loss_nats"] / start - 1


def last_refresh(folder: Path) -> dict:
    pointers = (folder / ".ratoon" / "refreshes").glob("*/latest.json")
    pointer = max(pointers, key=lambda path: path.stat().st_mtime)
    name = json.loads(pointer.read_text())["folder"]
    return json.loads((pointer.parent / name / "refresh.json").read_text())


def main() -> None:
    if len(sys.argv) > 1:
        print(table(last_refresh(Path(sys.argv[1])), None, None))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "ratoon"
        subprocess.run(["git", "clone", "--quiet", str(Path(__file__).parents[1]), str(folder)], check=True)
        seconds, megabytes = run(folder)
        print(table(last_refresh(folder), seconds, megabytes))


if __name__ == "__main__":
    main()
