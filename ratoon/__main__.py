import sys

from ratoon.leave import leave  # first: see there

# isort: split
from ratoon.cli import main


def run() -> int:
    return leave(main())


if __name__ == "__main__":
    sys.exit(run())
