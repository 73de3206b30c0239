"""Each model is asked in the prompt that suits it, chosen on development items only (arXiv:2411.04118).

    folder = settle(suite, out, score)    # the suite as this model is asked it
    score(folder, scores)

A model that is asked in a way it does not know looks worse than it is, and two models rarely know the same way best.
So every model is asked every development item under every prompt, and takes the prompt it answers best under; of
equals the one declared first. Parent and candidate spend the same: the same items under the same prompts. What is
asked then are the same items for both, whatever the words around them; they are paired by the item's id.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml
from pydantic import Field

from ratoon.config import read_yaml
from ratoon.evaluation.folder import whole
from ratoon.evaluation.suite import DEVELOPMENT, PROMPTS, Suite, Task, load
from ratoon.evaluation.taskfile import digest_of
from ratoon.records import Record, write

# Scores the model on the suite of one folder into another: the value of every task.
Score = Callable[[Path, Path], Mapping[str, float]]


class Pick(Record):
    """`accuracies`: of every prompt on the development items."""

    task: str
    prompt: str
    accuracies: dict[str, float]
    items: int = Field(description="development items, the same for every model")
    requests: int = Field(description="what the choice cost: texts scored or written under all prompts")


class Picks(Record):
    """What one model chose: `picks.json` beside the suite it is asked."""

    suite: str = Field(description="digest")
    picks: tuple[Pick, ...]


def settle(suite: Path, out: Path, score: Score) -> Path:
    """The folder of the suite to ask one model: `suite` itself unless a benchmark has several prompts.

    score   (suite folder, folder for the scores) -> value of every task

    Only development items are scored here. The folder's suite keeps the digest of `suite`: it is the same items.
    """
    tests = load(suite)
    if not any(task.prompts for task in tests.tasks):
        return suite
    development = load(suite / DEVELOPMENT)
    values = score(suite / DEVELOPMENT, out / DEVELOPMENT)
    picks = tuple(pick(task, development, values) for task in tests.tasks if task.prompts)
    write_picked(suite, tests, {one.task: one.prompt for one in picks}, out / "suite")
    write(out / "picks.json", Picks(suite=tests.digest, picks=picks))
    return out / "suite"


def pick(task: Task, development: Suite, values: Mapping[str, float]) -> Pick:
    mine = [one for one in development.tasks if one.benchmark == task.benchmark]
    accuracies = {prompt: values[f"{task.name}@{prompt}"] for prompt in task.prompts}
    return Pick(
        task=task.name,
        prompt=max(task.prompts, key=accuracies.__getitem__),
        accuracies=accuracies,
        items=mine[0].items,
        requests=sum(one.requests for one in mine),
    )


def write_picked(suite: Path, tests: Suite, picked: dict[str, str], out: Path) -> None:
    """The suite with the items of each task as they are asked under the prompt picked, under the task's own name."""
    with whole(out) as folder:
        tasks = tuple(
            write_worded(suite, task, picked[task.name], folder) if task.prompts else copied(suite, task, folder)
            for task in tests.tasks
        )
        write(folder / "suite.json", tests.model_copy(update={"tasks": tasks, "picked": picked}))


def write_worded(suite: Path, task: Task, prompt: str, folder: Path) -> Task:
    worded = suite / PROMPTS / f"{task.name}@{prompt}"
    shutil.copyfile(f"{worded}.jsonl", folder / f"{task.name}.jsonl")
    files = {"task": task.name, "dataset_kwargs": {"data_files": {"test": f"{task.name}.jsonl"}}}
    declaration = yaml.safe_dump(read_yaml(Path(f"{worded}.yaml")) | files, sort_keys=False)
    (folder / f"{task.name}.yaml").write_bytes(declaration.encode())
    of_prompt = next(one for one in load(suite / PROMPTS).tasks if one.name == worded.name)
    changed = {"requests": of_prompt.requests, "sha256": digest_of(folder, task.name)}
    return task.model_copy(update=changed)


def copied(suite: Path, task: Task, folder: Path) -> Task:
    for kind in ("yaml", "jsonl"):
        shutil.copyfile(suite / f"{task.name}.{kind}", folder / f"{task.name}.{kind}")
    return task
