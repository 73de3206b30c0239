"""What each command of the command line does. Flows and tasks are imported when a command needs them.

Exit codes: 0 done, 1 failed, 2 asked for what cannot be done, 3 refused by the gate.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratoon.config import Ask, ConfigError, load

DONE, FAILED, WRONG, REFUSED = 0, 1, 2, 3


def ask_of(asked: argparse.Namespace) -> Ask:
    from ratoon.config import parse

    given = {name: getattr(asked, name) for name in Ask.model_fields if getattr(asked, name) not in (None, False)}
    if str(given.get("tolerance", "")).endswith("%"):
        given["tolerance"] = percent(given["tolerance"])
    return parse(Ask, given, "command line")


def percent(text: str) -> float:
    """0.02 or 2% as 0.02."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise ConfigError(f"command line: {text!r} is no share; give 0.02 or 2%") from None


def embedded(root: Path) -> None:
    """Environment of Prefect, MLflow and DVC; our own lines instead of their logs."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("RATOON_LIVE", "1")
    from tasks import environment

    environment.apply(root)


def run_flow(name: str, ask: Ask, root: Path) -> Any:
    """A flow in this process; its final state. A failure is raised as what it was."""
    import importlib

    load(root, budget=ask.budget, changes=ask.changes())  # a wrong key is told at once, not once Prefect is up
    embedded(root)
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    state = flow(ask, return_state=True)
    if not state.is_completed():
        state.result(raise_on_failure=True)
        raise RuntimeError(state.message or f"{name} ended {state.name}")
    return state


def refresh(asked: argparse.Namespace, root: Path) -> int:
    from ratoon import report
    from ratoon.layout import Layout

    ask = ask_of(asked)
    state = run_flow("refresh", ask, root)
    from tasks.job import latest, resolve

    layout = Layout(root)
    line = resolve(root, ask)[0].refresh.line
    last = latest(layout, line)
    if last is None:
        raise RuntimeError(f"the refresh left no record under {layout.refreshes(line)}")
    if asked.json:
        print(last.model_dump_json(indent=2))
    elif state.message.startswith("nothing new"):
        print(state.message)
    else:
        print(report.summary(last))
        print(pages(report_path(layout, line)))
    return DONE if last.verdict.promoted or state.message.startswith("nothing new") else REFUSED


def pages(page: Path) -> str:
    near = os.path.relpath(page)  # short enough to be one line
    return f"{'report':<12}{near}\n{'pages':<12}`ratoon up` opens Prefect and MLflow; `ratoon status` says where"


def report_path(layout: Any, line: str) -> Path:
    folder = json.loads(layout.latest(line).read_text(encoding="utf-8"))["folder"]
    return layout.refreshes(line) / folder / "report.html"


def part(name: str) -> Callable[[argparse.Namespace, Path], int]:
    def call(asked: argparse.Namespace, root: Path) -> int:
        answer = run_flow(name, ask_of(asked), root).result()
        print(json.dumps(answer, indent=2) if asked.json else "\n".join(f"{k:<10}{v}" for k, v in answer.items()))
        return DONE

    return call


def prepare(asked: argparse.Namespace, root: Path) -> int:
    if asked.step is None:
        return part("prepare")(asked, root)
    from ratoon import stages

    wanted = {"ingest": 1, "scorers": 0, "score": 1, "clean": 1, "tokenizer": 1, "pack": 2}[asked.step]
    if len(asked.names) != wanted:
        raise ConfigError(f"ratoon prepare {asked.step}: takes {wanted} name{'s' * (wanted != 1)}, found {asked.names}")
    ledger = getattr(stages, asked.step)(root, *asked.names)
    if asked.json and ledger is not None:
        print(ledger.model_dump_json(indent=2))
    return DONE


def show_report(asked: argparse.Namespace, root: Path) -> int:
    from ratoon import report
    from ratoon.layout import Layout

    layout = Layout(root)
    line = line_of(asked, root)
    from tasks.job import latest

    last = latest(layout, line)
    if last is None:
        raise ConfigError(f"no refresh of {line} has come to a verdict yet; run `ratoon refresh`")
    page = report_path(layout, line)
    report.write(last, page)
    print(json.dumps({"report": str(page)}) if asked.json else f"{report.summary(last)}\n{pages(page)}")
    return DONE


def line_of(asked: argparse.Namespace, root: Path) -> str:
    from ratoon.config import load

    return asked.model or load(root).refresh.line


def rollback(asked: argparse.Namespace, root: Path) -> int:
    embedded(root)
    from tasks import tracking

    line = line_of(asked, root)
    before, after = tracking.rollback(line)
    said = {"model": line, "from": before, "to": after}
    print(json.dumps(said) if asked.json else f"{line}: champion is version {after} again (was {before})")
    return DONE


def up(asked: argparse.Namespace, root: Path) -> int:
    embedded(root)
    from tasks import services

    services.up(root, prefect_port=asked.prefect_port, mlflow_port=asked.mlflow_port)
    return DONE


def down(asked: argparse.Namespace, root: Path) -> int:
    embedded(root)
    from tasks import services

    services.down(root)
    return DONE


def status(asked: argparse.Namespace, root: Path) -> int:
    embedded(root)
    from tasks import services

    return services.show_status(root, as_json=asked.json)


def logs(asked: argparse.Namespace, root: Path) -> int:
    from tasks import services

    print(services.logs(root, asked.service))
    return DONE
