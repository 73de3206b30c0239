"""What the page of a Prefect run shows beside its log: the choice of the ratio, the verdict, how far a stage is.

None of it is worth a run: an API that is away, or says no, costs a line in the log.
"""

import contextvars
import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from ratoon.records import Choice, Comparison, Interval, Refresh
from ratoon.report import lead, wording
from tasks.names import artifact_key

FIRST_SECONDS, EVERY_SECONDS, AWAY_SECONDS = 2.0, 10.0, 60.0  # AWAY: after an API that did not answer
LAST_SECONDS = 5.0  # what the end of a stage waits for its last word
logger = logging.getLogger("ratoon")
State = tuple[float | None, str]  # share done (None: of an unknown whole), and the line that says more


def quietly(make: Callable[..., Any], **given: Any) -> Any:
    """What `make` answers; None where the API did not take it."""
    try:
        return make(**given)
    except Exception as error:
        said = str(error).splitlines()
        logger.warning("the page does not show %s: %s", given.get("key", "it"), said[0] if said else type(error))
        return None


# ---------------------------------------------------------------- while a stage works


class Live:
    """How far a stage is, told by a thread of its own: a slow or absent API never holds the work up."""

    def __init__(self, key: str, state: Callable[[], State]) -> None:
        self.key, self.state = key, state
        self.kept: Any = None  # the artifact's id
        self.ended = threading.Event()
        # Of the run's context: the artifact is this task run's.
        context = contextvars.copy_context()
        self.thread = threading.Thread(target=context.run, args=(self.tell,), name=f"page {key}", daemon=True)

    def __enter__(self) -> "Live":
        self.thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.ended.set()
        self.thread.join(LAST_SECONDS)

    def tell(self) -> None:
        pause = FIRST_SECONDS
        while not self.ended.wait(pause):
            pause = EVERY_SECONDS if self.send() else AWAY_SECONDS
        if self.kept is not None:
            self.send()

    def send(self) -> bool:
        """Whether the page has it, or there was nothing to tell."""
        share, line = self.state()
        if share is None:
            return True
        percent = round(100 * min(1.0, share), 1)
        if self.kept is None:
            self.kept = quietly(create_progress_artifact, progress=percent, key=self.key, description=line)
            return self.kept is not None
        told = quietly(update_progress_artifact, artifact_id=self.kept, progress=percent, description=line)
        return told is not None


# ---------------------------------------------------------------- what a stage found


def show_table(line: str, what: str, table: list[dict[str, Any]], description: str) -> None:
    quietly(create_table_artifact, key=artifact_key(line, what), table=table, description=description)


def show_markdown(line: str, what: str, markdown: str, description: str) -> None:
    quietly(create_markdown_artifact, key=artifact_key(line, what), markdown=markdown, description=description)


def show_link(line: str, what: str, page: Path, description: str) -> None:
    link = page.resolve().as_uri()
    quietly(create_link_artifact, key=artifact_key(line, what), link=link, link_text=what, description=description)


def show_choice(line: str, choice: Choice, folder: Path) -> None:
    said = f"{wording.share(choice.share)} domain text: {plain(choice.reason)}"
    show_markdown(line, "law", choice_text(choice, folder), said)


def choice_text(choice: Choice, folder: Path) -> str:
    """The share and its reason, what each law said, what one more run would buy, and where the picture is."""
    room = choice.interval
    lines = [
        f"**{wording.share(choice.share)} domain text**: {plain(choice.reason)}",
        "",
        f"The largest share under the ceiling is {wording.span(wording.share(room.low), wording.share(room.high))} "
        f"({wording.share(room.confidence)} confidence, {choice.law}), for {wording.compact(choice.tokens)} tokens.",
        "",
        *table(("law", "text", "error seen", "error unseen", "starts that agree"), map(law_row, choice.laws)),
        "",
        *table(("text", "predicted, nats per token", "of the parent"), predicted(choice)),
        "",
    ]
    others = [f"{law} {wording.share(share)}" for law, share in choice.second_opinion.items()]
    lines += [f"- other laws: {', '.join(others)}"] if others else []
    lines += [f"- one more run: {plain(choice.further.reason)}"] if choice.further else []
    lines += [f"- since the refresh before: {plain(choice.drift)}"] if choice.drift else []
    lines += [f"- {plain(warning)}" for warning in choice.warnings]
    return "\n".join([*lines, f"- picture: `{folder / 'report.html'}`, once there is a verdict"])


def law_row(fitted: Any) -> tuple[str, ...]:
    seen, unseen = (wording.error(x) for x in (fitted.seen_error, fitted.unseen_error))
    return fitted.law, fitted.role, seen, unseen, wording.share(fitted.agreement)


def predicted(choice: Choice) -> list[tuple[str, ...]]:
    rows = (
        ("general", choice.predicted_general, choice.parent_general_nats),
        ("domain", choice.predicted_domain, choice.parent_domain_nats),
    )
    return [(role, interval(found, wording.loss), wording.loss(parent)) for role, found, parent in rows]


def show_verdict(refresh: Refresh, page: Path) -> None:
    show_markdown(refresh.line, "verdict", verdict_text(refresh, page), verdict_line(refresh))
    show_report(refresh.line, refresh.version, page)


def show_report(line: str, version: int | None, page: Path) -> None:
    of = f"version {version}" if version else "the candidate"
    said = f"{of} of {line}: figures, reasons and costs on one page; opens on the machine where it lies"
    show_link(line, "report", page, said)


def verdict_line(refresh: Refresh) -> str:
    """What was decided and the first reason: the description in a list of artifacts."""
    found = refresh.verdict
    of = f"version {refresh.version}" if refresh.version else "the candidate"
    why = f": {plain(found.reasons[0])}" if found.reasons else ""
    return f"{of}, {lead.WORDS[found.decision]}{why}"


def verdict_text(refresh: Refresh, page: Path) -> str:
    """The first paragraph of the report, every difference with its interval, the reasons, and where the report is."""
    found = refresh.verdict
    columns = ("benchmark", "text", "items", "parent", "candidate", "change", "outcome")
    lines = [
        f"**{lead.TITLES[found.decision]}.** {plain(lead.paragraph(refresh))}",
        "",
        *(table(columns, map(comparison_row, found.comparisons)) if found.comparisons else ["Nothing was compared."]),
        "",
        *(f"- {plain(reason)}" for reason in found.reasons),
        f"- report: `{page.resolve()}`",
    ]
    return "\n".join(lines)


def comparison_row(item: Comparison) -> tuple[str, ...]:
    change = item.relative
    moved = interval(change, wording.change) if change else interval(item.difference, wording.points)
    what = f"{item.source} ({item.role})"
    values = (wording.loss(item.parent.value), wording.loss(item.candidate.value))
    return item.benchmark, what, wording.whole(item.items), *values, moved, item.outcome


def interval(found: Interval, word: Callable[[float | None], str]) -> str:
    return f"{word(found.value)} [{word(found.low)}, {word(found.high)}]"


def table(columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """As Markdown."""
    named = list(columns)
    lines = [named, ["---"] * len(named), *([plain(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def plain(text: str) -> str:
    """On one line, and without what Markdown or a page would obey: names come from files."""
    return " ".join(text.split()).replace("<", "&lt;").replace("`", "'")
