"""The end of a refresh as plain text: at most 80 columns, ASCII, read in ten seconds."""

import textwrap

from ratoon.config import Role
from ratoon.records import Choice, Comparison, Interval, Refresh
from ratoon.report import dip, facts, lead, wording

WIDTH = 80
INDENT = 12


def summary(refresh: Refresh) -> str:
    """Ratio and why, both kinds of text before and after, the verdict and its reasons, the version."""
    lines = [f"{lead.WORDS[refresh.verdict.decision].upper()}  {version(refresh)}", ""]
    lines += _entry("ratio", _ratio(refresh))
    roles: tuple[Role, ...] = ("domain", "general")
    for role in roles:
        found = facts.headline(refresh, role)
        lines += _entry(role, *([_before_after(c) for c in found] or [f"bits per byte {wording.ABSENT}"]))
    gaps = dip.gaps(refresh.curve)
    lines += _entry("on the way" if gaps else "", *gaps)
    lines += _entry("predicted", *(_prediction(p) for p in facts.predictions(refresh)))
    lines += _entry("one more" if refresh.choice.further else "", _further(refresh.choice))
    lines += _entry("why" if refresh.verdict.reasons else "", *refresh.verdict.reasons)
    by_hand = lead.command(refresh)
    lines += _entry("to promote" if by_hand else "", by_hand or "")
    lines += _entry("notes" if refresh.choice.warnings else "", _notes(refresh.choice.warnings))
    lines += _entry("took", _took(refresh))
    return "\n".join(lines)


def version(refresh: Refresh) -> str:
    """What the registry knows the candidate as."""
    if refresh.version is None:
        return f"candidate of {refresh.line}, not registered"
    name = f"{refresh.line} version {refresh.version}"
    if refresh.verdict.decision == "ask":
        return f"{name} is the challenger; the champion stays until a person decides"
    return f"{name} is the champion" if refresh.verdict.promoted else f"{name}; the champion stays"


def _ratio(refresh: Refresh) -> str:
    choice, room = refresh.choice, refresh.choice.interval
    span = wording.span(wording.share(room.low), wording.share(room.high))
    return (
        f"{wording.share(choice.share)} domain text: {choice.reason}; the largest share under the ceiling is "
        f"{span} ({wording.share(room.confidence)} confidence, {choice.law})"
    )


def _further(choice: Choice) -> str:
    """What another proxy run would buy."""
    return choice.further.reason if choice.further else ""


def _before_after(item: Comparison) -> str:
    change = item.relative
    moved = f"{wording.change(change.value)} [{_ends(change)}], " if change else ""
    before = f"{wording.loss(item.parent.value)} [{_range(item.parent)}]"
    after = f"{wording.loss(item.candidate.value)} [{_range(item.candidate)}]"
    return f"{item.source}: {moved}{item.outcome}\n{before} -> {after} bits per byte"


def _range(interval: Interval) -> str:
    return f"{wording.loss(interval.low)}, {wording.loss(interval.high)}"


def _ends(interval: Interval) -> str:
    digits = wording.digits_for(interval)
    return f"{wording.change(interval.low, digits)}, {wording.change(interval.high, digits)}"


def _prediction(item: facts.Prediction) -> str:
    found = f"measured {wording.loss(item.measured)}" if wording.known(item.measured) else wording.ABSENT
    off = f" ({wording.change(item.off)})" if item.off is not None else ""
    return f"{item.role} {wording.loss(item.predicted.value)} nats per token, {found}{off}"


def _notes(warnings: tuple[str, ...]) -> str:
    """The first, and how many more: ten seconds are no time for fine print."""
    more = f" (and {len(warnings) - 1} more in the report)" if len(warnings) > 1 else ""
    return f"{warnings[0]}{more}" if warnings else ""


def _took(refresh: Refresh) -> str:
    if not refresh.seconds:
        return wording.ABSENT
    stages = ", ".join(f"{stage} {wording.duration(s)}" for stage, s in refresh.seconds.items())
    return f"{wording.duration(sum(refresh.seconds.values()))}: {stages}"


def _entry(name: str, *texts: str) -> list[str]:
    """A name in the margin and its lines beside it, wrapped; nothing without a name."""
    if not name:
        return []
    lines = [line for text in texts for part in text.split("\n") for line in _wrapped(part)]
    return [f"{name if k == 0 else '':<{INDENT}}{line}" for k, line in enumerate(lines)]


def _wrapped(text: str) -> list[str]:
    # Names come from files: what a terminal would obey is shown as a question mark instead.
    clean = "".join(c if c.isprintable() or c.isspace() else "?" for c in text)
    ascii_text = clean.replace(wording.MINUS, "-").replace("\N{RIGHTWARDS ARROW}", "->")
    return textwrap.wrap(ascii_text, WIDTH - INDENT) or [""]
