"""MLflow runs whose process was killed: they would say RUNNING for ever. The next refresh ends them, or `ratoon up`."""

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

from tasks import owner, reach, tracking

logger = logging.getLogger("ratoon")
UNFINISHED = "attributes.status = 'RUNNING'"


def bury() -> list[str]:
    """End as KILLED the runs whose process is certainly gone. Their ids; of a store that is away there are none.

    A run of another machine, or of a container, is left alone: whether that process lives cannot be seen from here.
    """
    ask = partial(reach.patiently, tracking.store(), waits=())
    try:
        client = tracking.client()
        dead = [run for run in unfinished(client, ask) if owner.is_gone(owner.parsed(run.data.tags))]
        for run in dead:
            ask(client.set_tag, run.info.run_id, "error", "its process was killed; found dead later")
            ask(client.set_terminated, run.info.run_id, "KILLED")
    except tracking.TrackingUnavailable as error:
        logger.warning("runs that were killed are not looked for: %s", str(error).splitlines()[0])
        return []
    if dead:
        logger.info("ended in MLflow, for their process was killed: %s", ", ".join(sorted(map(name_of, dead))))
    return [run.info.run_id for run in dead]


def name_of(run: Any) -> str:
    return run.info.run_name or run.info.run_id


def unfinished(client: Any, ask: Any) -> Iterator[Any]:
    """Of every model line."""
    lines = [found.experiment_id for found in ask(client.search_experiments)]
    token = None
    while lines:
        page = ask(client.search_runs, lines, UNFINISHED, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
