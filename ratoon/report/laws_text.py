"""A study of laws as plain text: at most 80 columns, ASCII."""

import textwrap
from collections.abc import Iterable
from typing import NamedTuple

from ratoon.laws.decision.evidence import Evidence
from ratoon.laws.decision.study import Study
from ratoon.records import Choice, Interval

WIDTH = 79
INDENT = 13
FOOT = (
    "belief: by the errors on runs left out. seen, unseen: median relative errors, of the runs fitted and of "
    "those left out in turn. agree: starts that reached this optimum. After +-: standard error, among the laws these "
    "runs allow; (fixed), at the (edge) of what the law allows, (loose): these runs do not decide it. N and D in "
    "billions."
)


class Parameter(NamedTuple):
    """As a table shows it; `open` says why these runs do not decide it: fixed, edge or loose."""

    text: str
    open: str


def parameters(one: Evidence) -> list[Parameter]:
    """Each with its standard error; without one where it was not fitted."""
    fixed = {*one.fit.settled.exponents, *one.fit.settled.absent}
    found = []
    for name, value in one.fit.params.items():
        if name in fixed:
            found.append(Parameter(f"{name}={value:.3g}", "fixed"))
            continue
        # A coefficient that a constraint holds still moves with the others; an exponent at its end does not.
        edge = name in one.fit.at_bounds
        still = edge and (value == 0 or name in one.fit.form.exponents)
        why = "edge" if edge else "loose" if name in one.fit.identification.loose else ""
        found.append(Parameter(f"{name}={value:.3g}" + ("" if still else f"+-{_error(one.errors[name])}"), why))
    return found


def _error(x: float) -> str:
    """Two digits, and none of them an exponent's where that can be had."""
    return f"{x:.0f}" if 10 <= x < 10_000 else f"{x:.2g}"


def table(study: Study) -> str:
    """Every law with its evidence."""
    width = max(6, *(len(one.law) for one in study.laws)) + 1
    head = f"{'law':<{width}}{'loss':<9}{'belief':>6}{'runs':>6}{'seen':>8}{'unseen':>8}{'agree':>7}{'condition':>11}"
    lines = [head]
    for one in study.laws:
        found = one.fit
        unseen = "?" if found.unseen_error is None else f"{found.unseen_error:.2%}"
        lines.append(
            f"{one.law:<{width}}{one.on:<9}{one.belief:>6.0%}{found.observations:>6}{found.seen_error:>8.2%}"
            f"{unseen:>8}{found.agreement:>7.0%}{found.identification.condition:>11.0e}"
        )
        words = " ".join(_marked(parameter) for parameter in parameters(one))
        lines.append(_wrapped(words, 4))
    if study.table.domains:
        domains = ", ".join(f"{number} {name}" for number, name in enumerate(study.table.domains))
        lines += _wrapped_lines(f"domains: {domains}", 2)
    return "\n".join([*lines, *_wrapped_lines(FOOT, 0)])


def _marked(parameter: Parameter) -> str:
    return f"{parameter.text}({parameter.open})" if parameter.open else parameter.text


def page(study: Study, written: str | None = None) -> str:
    """Laws, what they say of the target, and everything a reader should know before believing it."""
    blocks = [table(study), _outcome(study), notes_of(study.warnings)]
    if written:
        blocks.append(f"{'page':<{INDENT}}{written}")
    return "\n".join(block for block in blocks if block)


def choice(found: Choice, notes: Iterable[str] = ()) -> str:
    """The choice alone."""
    lines = [*_choice(found)]
    for role, interval in (("general", found.predicted_general), ("domain", found.predicted_domain)):
        lines += entry(role, f"{nats(interval)} predicted")
    return "\n".join([*lines, *_price(found), *filter(None, [notes_of([*notes, *found.warnings])])])


def _outcome(study: Study) -> str:
    lines: list[str] = []
    if study.choice:
        lines += _choice(study.choice)
    for on, interval in study.predicted.items():
        lines += entry(on, f"{nats(interval)} predicted")
    if study.choice:
        lines += _price(study.choice)
    return "\n".join(lines)


def _choice(choice: Choice) -> list[str]:
    largest = choice.interval
    best = choice.best
    return [
        *entry("domain share", f"{choice.share:.2f}"),
        *(entry("best", f"{best.value:.2f} [{best.low:.2f}, {best.high:.2f}] by the weighted goal") if best else ()),
        *entry("largest", f"{largest.value:.2f} [{largest.low:.2f}, {largest.high:.2f}] that keeps within tolerance"),
        *entry("because", f"{choice.reason} (law: {choice.law})"),
        *entry("ceiling", f"{choice.ceiling_nats:.4f} nats/token of general loss"),
    ]


def _price(choice: Choice) -> list[str]:
    lines = []
    if choice.second_opinion:
        others = ", ".join(
            f"{law} {share:.2f}" if share else f"{law} none" for law, share in choice.second_opinion.items()
        )
        lines += entry("other laws", others)
    if choice.regret is not None:
        lines += entry("regret", f"{choice.regret:.4f} expected, against the best share of each draw")
    if choice.drift:
        lines += entry("drift", choice.drift)
    if choice.further:
        lines += entry("further run", choice.further.reason)
    return lines


def nats(interval: Interval) -> str:
    return f"{interval.value:.4f} nats/token [{interval.low:.4f}, {interval.high:.4f}]"


def notes_of(warnings: Iterable[str]) -> str:
    return "\n".join(textwrap.fill(f"note: {warning}", WIDTH, subsequent_indent="      ") for warning in warnings)


def entry(name: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{name:<{INDENT}}", subsequent_indent=" " * INDENT)


def _wrapped(text: str, indent: int) -> str:
    return "\n".join(_wrapped_lines(text, indent))


def _wrapped_lines(text: str, indent: int) -> list[str]:
    pad = " " * indent
    return textwrap.wrap(text, WIDTH, initial_indent=pad, subsequent_indent=pad, break_on_hyphens=False)
