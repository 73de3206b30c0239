"""The first paragraph: what was decided, what was gained, what it cost, and what to do now, for anybody."""

import shlex
from collections.abc import Sequence

from ratoon.config import Role
from ratoon.evaluation.sentences import mostly_cut
from ratoon.records import Comparison, Decision, Refresh
from ratoon.report import facts, wording

WORDS: dict[Decision, str] = {"promote": "promoted", "refuse": "refused", "ask": "asks"}
TITLES: dict[Decision, str] = {"promote": "Promoted", "refuse": "Refused", "ask": "Asks a person"}


def paragraph(refresh: Refresh) -> str:
    said = [
        decided(refresh),
        changed(facts.headline(refresh, "domain"), "domain"),
        changed(facts.headline(refresh, "general"), "general"),
        answered([item for item in refresh.verdict.comparisons if item.metric == "accuracy"]),
        unread([item for item in refresh.verdict.comparisons if mostly_cut(item)]),
        took(refresh),
        following(refresh),
    ]
    return " ".join(sentence for sentence in said if sentence)


def decided(refresh: Refresh) -> str:
    name = f"version {refresh.version} of {refresh.line}" if refresh.version else f"the candidate of {refresh.line}"
    found = refresh.verdict.decision
    if found == "promote":
        return f"{name[0].upper()}{name[1:]} was promoted: it showed all that was asked and is now the one in use."
    if found == "ask":
        return f"A person has to decide about {name}: the scores neither show nor rule out what was asked."
    return f"{name[0].upper()}{name[1:]} was refused; the model in use stays as it was."


def changed(items: Sequence[Comparison], role: Role) -> str:
    """A lower bits per byte is a better prediction of text the model never read."""
    known = [item for item in items if item.relative and wording.known(item.relative.value)]
    what = "new (domain)" if role == "domain" else "general"
    if not known:
        return f"How well it predicts {what} text was not measured."
    parts = [moved(item) for item in known]
    return f"On {what} text it predicts {'; '.join(parts)}."


def moved(item: Comparison) -> str:
    assert item.relative is not None
    change = item.relative
    on = f"{item.source}"
    if item.outcome == "tie":
        return f"{on} as well as its parent does, as far as {item.items:,} texts can tell ({range_of(item)})"
    said = f"{on} {wording.change(abs(change.value), wording.digits_for(change)).lstrip('+')}"
    return f"{said} {'better' if item.outcome == 'win' else 'worse'} than its parent ({range_of(item)})"


def range_of(item: Comparison) -> str:
    """As changes of bits per byte, where less is better."""
    assert item.relative is not None
    digits = wording.digits_for(item.relative)
    ends = (wording.change(x, digits) for x in (item.relative.low, item.relative.high))
    return f"bits per byte {wording.span(*ends)}"


def answered(items: Sequence[Comparison]) -> str:
    """How it does on questions; what got worse first."""
    if not items:
        return ""
    if all(item.outcome == "tie" for item in items):
        count = sum(item.items for item in items)
        return f"It answers questions as well as its parent does, as far as {count:,} of them can tell."
    said = {"loss": "worse", "win": "better", "tie": "as well, as far as can be told,"}
    parts = []
    for outcome, how in said.items():
        found = [answers(item) for item in items if item.outcome == outcome]
        parts += [f"{how} on {' and '.join(found)}"] if found else []
    return f"Against its parent it answers questions {', '.join(parts)}."


def unread(items: Sequence[Comparison]) -> str:
    """Asked so that it could hardly be answered."""
    if not items:
        return ""
    named = " and ".join(name_of(item) for item in items)
    return f"More than half of what is asked by {named} lost its beginning for want of room."


def name_of(item: Comparison) -> str:
    return item.benchmark if item.benchmark == item.source else f"{item.benchmark} of {item.source}"


def answers(item: Comparison) -> str:
    points = wording.points(item.difference.value, wording.digits_for(item.difference))
    return f"{name_of(item)} ({points.replace('pp', 'points')})"


def took(refresh: Refresh) -> str:
    if not refresh.seconds:
        return ""
    return f"All of it took {wording.duration(sum(refresh.seconds.values()))}."


def following(refresh: Refresh) -> str:
    """What to do next."""
    found = refresh.verdict.decision
    if found == "promote":
        return "Nothing needs to be done; should users complain, ratoon rollback brings the former model back."
    if found == "ask" and refresh.version is not None:
        return "Read the reasons below; if they are acceptable, promote it by hand with the command below."
    if found == "ask":
        return "It is not registered; read the reasons below and refresh again."
    return "Read the reasons below; refresh again with more text, more tokens or another share, or leave it."


def command(refresh: Refresh) -> str | None:
    """What promotes it by hand; None where nobody was asked."""
    if refresh.verdict.decision != "ask" or refresh.version is None:
        return None
    model = (
        ""
        if refresh.params.get("refresh", {}).get("model") == refresh.line
        else f" --model {shlex.quote(refresh.line)}"
    )
    return f"ratoon promote {refresh.version} --by 'YOUR NAME' --because 'WHY'{model}"
