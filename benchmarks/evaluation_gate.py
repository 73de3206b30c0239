"""What the gate promises, in simulation: coverage, false promotions, power, symmetry; and how fast it is.

python benchmarks/evaluation_gate.py            prints the table of benchmarks/README.md
python benchmarks/evaluation_gate.py speed 1000000
"""

import hashlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ratoon.config import AssessConfig, GateConfig
from ratoon.evaluation import flips, gate, harness, paired, replay, statistics, suite
from ratoon.evaluation.paired import Pairs
from ratoon.records import Comparison, write

CONFIG = AssessConfig()
Draw = np.random.Generator
MAX_BYTES = 4096.0
SOURCES = (("held-out", "code", "domain"), ("held-out", "docs", "general"))
QUIZZES = (("quiz", "code", "domain"), ("quiz", "docs", "general"))


# ---------------------------------------------------------------- simulated scores


def alike(draw: Draw, n: int, change: float) -> Pairs:
    """Documents of similar length."""
    return of_texts(draw, draw.lognormal(6, 0.5, n), change, np.ones(n))


def unequal(draw: Draw, n: int, change: float, side: float = 1.0) -> Pairs:
    """Lengths spread as on the web, cut at assess.max_bytes; effects skewed, as few texts lose (side -1: gain) much."""
    weight = np.minimum(draw.lognormal(7.3, 1.2, n), MAX_BYTES)
    bits = weight * draw.gamma(20, 0.1, n)
    return Pairs(bits, bits * (1 + change + side * skewed(draw, n)), weight, n)


def unequal_mirrored(draw: Draw, n: int, change: float) -> Pairs:
    return unequal(draw, n, change, -1.0)


def skewed(draw: Draw, n: int) -> np.ndarray:
    """Effects of mean 0."""
    return 0.04 * (draw.lognormal(0, 0.6, n) - np.exp(0.18))


def clustered(draw: Draw, n: int, change: float) -> Pairs:
    """One to fifteen items of a document, which rise and fall together."""
    items = np.minimum(draw.geometric(0.3, n), 15).astype(float)
    return of_texts(draw, items * draw.lognormal(6, 0.3, n), change, items)


def clustered_skewed(draw: Draw, n: int, change: float) -> Pairs:
    items = np.minimum(draw.geometric(0.3, n), 15).astype(float)
    weight = np.minimum(items * draw.lognormal(7.3, 1.2, n), MAX_BYTES * items)
    bits = weight * draw.gamma(20, 0.1, n)
    return Pairs(bits, bits * (1 + change + skewed(draw, n)), weight, int(items.sum()))


def of_texts(draw: Draw, weight: np.ndarray, change: float, items: np.ndarray) -> Pairs:
    n = len(weight)
    bits = weight * draw.gamma(20, 0.1, n)
    effect = change + draw.normal(0, 0.02, n) + draw.normal(0, 0.02, n) / np.sqrt(items)
    return Pairs(bits, bits * (1 + effect), weight, int(items.sum()))


def answers(draw: Draw, n: int, change: float, changed: float = 0.2, most: int = 1) -> Pairs:
    """Right and wrong; a fifth of the answers differ. With `most`, up to so many items of one document."""
    items = np.ones(n) if most == 1 else np.minimum(draw.geometric(0.35, n), most).astype(float)
    leaning = draw.beta(2, 2, n) if most > 1 else np.full(n, 0.5)
    differ = draw.binomial(items.astype(int), changed)
    better = draw.binomial(differ, np.clip(leaning + change / changed / 2, 0, 1))
    right = draw.binomial(items.astype(int) - differ, 0.5)
    return Pairs(right + differ - better, right + better, items, int(items.sum()))


def answers_clustered(draw: Draw, n: int, change: float) -> Pairs:
    return answers(draw, n, change, most=8)


def answers_many_changed(draw: Draw, n: int, change: float) -> Pairs:
    return answers(draw, n, change, changed=0.5, most=8)


SCENES: dict[str, tuple[Callable[..., Pairs], bool, float]] = {
    "bits per byte, texts of similar length": (alike, True, -0.01),
    "bits per byte, lengths unequal, effects skewed": (unequal, True, -0.01),
    "bits per byte, several items per document": (clustered, True, -0.01),
    "accuracy, one item per document": (answers, False, 0.0),
    "accuracy, several items per document": (answers_clustered, False, 0.0),
}


POWERED: dict[str, tuple[Callable[..., Pairs], bool]] = {
    "alike": (alike, True),
    "unequal and skewed": (unequal, True),
    "skewed the other way": (unequal_mirrored, True),
    "several items per document": (clustered, True),
    "these skewed too": (clustered_skewed, True),
    "accuracy": (answers_many_changed, False),
}


def compared(pairs: Pairs, named: tuple[str, str, str], bits: bool) -> Comparison:
    found = paired.effect(pairs, CONFIG, relative=bits)
    benchmark, source, role = named
    return Comparison(
        benchmark=benchmark,
        source=source,
        role=role,  # type: ignore[arg-type]
        metric="bits_per_byte" if bits else "accuracy",
        items=pairs.items,
        documents=len(pairs.weight),
        parent=found.parent,
        candidate=found.candidate,
        difference=found.difference,
        relative=found.relative,
        outcome=paired.outcome(found.difference, found.p, lower_is_better=bits),
        tested=found.tested,
        p=found.p,
    )


def refresh(draw: Draw, n: int, domain: float, general: float, quiz: float = 0.0) -> tuple[Comparison, ...]:
    """One simulated refresh: two sources of text, two quizzes, with the true changes given."""
    made = [compared(unequal(draw, n, x), name, True) for name, x in zip(SOURCES, (domain, general), strict=True)]
    made += [compared(answers_clustered(draw, n, quiz), name, False) for name in QUIZZES]
    return paired.together(made, CONFIG.level)


# ---------------------------------------------------------------- the figures


def coverage(trials: int = 3000) -> Iterator[tuple[str, str]]:
    for name, (scene, bits, change) in SCENES.items():
        held = []
        for n in (20, 50, 100, 300, 2000):
            draw, hits = np.random.default_rng(n), 0
            for _ in range(trials if n < 2000 else trials // 2):
                found = paired.effect(scene(draw, n, change), CONFIG, relative=bits)
                span = found.relative or found.difference
                hits += span.low <= change <= span.high
            held.append(f"{n}: {hits / (trials if n < 2000 else trials // 2):.1%}")
        yield f"coverage of 95% intervals, {name}, by documents", ", ".join(held)


def promotions(refreshes: int = 500) -> Iterator[tuple[str, str]]:
    limit = GateConfig().max_general_loss
    worse = -GateConfig().max_benchmark_loss
    asked = {
        "nothing changed": (0.0, 0.0, 0.0),
        "domain unchanged, general better": (0.0, -0.05, 0.05),
        "domain 5% better, general exactly at the limit": (-0.05, limit, 0.0),
        "domain 5% better, quizzes exactly at the limit": (-0.05, 0.0, worse),
        "domain 5% better, the rest unchanged": (-0.05, 0.0, 0.0),
    }
    for what, true in asked.items():
        for n in (50, 300):
            draw = np.random.default_rng(n)
            said = [gate.judge(refresh(draw, n, *true), GateConfig(), "p", "c").decision for _ in range(refreshes)]
            share = {kind: said.count(kind) / refreshes for kind in ("promote", "refuse", "ask")}
            told = ", ".join(f"{kind} {x:.1%}" for kind, x in share.items())
            yield f"{refreshes} refreshes, {n} documents each: {what}", told


def power(trials: int = 1000) -> Iterator[tuple[str, str]]:
    """A second refresh whose true change is what the first printed as detectable: how often is it shown?"""
    level = CONFIG.level / 4  # as among four comparisons
    for n in (50, 100, 300, 1000, 2000):
        told, done = [], trials if n < 1000 else trials // 2
        for name, (scene, bits) in POWERED.items():
            draw, shown = np.random.default_rng(n), 0
            for _ in range(done):
                first = paired.effect(scene(draw, n, 0.0), CONFIG, relative=bits).tested
                truth = statistics.detectable(first, level, lower_is_better=bits)
                again = paired.effect(scene(draw, n, -truth if bits else truth), CONFIG, relative=bits).tested
                p = statistics.below(again, 0.0) if bits else statistics.above(again, 0.0)
                shown += p <= level
            told.append(f"{name} {shown / done:.1%}")
        yield f"power at the printed detectable change, {n} documents", ", ".join(told)


def symmetry(trials: int = 300) -> Iterator[tuple[str, str]]:
    draw, kept, tied, refused = np.random.default_rng(1), 0, 0, 0
    back = {"win": "loss", "loss": "win", "tie": "tie"}
    for k in range(trials):
        scene, bits, _ = list(SCENES.values())[k % len(SCENES)]
        pairs = scene(draw, 100, draw.normal(0, 0.01))
        swapped = Pairs(pairs.candidate, pairs.parent, pairs.weight, pairs.items)
        there, here = (compared(one, SOURCES[0], bits) for one in (pairs, swapped))
        kept += back[there.outcome] == here.outcome
        itself = [compared(Pairs(p.parent, p.parent, p.weight, p.items), SOURCES[0], bits) for p in (pairs,)]
        tied += itself[0].outcome == "tie"
        same = refresh_of_itself(draw)
        refused += gate.judge(same, GateConfig(), "p", "p").decision == "refuse"
    yield "swapped arms swap wins and losses", f"{kept} of {trials}"
    yield "a model against itself ties; the gate refuses", f"{tied} and {refused} of {trials}"


def refresh_of_itself(draw: Draw) -> tuple[Comparison, ...]:
    scenes = [(unequal(draw, 100, 0.0), name, True) for name in SOURCES]
    scenes += [(answers_clustered(draw, 100, 0.0), name, False) for name in QUIZZES]
    made = [compared(Pairs(p.parent, p.parent, p.weight, p.items), name, bits) for p, name, bits in scenes]
    return paired.together(made, CONFIG.level)


# ---------------------------------------------------------------- a million items


def stored(folder: Path, items: int) -> None:
    """Scores of two models on `items` items in four tasks, as an assessment leaves them."""
    import pyarrow
    import pyarrow.parquet as parquet

    tasks, draw = [], np.random.default_rng(0)
    for benchmark, source, role in (*SOURCES, *QUIZZES):
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
    write(folder / replay.QUESTION, replay.Question(policy=GateConfig(), assess=CONFIG, **models))


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
    if sys.argv[1:2] == ["speed"]:
        import subprocess

        with tempfile.TemporaryDirectory() as folder:
            for words in (["stored", folder, sys.argv[2]], ["judge", folder]):
                subprocess.run([sys.executable, __file__, *words], check=True)
        return None
    for figures in (coverage(), promotions(), power(), symmetry()):
        for what, measured in figures:
            print(f"| {what} | {measured} |", flush=True)
    return None


if __name__ == "__main__":
    main()
