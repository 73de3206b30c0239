"""What a person sees while work goes on: one live line per stage, or plain lines where there is no terminal.

Where a Prefect server shows the run, its page has the same beside its log (artifacts.py).
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

SHOWN = "RATOON_LIVE"  # set by the command line: lines go to the person's terminal, not to the flow run's log
EVERY_SECONDS = 10.0


class Amount(ProgressColumn):
    """1.2M/3.4M tokens 41k/s"""

    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        done = short(task.completed)
        total = f"/{short(task.total)}" if task.total else ""
        speed = task.finished_speed or task.speed or 0
        rate = f" {short(speed)}/s" if speed >= 1 else ""
        return Text(f"{done}{total} {unit}{rate}")


class Stage:
    """Progress of one stage, in whatever unit it counts."""

    def __init__(self, name: str, unit: str, total: float | None) -> None:
        self.name, self.unit, self.total = name, unit, total
        self.done = 0.0
        self.note = ""
        self.started = time.monotonic()
        self.first: tuple[float, float] | None = None  # when work was first told of, and how much: its rate is since

    def update(self, done: float, total: float | None = None, note: str = "") -> None:
        self.done, self.total, self.note = done, total or self.total, note or self.note
        self.first = self.first or (time.monotonic(), done)

    def end(self) -> None:
        """All of it is done."""
        if self.total:
            self.done = self.total

    @property
    def rate(self) -> float:
        """Per second. Neither the start nor what an earlier try had done counts: the time left is told by it."""
        since, before = self.first or (self.started, 0.0)
        spent = time.monotonic() - since
        return (self.done - before) / spent if spent > 0 else 0.0

    @property
    def share(self) -> float | None:
        return self.done / self.total if self.total else None

    def line(self) -> str:
        spent = time.monotonic() - self.started
        rate = self.rate
        of = f"/{short(self.total)}" if self.total else ""
        left = (
            f", {clock((self.total - self.done) / rate)} left"
            if self.total and rate > 0 and self.done < self.total
            else ""
        )
        fast = f", {short(rate)}/s" if rate >= 1 else ""
        amount = f"  {short(self.done)}{of} {self.unit}{fast}{left}" if self.done else ""
        return f"{self.name:<9}{clock(spent)}{amount}{'  ' + self.note if self.note else ''}"


@contextmanager
def stage(name: str, unit: str = "", total: float | None = None, line: str = "") -> Iterator[Stage]:
    """Show one stage while the block runs, and a line that stays when it ends.

    line  the model line, in whose name a page keeps what it shows
    """
    with _terminal(name, unit, total) if os.environ.get(SHOWN) else _log(name, unit, total) as shown:  # noqa: SIM117
        with _page(shown, line):
            yield shown
            shown.end()  # before the page's last word; a stage that failed stays where it was


def _page(shown: Stage, line: str) -> AbstractContextManager[Any]:
    from prefect.context import FlowRunContext, TaskRunContext

    if not has_page() or (FlowRunContext.get() is None and TaskRunContext.get() is None):
        return nullcontext()
    from tasks.artifacts import Live
    from tasks.names import artifact_key

    return Live(artifact_key(line, shown.name, "progress"), lambda: (shown.share, shown.line()))


def has_page() -> bool:
    """Whether a server shows runs while they go on. The API embedded in one process has no page, and costs nothing."""
    from tasks.embedded import served

    return served()


@contextmanager
def _terminal(name: str, unit: str, total: float | None) -> Iterator[Stage]:
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        with _lines(name, unit, total, lambda text: print(text, file=sys.stderr, flush=True)) as shown:
            yield shown
        return
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=16),
        Amount(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        task = progress.add_task(name, total=total, unit=unit, note="")
        shown = Stage(name, unit, total)

        def update(done: float, total: float | None = None, note: str = "") -> None:
            Stage.update(shown, done, total, note)
            progress.update(task, completed=done, total=shown.total, note=shown.note[:24])

        shown.update = update  # type: ignore[method-assign]
        yield shown
        progress.update(task, completed=shown.total or shown.done, total=shown.total or shown.done or 1)


@contextmanager
def _log(name: str, unit: str, total: float | None) -> Iterator[Stage]:
    """Into the log of the flow run, where the Prefect page shows it."""
    logger = _logger()
    logger.info("%s begins%s", name, f": {short(total)} {unit}" if total else "")
    with _lines(name, unit, total, logger.info) as shown:
        yield shown


def _logger() -> logging.Logger | logging.LoggerAdapter:
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("ratoon")


@contextmanager
def _lines(name: str, unit: str, total: float | None, say) -> Iterator[Stage]:  # type: ignore[no-untyped-def]
    shown = Stage(name, unit, total)
    last = time.monotonic()

    def update(done: float, total: float | None = None, note: str = "") -> None:
        nonlocal last
        Stage.update(shown, done, total, note)
        if time.monotonic() - last >= EVERY_SECONDS:
            say(shown.line())
            last = time.monotonic()

    shown.update = update  # type: ignore[method-assign]
    yield shown
    say(shown.line())


def short(number: float | None) -> str:
    """1234567 as 1.2M."""
    if number is None:
        return "?"
    for limit, sign in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.{1 if number < 100 * limit else 0}f}{sign}"
    return f"{number:.0f}"


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def warn(text: str) -> None:
    """What did not stop the work and a person should know."""
    if os.environ.get(SHOWN):
        print(f"note: {text}", file=sys.stderr, flush=True)
    else:
        _logger().warning(text)
