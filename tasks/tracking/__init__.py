"""The one door to MLflow: what was measured, and which model came of what.

Runs of one model line share an experiment of its name: refresh > sweep > proxy runs; train; assess. The registry
holds pointers: weights stay where training left them, and a version says where, with the digest of each file.

connection   which store, and how it is asked     runs, sweeps   what was asked, read, measured and made
spool        what it has not taken yet            registry       versions and their aliases
experiments  what is seen without set-up          models         checkpoints
naming       which parameters, in what words      table          anybody's experiment as rows
"""

from tasks.reach import TrackingUnavailable
from tasks.tracking.connection import client, store
from tasks.tracking.experiments import lay_out, view_link, view_links
from tasks.tracking.models import logged_model
from tasks.tracking.naming import SAID
from tasks.tracking.registry import (
    CARD,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    Version,
    challenge,
    challenger,
    champion,
    describe,
    fingerprint,
    intact,
    promote,
    refuse,
    register,
    rollback,
    tag,
    version_of,
    version_path,
    versions,
)
from tasks.tracking.runs import Run, link, log_run, run
from tasks.tracking.spool import Left, Metrics, left_behind, recover
from tasks.tracking.sweeps import log_sweep
from tasks.tracking.table import finished_runs

__all__ = [
    "CARD",
    "CHALLENGER",
    "CHAMPION",
    "PREVIOUS",
    "SAID",
    "Left",
    "Metrics",
    "Run",
    "TrackingUnavailable",
    "Version",
    "challenge",
    "challenger",
    "champion",
    "client",
    "describe",
    "fingerprint",
    "finished_runs",
    "intact",
    "lay_out",
    "left_behind",
    "link",
    "log_run",
    "log_sweep",
    "logged_model",
    "promote",
    "recover",
    "refuse",
    "register",
    "rollback",
    "run",
    "store",
    "tag",
    "version_of",
    "version_path",
    "versions",
    "view_link",
    "view_links",
]
