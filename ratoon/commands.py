"""What each command of the command line does. Flows and tasks are imported when a command needs them.

Exit codes: 0 done, 1 failed, 2 asked for what cannot be done, 3 refused by the gate.
"""

import argparse
import json
import os
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ratoon.config import Ask, ConfigError

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

    wanted = {"ingest": 1, "clean": 1, "tokenizer": 1, "pack": 2}[asked.step]
    if len(asked.names) != wanted:
        raise ConfigError(f"ratoon prepare {asked.step}: takes {wanted} name{'s' * (wanted > 1)}, found {asked.names}")
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


def fit(asked: argparse.Namespace, root: Path) -> int:
    from ratoon.laws.choose import fit_report

    observations, size, tokens = table_of(asked, root)
    found = fit_report(observations, params_non_embedding=size, tokens=tokens)
    if asked.json:
        print(
            json.dumps({"laws": [law.model_dump() for law in found.laws], "warnings": list(found.warnings)}, indent=2)
        )
        return DONE
    print(law_table(found.laws, {"general": found.general_law, "domain": found.domain_law}))
    for warning in found.warnings:
        print(textwrap.fill(f"note: {warning}", 79, subsequent_indent="      "))
    return DONE


def law_table(laws: Sequence[Any], believed: dict[str, str]) -> str:
    lines = [f"  {'law':<8}{'role':<9}{'runs':>5}{'seen':>8}{'unseen':>8}{'agree':>7}  parameters"]
    for law in laws:
        mark = "*" if believed.get(law.role) == law.law else " "
        unseen = "?" if law.unseen_error is None else f"{law.unseen_error:.2%}"
        params = " ".join(f"{k}={v:.3g}" for k, v in law.params.items())
        counts = f"{law.observations:>5}{law.seen_error:>8.2%}{unseen:>8}{law.agreement:>7.0%}"
        line = f"{mark} {law.law:<8}{law.role:<9}{counts}  "
        lines.append(textwrap.fill(params, 79, initial_indent=line, subsequent_indent=" " * len(line)))
    return "\n".join([*lines, "* the law believed for that role: the smaller error on runs held out"])


def choose(asked: argparse.Namespace, root: Path) -> int:
    from ratoon.config import ChooseConfig, load
    from ratoon.laws.choose import choose as decide
    from ratoon.records import parent_losses

    observations, size, tokens = table_of(asked, root)
    config = load(root).choose
    if asked.tolerance:
        config = ChooseConfig.model_validate({**config.model_dump(), "tolerance": percent(asked.tolerance)})
    size = size or max(o.params_non_embedding for o in observations)
    told = {"general": asked.parent_general, "domain": asked.parent_domain}
    measured: dict[Any, float] = {} if all(told.values()) else dict(parent_losses(observations, size))
    parent = {role: loss or measured[role] for role, loss in told.items()}
    choice = decide(
        observations,
        params_non_embedding=size,
        tokens=tokens or max(o.tokens for o in observations),
        parent_general=parent["general"],
        parent_domain=parent["domain"],
        config=config,
    )
    if asked.json:
        print(choice.model_dump_json(indent=2))
        return DONE
    largest = choice.interval
    print(f"domain share {choice.share:.2f}")
    print(f"largest      {largest.value:.2f} [{largest.low:.2f}, {largest.high:.2f}] that keeps within the tolerance")
    print(f"because      {choice.reason} (law: {choice.law})")
    for role in ("general", "domain"):
        loss = getattr(choice, f"predicted_{role}")
        print(f"{role:<13}{loss.value:.4f} nats/token [{loss.low:.4f}, {loss.high:.4f}] predicted")
    for warning in choice.warnings:
        print(textwrap.fill(f"note: {warning}", 79, subsequent_indent="      "))
    return DONE


def table_of(asked: argparse.Namespace, root: Path) -> tuple[list[Any], int | None, int | None]:
    """Observations, and N and D of the target where they were given."""
    from ratoon import config, records
    from ratoon.layout import Layout

    path = asked.runs
    if path is None:
        layout, params = Layout(root), config.load(root)
        pointer = layout.latest(params.refresh.line)
        if not pointer.exists():
            raise ConfigError("no sweep has been run here yet; run `ratoon refresh`, or name a table of runs")
        path = report_path(layout, params.refresh.line).parent / "sweep" / "observations.csv"
        asked.target = asked.target or f"D={params.train.tokens}"
    target: dict[str, float] = {}
    for item in filter(None, (asked.target or "").split(",")):
        name, _, value = item.partition("=")
        try:
            if name not in ("N", "D"):
                raise ValueError
            target[name] = float(value)
        except ValueError:
            raise ConfigError(f"--target: {item!r} is not N=... or D=...; for example N=1.8e9,D=10e9") from None
    size, tokens = target.get("N"), target.get("D")
    return records.read_observations(path), int(size) if size else None, int(tokens) if tokens else None
