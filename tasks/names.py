"""What flow runs, task runs and artifacts are called on the page."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prefect.runtime import flow_run, task_run

from ratoon import config
from ratoon.config import Ask, ConfigError, Params
from ratoon.report import wording

# Of deployments that ask no line anything: what they do is said by a switch.
SWITCHES = {
    "gc": ("remove", "what nobody needs, removed", "what would go"),
    "backup": ("every", "of all", "of what is in use"),
}
SHOWN = 3  # sources that are named; more are counted
LENGTH = 120  # a name is read in a list
OPENED = ("seed", "tolerance")  # asked for, and neither the line's name nor its share or tokens


def run_name() -> str:
    """The verb, the line, its sources, share and tokens: `train ratoon-nano: docs, code, at 30%, 500k tokens`."""
    ask = (flow_run.parameters or {}).get("ask") or {}
    given = ask if isinstance(ask, dict) else ask.model_dump()
    verb = str(flow_run.flow_name)
    if verb in SWITCHES:
        field, on, off = SWITCHES[verb]
        return f"{verb}: {on if given.get(field) else off}"
    try:
        words = decided(given) if {"by", "because"} & set(given) else of_line(verb, given)
    except Exception:  # what is wrong with params.yaml is told by the run itself, not by its name
        words = " ".join(f"{name} {value}" for name, value in given.items() if value not in (None, False))
    return f"{verb} {words}".strip()[:LENGTH]


def decided(given: dict[str, Any]) -> str:
    """By a person: which version of which line, and who."""
    line = given.get("model") or config.load(Path.cwd()).refresh.line
    version = f" version {given['version']}" if given.get("version") else ""
    return f"{line}{version}{' by ' + given['by'] if given.get('by') else ''}"


def of_line(verb: str, given: dict[str, Any]) -> str:
    ask = Ask.model_validate(given)
    params = config.load(Path.cwd(), budget=ask.budget, changes=ask.changes())
    return f"{params.refresh.line}: {', '.join(asked(verb, ask, params))}"


def asked(verb: str, ask: Ask, params: Params) -> Iterator[str]:
    sources = list(params.refresh.sources)
    yield from sources[:SHOWN]
    if len(sources) > SHOWN:
        yield f"{len(sources) - SHOWN} more"
    if params.choose.ratio is not None:
        yield f"at {wording.share(params.choose.ratio)}"
    if verb in ("refresh", "train", "sweep"):
        yield f"{wording.compact(params.train.tokens)} tokens"
    if ask.budget:
        yield f"budget {ask.budget}"
    yield from (f"{name} {value}" for name in OPENED if (value := getattr(ask, name)) is not None)
    if ask.force:
        yield "whether or not anything is new"


def named(words: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
    """The name of a task run by what it is given; where that cannot be said, the task's own."""

    def name() -> str:
        try:
            return words(dict(task_run.parameters or {}))[:LENGTH]
        except (AttributeError, KeyError, TypeError, ConfigError):
            return str(task_run.task_name)

    return name


def artifact_key(*words: str) -> str:
    """Prefect takes small letters, digits and dashes."""
    return "-".join("".join(c if c.isascii() and c.isalnum() else "-" for c in word.lower()) for word in words if word)
