"""One function per shard, on all cores of this machine or of a Ray cluster. What comes out does not depend on how many
there are: tasks read and write files by path, and a task that is begun again writes the same file again.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, NamedTuple, Protocol

from ratoon.config import ConfigError, Engine

# Below this many bytes of work, starting processes costs more than they save.
WORTH_A_POOL = 8 << 20
# Times a task is begun again whose worker died: a machine may go, a poison shard would kill every worker.
RETRIES = 3
AHEAD = 4  # tasks handed to Ray per worker, so that a million shards are no million tasks at once


class Seen(NamedTuple):
    """Documents so far."""

    kept: int
    dropped: int


class Report(Protocol):
    """Hears how far a stage is: bytes done, of how many (None: unknown), the phase and what it has just ended."""

    def __call__(self, done: int, total: int | None, what: str, seen: Seen | None = None) -> None: ...


def each(
    function: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    sizes: Sequence[int],
    engine: Engine | int | None = None,
) -> Iterator[tuple[int, Any]]:
    """(index, function(*tasks[index])) as they end, the largest begun first. `sizes` are bytes of work.

    `engine`: a number is that many processes; None: one per core, if there is enough to do. The first error ends
    everything; tasks not yet begun are dropped.
    """
    order = sorted(range(len(tasks)), key=lambda i: (-sizes[i], i))
    if isinstance(engine, Engine) and engine.kind == "ray" and tasks:
        yield from _on_ray(function, tasks, order, engine)
        return
    processes = engine.workers if isinstance(engine, Engine) else engine
    count = min(processes or os.cpu_count() or 1, len(tasks))
    if count <= 1 or (processes is None and sum(sizes) < WORTH_A_POOL):
        for i in order:
            yield i, function(*tasks[i])
        return
    # spawn, not fork: this process may already run threads of Arrow, a tokenizer or a flow engine, and a
    # forked child inherits their locks but not the threads that would open them.
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(function, *tasks[i]): i for i in order}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _on_ray(
    function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], order: list[int], engine: Engine
) -> Iterator[tuple[int, Any]]:
    with _cluster(engine) as ray:
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(function)
        at_once = engine.workers or int(ray.cluster_resources().get("CPU", 1)) * AHEAD
        waiting = list(reversed(order))
        running: dict[Any, int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    i = waiting.pop()
                    running[remote.remote(*tasks[i])] = i
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                yield running.pop(done), _result(ray, done)
        except BaseException:
            for reference in running:
                ray.cancel(reference, force=True)
            raise


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # Its own error, not Ray's account of it: people are told what is wrong with their text.
        raise error.cause from error
    except ray.exceptions.WorkerCrashedError as error:
        raise ConfigError(
            f"a worker died {RETRIES + 1} times on the same shard, as a rule for want of memory\n"
            f"  give Ray's workers more memory each, or cut the largest files of the source"
        ) from error


@contextmanager
def _cluster(engine: Engine) -> Iterator[Any]:
    """Ray, connected; a cluster of our own ends with the work."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError("params.yaml: prepare.engine: ray is not installed: pip install 'ratoon[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = engine.address or os.environ.get("RAY_ADDRESS")
    own: dict[str, Any] = (
        {} if address else {"num_cpus": engine.workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    )
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except OSError as error:
        raise ConfigError(
            f"params.yaml: prepare.engine: no Ray cluster answers at {address}; start it (ray start --head) or "
            f"correct the address"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Ray itself waits for minutes before it says that nobody is there."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
