"""The run that would narrow a choice most per FLOP, told with the choice."""

from collections.abc import Mapping, Sequence

import numpy as np

from ratoon.config import Role
from ratoon.laws.decision.goals import Stakes
from ratoon.laws.design.belief import Belief, believe_weakly
from ratoon.laws.design.lookahead import DULL
from ratoon.laws.design.next_run import STEP, Option, Proposal, Rule, options, price, propose
from ratoon.laws.design.rows import Rows
from ratoon.laws.form import Array
from ratoon.laws.tables.parents import SAME
from ratoon.laws.tables.table import Table, tabulate
from ratoon.records import Choice, FurtherRun, Observation

HORIZONS = 6


def advise(
    choice: Choice,
    observations: Sequence[Observation],
    *,
    stakes: Stakes,
    rule: Rule,
    among: Sequence[Option] | None = None,
    decay_share: float = 0.2,
) -> Choice:
    """`choice` with the run that would narrow it most per FLOP, and what it would buy.

    among  runs that could be made; None: any STEP of the share at the sizes and horizons that were run, but for what
           was run as long there already, as trunks with decays of `decay_share`

    Runs once more as long are looked at too: a law's doubt grows beyond the longest run. What it would take off is
    foreseen by laws with weak priors, as a part of the choice's own interval and regret: these also hold what no prior
    knows of.
    """
    tables, _ = tabulate(observations)
    rows = {role: Rows.of(table) for role, table in tables.items()}
    belief = believe_weakly(rows, params=choice.params_non_embedding, tokens=choice.tokens, stakes=stakes)
    runs = tables["general"].runs
    if among is None:
        horizons = spaced(runs.tokens[runs.params == runs.params.max()])
        tried = _trunks(np.unique(runs.params).tolist(), horizons, decay_share)
        among = [one for one in tried if max(one.horizons) > SAME * _made(tables["general"], one)]
    found = propose(belief, [*among, *_longer(choice, tables, decay_share)], rule)
    return choice.model_copy(update={"further": _told(found[0], belief, choice, rule) if found else None})


def spaced(tokens: Array) -> list[float]:
    """The lengths that a further run would be measured at: those of the runs, of many HORIZONS alone, the last among
    them. Every checkpoint would be one more, and what all options could measure is laid out together."""
    lengths = np.unique(tokens)
    if len(lengths) > HORIZONS:
        even = np.linspace(np.log(lengths[0]), np.log(lengths[-1]), HORIZONS)
        lengths = lengths[np.unique(np.abs(np.log(lengths)[:, None] - even).argmin(axis=0))]
    return [float(length) for length in lengths]


def _longer(choice: Choice, tables: Mapping[Role, Table], decay_share: float) -> list[Option]:
    """Runs of the target's size, once more as long as the longest there is, where that is not yet the target itself."""
    runs = tables["general"].runs
    horizons = spaced(runs.tokens)
    horizons.append(min(2 * horizons[-1], float(choice.tokens)))
    if horizons[-1] <= horizons[-2]:
        return []
    found = _trunks([float(choice.params_non_embedding)], horizons, decay_share)
    return [one for one in found if len(one.horizons) == len(horizons)]


def _trunks(sizes: Sequence[float], horizons: Sequence[float], decay_share: float) -> list[Option]:
    return options(
        sizes, horizons, [], lambda size, share, lengths: Option.trunk(share, size, lengths, decay_share).flops
    )


def _made(table: Table, option: Option) -> float:
    """Tokens of the longest run of that size and share."""
    there = (table.runs.params == option.params) & (np.abs(table.share - option.share) < STEP / 5)
    return float(table.runs.tokens[there].max(initial=0.0))


def _together(proposal: Proposal, width: float) -> str:
    """Said of a run that is dull alone: with how many that would follow it, it is not."""
    if proposal.narrows > DULL or not proposal.together:
        return ""
    left = [one.width / max(proposal.width_now, 1e-9) for one in proposal.together]
    for number, rest in enumerate(left, start=2):
        if -2 * np.log(max(rest, 1e-9)) > DULL:
            return f"; it helps only together with others: {number} runs would take the interval to {width * rest:.2f}"
    return f"; neither it nor {len(left) + 1} runs together would narrow the interval by more than a twentieth"


def _told(proposal: Proposal, belief: Belief, choice: Choice, rule: Rule) -> FurtherRun:
    interval = choice.best if belief.stakes.config.goal == "weighted" and choice.best else choice.interval
    width, regret = interval.high - interval.low, proposal.regret_now if choice.regret is None else choice.regret
    narrower = min(proposal.width_after / max(proposal.width_now, 1e-9), 1.0)
    cheaper = min(proposal.regret_after / max(proposal.regret_now, 1e-12), 1.0)
    saved, needed = regret * (1 - cheaper), price(belief, proposal.option.flops, rule)
    option = proposal.option
    run = (
        f"a run of {max(option.horizons):,.0f} tokens at share {option.share:g} ({option.params:,.0f} parameters) "
        f"would narrow the interval from {width:.2f} to {width * narrower:.2f}"
    )
    if width <= rule.width:
        reason = f"the interval is {width:.2f} wide already, {rule.width:g} was asked for"
    else:
        compared = "more" if saved > needed else "no more"
        elsewhere = "in a longer target run" if rule.price is None else "by sweep.price"
        reason = (
            f"{run} and save {saved:.2g} of regret, {compared} than the {needed:.2g} its FLOPs are worth {elsewhere}"
            f"{_together(proposal, width)}"
        )
    return FurtherRun(
        share=proposal.option.share,
        params_non_embedding=int(proposal.option.params),
        tokens=int(max(proposal.option.horizons)),
        flops=proposal.option.flops,
        width_now=width,
        width_after=width * narrower,
        regret_now=regret,
        regret_after=regret * cheaper,
        worth_it=width > rule.width and saved > needed,
        reason=reason,
    )
