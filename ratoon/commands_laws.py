"""What `ratoon fit` and `ratoon choose` do: anybody's table of runs, with or without a project around it."""

import argparse
import math
import sys
import tempfile
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ratoon.commands import DONE, WRONG, embedded, percent, report_path
from ratoon.config import ChooseConfig, ConfigError, Role

if TYPE_CHECKING:
    from ratoon.laws.design.next_run import Rule
    from ratoon.laws.tables.reading import Sheet
    from ratoon.laws.tables.runtable import RunTable

UNITS = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def fit(asked: argparse.Namespace, root: Path | None) -> int:
    from ratoon.laws.decision.study import study
    from ratoon.report import laws_text

    table, config = table_of(asked, root), config_of(asked, root)
    target, parent, available = target_of(asked), parent_of(asked), domain_tokens_of(asked)
    decide = bool(asked.tolerance or asked.goal or parent)
    if decide:
        refuse_share(target)
    if asked.out:
        refuse_unwritable(asked.out)
    if available is not None and not decide:
        raise ConfigError(
            f"--domain-tokens {asked.domain_tokens}: limits the share, and none is chosen here; add --tolerance, "
            f"--goal or --parent"
        )
    found = study(
        table,
        law=asked.law,
        target=target,
        decide=decide,
        parent=parent,
        config=config,
        available_domain_tokens=available,
        rule=rule_of(root),
    )
    page = None
    if asked.out:
        from ratoon.report import laws

        page = laws.write(found, asked.out)
    if asked.json:
        print(as_json(found.document()))
    else:
        print(laws_text.page(found, str(page) if page else None))
    if found.refused:
        print(f"ratoon: {found.refused}", file=sys.stderr)
        return WRONG
    return DONE


def choose(asked: argparse.Namespace, root: Path | None) -> int:
    from ratoon.laws.decision.choose import choose as decide
    from ratoon.laws.decision.study import parents, refuse_few_ratios, round_target
    from ratoon.report import laws_text

    table, config = table_of(asked, root), config_of(asked, root, law=asked.law)
    available = domain_tokens_of(asked)
    observations, target = table.observations(), target_of(asked)
    refuse_share(target)
    refuse_few_ratios(table)
    params, tokens = round_target(table, target)
    known = parents(observations, params, parent_of(asked))
    choice = decide(
        observations,
        params_non_embedding=params,
        tokens=tokens,
        parent_general=known["general"],
        parent_domain=known["domain"],
        config=config,
        available_domain_tokens=available,
        rule=rule_of(root),
    )
    noted = choice.model_copy(update={"warnings": (*table.notes, *choice.warnings)})
    print(noted.model_dump_json(indent=2) if asked.json else laws_text.choice(choice, table.notes))
    return DONE


def refuse_share(target: dict[str, float]) -> None:
    if "share" in target:
        raise ConfigError("--target share=...: the share is what is asked; to take one as it is, --set ratio=...")


def refuse_unwritable(folder: Path) -> None:
    """Before minutes of fitting end there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"--out {folder}: nothing can be written there ({error.strerror}); name a folder of your own"
        ) from None


def config_of(asked: argparse.Namespace, root: Path | None, **also: Any) -> ChooseConfig:
    """The section `choose` of the project's params.yaml, or its defaults, with what the command line says."""
    from ratoon.config import load, parse

    config = load(root).choose if root else ChooseConfig()
    said = {
        "tolerance": asked.tolerance and tolerance_of(asked.tolerance),
        "goal": asked.goal,
        "general_weight": asked.weight and percent(asked.weight),
        "extrapolate": asked.extrapolate or None,
        **also,
    }
    told = {name: value for name, value in said.items() if value is not None}
    settings = {**config.model_dump(), **named(asked.set, "--set", "confidence=0.95"), **told}
    found = parse(ChooseConfig, settings, "command line: choose")
    if asked.weight is not None and found.goal != "weighted":
        raise ConfigError(
            f"--weight {asked.weight}: only the weighted goal has one, the goal is {found.goal}; add --goal weighted"
        )
    return found


def tolerance_of(text: str) -> float:
    found = percent(text)
    if found >= 1:
        mend = "" if text.endswith("%") else f"; for percent, --tolerance {text}%"
        raise ConfigError(f"--tolerance: {text!r} lets general loss rise by {found:.0%}{mend}")
    return found


def rule_of(root: Path | None) -> "Rule":
    """When an interval is narrow enough and a further run worth its price: the project's, or the defaults."""
    from ratoon.config import SweepConfig, load
    from ratoon.laws.design.next_run import Rule

    if root:
        sweep = load(root).sweep
        return Rule(sweep.width, sweep.price)
    return Rule(SweepConfig.model_fields["width"].default, SweepConfig.model_fields["price"].default)


def domain_tokens_of(asked: argparse.Namespace) -> int | None:
    return None if asked.domain_tokens is None else count(asked.domain_tokens, "--domain-tokens", "20M")


def table_of(asked: argparse.Namespace, root: Path | None) -> "RunTable":
    from ratoon.laws.tables.bring import read_runs
    from ratoon.laws.tables.reading import parse_columns

    told = parse_columns(asked.columns)
    if asked.experiment:
        if asked.runs:
            raise ConfigError(f"{asked.runs} and --experiment {asked.experiment}: two tables of runs; name one")
        sheet = sheet_of(asked.experiment, root)
        return read_runs(sheet, {**declared_roles(sheet, root), **told})
    return read_runs(asked.runs or last_sweep(asked, root), told)


def last_sweep(asked: argparse.Namespace, root: Path | None) -> Path:
    from ratoon.config import load
    from ratoon.layout import Layout

    if root is None:
        raise ConfigError("no table of runs; name a CSV or Parquet file, or go to a ratoon project with a sweep")
    layout, params = Layout(root), load(root)
    if not layout.latest(params.refresh.line).exists():
        raise ConfigError("no sweep has been run here yet; run `ratoon refresh`, or name a table of runs")
    asked.target = asked.target or f"D={params.train.tokens}"
    return report_path(layout, params.refresh.line).parent / "sweep" / "observations.csv"


def sheet_of(experiment: str, root: Path | None) -> "Sheet":
    """The finished runs of an MLflow experiment: the project's store, or the one MLFLOW_TRACKING_URI names."""
    import os

    from ratoon.laws.tables.reading import from_columns

    if root:
        embedded(root)
    elif not os.environ.get("MLFLOW_TRACKING_URI"):
        raise ConfigError("--experiment: set MLFLOW_TRACKING_URI to your MLflow, or go to a ratoon project")
    from tasks import tracking

    runs = tracking.finished_runs(experiment)
    names = list(dict.fromkeys(name for run in runs for name in run))
    columns = {name: [run.get(name) for run in runs] for name in names}
    return from_columns(f"experiment {experiment}", columns, [f"run {run['run']}" for run in runs])


def declared_roles(sheet: "Sheet", root: Path | None) -> dict[str, str]:
    """Losses that our own sweeps left, under the roles that the project's sources declare."""
    from ratoon.config import source

    if root is None:
        return {}
    losses: dict[str, list[str]] = {}
    for column in sheet.columns:
        name = column.removeprefix("held_out/").removesuffix("/loss_nats")
        if column == f"held_out/{name}/loss_nats" and (root / "data" / "sources" / f"{name}.yaml").exists():
            losses.setdefault(source(root, name).role, []).append(column)
    return {role: "+".join(columns) for role, columns in losses.items()}


def target_of(asked: argparse.Namespace) -> dict[str, float]:
    """N=1.8e9,D=10B as numbers."""
    from ratoon.laws.tables.bring import COUNTS, INPUTS, SHARES
    from ratoon.laws.tables.units import FEW

    found: dict[str, float] = {}
    for item in filter(None, (asked.target or "").split(",")):
        name, _, value = item.partition("=")
        refuse_twice(name, found, "--target")
        try:
            if name not in INPUTS:
                raise ValueError
            found[name] = number(value)
        except ValueError:
            raise ConfigError(
                f"--target: {item!r} is not N=... or D=... (or another input of the law); for example N=1.8e9,D=10e9"
            ) from None
        if name in ("N", "D") and found[name] < FEW:
            raise ConfigError(
                f"--target: {item!r}: N and D are plain counts; for billions, {name}={value}e9 or {name}={value}B"
            )
        if name in COUNTS and found[name] <= 0:
            raise ConfigError(f"--target: {item!r}: {name} is a plain count above 0")
        if name in SHARES and not 0 <= found[name] <= 1:
            raise ConfigError(f"--target: {item!r}: a share is in 0..1; for percent, {name}={value}%")
    return found


def number(text: str) -> float:
    """1.8e9, 10B, 20% as plain numbers. Raises ValueError, also for what is not finite."""
    if text.endswith("%"):
        found = float(text[:-1]) / 100
    else:
        found = float(text[:-1]) * UNITS[text[-1]] if text[-1:] in UNITS else float(text)
    if not math.isfinite(found):
        raise ValueError(text)
    return found


def as_json(found: Any) -> str:
    """One document. JSON has no word for what is not finite: null."""
    from pydantic_core import to_json

    return to_json(found, indent=2, inf_nan_mode="null").decode()


def count(text: str, option: str, example: str) -> int:
    """A plain count above 0."""
    try:
        found = number(text)
    except ValueError:
        found = 0.0
    if not (math.isfinite(found) and found >= 1):
        raise ConfigError(f"{option}: {text!r} is no count; for example {example}")
    return round(found)


def named(text: str | None, option: str, example: str) -> dict[str, str]:
    """web=0.4,code=0.2 by name."""
    items = [item.partition("=") for item in filter(None, (text or "").split(","))]
    if wrong := [name for name, _, value in items if not name or not value]:
        raise ConfigError(f"{option}: {wrong[0]!r} is not NAME=VALUE; for example {example}")
    found: dict[str, str] = {}
    for name, _, value in items:
        refuse_twice(name, found, option)
        found[name] = value
    return found


def refuse_twice(name: str, found: Container[str], option: str) -> None:
    if name in found:
        raise ConfigError(f"{option}: {name} is given twice; leave one out")


def parent_of(asked: argparse.Namespace) -> dict[Role, float]:
    """The parent's losses that were given; none: to be looked for in the table."""
    found: dict[Role, float] = {}
    for item in filter(None, (asked.parent or "").split(",")):
        name, _, value = item.partition("=")
        refuse_twice(name, found, "--parent")
        try:
            role = next(role for role in get_args(Role) if role == name)
            found[role] = float(value)
        except (StopIteration, ValueError):
            raise ConfigError(
                f"--parent: {item!r} is not general=NATS or domain=NATS; for example general=2.86,domain=1.84"
            ) from None
    for role in get_args(Role):
        if (one := getattr(asked, f"parent_{role}")) is not None:
            refuse_twice(role, found, f"--parent and --parent-{role}")
            found[role] = one
    return found
