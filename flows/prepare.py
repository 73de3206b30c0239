"""Bring the sources to their newest clean, packed edition, and have the base they are packed for."""

from pathlib import Path

from prefect import flow
from prefect.states import State

from ratoon.config import Ask
from tasks import announce, embedded
from tasks.declared import FLOW, left_for_later
from tasks.job import question_answered, resolve
from tasks.live import warn
from tasks.prepare import make_base, make_editions, open_job, push_editions, show_funnel
from tasks.room import check_prepare
from tasks.texts import BeingRead
from tasks.versions import RemoteUnavailable, owed

EVERYTHING = Ask()


@flow(name="prepare", **FLOW)
def prepare(ask: Ask = EVERYTHING) -> dict[str, list[str]] | State:
    """Ingest, clean and pack what is new in every source, through DVC; push the editions; make the base.

    Where a run under way reads a source that has new text, a deployment ends Cancelled: the next one takes it.
    """
    root = Path.cwd()
    params, base, sources = resolve(root, ask)
    check_prepare(root, base, sources)
    try:
        ran, _ = make_editions(root, ask)
    except BeingRead as error:
        return left_for_later(error)
    show_funnel(root, ask)
    make_base(root, ask)
    if params.refresh.push and (ran or owed(root)):
        push_editions_or_tell(root, params.refresh.push)
    if embedded.served() and not question_answered(job := open_job(root, ask)):
        announce.new_data(job.line, job.base.name, job.editions)
    return {"ran": ran}


def push_editions_or_tell(root: Path, asked: bool | str) -> None:
    """A remote that is away fails the run, unless params say `later`: the next one sends what is owed."""
    try:
        push_editions(root)
    except RemoteUnavailable as error:
        if asked != "later":
            raise
        warn(str(error))
