"""What `ratoon sync` does."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from ratoon.commands import DONE, FAILED


def sync(asked: argparse.Namespace, root: Path) -> int:
    """Runs under way send their own. Exit code 1 if something is left that MLflow does not take."""
    from tasks import environment

    environment.apply(root)
    from tasks import tracking

    left = tracking.recover(patient=True)
    if asked.json:
        print(json.dumps(asdict(left)))
    else:
        print(f"sent {left.points} metrics of {left.runs} runs" if left.runs else "nothing waited to be sent")
        for line in left.kept:
            print(f"kept {line}", file=sys.stderr)
    return FAILED if left.kept else DONE
