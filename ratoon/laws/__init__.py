"""Scaling laws on anybody's runs: fit them, see what the runs decide, choose a ratio.

    from ratoon.laws import LAWS, choose, fit, read_runs

    runs = read_runs("runs.csv", "general=loss_web,domain=loss_code")
    fitted = fit(LAWS["chinchilla"], {"N": sizes, "D": tokens}, losses)
    choice = choose(runs.observations(), params_non_embedding=..., tokens=..., ...)

Arrays in, named tuples and frozen records out. Nothing here draws, trains or talks to a server; numpy and scipy are all
that is loaded. docs/choosing-the-ratio.md walks through it.
"""

from ratoon.laws.catalog import LAWS, MIXTURES, law_named
from ratoon.laws.decision.choose import choose, fit_report
from ratoon.laws.decision.evidence import Evidence, HeldOutPoint, calibrate
from ratoon.laws.decision.study import Study, study
from ratoon.laws.fitting.fit import Fit, fit
from ratoon.laws.fitting.folds import Fold, leave_out
from ratoon.laws.fitting.objective import ABSOLUTE, HUBER, SQUARES, Objective
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Exponent, Form, Law, Settled
from ratoon.laws.intervals.forecast import Forecast, Replicates, bootstrap, forecast
from ratoon.laws.tables.bring import read_runs
from ratoon.laws.tables.runtable import RunTable

# `fit`, `choose` and `study` are the functions, not the modules of the same names: import those by their full paths.
__all__ = [
    "ABSOLUTE",
    "HUBER",
    "LAWS",
    "MIXTURES",
    "SQUARES",
    "Evidence",
    "Exponent",
    "Fit",
    "Fold",
    "Forecast",
    "Form",
    "HeldOutPoint",
    "Law",
    "Objective",
    "Replicates",
    "RunTable",
    "Runs",
    "Settled",
    "Study",
    "bootstrap",
    "calibrate",
    "choose",
    "fit",
    "fit_report",
    "forecast",
    "law_named",
    "leave_out",
    "read_runs",
    "study",
]
