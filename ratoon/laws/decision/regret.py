"""What being wrong is expected to cost: the chosen share against the best one of each draw.

    ceiling   mean of  max(0, L_d(chosen) - L_d(best)) + price max(0, L_g(chosen) - max(ceiling, L_g(smallest)))
    weighted  mean of  goal(chosen) - goal(best)

best, of a draw: the share of least domain loss among those under the ceiling in that draw, or the smallest share
where none is; for the weighted goal the share at which that is least. Nothing is charged for an overrun that no
share would have avoided. In nats per token of domain loss for the ceiling, relative to the parent's losses for
the weighted goal. It holds what the draws hold: not that all laws may be wrong, nor what the gate will catch.
"""

import numpy as np

from ratoon.laws.decision.believe import Believed, share_grid
from ratoon.laws.decision.goals import Stakes, allowed
from ratoon.laws.form import Array


def expected_regret(believed: Believed, stakes: Stakes, share: float, cap: float = 1.0) -> float:
    """Of choosing `share`, with domain text for a share of `cap` at most."""
    if stakes.config.goal == "weighted":
        shares = allowed(believed, cap)
    else:
        shares = share_grid(min(believed.smallest, cap), cap)
    general, domain = believed.draws("general", shares), believed.draws("domain", shares)
    chosen = believed.draws("general", share)[:, 0], believed.draws("domain", share)[:, 0]
    return float(regrets(general, domain, *chosen, stakes).mean())


def regrets(general: Array, domain: Array, chosen_general: Array, chosen_domain: Array, stakes: Stakes) -> Array:
    """(R,) from losses (R, n) over the shares in rising order that could be had, and (R,) at the chosen one."""
    if stakes.config.goal == "weighted":
        least = stakes.value(general, domain).min(axis=1)
        return np.maximum(stakes.value(chosen_general, chosen_domain) - least, 0.0)
    under = general <= stakes.ceiling
    under[:, 0] |= ~under.any(axis=1)
    best = np.where(under, domain, np.inf).min(axis=1)
    unavoidable = np.maximum(stakes.ceiling, general[:, 0])
    over = np.maximum(chosen_general - unavoidable, 0.0)
    return np.maximum(chosen_domain - best, 0.0) + stakes.config.overrun_price * over
