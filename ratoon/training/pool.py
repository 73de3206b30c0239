"""Several runs at once on one machine, each in a process of its own."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing.synchronize import Event
from typing import TypeVar

from ratoon.training.asked import SIGNALS

X = TypeVar("X")
Y = TypeVar("Y")
_told: Event | None = None  # of a process of a pool: set when its runs are to end


def asked() -> bool:
    """Whether the run in this process is to end; never outside of a pool."""
    return _told is not None and _told.is_set()


def map_processes(
    function: Callable[[X], Y],
    items: list[X],
    workers: int,
    poll: Callable[[], None],
    ends: Callable[[], bool] = bool,
) -> list[Y]:
    """`function` over `items` in their order, `workers` at a time; `poll` is called about once a second.

    ends  whether all are to end now: `asked` then says so to each

    The first failure is raised, once the runs under way have ended; those not begun are dropped.
    """
    # Spawned: a forked copy of a process that has used torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    told = context.Event()
    with ProcessPoolExecutor(min(workers, len(items)), mp_context=context, initializer=begin, initargs=(told,)) as pool:
        futures = [pool.submit(function, item) for item in items]
        waiting = set(futures)
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                if ends():
                    told.set()
                poll()
                for future in done:
                    future.result()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                told.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


def begin(told: Event) -> None:
    """A process of a pool hears of signals from the one that began it, once, and ends when that one does."""
    global _told
    _told = told
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
