"""Several runs at once on one machine, each in a process of its own."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import TypeVar

X = TypeVar("X")
Y = TypeVar("Y")


def map_processes(function: Callable[[X], Y], items: list[X], workers: int, poll: Callable[[], None]) -> list[Y]:
    """`function` over `items` in their order, `workers` at a time; `poll` is called about once a second.

    The first failure is raised, once the runs under way have ended; those not begun are dropped.
    """
    # Spawned: a forked copy of a process that has used torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(items)), mp_context=context) as pool:
        futures = [pool.submit(function, item) for item in items]
        waiting = set(futures)
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                poll()
                for future in done:
                    future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]
