"""Room: what no version in use needs is told, or removed."""

from pathlib import Path

from prefect import flow
from prefect.states import Cancelled, Completed, State

from ratoon.config import Collect
from tasks.catch_up import given_way
from tasks.declared import FLOW
from tasks.job import Busy
from tasks.keep import collect

LOOK = Collect()  # type: ignore[call-arg]


@flow(name="gc", **FLOW)
def gc(ask: Collect = LOOK) -> State:
    """Say what would go by `retention`, or remove it. While a refresh is under way nothing is removed."""
    if why := given_way():
        return Cancelled(message=why)
    try:
        return Completed(message=collect(Path.cwd(), ask))
    except Busy as error:  # no fault of anybody's: the next one removes it
        return Cancelled(message=f"nothing was removed: {error}")
