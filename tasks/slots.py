"""A GPU is used by one run at a time: its slots are a global concurrency limit of Prefect's.

Made by `ratoon deploy`. Without a server there are none to take: then the lock of the model line is what there is.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.logging import get_run_logger

from ratoon.config import ConfigError
from tasks.embedded import served
from tasks.job import Job

LIMIT = "gpu"
LEASE_SECONDS = 300.0  # renewed while the run lives; a dead one's slots are free after that
SAY_SECONDS = 60.0
AWAY_SECONDS = 10.0


@contextmanager
def gpu_slots(job: Job) -> Iterator[None]:
    """Held while the block runs, where this machine would use a GPU for it. One for each training process."""
    if not served() or not wants_gpu(job):
        yield
        return
    with taken(job.params.train.processes):
        yield


def wants_gpu(job: Job) -> bool:
    from ratoon.lm.load import pick_device  # torch takes its time, and without a server nobody asks

    return pick_device(job.params.train.device).type == "cuda"


@contextmanager
def taken(slots: int, *, limit: str = LIMIT, lease: float = LEASE_SECONDS, say: float = SAY_SECONDS) -> Iterator[None]:
    """Wait for the slots, telling the page so, and give them back. Raises ConfigError where there are not as many.

    A lease that cannot be renewed for a while, the server being away, does not end a training of hours.
    """
    with ExitStack() as held:
        while not entered(held, slots, limit, lease, say):
            get_run_logger().info(f"waiting for {slots} of the slots of the limit `{limit}`: other runs hold them")
        yield


def entered(held: ExitStack, slots: int, limit: str, lease: float, say: float) -> bool:
    """Whether they were free, or became so within `say` seconds."""
    asked = concurrency(
        limit,
        occupy=slots,
        timeout_seconds=say,
        lease_duration=lease,
        strict=True,
        raise_on_lease_renewal_failure=False,
    )
    try:
        held.enter_context(asked)
    except TimeoutError:
        return False
    except ConcurrencySlotAcquisitionError as error:
        if away(error.__cause__):
            time.sleep(min(say, AWAY_SECONDS))
            return False
        raise ConfigError(
            f"Prefect has no {slots} slots of the concurrency limit {limit!r}: {error}\n"
            f"  declare operate.gpu_slots in params.yaml, then `ratoon deploy`"
        ) from error
    return True


def away(cause: BaseException | None) -> bool:
    """The server may come back; one that answers with a refusal does not change its mind."""
    if isinstance(cause, httpx.HTTPStatusError):
        return cause.response.status_code >= 500
    return cause is not None
