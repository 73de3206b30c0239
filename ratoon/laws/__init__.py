"""Scaling laws on anybody's runs: fit them, see what the runs decide, choose a ratio.

    from ratoon.laws import LAWS, choose, fit, read_runs

    runs = read_runs("runs.csv", "general=loss_web,domain=loss_code")
    fitted = fit(LAWS["chinchilla"], {"N": sizes, "D": tokens}, losses)
    choice = choose(runs.observations(), params_non_embedding=..., tokens=..., ...)

Beside the share: `choose_scarce` (text that runs out), `allocate` (compute), `choose_rate` and `choose_stage` (learning
rate and schedule), `choose_mixture` (many domains), `transfer` and `foretell` (a domain nobody has swept), `advise`
(which run next).

Arrays in, named tuples and frozen records out. Nothing here draws, trains or talks to a server; numpy and scipy are all
that is loaded, and scikit-learn where many domains are asked about. docs/choosing-the-ratio.md walks through it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ratoon.laws.catalog import LAWS, MIXTURES, law_named
from ratoon.laws.decision.allocate import Allocation, allocate
from ratoon.laws.decision.believe import Believed, believe
from ratoon.laws.decision.choose import choose, fit_report
from ratoon.laws.decision.evidence import Evidence, HeldOutPoint, calibrate
from ratoon.laws.decision.goals import Stakes
from ratoon.laws.decision.joint import Space, Stage, best_stage
from ratoon.laws.decision.newcomer import Newcomer, foretell
from ratoon.laws.decision.rates import RateChoice, choose_rate
from ratoon.laws.decision.scarce import ScarceChoice, choose_scarce
from ratoon.laws.decision.stage import StageChoice, choose_stage
from ratoon.laws.decision.study import Study, study
from ratoon.laws.design.advice import advise
from ratoon.laws.design.next_run import Rule
from ratoon.laws.design.transfer import Domain, Transfer, transfer
from ratoon.laws.fitting.fit import Fit, fit
from ratoon.laws.fitting.folds import Fold, leave_out
from ratoon.laws.fitting.objective import ABSOLUTE, HUBER, SQUARES, Objective
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Exponent, Form, Law, Settled
from ratoon.laws.intervals.forecast import Forecast, Replicates, bootstrap, forecast
from ratoon.laws.tables.bring import read_runs
from ratoon.laws.tables.reading import read_sheet
from ratoon.laws.tables.runtable import RunTable

if TYPE_CHECKING:
    from ratoon.laws.mixtures.choose import MixtureChoice, choose_mixture
    from ratoon.laws.mixtures.limits import Goal, Limits
    from ratoon.laws.mixtures.runs import MixtureRuns
    from ratoon.laws.mixtures.validate import compare

# Of many domains: imported when asked for, since they load scikit-learn.
MANY = {
    "Goal": "limits",
    "Limits": "limits",
    "MixtureChoice": "choose",
    "MixtureRuns": "runs",
    "choose_mixture": "choose",
    "compare": "validate",
}


def __getattr__(name: str) -> Any:
    if name not in MANY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"ratoon.laws.mixtures.{MANY[name]}"), name)


# `fit`, `choose`, `study`, `allocate` and `transfer` are the functions, not the modules of the same names: import those
# by their full paths.
__all__ = [
    "ABSOLUTE",
    "HUBER",
    "LAWS",
    "MIXTURES",
    "SQUARES",
    "Allocation",
    "Believed",
    "Domain",
    "Evidence",
    "Exponent",
    "Fit",
    "Fold",
    "Forecast",
    "Form",
    "Goal",
    "HeldOutPoint",
    "Law",
    "Limits",
    "MixtureChoice",
    "MixtureRuns",
    "Newcomer",
    "Objective",
    "RateChoice",
    "Replicates",
    "Rule",
    "RunTable",
    "Runs",
    "ScarceChoice",
    "Settled",
    "Space",
    "Stage",
    "StageChoice",
    "Stakes",
    "Study",
    "Transfer",
    "advise",
    "allocate",
    "believe",
    "best_stage",
    "bootstrap",
    "calibrate",
    "choose",
    "choose_mixture",
    "choose_rate",
    "choose_scarce",
    "choose_stage",
    "compare",
    "fit",
    "fit_report",
    "forecast",
    "foretell",
    "law_named",
    "leave_out",
    "read_runs",
    "read_sheet",
    "study",
    "transfer",
]
