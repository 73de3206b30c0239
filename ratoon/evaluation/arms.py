"""Was it worth it? A candidate against cheaper ways to the same end, on the items of its own refresh.

Each arm has a folder of scores like the parent's and the candidate's, on the same suite, and is compared as the parent
is: `paired.compare` with the arm in the parent's place. A difference below zero in bits per byte is the refresh's gain.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ratoon.config import AssessConfig, ConfigError
from ratoon.evaluation import paired
from ratoon.evaluation.folder import whole
from ratoon.evaluation.harness import Scores
from ratoon.evaluation.prompted import Plan, Row, Told
from ratoon.evaluation.suite import Suite, Task, load
from ratoon.records import Comparison, Record, read, write

IDENTITY = ("id", "document", "doc_hash", "prompt_hash", "target_hash")
Standing = Literal["beat", "tied", "mixed", "lost"]


class Cost(Record):
    """What an arm takes before it is used, and while it is."""

    training_tokens: int = 0
    training_flops: float = 0.0
    training_seconds: float | None = Field(None, description="None: nothing was trained, or by another arm")
    reading_flops: float = Field(description="of the items it was scored on, forward")
    reading_bytes: int = Field(description="of the held-out texts among these, once")
    scoring_seconds: float | None = Field(None, description="None: scored by an earlier command")


class Arm(Record):
    """One alternative, and how the candidate stands to it."""

    name: str
    asked: str = Field(description="digest of items, settings and parent: of others, it is scored again")
    model: str = Field(description="directory that was scored")
    cost: Cost
    comparisons: tuple[Comparison, ...] = Field(description="parent: the arm")
    standing: Standing = Field(description="of the candidate on held-out text: win, tie, some of each, loss")
    told: Told | None = Field(None, description="what was shown; None: nothing")
    notes: tuple[str, ...] = ()


class Arms(Record):
    """All arms of a refresh: `arms.json` in its folder."""

    refresh: str
    line: str
    parent: str
    candidate: str
    cost: Cost = Field(description="of the candidate")
    parent_cost: Cost
    against_parent: tuple[Comparison, ...] = Field(description="as in the verdict")
    arms: tuple[Arm, ...]


class Expected(Record):
    """What an arm would cost."""

    name: str
    measured: bool = Field(description="it is there already, and costs nothing more")
    training_tokens: int
    training_flops: float
    training_seconds: float
    rows: int
    scoring_flops: float = Field(description="of all items; with something shown, as much of it as there is room for")
    scoring_seconds: float
    disk_bytes: int = Field(description="of checkpoints, at most")
    shown_bytes: int = Field(description="of training text that is read to be shown; not part of the seconds")


def standing(comparisons: Sequence[Comparison]) -> Standing:
    """Of the candidate, over all sources of held-out text; accuracies are shown and decide nothing."""
    found = {item.outcome for item in comparisons if item.metric == "bits_per_byte"}
    if {"win", "loss"} <= found:
        return "mixed"
    return "beat" if "win" in found else "lost" if "loss" in found else "tied"


def compare(arm: Path, candidate: Path, suite: Path, config: AssessConfig) -> tuple[Comparison, ...]:
    """The candidate against an arm, on the tasks that the arm could be asked."""
    asked = {score.task for score in read(arm / "scores.json", Scores).tasks}
    tests = load(suite)
    if asked >= {task.name for task in tests.tasks}:
        return paired.compare(arm, candidate, suite, config)
    part = narrowed(suite, tests, asked, arm.parent / "suite")
    both = [relabelled(folder, part, arm.parent / f"{folder.name}-part") for folder in (arm, candidate)]
    return paired.compare(both[0], both[1], arm.parent / "suite", config)


def narrowed(suite: Path, tests: Suite, names: set[str], out: Path) -> Suite:
    """Those tasks of the suite that have these names, as a suite."""
    tasks = tuple(task for task in tests.tasks if task.name in names)
    content = json.dumps([task.model_dump() for task in tasks], sort_keys=True)
    part = tests.model_copy(update={"tasks": tasks, "digest": hashlib.sha256(content.encode()).hexdigest()})
    with whole(out) as folder:
        for task in tasks:
            for kind in ("yaml", "jsonl"):
                shutil.copyfile(suite / f"{task.name}.{kind}", folder / f"{task.name}.{kind}")
        write(folder / "suite.json", part)
    return part


def relabelled(scores: Path, part: Suite, out: Path) -> Path:
    """The scores of those tasks, as scores of that suite."""
    found, names = read(scores / "scores.json", Scores), {task.name for task in part.tasks}
    kept = tuple(score for score in found.tasks if score.task in names)
    with whole(out) as folder:
        for name in names:
            shutil.copyfile(scores / f"{name}.parquet", folder / f"{name}.parquet")
        write(folder / "scores.json", found.model_copy(update={"tasks": kept, "suite": part.digest}))
    return out


# ---------------------------------------------------------------- scores of a model that was shown something


def keep(plan: Plan, logliks: NDArray[np.float64], tasks: Sequence[Task], like: Path, out: Path) -> None:
    """Write log-likelihoods of a plan's rows as scores, with the items, hashes and settings of the scores in `like`.

    They join with those of models that were shown nothing: the tokens scored are the same, and what was shown is said
    in the arm's record.
    """
    former = read(like / "scores.json", Scores)
    known = {score.task: score for score in former.tasks}
    begin, found = 0, []
    with whole(out) as folder:
        for task in tasks:
            rows = plan.rows[task.name]
            summed = by_item(rows, logliks[begin : begin + len(rows)])
            begin += len(rows)
            value = write_items(dict(zip(plan.items[task.name], summed, strict=True)), task, like, folder)
            sha256 = hashlib.sha256((folder / f"{task.name}.parquet").read_bytes()).hexdigest()
            found.append(known[task.name].model_copy(update={"value": value, "items": len(summed), "sha256": sha256}))
        write(folder / "scores.json", former.model_copy(update={"tasks": tuple(found)}))


def by_item(rows: Sequence[Row], logliks: Sequence[float] | NDArray[np.float64]) -> list[list[float]]:
    """Of each item, of each of its choices: the sum over its rows."""
    found: dict[int, dict[int, float]] = {}
    for row, value in zip(rows, logliks, strict=True):
        choices = found.setdefault(row.item, {})
        choices[row.choice] = choices.get(row.choice, 0.0) + float(value)
    return [[value for _, value in sorted(found[item].items())] for item in sorted(found)]


def write_items(summed: Mapping[str, list[float]], task: Task, like: Path, folder: Path) -> float:
    """The task's per-item scores, by id; its bits per byte or its accuracy."""
    import pyarrow
    import pyarrow.parquet as parquet

    amount = "bytes" if task.metric == "bits_per_byte" else "gold"
    items = parquet.read_table(like / f"{task.name}.parquet", columns=[*IDENTITY, amount]).to_pylist()
    if {item["id"] for item in items} != summed.keys():
        raise ConfigError(f"{like / task.name}.parquet: not the items of this suite; assess both models again")
    rows: list[dict[str, Any]] = []
    for item in items:
        values = summed[item["id"]]
        row = {**{name: item[name] for name in IDENTITY}, "loglik_nats": values, amount: item[amount]}
        rows.append(row if amount == "bytes" else {**row, "correct": int(int(np.argmax(values)) == item["gold"])})
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{task.name}.parquet", compression="zstd")
    if amount == "bytes":
        return float(-sum(row["loglik_nats"][0] for row in rows) / np.log(2) / sum(row["bytes"] for row in rows))
    return sum(row["correct"] for row in rows) / len(rows)


def digest_of(asked: Mapping[str, Any]) -> str:
    """What an arm is, in twelve hex digits."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
