"""An archive of what cannot be made again."""

from pathlib import Path

from prefect import flow
from prefect.states import Cancelled, Completed, State

from ratoon.config import Archive
from tasks.catch_up import given_way
from tasks.declared import FLOW
from tasks.keep import archive

IN_USE = Archive()  # type: ignore[call-arg]


@flow(name="backup", **FLOW)
def backup(ask: Archive = IN_USE) -> State:
    """Write it beside those before, compare every hash, and remove the oldest beyond `operate.backup.keep`."""
    if why := given_way():
        return Cancelled(message=why)
    return Completed(message=archive(Path.cwd(), ask))
