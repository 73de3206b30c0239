"""Several whole runs side by side."""

from collections.abc import Callable
from pathlib import Path

from pydantic import PositiveInt

from ratoon import records
from ratoon.config import Declared
from ratoon.records import Record
from ratoon.training.pool import map_processes
from ratoon.training.request import Request, Result
from ratoon.training.run import train
from ratoon.training.sweep import tokens_written


class BatchRequest(Declared):
    requests: tuple[Request, ...]
    workers: PositiveInt
    out: str


class BatchResult(Record):
    results: tuple[Result, ...]


def run_batch(request: BatchRequest, report: Callable[[int, int], None] | None = None) -> BatchResult:
    """Train each, `workers` at once. report(tokens so far, tokens in all) about once a second."""
    total = sum(one.recipe.tokens for one in request.requests)
    folders = [Path(one.out) for one in request.requests]

    def poll() -> None:
        if report:
            report(min(total, sum(tokens_written(folder) for folder in folders)), total)

    found = map_processes(train, list(request.requests), request.workers, poll)
    result = BatchResult(results=tuple(found))
    records.write(Path(request.out) / "result.json", result)
    return result
