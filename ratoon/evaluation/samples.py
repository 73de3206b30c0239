"""Per-item scores: one Parquet file per task, the same whoever scored it.

    every kind  id, document, doc_hash, prompt_hash, target_hash, loglik_nats
    rolling     bytes
    choice      gold, correct; loglik_nats has one entry per choice
    generation  output, finished, valid, correct; loglik_nats is of the output

The hashes are lm-eval's: two arms are joined by them, and with what lm-eval itself has logged.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ratoon.config import ConfigError
from ratoon.evaluation.answers import is_correct, is_valid
from ratoon.evaluation.asked import Item, identity
from ratoon.evaluation.suite import Task
from ratoon.records import Record

if TYPE_CHECKING:
    from ratoon.evaluation.generate import Output

TRUNCATED = "truncated"  # in the metadata of the file
Found = list[dict[str, Any]]


class TaskScore(Record):
    task: str
    value: float = Field(description="bits per byte, or accuracy between 0 and 1")
    items: int
    sha256: str = Field(description="of <task>.parquet, the per-item scores")
    truncated: int = Field(0, description="choices and prompts that lost the beginning of their context")
    valid: float | None = Field(None, description="of generations, the share in the form the task asks for (VOR)")


def rolling(items: Sequence[Item], nats: Sequence[float]) -> Found:
    return [
        {**identity(item, item["text"], item["text"]), "loglik_nats": [float(loglik)], "bytes": size(item["text"])}
        for item, loglik in zip(items, nats, strict=True)
    ]


def size(text: str) -> int:
    return len(text.encode())


def choice(items: Sequence[Item], nats: Sequence[float]) -> Found:
    found = []
    at = 0
    for item in items:
        logliks = [float(loglik) for loglik in nats[at : at + len(item["choices"])]]
        at += len(logliks)
        gold = int(item["gold"])
        correct = int(max(range(len(logliks)), key=logliks.__getitem__) == gold)
        who = identity(item, item["context"], str(item["gold"]))
        found.append({**who, "loglik_nats": logliks, "gold": gold, "correct": correct})
    return found


def generation(items: Sequence[Item], outputs: "Sequence[Output]") -> Found:
    return [
        {
            **identity(item, item["prompt"], str(item["answers"])),
            "loglik_nats": [output.loglik_nats],
            "output": output.text,
            "finished": output.finished,
            "valid": int(is_valid(output.text, item)),
            "correct": int(is_correct(output.text, item["answers"])),
        }
        for item, output in zip(items, outputs, strict=True)
    ]


def keep(task: Task, found: Found, truncated: int, file: Path, model: Path) -> None:
    """Write what was found for one task; refuses a model whose answers are not numbers."""
    import pyarrow
    import pyarrow.parquet as parquet

    broken = sum(not all(map(math.isfinite, row["loglik_nats"])) for row in found)
    if broken:
        raise ConfigError(
            f"{model}: {broken} of {len(found)} log-likelihoods on {task.name} are not finite; training has diverged: "
            f"lower train.learning_rate, or take an earlier checkpoint"
        )
    table = pyarrow.Table.from_pylist(found).replace_schema_metadata({TRUNCATED: str(truncated)})
    parquet.write_table(table, file, compression="zstd")


def summary(task: Task, file: Path) -> TaskScore:
    """What the file says of its task."""
    import pyarrow.compute as compute
    import pyarrow.parquet as parquet

    table = parquet.read_table(file, columns=columns(task))
    if task.kind == "rolling":
        nats = math.fsum(each[0] for each in table["loglik_nats"].to_pylist())
        value = -nats / math.log(2) / compute.sum(table["bytes"]).as_py()
    else:
        value = compute.sum(table["correct"]).as_py() / table.num_rows
    valid = compute.sum(table["valid"]).as_py() / table.num_rows if task.kind == "generation" else None
    return TaskScore(
        task=task.name,
        value=value,
        items=table.num_rows,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        truncated=int((table.schema.metadata or {}).get(TRUNCATED.encode(), b"0")),
        valid=valid,
    )


def columns(task: Task) -> list[str]:
    return {"rolling": ["loglik_nats", "bytes"], "choice": ["correct"], "generation": ["correct", "valid"]}[task.kind]
