"""What happened, as Prefect events: automations (tasks/automations.py) and triggers (prefect.yaml) wait for them.

Only told to a server that lasts: the in-process one of the embedded default has nobody who listens.
"""

from typing import Any

from prefect.events import emit_event
from prefect.runtime import flow_run

from ratoon.config import Approval, Retreat
from ratoon.records import Comparison, Decision, Refresh
from tasks.embedded import served

NEW_DATA = "ratoon.new-data"
ROLLED_BACK = "ratoon.rolled-back"
VERDICTS: dict[Decision, str] = {"promote": "ratoon.promoted", "refuse": "ratoon.refused", "ask": "ratoon.asked"}
REASON_CHARACTERS = 300


def announce(event: str, line: str, payload: dict[str, Any]) -> None:
    """About one model line. Payloads hold names, numbers and reasons: they lie in Prefect's database."""
    if served():
        resource = {"prefect.resource.id": f"ratoon.line.{line}", "prefect.resource.name": line}
        emit_event(event, resource=resource, payload=payload)


def new_data(line: str, base: str, editions: dict[str, str]) -> None:
    """Text that no refresh of this line has answered for. Told each time it is looked at, until one has: an event
    that was missed is no loss. Inside another flow it is not told: that flow is what looks after the text.
    """
    if flow_run.parent_flow_run_id is None:
        announce(NEW_DATA, line, {"base": base, "editions": editions})


def verdict(refresh: Refresh, link: str) -> None:
    payload = {"base": refresh.base, "version": refresh.version, "summary": summary(refresh), "link": link}
    announce(VERDICTS[refresh.verdict.decision], refresh.line, payload)


def approved(line: str, ask: Approval, replaces: int | None, report: str | None) -> None:
    was = "there was none before" if replaces is None else f"it was version {replaces}"
    lines = (f"version {ask.version} is the champion, {was}", f"by {ask.by}", f"why: {shortened(ask.because)}")
    announce(VERDICTS["promote"], line, {"version": ask.version, "summary": "\n".join(lines), "link": report or ""})


def rolled_back(line: str, ask: Retreat, before: int, after: int) -> None:
    lines = (f"version {after} is the champion again, it was version {before}", f"by {ask.by or 'nobody named'}")
    why = f"why: {shortened(ask.because) if ask.because else 'not told'}"
    announce(ROLLED_BACK, line, {"version": after, "summary": "\n".join([*lines, why]), "link": ""})


def summary(refresh: Refresh) -> str:
    """Three lines: what changed, why it was decided so, what a person does now."""
    found = refresh.verdict
    changes = [moved(item) for item in found.comparisons if item.benchmark == "held-out"]
    version = f"version {refresh.version}" if refresh.version else "the candidate"
    todo = {
        "promote": f"{version} is the champion; `ratoon rollback` brings the former one back",
        "refuse": "the champion stays",
        "ask": f"the champion stays until `ratoon promote {refresh.version} --by NAME --because TEXT`",
    }[found.decision]
    why = found.reasons[0] if found.reasons else "no reason was recorded"
    lines = (shortened(", ".join(changes)) or "nothing could be compared", f"why: {shortened(why)}", todo)
    return "\n".join(lines)


def moved(item: Comparison) -> str:
    change = item.relative or item.difference
    return f"{item.role} {item.source} {change.value:+.1%}" if item.relative else f"{item.source} {change.value:+.3f}"


def shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= REASON_CHARACTERS else line[: REASON_CHARACTERS - 3] + "..."
