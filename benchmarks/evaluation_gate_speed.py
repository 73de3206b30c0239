"""How fast the gate judges stored scores, and in how much memory.

python benchmarks/evaluation_gate_speed.py 1000000
"""

import hashlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ratoon.config import AssessConfig, GateConfig
from ratoon.evaluation import flips, harness, replay, suite
from ratoon.records import write

MAX_BYTES = 4096.0
TASKS = (
    ("held-out", "code", "domain"),
    ("held-out", "docs", "general"),
    ("quiz", "code", "domain"),
    ("quiz", "docs", "general"),
)


def stored(folder: Path, items: int) -> None:
    """Scores of two models on `items` items in four tasks, as an assessment leaves them."""
    import pyarrow
    import pyarrow.parquet as parquet

    tasks, draw = [], np.random.default_rng(0)
    for benchmark, source, role in TASKS:
        name, n, bits = f"{benchmark}--{source}", items // 4, benchmark == "held-out"
        for kind in ("yaml", "jsonl"):
            (folder / "suite").mkdir(parents=True, exist_ok=True)
            (folder / "suite" / f"{name}.{kind}").write_text(f"{name}\n")
        hashes = np.array([hashlib.sha256(f"{name} {k}".encode()).hexdigest() for k in range(n)])
        document = np.array([f"{k // 4:064x}" for k in range(n)])
        size = np.minimum(draw.lognormal(7, 1, n), MAX_BYTES).astype(int)
        for arm in ("parent", "candidate"):
            order = draw.permutation(n)
            columns = {"doc_hash": hashes, "prompt_hash": hashes, "document": document, "id": hashes}
            nats = -size * draw.normal(1.4 if arm == "parent" else 1.35, 0.1, n)
            columns |= {"bytes": size} if bits else {"correct": draw.integers(0, 2, n)}
            made = {key: pyarrow.array(values[order]) for key, values in columns.items()}
            made["loglik_nats"] = pyarrow.array([[x] for x in nats[order]])
            (folder / arm).mkdir(exist_ok=True)
            parquet.write_table(pyarrow.table(made), folder / arm / f"{name}.parquet", compression="zstd")
        digest = suite.digest_of(folder / "suite", name)
        metric = "bits_per_byte" if bits else "accuracy"
        tasks.append(
            suite.Task(
                name=name, benchmark=benchmark, version=1, source=source, role=role, metric=metric,  # type: ignore[arg-type]
                items=n, documents=n // 4, requests=n, sha256=digest,
            )
        )  # fmt: skip
    write(folder / "suite" / "suite.json", suite.Suite(digest="d", tasks=tuple(tasks)))
    settings = harness.Settings(row_tokens=128, precision="fp32", device="cpu", lm_eval="0")
    for arm in ("parent", "candidate"):
        files = {task.name: (folder / arm / f"{task.name}.parquet").read_bytes() for task in tasks}
        kept = tuple(
            harness.TaskScore(task=name, value=0, items=items // 4, sha256=hashlib.sha256(raw).hexdigest())
            for name, raw in files.items()
        )
        scores = harness.Scores(model=arm, weights=arm, suite="d", settings=settings, truncated=0, tasks=kept)
        write(folder / arm / "scores.json", scores)
    models = {arm: replay.Arm(model=arm, tokenizer="t") for arm in ("parent", "candidate")}
    write(folder / replay.QUESTION, replay.Question(policy=GateConfig(), assess=AssessConfig(), **models))


def speed(folder: Path) -> None:
    begun, busy = time.perf_counter(), time.process_time()
    verdict, listed = replay.decide(folder)
    text = flips.lines(listed)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    took = f"{seconds:.1f} s ({cpu:.1f} s of processor), {peak:,.0f} MiB"
    print(f"{verdict.decision}: {took}, {len(listed):,} flips, {len(text) / 1e6:.0f} MB listed")


def main() -> None:
    if sys.argv[1:2] == ["stored"]:
        return stored(Path(sys.argv[2]), int(sys.argv[3]))
    if sys.argv[1:2] == ["judge"]:
        return speed(Path(sys.argv[2]))
    with tempfile.TemporaryDirectory() as folder:
        # Each in a process of its own: the peak is that of judging.
        for words in (["stored", folder, sys.argv[1]], ["judge", folder]):
            subprocess.run([sys.executable, __file__, *words], check=True)
    return None


if __name__ == "__main__":
    main()
