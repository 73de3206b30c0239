"""What a run writes down while it goes: `metrics.jsonl`, a line per step worth one, and `observations.csv`."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ratoon import records
from ratoon.records import Observation

Report = Callable[[int, dict[str, torch.Tensor | float]], None]


class Journal:
    """`metrics.jsonl`: one line per step that is worth one, truncated to the step a run resumes at."""

    def __init__(self, path: Path, resumed_at: int) -> None:
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    if json.loads(line)["step"] <= resumed_at:
                        kept.append(line + "\n")
                except (ValueError, TypeError, KeyError):  # a line that a kill or a full disk cut short
                    continue
        records.write_text(path, "".join(kept))
        self.path = path

    def write(self, step: int, tokens: int, metrics: dict[str, float | None]) -> None:
        line = {"step": step, "tokens": tokens, "time": round(time.time(), 3), "metrics": metrics}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OSError(
                error.errno, f"could not write {self.path}: {error.strerror}; free space and run again to go on"
            ) from error


class Silent(Journal):
    """That of a rank that writes nothing."""

    def __init__(self) -> None:
        pass

    def write(self, step: int, tokens: int, metrics: dict[str, float | None]) -> None:
        pass


def read_trace(path: Path, resumed_at: int) -> list[Observation]:
    """Observations of an earlier try, up to the step it resumes at."""
    return [o for o in records.read_observations(path) if o.step <= resumed_at] if path.exists() else []


def flat(observations: list[Observation]) -> dict[str, float | None]:
    metrics: dict[str, float | None] = {}
    for item in observations:
        metrics[f"held_out/{item.evaluated}/loss_nats"] = item.loss_nats
        metrics[f"held_out/{item.evaluated}/bits_per_byte"] = item.bits_per_byte
    return metrics


def reporter(journal: Journal, step_tokens: int, steps: int, seconds: float = 1.0) -> Report:
    """Writes about one line per second, so that reading tensors back costs nothing worth counting."""
    last = time.perf_counter()
    last_step: int | None = None

    def report(step: int, values: dict[str, torch.Tensor | float]) -> None:
        nonlocal last, last_step
        now = time.perf_counter()
        if now - last < seconds and step != steps:
            return
        metrics: dict[str, float | None] = {f"train/{k}": float(v) for k, v in values.items()}
        if last_step is not None:
            metrics["train/tokens_per_second"] = (step - last_step) * step_tokens / max(now - last, 1e-9)
        journal.write(step, step * step_tokens, metrics)
        last, last_step = now, step

    return report
