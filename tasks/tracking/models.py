"""Checkpoints as MLflow's logged models: what each had learned, and where it lies. Weights are never copied."""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.tracking.connection import ask
from tasks.tracking.experiments import experiment_of
from tasks.tracking.spool import Metrics, milliseconds, points_of

PATH = "ratoon.path"  # tag of a logged model and of a version: the directory transformers loads
POINTER = "pointer.json"


def log_checkpoint(run_id: str, line: str, model: Path, step: int, metrics: Metrics, params: Mapping[str, Any]) -> str:
    """The checkpoint `model` of a training: its held-out losses, and a pointer to its files. Its id."""
    from mlflow.entities import LoggedModelOutput

    where = str(model.resolve())
    experiment = experiment_of(line)
    # No character of / : . % " ' may be in the name of a logged model.
    name = re.sub("[/:.%\"']", "-", f"{line}-step-{step}")
    given: dict[str, str] = {key: str(value) for key, value in params.items()}
    tags: dict[str, Any] = {PATH: where, "step": str(step)}
    made = ask("create_logged_model", experiment, name, run_id, tags, {**given, "step": str(step)}, "checkpoint")
    sizes = {path.name: path.stat().st_size for path in sorted(model.glob("*")) if path.is_file()}
    with tempfile.TemporaryDirectory() as folder:
        pointer = Path(folder) / POINTER
        pointer.write_text(json.dumps({"path": where, "bytes": sizes}, indent=1), encoding="utf-8")
        ask("log_model_artifact", made.model_id, str(pointer))
    ask("finalize_logged_model", made.model_id, "READY")
    ask("log_outputs", run_id, [LoggedModelOutput(made.model_id, step)])
    _measure(run_id, made.model_id, metrics, step)
    return str(made.model_id)


def logged_model(line: str, model: Path) -> Any:
    """MLflow's newest record of the checkpoint `model`; None: there is none."""
    where = str(model.resolve())
    if "'" in where:  # cannot be asked for
        return None
    newest = [{"field_name": "creation_time", "ascending": False}]
    asked = f"tags.`{PATH}` = '{where}'"
    return next(iter(ask("search_logged_models", [experiment_of(line)], asked, max_results=1, order_by=newest)), None)


def attach(run_id: str, model: Any, metrics: Metrics) -> None:
    """What was found out about a checkpoint after its training: metrics of this run, shown with the model."""
    from mlflow.entities import LoggedModelInput

    ask("log_inputs", run_id, models=[LoggedModelInput(model.model_id)])
    _measure(run_id, model.model_id, metrics, 0)


def _measure(run_id: str, model_id: str, metrics: Metrics, step: int) -> None:
    from mlflow.entities import Metric

    found = [
        Metric(key, value, at, step, model_id) for key, value, at, step in points_of(metrics, step, milliseconds())
    ]
    if found:
        ask("log_batch", run_id, found)
