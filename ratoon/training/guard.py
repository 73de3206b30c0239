"""train.budget: a run that would pass a limit is not begun, and the letter says what would fit."""

from collections.abc import Iterator
from typing import NamedTuple

from ratoon.config import ConfigError
from ratoon.config.budget import Budget
from ratoon.training.estimate import HOUR, Estimate
from ratoon.training.meter import at_rows
from ratoon.training.probe import Probe

GIB = 2**30


class Excess(NamedTuple):
    """A limit that would be passed."""

    field: str
    found: str
    allowed: str
    fits: str


def check(found: Estimate, probe: Probe, budget: Budget) -> None:
    """Raises ConfigError where the run would cost more than its budget."""
    passed = list(excesses(found, probe, budget))
    if not passed:
        return
    lines = [f"train.budget.{one.field}: {one.found}, allowed {one.allowed}; {one.fits}" for one in passed]
    raise ConfigError(
        "\n  ".join(
            [
                f"params.yaml: {found.name} is not begun, for it would not end within its budget:",
                *lines,
                f"estimated on this {found.device} at {found.tokens_per_second:,.0f} tokens/s: "
                f"`ratoon train --estimate` shows all of it; change what is named, or raise the limit",
            ]
        )
    )


def excesses(found: Estimate, probe: Probe, budget: Budget) -> Iterator[Excess]:
    hours = found.seconds.total / HOUR
    if budget.hours is not None and hours > budget.hours:
        yield Excess("hours", f"{hours:.3g} h", f"{budget.hours:g} h", in_time(found, budget.hours))
    if budget.money is not None and found.money is not None and found.money > budget.money:
        allowed = budget.money / found.money * hours
        yield Excess("money", f"{found.money:.4g}", f"{budget.money:g}", in_time(found, allowed))
    if budget.flops is not None and found.flops > budget.flops:
        steps = int(budget.flops / found.flops * found.steps)
        yield Excess("flops", f"{found.flops:.3g}", f"{budget.flops:.3g}", tokens(found, steps))
    if budget.memory is not None and found.memory.peak > budget.memory * GIB:
        peak = f"{found.memory.peak / GIB:.3g} GiB while in {found.memory.highest}"
        yield Excess("memory", peak, f"{budget.memory:g} GiB", in_memory(found, probe, budget.memory * GIB))


def in_time(found: Estimate, hours: float) -> str:
    spent = found.seconds
    rest = hours * HOUR - (spent.total - spent.train)
    if (steps := int(rest / spent.train * found.steps)) < 1:
        return (
            f"no run fits: start, evaluations and checkpoints alone take {spent.total - spent.train:.0f} s; "
            f"lower train.evaluations or train.checkpoints"
        )
    return tokens(found, steps)


def tokens(found: Estimate, steps: int) -> str:
    if steps < 1:
        return f"not one step of {found.step_tokens:,} tokens fits; lower train.rows_per_step, or take a smaller base"
    return f"train.tokens {steps * found.step_tokens:,} fits (now {found.tokens:,})"


def in_memory(found: Estimate, probe: Probe, limit: float) -> str:
    """The most rows per forward pass under the limit, where these are what fills it."""
    used = found.memory
    if max(used.evaluation, used.checkpoint) > limit:
        return f"{used.highest} needs this whatever train.micro_rows: take a smaller base, or rows of fewer tokens"
    # On ranks micro_rows is what one has of a step, which need not divide it; what is asked for must.
    rows = [n for n in range(1, found.micro_rows) if (found.rows_per_step or found.micro_rows) % n == 0]
    fitting = [n for n in rows if at_rows(probe.passes, n).peak_bytes <= limit]
    return f"train.micro_rows {max(fitting)} fits (now {found.micro_rows})" if fitting else "not even one row fits"
