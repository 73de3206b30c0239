"""What `ratoon history` and `ratoon drift` do."""

import argparse
import json
from pathlib import Path

from ratoon.commands import DONE, ask_of, line_of, run_flow

DRIFTED = 5


def history(asked: argparse.Namespace, root: Path) -> int:
    from ratoon.config import ConfigError, load
    from ratoon.evaluation import forgetting
    from ratoon.evaluation import history as past
    from ratoon.layout import Layout
    from ratoon.report import history as page

    layout, line = Layout(root), line_of(asked, root)
    folder = layout.history(line)
    found = past.load(folder, line)
    if not found.rows:
        raise ConfigError(f"no refresh of {line} has left its held-out text yet; run `ratoon refresh`")
    newest = past.newest(found)
    matrix = forgetting.matrix_of(folder, found, newest.name, load(root).assess)
    beside = page.beside(layout.refreshes(line) / newest.name)
    if asked.json:
        more = {name: record.model_dump(mode="json") for name, record in beside.items()}
        print(json.dumps({"matrix": matrix.model_dump(mode="json"), **more}, indent=2))
    else:
        print(page.text(matrix, beside))
    return DONE


def drift(asked: argparse.Namespace, root: Path) -> int:
    from ratoon.evaluation.drift import Drift
    from ratoon.report import history as page

    found = Drift.model_validate(run_flow("drift", ask_of(asked), root).result())
    print(json.dumps(found.model_dump(mode="json"), indent=2) if asked.json else page.drift_text(found))
    return DRIFTED if found.drifted else DONE
