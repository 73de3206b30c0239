"""A version becomes the champion by a person's word. Nothing waits for it: it is a run of its own, on any day."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow

from ratoon.config import Approval
from tasks import announce
from tasks.approve import approve
from tasks.declared import FLOW


@flow(name="promote", **FLOW)
def promote(ask: Approval) -> dict[str, Any]:
    """Check that the version is of this line, is what was judged, and loads; then move the champion's alias to it."""
    done = approve(Path.cwd(), ask)
    announce.approved(done.model, ask, done.replaces, done.report)
    return asdict(done)
