"""The end of a command: everything that was registered for it is done, and then the process is gone.

The interpreter would go on to take every module apart, one object after the other. With torch and MLflow loaded these
are two to three seconds in which nothing happens that anybody needs.
"""

import atexit
import os
import sys

_codes: list[int] = []


def leave(code: int) -> int:
    """The same exit code, with which the process ends once its threads and all other handlers have."""
    _codes.append(code)
    return code


def _go() -> None:
    if not _codes:  # an error that nobody caught: the interpreter tells it
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # whoever read it is gone: the interpreter has its own code for that
        return
    os._exit(_codes[-1])


# Handlers run in the reverse order of their registration: import this module first, and it is the last.
atexit.register(_go)
