"""Answers to the other questions a table of runs can be asked, as plain text: at most 80 columns, ASCII."""

from collections.abc import Sequence

from ratoon.laws.decision.allocate import Allocation
from ratoon.laws.decision.newcomer import Newcomer
from ratoon.laws.decision.rates import RateChoice
from ratoon.laws.decision.scarce import ScarceChoice
from ratoon.laws.decision.stage import StageChoice
from ratoon.laws.mixtures.choose import MixtureChoice
from ratoon.laws.mixtures.limits import Limits
from ratoon.records import Interval
from ratoon.report import wording
from ratoon.report.laws_text import WIDTH, entry, nats, notes_of

MARK = ">"  # of the row that is the answer
GAP = 2


def scarce(found: ScarceChoice) -> str:
    lines = [
        *entry("domain share", f"{found.share.value:.2f} [{found.share.low:.2f}, {found.share.high:.2f}]"),
        *entry("tokens", f"{_counts(found.tokens)} in the whole run"),
        *entry("read", f"{found.epochs:.3g} times"),
        *entry("because", f"{found.reason} (law: {found.law})"),
        *entry("domain", f"{nats(found.domain)} predicted"),
        *entry("general", f"{nats(found.general)} predicted"),
    ]
    bounded = any(one.sure is not None for one in found.curve)
    rows = [
        [
            MARK if one.share == found.share.value else "",
            f"{one.share:.2f}",
            wording.compact(one.tokens),
            f"{one.epochs:.3g}",
            _loss(one.domain),
            _loss(one.general),
            *([f"{one.sure:.0%}"] if one.sure is not None else []),
        ]
        for one in found.curve
    ]
    head = ["", "share", "tokens", "read", "domain", "general", *(["under"] if bounded else [])]
    return _page(lines, table(head, rows), found.warnings)


def allocation(found: Allocation, role: str) -> str:
    lines = [
        *entry("parameters", _counts(found.params)),
        *entry("tokens", f"{_counts(found.tokens)}, of which {found.share:.0%} domain text"),
        *entry(role, f"{nats(found.loss)} predicted"),
        *entry("because", f"{found.reason} (law: {found.law})"),
    ]
    rows = [
        [
            MARK if one.params == found.params.value else "",
            wording.compact(one.params),
            wording.compact(one.tokens),
            _loss(one.loss),
            f"{one.loss.value - found.loss.value:+.4f}",
        ]
        for one in found.curve
    ]
    return _page(lines, table(["", "parameters", "tokens", role, "lost"], rows), found.warnings)


def rate(found: RateChoice) -> str:
    lines = [
        *entry("domain share", f"{found.share.value:.2f} [{found.share.low:.2f}, {found.share.high:.2f}]"),
        *entry("peak rate", f"{found.rate.value:.3g} [{found.rate.low:.3g}, {found.rate.high:.3g}]"),
        *entry("because", found.reason),
        *entry("general", f"{nats(found.general)} predicted"),
        *entry("domain", f"{nats(found.domain)} predicted"),
    ]
    rows = [[f"{one.rate:.3g}", f"{one.share:.2f}", f"{one.general:.4f}", f"{one.domain:.4f}"] for one in found.curve]
    return _page(lines, table(["peak rate", "best share", "general", "domain"], rows), found.warnings)


def stage(found: StageChoice) -> str:
    best = found.best
    steps = f"{best.steps.value:,.0f} [{best.steps.low:,.0f}, {best.steps.high:,.0f}]"
    lines = [
        *entry("schedule", f"{best.schedule}, on the parent of {best.parent}"),
        *entry("peak rate", f"{best.peak.value:.3g} [{best.peak.low:.3g}, {best.peak.high:.3g}]"),
        *entry("steps", steps),
        *entry("domain share", f"{best.share.value:.2f} [{best.share.low:.2f}, {best.share.high:.2f}]"),
        *entry("general", f"{found.parent_general + best.general:.4f} nats/token, {best.general:+.4f} by the stage"),
        *entry("domain", f"{found.parent_domain + best.domain:.4f} nats/token, {best.domain:+.4f} by the stage"),
        *entry("unseen", ", ".join(f"{on} {wording.error(x)}" for on, x in found.unseen_error.items())),
    ]
    if best.at_ends:
        lines += entry("at the end", f"{', '.join(best.at_ends)}: the best is the first or last of those given")
    rows = [
        [
            MARK if one.schedule == best.schedule else "",
            one.schedule,
            f"{one.peak.value:.3g}",
            f"{one.steps.value:,.0f}",
            f"{one.share.value:.2f}",
            f"{one.general:+.4f}",
            f"{one.domain:+.4f}",
        ]
        for one in found.each
    ]
    head = ["", "schedule", "peak rate", "steps", "share", "general", "domain"]
    return _page(lines, table(head, rows, words=(1,)), found.warnings)


def mixture(found: MixtureChoice, limits: Limits) -> str:
    proof = "proven" if found.optimum.proven else "searched"
    lines = [
        *entry("regressor", f"{found.regressor}: {found.reason}"),
        *entry("goal", f"{found.goal:.4f} nats/token ({proof})"),
        *entry("regret", f"{found.expected_regret:.4f} expected, over {found.draws} resamples of whole runs"),
    ]
    others = list(found.second_opinion)
    rows = [
        [name, f"{share.value:.3f}", f"[{share.low:.3f}, {share.high:.3f}]", cap]
        + [f"{found.second_opinion[other][name]:.3f}" for other in others]
        for (name, share), cap in zip(found.shares.items(), _caps(found, limits), strict=True)
    ]
    blocks = [
        table(["domain", "share", "90%", "limit", *others], rows, words=(0, 3)),
        table(["loss of", "predicted"], [[name, _loss(loss)] for name, loss in found.predicted.items()], words=(0,)),
        table(
            ["regressor", "random", "regions", "score"],
            [[one.name, f"{one.random:.3f}", f"{one.region:.3f}", f"{one.score:.3f}"] for one in found.figures],
            words=(0,),
        ),
    ]
    foot = "random, regions: errors on runs left out so, in standard deviations of the loss"
    return _page(lines, "\n\n".join(blocks) + f"\n{foot}", found.warnings)


def _caps(found: MixtureChoice, limits: Limits) -> list[str]:
    """The limit that each share is at, if any."""
    near = 1e-4
    said: list[str] = []
    for share, low, high, cap in zip(found.mixture.values(), limits.low, limits.high, limits.caps, strict=True):
        at_cap = cap != "none" and share > high - near
        said.append(cap if at_cap else "minimum" if low > 0 and share < low + near else "-")
    return said


def newcomer(found: Newcomer) -> str:
    unseen = "" if found.unseen_error is None else f"; each foreseen from the others: off by {found.unseen_error:.1%}"
    lines = [
        *entry("new domain", f"{found.name}, by {', '.join(found.known)}{unseen}"),
        *entry("probe", f"starts at {found.initial_loss:.4f} nats, falls {found.decline_rate:.3g} per billion tokens"),
        *entry("at", f"{wording.compact(found.params)} parameters, {wording.compact(found.tokens)} tokens"),
    ]
    if found.own_runs:
        lines += entry("level", f"{found.level:+.4f} nats, by {found.own_runs} runs of its own")
    rows = [[f"{share:.3g}", f"{loss:.4f}"] for share, loss in zip(found.shares, found.losses, strict=True)]
    head = ["its share", "loss"]
    if found.intervals is not None:
        head.append("90%")
        rows = [[*row, f"{one.low:.3f} to {one.high:.3f}"] for row, one in zip(rows, found.intervals, strict=True)]
    return _page(lines, table(head, rows), found.warnings)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = ()) -> str:
    """Columns as wide as they need, numbers to the right; the last ones are left out where they do not fit."""
    widths = [max(len(line[k]) for line in (head, *rows)) for k in range(len(head))]
    fits = max(k for k in range(1, len(head) + 1) if sum(widths[:k]) + GAP * (k - 1) <= WIDTH or k == 1)
    return "\n".join(
        (" " * GAP)
        .join(
            f"{cell:<{width}}" if k in words else f"{cell:>{width}}"
            for k, (cell, width) in enumerate(zip(line[:fits], widths[:fits], strict=True))
        )
        .rstrip()
        for line in (head, *rows)
    )


def _page(lines: Sequence[str], body: str, warnings: Sequence[str]) -> str:
    return "\n".join([*lines, "", body, *filter(None, [notes_of(warnings)])]).replace(wording.MINUS, "-")


def _loss(interval: Interval) -> str:
    return f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def _counts(interval: Interval) -> str:
    value, low, high = (wording.compact(x) for x in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"
