"""One function per shard, on all cores. What comes out does not depend on how many there are."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

# Below this many bytes of work, starting processes costs more than they save.
WORTH_A_POOL = 8 << 20

Report = Callable[[int, int | None, str], None]  # done, total (None: unknown), what


def each(
    function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], sizes: Sequence[int], processes: int | None = None
) -> Iterator[tuple[int, Any]]:
    """(index, function(*tasks[index])) as they end, the largest begun first. `sizes` are bytes of work.

    The first error ends everything; tasks not yet begun are dropped.
    """
    order = sorted(range(len(tasks)), key=lambda i: (-sizes[i], i))
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
