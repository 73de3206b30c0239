"""What a step of proxies that are stacked costs, from a few of their own: neither one proxy's, nor the sum of all."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from ratoon.records import Record
from ratoon.training import probe
from ratoon.training.meter import REPEATS, Meter, Reading
from ratoon.training.pool import map_processes
from ratoon.training.request import Request
from ratoon.training.run import Run
from ratoon.training.stacked import Stack


class StackProbe(Record):
    members: int
    start_seconds: float
    step_seconds: float  # of all together
    peak_bytes: int
    state_bytes: int  # weights and what the optimizer remembers: a trunk is held twice while it branches


def measure_stack(requests: Sequence[Request], copies: int = 1) -> StackProbe:
    """Of `copies` such stacks at once, the slowest one's."""
    found = map_processes(try_stack, [tuple(requests)] * copies, copies, lambda: None)
    return max(found, key=lambda one: one.step_seconds)


def whole(request: Request) -> Request:
    """Without the steps of shorter rows at its beginning, which need less of everything."""
    mixture = request.recipe.mixture.model_copy(update={"lengths": ()})
    return request.model_copy(update={"recipe": request.recipe.model_copy(update={"mixture": mixture})})


def try_stack(requests: tuple[Request, ...]) -> StackProbe:
    """Real steps on real rows, whole ones where they grow; the first two warm up."""
    requests = tuple(whole(one) for one in requests)
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=probe.nearest(Path(requests[0].out))) as folder:
        begun = time.perf_counter()
        places = [str(Path(folder) / str(number)) for number in range(len(requests))]
        runs = [Run(one.model_copy(update={"out": place})) for one, place in zip(requests, places, strict=True)]
        stack = Stack(runs)
        start_seconds, meter = time.perf_counter() - begun, Meter(runs[0].model.device)
        steps, silent = requests[0].steps, [lambda step, values: None] * len(runs)
        readings: list[Reading] = []
        ends = time.perf_counter() + probe.SECONDS
        for number in range(1, min(steps, 2 + REPEATS) + 1):
            readings.append(meter.read(len(runs), lambda until=number: stack.advance(until, steps, silent)))  # type: ignore[misc]
            if number > 2 and time.perf_counter() > ends:
                break
        remembered = [value for state in stack.optimizer.state.values() for value in state.values()]
        return StackProbe(
            members=len(runs),
            start_seconds=start_seconds,
            step_seconds=median(one.seconds for one in readings[2:] or readings),
            peak_bytes=max(one.peak_bytes for one in readings),
            state_bytes=probe.size([*stack.weights.values(), *remembered]),
        )
