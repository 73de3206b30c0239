"""Several whole runs side by side."""

from collections.abc import Callable
from pathlib import Path

from pydantic import PositiveInt

from ratoon import records
from ratoon.config import Declared
from ratoon.records import Record
from ratoon.training.pool import asked, map_processes
from ratoon.training.request import Request, Result
from ratoon.training.sweep import tokens_written


class BatchRequest(Declared):
    requests: tuple[Request, ...]
    workers: PositiveInt
    out: str

    @property
    def grace_seconds(self) -> float:
        return max(one.grace_seconds for one in self.requests)


class BatchResult(Record):
    results: tuple[Result, ...]


def run_batch(
    request: BatchRequest, report: Callable[[int, int], None] | None = None, ends: Callable[[], bool] = bool
) -> BatchResult:
    """Train each, `workers` at once. report(tokens so far, tokens in all) about once a second.

    ends  whether all are to end before their ends. Raises Ended then, the state of each saved
    """
    total = sum(one.recipe.tokens for one in request.requests)
    folders = [Path(one.out) for one in request.requests]

    def poll() -> None:
        if report:
            report(min(total, sum(tokens_written(folder) for folder in folders)), total)

    found = map_processes(train_here, list(request.requests), request.workers, poll, ends)
    result = BatchResult(results=tuple(found))
    records.write(Path(request.out) / "result.json", result)
    return result


def train_here(request: Request) -> Result:
    from ratoon.training.run import train

    return train(request, asked)
