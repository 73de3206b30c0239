"""What each command of the command line does. Flows and tasks are imported when a command needs them.

Exit codes: 0 done, 1 failed, 2 asked for what cannot be done, 3 refused by the gate, 4 the gate asks a person.
"""

import argparse
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratoon.config import Ask, ConfigError, Declared, load
from ratoon.records import Decision, Refresh

DONE, FAILED, WRONG, REFUSED, ASKS = 0, 1, 2, 3, 4
TRAINING = ("refresh", "sweep", "train", "assess", "arms", "judges")  # flows that need torch in this process
VERDICT: dict[Decision, int] = {"promote": DONE, "refuse": REFUSED, "ask": ASKS}


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
    load(root, budget=ask.budget, changes=ask.changes())  # a wrong key is told at once, not once Prefect is up
    return call_flow(name, ask, root)


def call_flow(name: str, ask: Declared, root: Path) -> Any:
    state = ready_flow(name, root)(ask, return_state=True)
    if not state.is_completed():
        state.result(raise_on_failure=True)
        raise RuntimeError(state.message or f"{name} ended {state.name}")
    return state


def ready_flow(name: str, root: Path) -> Any:
    """The flow of that name, once Prefect's API answers."""
    import importlib

    embedded(root)
    from tasks import embedded as api

    booted = api.boot(root)
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    if booted:
        load_ahead(name)
        api.wait()
    return flow


def load_ahead(name: str) -> None:
    """What the flow will load anyway, while its API starts. What is wrong with it the flow says, where it belongs."""
    from tasks import tracking

    with contextlib.suppress(Exception):
        if name in TRAINING:
            import tasks.assess
            import tasks.estimate  # noqa: F401
        tracking.client()


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
    return DONE if state.message.startswith("nothing new") else VERDICT[last.verdict.decision]


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
        return VERDICT[answer["decision"]] if name == "assess" else DONE

    return call


def train(asked: argparse.Namespace, root: Path) -> int:
    if asked.show_schedule and asked.estimate:
        raise ConfigError("ratoon train: --show-schedule and --estimate are two questions; ask one at a time")
    if asked.show_schedule:
        return show_schedule(asked, root)
    if asked.estimate:
        return estimate_train(asked, root)
    if asked.out:
        raise ConfigError("ratoon train --out: only --show-schedule writes a file; add it, or leave --out out")
    return part("train")(asked, root)


def sweep(asked: argparse.Namespace, root: Path) -> int:
    if asked.suggest and asked.estimate:
        raise ConfigError("ratoon sweep: --suggest and --estimate are two questions; ask one at a time")
    if asked.suggest:
        return suggest_rates(asked, root)
    return estimate_sweep(asked, root) if asked.estimate else part("sweep")(asked, root)


def suggest_rates(asked: argparse.Namespace, root: Path) -> int:
    from ratoon import config
    from ratoon.training import suggest

    ask = ask_of(asked)
    params = config.load(root, budget=ask.budget, changes=ask.changes())
    own = config.base(root, params.refresh.base)
    bases = [*(config.base(root, name) for name in own.family), own]
    sizes = {base.name: suggest.size_of_base(base, root) for base in bases}
    found = suggest.suggest(sizes, params.train, params.sweep.tokens, own.row_tokens)
    print(json.dumps([s._asdict() for s in found], indent=2) if asked.json else suggest.text(found, params.train))
    return DONE


def estimate_train(asked: argparse.Namespace, root: Path) -> int:
    """Exit code 0 where the budget refuses too: the question was what it costs."""
    ask = ask_of(asked)
    embedded(root)
    from ratoon.report import estimate
    from tasks.estimate import estimate_target
    from tasks.prepare import open_job

    found, refused = estimate_target(open_job.fn(root, ask))
    said = {**found.model_dump(mode="json"), "refused": refused}
    print(json.dumps(said, indent=2) if asked.json else estimate.text(found, refused))
    return DONE


def estimate_sweep(asked: argparse.Namespace, root: Path) -> int:
    ask = ask_of(asked)
    embedded(root)
    from ratoon.report import estimate
    from tasks.estimate import estimate_proxies
    from tasks.prepare import open_job

    most, first = estimate_proxies(open_job.fn(root, ask))
    said = {"at_most": most.model_dump(mode="json"), "first": first and first.model_dump(mode="json")}
    print(json.dumps(said, indent=2) if asked.json else estimate.sweep_text(most, first))
    return DONE


def show_schedule(asked: argparse.Namespace, root: Path) -> int:
    from ratoon import config
    from ratoon.report import schedule

    if asked.out and asked.out.suffix != ".svg":
        raise ConfigError(f"ratoon train --out: {asked.out} does not end in .svg, which is what is written")
    ask = ask_of(asked)
    params = config.load(root, budget=ask.budget, changes=ask.changes())
    recipe = params.train
    step_tokens = recipe.rows_per_step * config.base(root, params.refresh.base).row_tokens
    if recipe.tokens < step_tokens:
        raise ConfigError(f"train.tokens {recipe.tokens:,} is less than one step of {step_tokens:,} tokens; raise it")
    run = schedule.Run(recipe.schedule, recipe.learning_rate, recipe.tokens // step_tokens, step_tokens)
    print(json.dumps(run.facts(), indent=2) if asked.json else schedule.text(run))
    if asked.out:
        schedule.write(run, asked.out)
    return DONE


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
    embedded(root)
    from tasks.promote import tell_in

    card = tell_in(page.parent, last, links_now(last), known_as(root, last.base))
    if asked.markdown:
        print(json.dumps({"card": str(card)}) if asked.json else card.read_text(encoding="utf-8").rstrip())
        return DONE
    print(json.dumps({"report": str(page)}) if asked.json else f"{report.summary(last)}\n{pages(page)}")
    return DONE


def links_now(refresh: Refresh) -> dict[str, str]:
    """Into MLflow's pages; none where nobody answers, or the runs are gone from there: the page is written all the
    same."""
    from tasks.promote import links_of

    with contextlib.suppress(Exception):
        return links_of(refresh)
    return {}


def known_as(root: Path, base: str) -> str | None:
    """On a hub; None for a base that is not from one, or not declared any more."""
    from ratoon import config
    from ratoon.report import hub_name

    try:
        return hub_name(config.base(root, base), root)
    except ConfigError:
        return None


def line_of(asked: argparse.Namespace, root: Path) -> str:
    from ratoon.config import load

    return asked.model or load(root).refresh.line
