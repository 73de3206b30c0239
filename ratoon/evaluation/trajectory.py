"""Every kept checkpoint of a run on a small, fixed part of the suite: the way there, and not only its end.

The alarm: loss goes on falling while a task gets worse. A task's last score is compared, item by item, with the best
one on the way; that one was picked for being the best, so the test is at alpha over the number of checkpoints.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from ratoon.config import QualityConfig, Role, TrajectoryConfig
from ratoon.evaluation import means, suite
from ratoon.evaluation.folder import whole
from ratoon.evaluation.passages import rank
from ratoon.evaluation.probe import Probe
from ratoon.evaluation.quality import TaskQuality, quality
from ratoon.evaluation.slices import Score
from ratoon.evaluation.suite import Suite, Task
from ratoon.evaluation.taskfile import lines_of
from ratoon.records import Record, write

PARTS = Path("state") / "shards"  # of a checkpoint that several ranks wrote
WEIGHTS = (".safetensors", ".distcp")
CHECKPOINTS, KEPT = "checkpoints", "kept"  # beside each other in the folder of a run


class Curve(Record):
    """One task along the run."""

    task: str
    source: str
    role: Role
    metric: Literal["bits_per_byte", "accuracy"]
    values: tuple[float, ...] = Field(description="one per point")
    error: float | None = Field(None, description="standard error of the last less the first, item by item")


class Alarm(Record):
    task: str
    best_step: int
    best: float
    last: float
    loss_source: str = Field(description="whose bits per byte went on falling")
    loss_fell: float = Field(description="bits per byte, from the best step to the last")
    said: str


class Trajectory(Record):
    """`trajectory.json` of a refresh: the parent at step 0, then every checkpoint whose weights were kept."""

    run: str
    steps: tuple[int, ...]
    curves: tuple[Curve, ...]
    probes: tuple[Probe, ...] = Field((), description="one per point where they were asked for")
    alarms: tuple[Alarm, ...] = ()
    qualities: tuple[TaskQuality, ...] = ()


def keep_weights(checkpoints: Path, kept: Path) -> None:
    """Weights in `checkpoints` that are not in `kept` yet, there too: as links, so that they cost no room until the run
    takes its own away, and without the state to resume from, which is most of a checkpoint. Parts that several ranks
    wrote hold both."""
    for folder in sorted(checkpoints.glob("step-*")):
        files = [*folder.glob("*"), *(folder / PARTS).glob("*")]
        if (kept / folder.name).exists() or not any(file.suffix in WEIGHTS for file in files):
            continue
        beside = kept / f".{folder.name}.{os.getpid()}"
        shutil.rmtree(beside, ignore_errors=True)
        try:
            for file in files:
                if file.is_file():
                    target = beside / file.relative_to(folder)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _link(file, target)
            beside.replace(kept / folder.name)
        except FileNotFoundError:  # the run took it away meanwhile
            shutil.rmtree(beside, ignore_errors=True)


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(file, target)


def subset(tests: Path, items: int, out: Path) -> Suite:
    """A suite of the first `items` of every task by hash: the same for every checkpoint, and of a growing corpus."""
    full = suite.load(tests)
    with whole(out) as folder:
        tasks = tuple(_part(task, tests, items, folder) for task in full.tasks)
        content = json.dumps([task.model_dump() for task in tasks], sort_keys=True)
        made = full.model_copy(update={"digest": hashlib.sha256(content.encode()).hexdigest(), "tasks": tasks})
        write(folder / "suite.json", made)
    return made


def _part(task: Task, tests: Path, items: int, folder: Path) -> Task:
    lines = lines_of(tests / f"{task.name}.jsonl")
    read = sorted(lines, key=lambda item: rank("subset", item["id"]))[:items]
    text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in read)
    (folder / f"{task.name}.jsonl").write_bytes(text.encode())
    shutil.copyfile(tests / f"{task.name}.yaml", folder / f"{task.name}.yaml")
    counts = {
        "items": len(read),
        "documents": len({item["document"] for item in read}),
        "requests": sum(len(item.get("choices", "1")) for item in read),
    }
    return task.model_copy(update={**counts, "sha256": suite.digest_of(folder, task.name)})


def follow(
    run: str,
    models: dict[int, Path],
    tests: Path,
    out: Path,
    asked: TrajectoryConfig,
    score: Score,
    probe: Callable[[Path], Probe] | None = None,
) -> Trajectory:
    """Score `models` (step -> folder, the parent at 0) into `out/step-N`, and say what is seen on the way.

    A point that was scored before is not scored again.
    """
    part = subset(tests, asked.items, out / "suite")
    steps = sorted(models)
    found = [score(models[step], out / "suite", out / f"step-{step:08}") for step in steps]
    values = [{each.task: each.value for each in scores.tasks} for scores in found]
    curves = tuple(
        Curve(
            task=task.name,
            source=task.source,
            role=task.role,
            metric=task.metric,
            values=tuple(point[task.name] for point in values),
        )
        for task in part.tasks
    )
    curves = tuple(each.model_copy(update={"error": _error(each, steps, out)}) for each in curves)
    made = Trajectory(
        run=run,
        steps=tuple(steps),
        curves=curves,
        probes=tuple(probe(models[step]) for step in steps) if probe else (),
        alarms=alarms(steps, curves, out, asked),
    )
    return made.model_copy(update={"qualities": qualities([made], asked.quality)})


def alarms(steps: list[int], curves: tuple[Curve, ...], out: Path, asked: TrajectoryConfig) -> tuple[Alarm, ...]:
    """Of every multiple-choice task whose source's loss is known."""
    losses = {curve.source: curve for curve in curves if curve.metric == "bits_per_byte"}
    asked_of = [curve for curve in curves if curve.metric == "accuracy" and curve.source in losses]
    found = [alarm(steps, curve, losses[curve.source], out, asked.alpha) for curve in asked_of]
    return tuple(each for each in found if each is not None)


def alarm(steps: list[int], curve: Curve, loss: Curve, out: Path, alpha: float) -> Alarm | None:
    """None: the task is at its best at the end, or the loss did not fall since, or the difference may be chance."""
    best = int(np.argmax(curve.values))
    fell = loss.values[best] - loss.values[-1]
    if best == len(steps) - 1 or fell <= 0:
        return None
    changes, documents = paired(out, steps[best], steps[-1], curve)
    change = means.mean(changes, documents, 1 - 2 * alpha / (len(steps) - 1))
    if change is None or change.high >= 0:
        return None
    high, low = curve.values[best], curve.values[-1]
    return Alarm(
        task=curve.task,
        best_step=steps[best],
        best=high,
        last=low,
        loss_source=loss.source,
        loss_fell=fell,
        said=f"{curve.task} fell from {high:.1%} at step {steps[best]:,} to {low:.1%}, while bits per byte of "
        f"{loss.source} fell by another {fell:.3f}: an earlier checkpoint may be better",
    )


def paired(out: Path, before: int, after: int, curve: Curve) -> tuple[list[float], list[str]]:
    """Of each item of a task the score after less that before, and its document."""
    old, new = (_items(out / f"step-{step:08}", curve) for step in (before, after))
    shared = sorted(old.keys() & new.keys())
    return [new[key][0] - old[key][0] for key in shared], [old[key][1] for key in shared]


def _items(folder: Path, curve: Curve) -> dict[tuple[str, str], tuple[float, str]]:
    """(item, prompt) -> score, document."""
    import pyarrow.parquet as parquet

    rows = parquet.read_table(folder / f"{curve.task}.parquet").to_pylist()
    if curve.metric == "accuracy":
        return {(r["doc_hash"], r["prompt_hash"]): (float(r["correct"]), r["document"]) for r in rows}
    total = sum(r["bytes"] for r in rows) / len(rows)
    # Bits over the mean size: their mean is the task's ratio.
    return {
        (r["doc_hash"], r["prompt_hash"]): (-r["loglik_nats"][0] / math.log(2) / total, r["document"]) for r in rows
    }


def _error(curve: Curve, steps: list[int], out: Path) -> float | None:
    changes, documents = paired(out, steps[0], steps[-1], curve)
    return means.standard_error(np.array(changes), documents)


def qualities(runs: Iterable[Trajectory], asked: QualityConfig) -> tuple[TaskQuality, ...]:
    """Of every task that all runs have: further runs of the same parent on the same suite, such as seeds, tell more."""
    known = {each.run: each for each in runs}
    found = []
    for curve in next(iter(known.values())).curves:
        curves = {run: next((c for c in each.curves if c.task == curve.task), None) for run, each in known.items()}
        points = {run: list(zip(known[run].steps, c.values, strict=True)) for run, c in curves.items() if c}
        errors = [c.error for c in curves.values() if c and c.error is not None]
        error = sum(errors) / len(errors) if errors else None
        found.append(quality(curve.task, curve.metric, curve.role, points, error, asked))
    return tuple(found)
