"""Promote or refuse, and why. A pure function of what was measured: the same comparisons give the same verdict.

Three demands, each on the whole interval and not on the middle of it: domain text is predicted better, general text
not worse than the tolerance allows, and no benchmark falls further than it may. The last two are tests of
non-inferiority: "no significant loss" would let every noisy benchmark pass, here noise counts against the candidate.
"""

from collections.abc import Iterator
from typing import NamedTuple

from ratoon.config import GateConfig
from ratoon.records import Comparison, Interval, Verdict


class Finding(NamedTuple):
    met: bool
    reason: str


def judge(comparisons: tuple[Comparison, ...], config: GateConfig, parent: str, candidate: str) -> Verdict:
    """Promoted if every demand is met and nothing that had to be measured is missing. Failed demands come first.

    parent, candidate   what the two are called, for the record.
    """
    findings = [*missing(comparisons, config), *(finding(item, config) for item in comparisons)]
    findings.sort(key=lambda f: f.met)
    return Verdict(
        promoted=all(f.met for f in findings),
        reasons=tuple(f.reason for f in findings),
        comparisons=comparisons,
        parent=parent,
        candidate=candidate,
    )


def finding(item: Comparison, config: GateConfig) -> Finding:
    if item.metric == "accuracy":
        return benchmark(item, config)
    return domain(item, config) if item.role == "domain" else general(item, config)


def domain(item: Comparison, config: GateConfig) -> Finding:
    change = _relative(item)
    met = change.high < -config.min_domain_gain
    asked = f"at least {config.min_domain_gain:.1%} lower" if config.min_domain_gain else "lower"
    gain = "a gain of that size" if config.min_domain_gain else "a gain"
    short = "" if met else "; it is a loss" if change.low > 0 else f"; {gain} is not shown"
    return Finding(met, f"domain text {item.source}: bits per byte {_percent(change)}, asked for {asked}{short}")


def general(item: Comparison, config: GateConfig) -> Finding:
    change = _relative(item)
    met = change.high <= config.max_general_loss
    short = (
        "" if met else "; too much" if change.low > config.max_general_loss else "; that it stays below is not shown"
    )
    allowed = f"allowed {config.max_general_loss:+.1%}"
    return Finding(met, f"general text {item.source}: bits per byte {_percent(change)}, {allowed}{short}")


def benchmark(item: Comparison, config: GateConfig) -> Finding:
    change = item.difference
    met = change.low >= -config.max_benchmark_loss
    points = f"{100 * change.value:+.1f} points [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
    lost = change.high < -config.max_benchmark_loss
    short = "" if met else "; too much" if lost else "; that it stays above is not shown, more items would tell"
    return Finding(
        met,
        f"{item.benchmark} on {item.source}: accuracy {item.parent.value:.1%} to {item.candidate.value:.1%}, {points}, "
        f"allowed {-100 * config.max_benchmark_loss:+.1f}{short}",
    )


def missing(comparisons: tuple[Comparison, ...], config: GateConfig) -> Iterator[Finding]:
    """What nobody measured was not passed."""
    for role in ("domain", "general"):
        if not any(item.role == role and item.metric == "bits_per_byte" for item in comparisons):
            yield Finding(False, f"{role} text: bits per byte were not measured on any {role} source")
    # A loss of 1 is any loss: then no benchmark is asked for.
    if config.max_benchmark_loss < 1 and not any(item.metric == "accuracy" for item in comparisons):
        yield Finding(False, "benchmarks: no accuracy was measured, so a fall of it is not excluded")
    # A benchmark with items of its own is its own source, and is not looked for on others.
    made = [item for item in comparisons if item.source != item.benchmark]
    measured = {(item.benchmark, item.source) for item in made}
    for name in sorted({item.benchmark for item in made}):
        for source in sorted({item.source for item in made}):
            if (name, source) not in measured:
                yield Finding(False, f"{name} on {source}: not measured, though other sources have it")


def _relative(item: Comparison) -> Interval:
    assert item.relative is not None, "bits per byte are compared with their relative change"
    return item.relative


def _percent(change: Interval) -> str:
    return f"{100 * change.value:+.1f}% [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
