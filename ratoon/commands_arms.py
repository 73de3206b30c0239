"""What `ratoon arms` and `ratoon judges` do."""

import argparse
import json
from pathlib import Path

from ratoon.commands import DONE, ask_of, embedded, ready_flow
from ratoon.config import load


def arms(asked: argparse.Namespace, root: Path) -> int:
    """Exit code 0 whoever wins: it is a question, and no gate."""
    ask, names = ask_of(asked), tuple(asked.names)
    load(root, budget=ask.budget, changes=ask.changes()).arms.only(names)  # a wrong name is told at once
    if asked.estimate:
        return estimate(asked, root)
    ready_flow("arms", root)(ask, names)
    from ratoon import records
    from ratoon.evaluation.arms import Arms
    from ratoon.report import arms as report
    from tasks.arms import RECORD, open_study

    found = records.read(open_study.fn(root, ask, names).job.folder / RECORD, Arms)
    print(found.model_dump_json(indent=2) if asked.json else report.text(found))
    return DONE


def estimate(asked: argparse.Namespace, root: Path) -> int:
    embedded(root)
    from ratoon.report import arms as report
    from tasks.arms import open_study
    from tasks.arms_estimate import estimate as told

    found = told(open_study.fn(root, ask_of(asked), tuple(asked.names)))
    print(json.dumps([one.model_dump() for one in found], indent=2) if asked.json else report.estimate(found))
    return DONE


def judges(asked: argparse.Namespace, root: Path) -> int:
    ask = ask_of(asked)
    load(root, budget=ask.budget, changes=ask.changes())  # a wrong key is told at once
    ready_flow("judges", root)(ask, tuple(asked.seeds))
    from ratoon import records
    from ratoon.evaluation.judges import Judges
    from ratoon.report import judges as report
    from tasks.judges import RECORD, open_judges

    found = records.read(open_judges.fn(root, ask).job.folder / RECORD, Judges)
    print(found.model_dump_json(indent=2) if asked.json else report.text(found))
    return DONE
