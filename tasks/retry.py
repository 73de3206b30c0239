"""What may be tried again: only what may heal by itself."""

from typing import Any

from ratoon.training.supervise import Killed


def weather(task: Any, run: Any, state: Any) -> bool:
    """A lost connection or a killed process may heal in a minute; a wrong path or config never does."""
    return isinstance(state.result(raise_on_failure=False), ConnectionError | TimeoutError | Killed)
