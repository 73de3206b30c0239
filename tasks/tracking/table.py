"""Anybody's experiment, as a table."""

import difflib
from typing import Any

from ratoon.config import ConfigError
from tasks.reach import shown
from tasks.tracking.connection import ask, store


def finished_runs(experiment: str) -> list[dict[str, Any]]:
    """One row per finished run: `run`, its parameters, and the last value of each of its metrics.

    A name that is both a parameter and a metric becomes params.NAME and metrics.NAME. Of an experiment of ours these
    are the proxies of the newest sweep: sweeps before it were measured on other editions of the text.
    """
    known = {found.name: found.experiment_id for found in ask("search_experiments")}
    if experiment not in known:
        near = [f"; did you mean {name!r}?" for name in difflib.get_close_matches(experiment, known, n=1)]
        raise ConfigError(
            f"MLflow at {shown(store())}: no experiment {experiment!r}{''.join(near)}; "
            f"there are {', '.join(sorted(known)) or 'none'}"
        )
    found = _search(known[experiment])
    if proxies := [run for run in found if run.data.tags.get("ratoon.kind") == "proxy"]:
        newest = max(proxies, key=lambda run: run.info.start_time).data.tags.get("mlflow.parentRunId")
        found = [run for run in proxies if run.data.tags.get("mlflow.parentRunId") == newest]
    if not found:
        raise ConfigError(f"MLflow at {shown(store())}: experiment {experiment!r} has no finished run")
    names = [run.info.run_name or run.info.run_id for run in found]
    return [
        {"run": name if names.count(name) == 1 else f"{name} {run.info.run_id[:8]}", **_measured(run.data)}
        for name, run in zip(names, found, strict=True)
    ]


def _search(experiment_id: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = ask("search_runs", [experiment_id], "attributes.status = 'FINISHED'", page_token=token)
        found += page
        token = page.token
        if not token:
            return found[::-1]  # as they were made: MLflow gives the newest first


def _measured(data: Any) -> dict[str, Any]:
    both = set(data.params) & set(data.metrics)
    row: dict[str, Any] = {f"params.{name}" if name in both else name: value for name, value in data.params.items()}
    return row | {f"metrics.{name}" if name in both else name: value for name, value in data.metrics.items()}
