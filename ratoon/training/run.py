"""One run from request to result: open, resume, advance, evaluate, save, record."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ratoon import records
from ratoon.config import ConfigError
from ratoon.lm.base import check_vocabulary
from ratoon.lm.load import check_weights, load_model, non_embedding, pick_device
from ratoon.records import Observation
from ratoon.stream.mixture import Mixture
from ratoon.stream.order import Order
from ratoon.stream.rows import Rows
from ratoon.training import checkpoint
from ratoon.training.loop import Batch, advance, mean_loss, new_state
from ratoon.training.request import Request, Result
from ratoon.training.schedules import learning_rate

EVALUATION_ROWS = 64


@dataclass
class HeldOut:
    """The rows of one source that are scored while training: the same ones all along, spread evenly over it."""

    rows: Rows
    count: int

    def batches(self) -> Iterator[Batch]:
        spread = np.arange(self.count, dtype=np.int64) * self.rows.num_rows // self.count
        for first in range(0, self.count, EVALUATION_ROWS):
            yield self.rows.read(spread[first : first + EVALUATION_ROWS])

    @property
    def bits_per_nat(self) -> float:
        """Turns nats per token into bits per byte of this source's held-out text."""
        return self.rows.num_tokens / self.rows.num_bytes / math.log(2)


class Run:
    """A request with its files open. `advance` and `evaluate` are all a run or a sweep needs."""

    def __init__(self, request: Request) -> None:
        self.request = request
        recipe = request.recipe
        torch.set_num_threads(recipe.threads or max(1, torch.get_num_threads()))
        check_weights(Path(request.model))
        self.mixture = open_mixture(request)
        self.held_out = {name: open_held_out(name, request) for name in sorted(request.portions)}
        self.model = load_model(Path(request.model), str(pick_device(recipe.device)))
        self.params = non_embedding(self.model)
        self.state = new_state(self.model, recipe)

    def batch_at(self, step: int) -> Batch:
        count = self.request.recipe.rows_per_step
        return self.mixture.read(step * count, count)

    def advance(
        self, until: int, steps: int, report: Callable[[int, dict[str, torch.Tensor | float]], None] | None
    ) -> None:
        """Update up to step `until` of a run that is `steps` long."""
        recipe = self.request.recipe
        lr_at = learning_rate(recipe.schedule, recipe.learning_rate, steps)
        advance(self.state, until, batch_at=self.batch_at, lr_at=lr_at, recipe=recipe, report=report)

    def evaluate(self, *, run: str, group: str, finished: bool) -> list[Observation]:
        """Held-out loss of every portion, read or not."""
        request = self.request
        unique = {
            name: int(used) * request.row_tokens
            for name, used in zip(self.mixture.order.names, self.mixture.order.used, strict=True)
        }
        found = []
        for name, held_out in self.held_out.items():
            loss = mean_loss(self.state.model, held_out.batches(), request.recipe)
            found.append(
                Observation(
                    run=run,
                    group=group,
                    commit=request.commit,
                    config=request.identity(),
                    model=request.label,
                    params_non_embedding=self.params,
                    tokens=self.state.step * request.step_tokens,
                    share=request.domain_share,
                    unique_tokens=unique,
                    learning_rate=request.recipe.learning_rate,
                    step=self.state.step,
                    finished=finished,
                    evaluated=name,
                    role=request.portions[name].role,
                    loss_nats=loss,
                    bits_per_byte=None if loss is None else loss * held_out.bits_per_nat,
                )
            )
        return found


def open_mixture(request: Request) -> Mixture:
    read = {name: portion for name, portion in request.portions.items() if portion.share > 0}
    rows = {name: Rows.open(Path(portion.rows), "train", request.row_tokens) for name, portion in read.items()}
    for name in rows:
        check_vocabulary(Path(request.model), rows[name].index.vocabulary, Path(read[name].rows))
    order = Order(
        {name: portion.share for name, portion in read.items()},
        {name: rows[name].num_rows for name in read},
        block_rows=request.recipe.block_rows,
        seed=request.recipe.seed,
        limits={name: portion.limit_rows for name, portion in read.items() if portion.limit_rows},
    )
    return Mixture(rows, order)


def open_held_out(name: str, request: Request) -> HeldOut:
    rows = Rows.open(Path(request.portions[name].rows), "held_out", request.row_tokens)
    count = min(rows.num_rows, max(1, request.held_out_tokens // request.row_tokens))
    if count < 1:
        raise ConfigError(f"{request.portions[name].rows}: {name} has no held-out rows; raise prepare.held_out.share")
    return HeldOut(rows, count)


class Journal:
    """`metrics.jsonl`: one line per step that is worth one, truncated to the step a run resumes at."""

    def __init__(self, path: Path, resumed_at: int) -> None:
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= resumed_at:
                        kept.append(line + "\n")
                except ValueError:  # the line a kill cut short
                    continue
        records.write_text(path, "".join(kept))
        self.path = path

    def write(self, step: int, tokens: int, metrics: dict[str, float | None]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            line = {"step": step, "tokens": tokens, "time": round(time.time(), 3), "metrics": metrics}
            file.write(json.dumps(line) + "\n")


def evaluation_steps(steps: int, evaluations: int) -> list[int]:
    """Evenly spaced, the last at the end."""
    return sorted({round(steps * (n + 1) / evaluations) for n in range(evaluations)} - {0})


def train(request: Request) -> Result:
    """Carry `request` out, from its newest whole checkpoint if there is one. Same request, same weights."""
    out = Path(request.out)
    done = out / "result.json"
    if done.exists():
        return records.read(done, Result)
    out.mkdir(parents=True, exist_ok=True)
    run = Run(request)
    identity, steps = request.identity(), request.steps
    saved = checkpoint.whole(out / "checkpoints")
    if saved:
        checkpoint.restore(run.state, saved[-1], identity)
    first_step = run.state.step
    journal = Journal(out / "metrics.jsonl", first_step)
    observations = read_trace(out / "observations.csv", first_step)
    evaluate_at = evaluation_steps(steps, request.recipe.evaluations)
    save_at = set(evaluation_steps(steps, request.recipe.checkpoints))
    report = reporter(journal, request.step_tokens, steps)
    started = time.perf_counter()

    def evaluate() -> None:
        new = run.evaluate(run=request.name, group=request.name, finished=run.state.step == steps)
        observations.extend(new)
        records.write_observations(out / "observations.csv", observations)
        journal.write(run.state.step, new[0].tokens, flat(new))

    if not observations:
        evaluate()
    for stop in sorted({*evaluate_at, *save_at}):
        if stop <= run.state.step:
            continue
        run.advance(stop, steps, report)
        if stop in evaluate_at:
            evaluate()
        if stop in save_at:
            checkpoint.save(
                run.state,
                out / "checkpoints",
                tokenizer=Path(request.model),
                identity=identity,
                tokens=run.state.step * request.step_tokens,
            )
    seconds = time.perf_counter() - started
    result = Result(
        name=request.name,
        model=str(checkpoint.whole(out / "checkpoints")[-1]),
        steps=steps,
        tokens=steps * request.step_tokens,
        params_non_embedding=run.params,
        seconds=seconds,
        tokens_per_second=(steps - first_step) * request.step_tokens / max(seconds, 1e-9),
        observations=tuple(observations),
    )
    records.write(done, result)
    return result


def read_trace(path: Path, resumed_at: int) -> list[Observation]:
    """Observations of an earlier try, up to the step it resumes at."""
    return [o for o in records.read_observations(path) if o.step <= resumed_at] if path.exists() else []


def flat(observations: list[Observation]) -> dict[str, float | None]:
    metrics: dict[str, float | None] = {}
    for item in observations:
        metrics[f"held_out/{item.evaluated}/loss_nats"] = item.loss_nats
        metrics[f"held_out/{item.evaluated}/bits_per_byte"] = item.bits_per_byte
    return metrics


def reporter(
    journal: Journal, step_tokens: int, steps: int, seconds: float = 1.0
) -> Callable[[int, dict[str, torch.Tensor | float]], None]:
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
