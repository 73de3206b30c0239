"""A sweep as runs: one for it, and a child for each proxy run."""

from collections.abc import Sequence
from pathlib import Path

from ratoon.records import Observation
from tasks.tracking.runs import Metrics, run, write_runs


def log_sweep(
    line: str, name: str, observations: Sequence[Observation], out: Path, parent_run_id: str | None = None
) -> str:
    """A sweep: one run for it and a child for each proxy run, with all its losses. `out` holds observations.csv."""
    proxies: dict[str, list[Observation]] = {}
    for item in observations:
        proxies.setdefault(item.run, []).append(item)
    said = f"sweep of {len(proxies)} proxies"
    with run(line, said, kind="sweep", parent_run_id=parent_run_id, tags={"ratoon.folder": name}) as sweep:
        sweep.params({"proxies": len(proxies), "shares": sorted({item.share for item in observations})})
        write_runs(line, sweep.id, [(name, *written(items)) for name, items in proxies.items()])
        if (out / "observations.csv").exists():
            sweep.artifact(out / "observations.csv")
    return sweep.id


def written(items: Sequence[Observation]) -> tuple[dict[str, object], dict[int, Metrics]]:
    """Parameters and, by step, losses of one proxy run."""
    first = items[0]
    params = first.model_dump(include={"model", "params_non_embedding", "share", "learning_rate", "group"})
    losses: dict[int, dict[str, float | None]] = {}
    for item in items:
        at = losses.setdefault(item.step, {"tokens": item.tokens})
        at[f"held_out/{item.evaluated}/loss_nats"] = item.loss_nats
        at[f"held_out/{item.evaluated}/bits_per_byte"] = item.bits_per_byte
    return params, dict(losses)
