"""What may be tried again: only what may heal by itself.

heals         a connection that was refused, reset or timed out (MLflow, S3, Prefect's API), a name that was not found
              for now, a lock that another process holds (SQLite's, DVC's, a training folder's)
does not      what a person has to mend (ConfigError, a full disk, a file that is not there), a refusal, what ran out of
              memory, and a training that was killed: its supervisor has started it again as often as makes sense
"""

import errno
import os
import socket
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from ratoon.training.faults import Ended, GaveUp
from ratoon.training.supervise import Killed
from tasks import reach

P = ParamSpec("P")
R = TypeVar("R")
# Of ValueError are ConfigError, pydantic's refusals and addresses that are none.
NEVER = (ValueError, Killed, GaveUp, Ended, MemoryError)
NETWORK = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)
# Prefect's client, and MLflow's of S3: by name, for a library nobody uses is not imported to ask.
LOST = {
    "httpx": ("NetworkError", "TimeoutException", "RemoteProtocolError"),
    "httpcore": ("NetworkError", "TimeoutException", "RemoteProtocolError"),
    "botocore": ("HTTPClientError", "ConnectionError"),
    "boto3": ("RetriesExceededError",),
}
WRAPPED = "S3UploadFailedError"  # boto3's, of whatever it was
# RATOON_PAUSES="1 5" where waiting is dearer, or weather longer.
PAUSES: list[float] = [float(pause) for pause in os.environ.get("RATOON_PAUSES", "10 30 90").split()]
BUSY_STATUS = (429, 500, 502, 503, 504)  # of a server that is away or has too much to do


def healing(name: str | Callable[[], str] | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task that is tried again in bad weather. Never cached: it is an event, and is not served from an earlier one.

    name  of its runs on the page; `{job.line}` stands for what the task is given
    """
    return task(
        task_run_name=name,
        cache_policy=NO_CACHE,
        retries=len(PAUSES),
        retry_delay_seconds=PAUSES,
        retry_condition_fn=weather,
    )


def weather(task: Any, run: Any, state: Any) -> bool:
    """Whether what the task failed of may heal in a minute."""
    return may_heal(state.result(raise_on_failure=False))


def midway(task: Any, run: Any, state: Any) -> bool:
    """The same, but only where there is work behind it that would be lost: a first question is answered at once."""
    return bool(flow_run.parent_flow_run_id) and weather(task, run, state)


def may_heal(error: object) -> bool:
    if not isinstance(error, Exception) or isinstance(error, NEVER):
        return False
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if type(error).__name__ == WRAPPED:
        return may_heal(error.__cause__ or error.__context__)
    if (status := status_of(error)) is not None:
        return status in BUSY_STATUS
    network = isinstance(error, OSError) and error.errno in NETWORK
    return network or reach.outage(error) or lost(error)


def lost(error: Exception) -> bool:
    return any(kind.__name__ in LOST.get(kind.__module__.split(".")[0], ()) for kind in type(error).__mro__)


def status_of(error: Exception) -> int | None:
    """Of the answer that a client (httpx, requests, botocore) holds to be a failure."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(response, "status_code", None)
    return found if isinstance(found, int) else None
