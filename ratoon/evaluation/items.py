"""The scores of two models item by item, on the same items or not at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ratoon.config import ConfigError
from ratoon.evaluation.harness import Scores
from ratoon.evaluation.suite import Suite, Task
from ratoon.records import read

if TYPE_CHECKING:
    import polars


MOST_BITS = 1e6  # per byte: such a model has diverged, and powers of its losses have no digits left


def key_of(task: Task) -> list[str]:
    """What names an item in both arms: where each is asked in its own prompt the hashes differ, and the ids do not."""
    return ["id", "document"] if task.prompts else ["doc_hash", "prompt_hash"]


def check(parent: Path, candidate: Path, tests: Suite) -> None:
    """Refuse to compare models that were scored on another suite, or under different settings."""
    old, new = read(parent / "scores.json", Scores), read(candidate / "scores.json", Scores)
    for folder, scores in ((parent, old), (candidate, new)):
        if scores.suite != tests.digest:
            raise ConfigError(
                f"{folder}: scored on suite {scores.suite[:12]}, not on {tests.digest[:12]}; assess both models again"
            )
    if old.settings != new.settings:
        raise ConfigError(
            f"parent and candidate were scored under different settings: {parent}: {old.settings}; "
            f"{candidate}: {new.settings}; assess both under the same"
        )


def table(folder: Path, task: Task, columns: Sequence[str] = ()) -> "polars.DataFrame":
    """Hashes, document, value and weight of every item of a task, and the columns asked for besides."""
    import polars

    bits = task.metric == "bits_per_byte"
    value = -polars.col("loglik_nats").list.first() / np.log(2) if bits else polars.col("correct").cast(polars.Float64)
    weight = polars.col("bytes").cast(polars.Float64) if bits else polars.lit(1.0)
    file = folder / f"{task.name}.parquet"
    try:
        read = polars.scan_parquet(file, glob=False)
        named = dict.fromkeys([*key_of(task), "document", *columns])
        found = read.select(*named, value=value, weight=weight).collect()
    except (polars.exceptions.PolarsError, OSError) as error:
        raise ConfigError(
            f"{file}: per-item scores are missing or damaged: {error}; delete {folder} and assess again"
        ) from error
    unsound = found.filter(~sound(task))
    if unsound.height:
        raise ConfigError(
            f"{file}: {unsound.height} of {found.height} items have no score that can be: {examples(unsound)}; "
            f"delete {folder} and assess again"
        )
    return found


def sound(task: Task) -> "polars.Expr":
    """Bits are not negative and no explosion, of one byte or more; an answer is right or wrong. Each has its names."""
    import polars

    value, weight = polars.col("value"), polars.col("weight")
    bits = value.is_finite() & (value >= 0) & weight.is_finite() & (weight > 0) & (value < MOST_BITS * weight)
    right = value.is_in([0.0, 1.0])
    each = bits if task.metric == "bits_per_byte" else right
    return each.fill_null(False) & polars.all_horizontal(polars.col(*key_of(task), "document").is_not_null())


def examples(unsound: "polars.DataFrame", most: int = 3) -> str:
    rows = unsound.head(most).select("document", "value", "weight").iter_rows()
    return ", ".join(f"{value} over {weight} of document {document}" for document, value, weight in rows)


def aligned(
    parent: "polars.DataFrame", candidate: "polars.DataFrame", task: Task
) -> tuple["polars.DataFrame", "polars.DataFrame"]:
    """Both arms with the same item in the same row, found by its key; never by position.

    Raises ConfigError unless both have exactly the items of the task, each once, and mean the same by each.
    """
    old, new = keys(parent, key_of(task)), keys(candidate, key_of(task))
    order_old, order_new = np.lexsort(old[::-1]), np.lexsort(new[::-1])
    first, second = [key[order_old] for key in old], [key[order_new] for key in new]
    again = len(old[0]) > 1 and bool(np.all([key[1:] == key[:-1] for key in first], axis=0).any())
    if again or not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True)):
        raise ConfigError(apart(parent, candidate, task))
    if parent.height != task.items:
        raise ConfigError(
            f"{task.name}: {parent.height} items were scored and the suite has {task.items}; assess both models again"
        )
    one, other = parent[order_old], candidate[order_new]
    differ = sum(int((one[name] != other[name]).sum()) for name in ("document", "weight"))
    if differ:
        raise ConfigError(
            f"{task.name}: {differ} items are of another document or length for the candidate than for its parent; "
            f"assess both models on one suite again"
        )
    return one, other


def keys(found: "polars.DataFrame", key: list[str]) -> list[np.ndarray]:
    """128 bits of the key: text is compared once, numbers ever after. Two items do not share them."""
    import polars

    joined = polars.concat_str(key, separator=" ")
    return [found.select(joined.hash(seed=seed)).to_series().to_numpy() for seed in (1, 2)]


def apart(parent: "polars.DataFrame", candidate: "polars.DataFrame", task: Task) -> str:
    key = key_of(task)
    only_old = parent.unique(key).join(candidate, on=key, how="anti").height
    only_new = candidate.unique(key).join(parent, on=key, how="anti").height
    again = [arm.height - arm.n_unique(key) for arm in (parent, candidate)]
    twice = f", {again[0]} of the parent's and {again[1]} of the candidate's stand there again" if any(again) else ""
    return (
        f"{task.name}: parent and candidate were not scored on the same items: {parent.height} and "
        f"{candidate.height} items, {only_old} only of the parent, {only_new} only of the candidate{twice}; "
        f"assess both models on one suite again"
    )


def documents(found: "polars.DataFrame") -> tuple[list[str], np.ndarray]:
    """The documents in the order of their names, and which of them each row is of."""
    import polars

    names = found["document"].unique().sort()
    return names.to_list(), found["document"].cast(polars.Enum(names)).to_physical().to_numpy()
