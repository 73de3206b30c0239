"""What is asked often starts soon: a library is imported by what uses it, and not by what might."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOWS = sorted(path.stem for path in (ROOT / "flows").glob("*.py") if path.stem != "__init__")
ENGINES = {"torch", "scipy", "transformers", "sklearn", "datasets", "lm_eval", "matplotlib", "jinja2", "pandas", "peft"}
SERVICES = {"mlflow", "dvc", "prefect.server"}
# Command -> what it imports before it looks at anything.
COMMANDS = {
    "--help": "ratoon.cli",
    "status": "tasks.status",
    "history": "ratoon.evaluation.history, ratoon.evaluation.forgetting, ratoon.report.history",
    "report": "ratoon.report, tasks.job",
    "logs": "tasks.logbook",
    "down": "tasks.services",
    "sync": "tasks.environment, tasks.tracking",
}


def imported(modules):
    script = f"import json, sys\nimport {modules}\nprint(json.dumps(sorted(sys.modules)))"
    given = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_flows_begin_before_any_engine_is_imported():
    # A worker imports a flow to begin it and, when it was cancelled, once more to look for hooks.
    assert not imported(", ".join(f"flows.{name}" for name in FLOWS)) & (ENGINES | SERVICES)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_light_command_imports_no_engine_and_no_service(command):
    assert not imported(COMMANDS[command]) & (ENGINES | SERVICES | {"prefect"})


def test_training_is_started_and_watched_without_torch():
    assert not imported("ratoon.training.supervise, ratoon.training.sweep, ratoon.training.batch") & ENGINES


def test_a_training_child_reads_its_request_before_it_imports_torch():
    # Where the request is wrong, it is said at once.
    assert not imported("ratoon.training.__main__") & ENGINES
