"""A person's word: which version is the champion."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ratoon import config
from ratoon.config import Approval, Retreat
from ratoon.evaluation import history
from ratoon.layout import Layout
from ratoon.lm.load import load_model, load_tokenizer
from tasks import tracking
from tasks.artifacts import show_report
from tasks.retry import healing


@dataclass(frozen=True)
class Promoted:
    model: str
    version: int
    replaces: int | None
    report: str | None
    notes: tuple[str, ...]  # what the person may want to know, and did not have to


@healing()
def approve(root: Path, asked: Approval) -> Promoted:
    """Make the version the champion, with the person's name and reason in its tags.

    Raises ConfigError where the line has no such version, its files are not those that were judged, or do not load.
    """
    line = asked.model or config.load(root).refresh.line
    found = tracking.intact(line, asked.version)
    load_model(found.path, bf16=True)
    load_tokenizer(found.path)
    before = tracking.champion(line)
    notes = tuple(noted(found, before))
    if before is None or before.version != asked.version:
        said = {"approved_by": asked.by, "approved_because": asked.because, "approved_at": now()}
        tracking.tag(line, asked.version, said)
        tracking.promote(line, asked.version)
        remember(Layout(root).history(line), line, asked.version)
    report = found.tags.get("report")
    if report and Path(report).exists():
        show_report(line, asked.version, Path(report))
    return Promoted(line, asked.version, before.version if before else None, report, notes)


def remember(folder: Path, line: str, version: int) -> None:
    """`ratoon history` says which models are champions; this one was not when its refresh ended."""
    found = history.load(folder, line)
    for row in found.rows:
        if row.version == version:
            history.save(folder, found.with_row(row.model_copy(update={"promoted": True})))


def noted(found: tracking.Version, before: tracking.Version | None) -> list[str]:
    notes = []
    if before is not None and before.version == found.version:
        return [f"version {found.version} is the champion already; nothing changed"]
    if found.tags.get("gate") == "refuse":
        notes.append(f"the gate refused it: {found.tags.get('reasons', '').splitlines()[0]}")
    parent = found.tags.get("parent", "")
    if before is not None and parent.isdigit() and int(parent) != before.version:
        notes.append(f"it was judged against version {parent}; the champion it replaces is {before.version}")
    return notes


@healing()
def retreat(root: Path, asked: Retreat) -> dict[str, str | int]:
    """Champion and previous change places."""
    line = asked.model or config.load(root).refresh.line
    said = {"rolled_back_by": asked.by, "rolled_back_because": asked.because, "rolled_back_at": now()}
    before, after = tracking.rollback(line, {key: value for key, value in said.items() if value})
    return {"model": line, "from": before, "to": after}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
