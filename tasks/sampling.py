"""What a training process takes of the machine, for MLflow's tab "System metrics": its own tree, and no one else's.

Sampled where a line of metrics comes anyway, so that it has the line's step and goes the same way through an outage.
"""

import shutil
import time
from pathlib import Path

import psutil

EVERY_SECONDS = 10.0
MEGABYTE = 2**20


class Sampler:
    """Of the process whose pid stands in `pid`, a file that comes and goes with it."""

    def __init__(self, pid: Path) -> None:
        self.pid = pid
        self._next = 0.0
        self._spent: tuple[float, float] | None = None  # when, and processor seconds until then

    def sample(self) -> dict[str, float]:
        """By the names MLflow's page knows; nothing where it is too early, or the process is gone."""
        now = time.monotonic()
        if now < self._next:
            return {}
        self._next = now + EVERY_SECONDS
        try:
            top = psutil.Process(int(self.pid.read_text(encoding="ascii")))
            tree = [top, *top.children(recursive=True)]
            resident = sum(one.memory_info().rss for one in tree)
            spent = sum(sum(one.cpu_times()[:2]) for one in tree)
        except (OSError, ValueError, psutil.Error):
            self._spent = None
            return {}
        found = {
            "system/process_memory_megabytes": resident / MEGABYTE,
            "system/disk_available_megabytes": shutil.disk_usage(self.pid.parent).free / MEGABYTE,
        }
        if self._spent is not None and spent >= self._spent[1] and now > self._spent[0]:
            share = (spent - self._spent[1]) / (now - self._spent[0])
            found["system/cpu_utilization_percentage"] = 100 * share  # of one core: two busy cores are 200
        self._spent = (now, spent)
        return found
