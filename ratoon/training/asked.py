"""A run that is asked to end: by a scheduler, a person, or the supervisor's own end."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from ratoon.training.faults import ENDED

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # USR1: what SLURM sends ahead where it is told to


class Asked:
    """Called, says whether a signal asked the process to end. Only for the main thread of a process of our own.

    A second signal, or the end of the grace, ends the process at once: its checkpoints are whole at any moment.
    """

    def __init__(self, grace_seconds: float) -> None:
        self.grace_seconds = grace_seconds
        self.signal: int | None = None
        self.before: dict[int, Any] = {}
        self.timer: threading.Timer | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> "Asked":
        self.before = {number: signal.signal(number, self.take) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.timer:
            self.timer.cancel()
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def take(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(ENDED)
        self.signal = number
        self.timer = threading.Timer(self.grace_seconds, os._exit, (ENDED,))
        self.timer.daemon = True
        self.timer.start()
