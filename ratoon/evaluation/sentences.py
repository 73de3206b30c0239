"""What the gate says of a demand: a sentence with its numbers."""

from collections.abc import Callable
from typing import Literal

from ratoon.config import GateConfig
from ratoon.records import Comparison, Interval
from ratoon.records.verdict import Kind, State


def asked_of(item: Comparison, config: GateConfig) -> tuple[Kind, Literal["refuse", "ask"]]:
    """Which demand a comparison belongs to, and what follows where it is neither shown nor contradicted."""
    if item.metric == "accuracy":
        return "benchmark", config.unshown.benchmarks
    return ("gain", config.unshown.gain) if item.role == "domain" else ("retention", config.unshown.retention)


def gain(item: Comparison, config: GateConfig) -> str:
    asked = f"at least {_limit(config.min_domain_gain).lstrip('+')}% lower" if config.min_domain_gain else "lower"
    return f"domain text {item.source}: bits per byte {_percent(_relative(item))}, asked for {asked}"


def retention(item: Comparison, config: GateConfig) -> str:
    allowed = f"allowed {_limit(config.max_general_loss)}%" if config.max_general_loss else "no rise allowed"
    return f"general text {item.source}: bits per byte {_percent(_relative(item))}, {allowed}"


def benchmark(item: Comparison, config: GateConfig) -> str:
    arms = f"accuracy {item.parent.value:.1%} to {item.candidate.value:.1%}"
    allowed = f"allowed {_limit(-config.max_benchmark_loss)}" if config.max_benchmark_loss else "no fall allowed"
    return f"{item.benchmark} on {item.source}: {arms}, {_hundredths(item.difference, ' points')}, {allowed}{cut(item)}"


def cut(item: Comparison) -> str:
    """How much was asked without the beginning of its context; nothing where all was read."""
    if not item.truncated or item.requests is None:
        return ""
    share = f"{item.truncated:,} of {item.requests:,} contexts"
    return f"; {share} lost their beginning: most was not read whole" if mostly_cut(item) else f", {share} cut"


def mostly_cut(item: Comparison) -> bool:
    return item.truncated is not None and item.requests is not None and 2 * item.truncated > item.requests


SHORT: dict[str, Callable[[Comparison, GateConfig], str]] = {
    "gain": gain,
    "retention": retention,
    "benchmark": benchmark,
}


def missed(kind: Kind, state: State, item: Comparison, config: GateConfig) -> str:
    """What is wrong with it; nothing where it is met."""
    if state == "shown":
        return ""
    if kind == "gain":
        if state == "contradicted":
            return "; too little" if _relative(item).value < 0 else "; it is a loss"
        size = "a gain of that size" if config.min_domain_gain else "a gain"
        return f"; {size} is not shown{_power(item, -config.min_domain_gain, -1)}"
    if state == "contradicted":
        return "; too much"
    if kind == "retention":
        return f"; that it stays below is not shown{_power(item, config.max_general_loss, -1)}"
    return f"; that it stays above is not shown{_power(item, -config.max_benchmark_loss, 1)}"


def _power(item: Comparison, limit: float, better: Literal[-1, 1]) -> str:
    """What the truth would have to be for this many documents to show it."""
    if item.detectable is None or item.documents is None:
        return ", more items would tell"
    unit, beyond = " points" if item.metric == "accuracy" else "%", "less" if better < 0 else "more"
    truth = limit + better * item.detectable
    if abs(truth) > 1:
        return f" ({item.documents} documents are too few: no change could be seen)"
    return f" ({item.documents} documents show it where the truth is {100 * truth:+.1f}{unit} or {beyond})"


def unseen(item: Comparison) -> bool:
    """Whether no change could be seen: nothing gets better by more than all of it."""
    return item.detectable is not None and item.detectable > 1


def _relative(item: Comparison) -> Interval:
    assert item.relative is not None, "bits per byte are compared with their relative change"
    return item.relative


def _percent(change: Interval) -> str:
    return _hundredths(change, "%")


def _hundredths(change: Interval, unit: str) -> str:
    digits = decimals(change)
    value, low, high = (f"{100 * x:+.{digits}f}" for x in (change.value, change.low, change.high))
    return f"{value}{unit} [{low}, {high}]"


def decimals(change: Interval) -> int:
    """Of a change in hundredths: so many that its ends stay apart, and on the side of zero where they are."""
    narrow = change.high - change.low < 0.002
    return 2 if narrow or any(x and abs(100 * x) < 0.05 for x in (change.low, change.high)) else 1


def _limit(x: float) -> str:
    """In hundredths, with its sign; a small one is not shown as none."""
    return f"{100 * x:+.1f}" if abs(100 * x) >= 0.05 else f"{100 * x:+.2g}"
