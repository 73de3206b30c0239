"""The run that would narrow a choice most per FLOP, told with the choice."""

from collections.abc import Mapping, Sequence

import numpy as np

from ratoon.config import Role
from ratoon.laws.decision.goals import Stakes
from ratoon.laws.design.belief import Belief, believe_weakly
from ratoon.laws.design.next_run import Option, Proposal, Rule, options, price, propose
from ratoon.laws.design.rows import Rows
from ratoon.laws.form import Array
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

    among  runs that could be made; None: any STEP of the share at the sizes and horizons that were run, as trunks
           with decays of `decay_share`

    What it would take off is foreseen by laws with weak priors, as a part of the choice's own interval and regret:
    these also hold what no prior knows of.
    """
    tables, _ = tabulate(observations)
    rows = {role: Rows.of(table) for role, table in tables.items()}
    belief = believe_weakly(rows, params=choice.params_non_embedding, tokens=choice.tokens, stakes=stakes)
    runs = tables["general"].runs
    if among is None:
        made = set(zip(runs.params.tolist(), tables["general"].share.tolist(), strict=True))
        horizons = spaced(runs.tokens[runs.params == runs.params.max()])
        among = options(
            np.unique(runs.params).tolist(),
            horizons,
            made,
            lambda size, share, lengths: Option.trunk(share, size, lengths, decay_share).flops,
        )
    # Where nothing that could be made would tell, it is for want of length: a law's doubt grows beyond the longest run.
    found = propose(belief, among, rule) or propose(belief, _longer(choice, tables, decay_share), rule)
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
    found = options(
        [float(choice.params_non_embedding)],
        horizons,
        [],
        lambda size, share, lengths: Option.trunk(share, size, lengths, decay_share).flops,
    )
    return [one for one in found if len(one.horizons) == len(horizons)]


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
