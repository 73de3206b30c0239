"""Back to the champion before."""

from pathlib import Path

from prefect import flow

from ratoon.config import Retreat
from tasks import announce
from tasks.approve import retreat
from tasks.declared import FLOW

LAST = Retreat()  # type: ignore[call-arg]


@flow(name="rollback", **FLOW)
def rollback(ask: Retreat = LAST) -> dict[str, str | int]:
    """Champion and previous change places; weights stay where they are. A second time brings the first back."""
    said = retreat(Path.cwd(), ask)
    announce.rolled_back(str(said["model"]), ask, int(said["from"]), int(said["to"]))
    return said
