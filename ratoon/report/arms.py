"""Was the refresh worth it? Its arms as plain text: at most 80 columns of ASCII, and a sentence for each."""

import textwrap
from collections.abc import Iterator, Sequence

from ratoon.evaluation.arms import Arm, Arms, Cost, Expected
from ratoon.records import Comparison, Interval
from ratoon.report import wording
from ratoon.report.terminal import WIDTH

NAMES = {
    "few_shot": "the parent shown drawn passages",
    "retrieved": "the parent with retrieved context",
    "scratch": "random weights trained as long",
    "domain_only": "training on domain text alone",
    "replay_only": "training on general text alone",
    "second_seed": "the same training with another seed",
}
VERBS = {"beat": "The refresh beat", "tied": "The refresh tied with", "lost": "The refresh lost to"}
SHOWN = ("few_shot", "retrieved")
TIMES = 1.005  # a factor nearer to 1 is no difference


def text(found: Arms) -> str:
    """Two tables, and what they say."""
    lines = [f"{found.refresh}: was it worth it?", "", *scores(found), "", *costs(found), ""]
    for sentence in sentences(found):
        lines += [*plain(sentence), ""]
    return "\n".join(lines).rstrip()


def scores(found: Arms) -> Iterator[str]:
    yield f"{'':<12}{'on':<25}{'scored':>7}   the refresh against it"
    for name, comparisons in [("parent", found.against_parent), *((arm.name, arm.comparisons) for arm in found.arms)]:
        for number, item in enumerate(comparisons):
            yield f"{name if number == 0 else '':<12}{row(item)}"


def row(item: Comparison) -> str:
    if item.relative is not None:
        what, value, change = "bits/byte", f"{item.parent.value:.3f}", moved(item.relative, "%")
    else:
        what, value, change = item.benchmark, f"{100 * item.parent.value:.1f}%", moved(item.difference, "p")
    return f"{ascii_of(f'{item.source} {what}')[:24]:<25}{value:>7}   {change:<24} {item.outcome}"


def moved(change: Interval, unit: str) -> str:
    digits = wording.digits_for(change)
    ends = f"[{100 * change.low:+.{digits}f}, {100 * change.high:+.{digits}f}]"
    return f"{100 * change.value:+.{digits}f}{unit} {ends}"


def costs(found: Arms) -> Iterator[str]:
    yield f"{'':<12}{'trained on':>12}{'operations':>12}{'time':>13}   {'reading':>9}{'scored in':>13}"
    every = [("refresh", found.cost), ("parent", found.parent_cost), *((arm.name, arm.cost) for arm in found.arms)]
    for name, cost in every:
        reads = f"{times(cost, found.cost):.2f}x" if found.cost.reading_flops else "-"
        spent = f"{cost.training_flops:.2e}" if cost.training_tokens else "-"
        time = wording.duration(cost.training_seconds) if cost.training_seconds is not None else "-"
        scored = wording.duration(cost.scoring_seconds) if cost.scoring_seconds is not None else "-"
        tokens = wording.compact(cost.training_tokens) if cost.training_tokens else "-"
        yield f"{name:<12}{tokens:>12}{spent:>12}{time:>13}   {reads:>9}{scored:>13}"


def times(cost: Cost, candidate: Cost) -> float:
    return per_byte(cost) / per_byte(candidate)


def per_byte(cost: Cost) -> float:
    """Operations of reading a byte of held-out text."""
    return cost.reading_flops / max(1, cost.reading_bytes)


def estimate(found: Sequence[Expected]) -> str:
    """What each arm would cost."""
    lines = [f"{'':<12}{'train on':>10}{'operations':>12}{'time':>14}{'rows':>9}{'time':>13}{'disk':>10}"]
    for arm in found:
        tokens = wording.compact(arm.training_tokens) if arm.training_tokens else "-"
        spent = f"{arm.training_flops:.2e}" if arm.training_tokens else "-"
        time = wording.duration(arm.training_seconds) if arm.training_tokens else "-"
        disk = wording.size(arm.disk_bytes) if arm.disk_bytes else "-"
        scored = wording.duration(arm.scoring_seconds)
        lines.append(f"{arm.name:<12}{tokens:>10}{spent:>12}{time:>14}{arm.rows:>9,}{scored:>13}{disk:>10}")
    left = [arm for arm in found if not arm.measured]
    seconds = wording.duration(sum(arm.training_seconds + arm.scoring_seconds for arm in left))
    there = f"; already there: {len(found) - len(left)}" if len(left) < len(found) else ""
    lines += ["", *plain(f"In all {seconds}, as fast as the candidate was trained{there}.")]
    if shown := max((arm.shown_bytes for arm in left), default=0):
        lines += plain(f"Up to {wording.size(shown)} of training text is read and indexed first, in memory.")
    return "\n".join(lines)


# ---------------------------------------------------------------- in words


def sentences(found: Arms) -> Iterator[str]:
    yield headline(found)
    noise = {
        key(item): abs(item.relative.value)
        for arm in found.arms
        if arm.name == "second_seed"
        for item in arm.comparisons
        if item.relative
    }
    for arm in found.arms:
        yield " ".join([standing(arm, noise), *price(arm, found.cost), *shown(arm), *noted(arm)])


def headline(found: Arms) -> str:
    """Of the ways that cost less training than the refresh."""
    cheaper = [arm for arm in found.arms if arm.cost.training_flops * TIMES < found.cost.training_flops]
    if not cheaper:
        return "No arm was cheaper to make than the refresh; those below cost as much."
    others = [f"{arm.name} ({arm.standing})" for arm in cheaper if arm.standing != "beat"]
    if not others:
        return f"The refresh beat all {len(cheaper)} cheaper ways that were measured."
    return f"Of {len(cheaper)} cheaper ways the refresh beat {len(cheaper) - len(others)}; not {', '.join(others)}."


def standing(arm: Arm, noise: dict[tuple[str, str], float]) -> str:
    texts = [item for item in arm.comparisons if item.relative is not None]
    if arm.name == "second_seed":
        return (
            f"The same training with another seed, against which the refresh is {joined(texts, {})}: so much is noise."
        )
    name = NAMES.get(arm.name, arm.name)
    if arm.standing == "mixed":
        parts = (("beat", "win"), ("lost to", "loss"), ("tied with", "tie"))
        told = [
            f"{verb} it on {joined([item for item in texts if item.outcome == outcome], noise)}"
            for verb, outcome in parts
            if any(item.outcome == outcome for item in texts)
        ]
        return f"Against {name} the refresh {', '.join(told)}."
    return f"{VERBS[arm.standing]} {name}: {joined(texts, noise)}."


def joined(items: Sequence[Comparison], noise: dict[tuple[str, str], float]) -> str:
    return f"bits per byte {', '.join(said(item, noise) for item in items)}"


def said(item: Comparison, noise: dict[tuple[str, str], float]) -> str:
    assert item.relative is not None
    remarks = ["a tie"] if item.outcome == "tie" else []
    remarks += ["no more than another seed makes"] if abs(item.relative.value) <= noise.get(key(item), 0.0) else []
    remark = f" ({', '.join(remarks)})" if remarks else ""
    return f"{moved(item.relative, '%')} on {item.source}{remark}"


def key(item: Comparison) -> tuple[str, str]:
    return item.benchmark, item.source


def price(arm: Arm, candidate: Cost) -> Iterator[str]:
    """What the arm costs beside the refresh, in making and in use."""
    if not arm.cost.training_tokens:
        if not candidate.reading_flops:
            return
        factor = times(arm.cost, candidate)
        yield f"It trains nothing and costs {factor:.2f}x as many operations per byte that it reads."
        if factor > TIMES:
            after = candidate.training_flops / (per_byte(arm.cost) - per_byte(candidate))
            yield f"The refresh has made up for its training after {wording.size(after)} of text."
        return
    factor = arm.cost.training_flops / candidate.training_flops
    yield f"It was trained with {factor:.2f}x the operations of the refresh."


def shown(arm: Arm) -> Iterator[str]:
    told = arm.told
    if told is None or not told.places:
        return
    yield (
        f"Shown were at most {told.tokens} tokens in front of {told.own_tokens} of its own; "
        f"{wording.share(told.with_text / told.places)} of {told.places:,} places had some, "
        f"{told.shown_tokens / max(1, told.with_text):.0f} tokens on average"
        + (f"; {told.without_room:,} had no room for all." if told.without_room else ".")
    )


def noted(arm: Arm) -> Iterator[str]:
    yield from (f"{note[0].upper()}{note[1:]}." for note in arm.notes)


def plain(sentence: str) -> list[str]:
    return textwrap.wrap(ascii_of(sentence), WIDTH)


def ascii_of(said: str) -> str:
    """Names come from files: what a terminal would obey is shown as a question mark instead."""
    clean = "".join(c if c.isprintable() else "?" for c in said)
    return clean.replace(wording.MINUS, "-").encode("ascii", "replace").decode()
