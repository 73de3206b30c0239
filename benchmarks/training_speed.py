"""Our loop beside Hugging Face's Trainer: the same packed rows, the same optimizer, in one process, turn by turn.

    python benchmarks/training_speed.py [--model nano] [--rows-per-step 16] [--steps 20] [--rounds 9] [--threads N]
    python benchmarks/training_speed.py --model smollm2-135m --rows-per-step 4 --steps 2 --rounds 5
    python benchmarks/training_speed.py --width 128       # the same on a random model so wide
    python benchmarks/training_speed.py --ragged          # real documents: packed and kept apart, or padded
    python benchmarks/training_speed.py --apart           # start-up, peak memory, time, each in a process of its own

Needs what `make demo` leaves in the project: data/rows and models/weights. Each round takes `--steps` updates with
either, whichever goes first changing from round to round; the ratio is the median over rounds of one round's. Both
are warm, neither compiles, both write no log line and no checkpoint, AdamW is fused in both. Trainer gets rows as
tensors in memory, no padding, no attention mask, and the same order; losses after all rounds must agree.

--ragged: we read packed rows with `attention: document`; Trainer a document a row, cut at its length, padded
to the longest of its batch. What counts is tokens with a loss per second.

The rate of matrix products is measured on the model's own shapes, each product of a step alone, one after the other, in
every round anew, into memory that is there already; against it stands the step, both in processor time, which other
work disturbs less. Attention's are counted too (arXiv 2204.02311, appendix B), but only the half that a causal mask
leaves; what is reckoned twice counts once.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_products import of_attention, of_weights

from ratoon import config
from ratoon.config import Schedule, Scratch, TrainConfig
from ratoon.lm.base import weights_folder
from ratoon.lm.llama import new_llama
from ratoon.lm.load import load_model
from ratoon.stream.mixture import Batch, Mixture
from ratoon.stream.order import Order
from ratoon.stream.rows import Rows
from ratoon.training.loop import advance, count_predicted, new_state
from ratoon.training.model import open_model

RATE = 1e-4


def mixture(project: Path, base: str) -> Mixture:
    folders = sorted((project / "data" / "rows" / base).iterdir())
    rows = {path.name: Rows.open(path) for path in folders if path.is_dir()}
    share = 1 / len(rows)
    order = Order(dict.fromkeys(rows, share), {n: r.num_rows for n, r in rows.items()}, block_rows=100, seed=0)
    return Mixture(rows, order)


def documents(project: Path, base: str, row_tokens: int, count: int) -> list[np.ndarray]:
    """The first documents of each source in turn, cut at a row's length."""
    folders = [path for path in sorted((project / "data" / "rows" / base).iterdir()) if path.is_dir()]
    each = [(one[:row_tokens] for one in Rows.open(path).documents()) for path in folders]
    found = [one for turn in zip(*each, strict=False) for one in turn if len(one) > 1]
    order = np.random.default_rng(0).permutation(len(found))
    return [found[n] for n in np.resize(order, count)]


class Ours:
    name = "ratoon"

    def __init__(self, folder: Path, stream: Mixture, rows: int, *, separator: int | None = None) -> None:
        self.recipe = TrainConfig(
            tokens=10**12,
            learning_rate=RATE,
            rows_per_step=rows,
            weight_decay=0.0,
            schedule=Schedule(name="constant", warmup_steps=0),
            attention="row" if separator is None else "document",
        )
        self.stream, self.rows = stream, rows
        self.state = new_state(open_model(folder, self.recipe), self.recipe, separator)  # as a run does
        self.separator = separator
        self.waited = self.useful = self.read = self.busy = 0.0

    def batch_at(self, step: int) -> Batch:
        begun = time.perf_counter()
        batch = self.stream.read(step * self.rows, self.rows)
        self.waited += time.perf_counter() - begun
        self.useful += count_predicted(batch.tokens, batch.valid, self.separator)
        self.read += batch.tokens.size
        return batch

    def steps(self, count: int) -> float:
        begun, busy = time.perf_counter(), time.process_time()
        until = self.state.step + count
        advance(self.state, until, batch_at=self.batch_at, lr_at=lambda _: RATE, recipe=self.recipe)
        self.busy = time.process_time() - busy
        return time.perf_counter() - begun


class Theirs:
    """Trainer runs once to the end: it is led by a thread that waits between rounds, and times its own steps."""

    name = "Trainer"

    def __init__(
        self, folder: Path, stream: Mixture, rows: int, steps: int, ragged: list[np.ndarray] | None = None
    ) -> None:
        import threading

        from transformers import Trainer, TrainerCallback, TrainingArguments

        class Packed(torch.utils.data.IterableDataset[dict[str, torch.Tensor]]):
            def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
                for one in ragged or ():
                    yield {"input_ids": torch.from_numpy(one), "labels": torch.from_numpy(one)}
                for step in () if ragged else range(steps):
                    for row in torch.from_numpy(stream.read(step * rows, rows).tokens):
                        yield {"input_ids": row, "labels": row}

        def padded(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
            pad = torch.nn.utils.rnn.pad_sequence
            ids = [row["input_ids"] for row in rows]
            return {
                "input_ids": pad(ids, batch_first=True, padding_value=0),
                "labels": pad(ids, batch_first=True, padding_value=-100),
                "attention_mask": pad([torch.ones_like(one) for one in ids], batch_first=True, padding_value=0),
            }

        go, done = threading.Semaphore(0), threading.Semaphore(0)

        class Turns(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                go.acquire()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                done.release()

        self.go, self.done = go, done
        self.spare = tempfile.TemporaryDirectory()
        arguments = TrainingArguments(
            output_dir=self.spare.name,
            per_device_train_batch_size=rows,
            max_steps=steps,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            adam_beta1=0.9,
            adam_beta2=0.95,
            weight_decay=0.0,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        collator = {"data_collator": padded} if ragged else {}
        self.model = load_model(folder)
        trainer = Trainer(model=self.model, args=arguments, train_dataset=Packed(), callbacks=[Turns()], **collator)
        self.thread = threading.Thread(target=trainer.train, daemon=True)
        self.thread.start()

    def steps(self, count: int) -> float:
        begun, busy = time.perf_counter(), time.process_time()
        for _ in range(count):
            self.go.release()
            self.done.acquire()
        self.busy = time.process_time() - busy
        return time.perf_counter() - begun


def ragged(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Tokens with a loss per second, on documents as they come."""
    stream, rows = mixture(asked.project, asked.model), asked.rows_per_step
    total = asked.warm + asked.steps * asked.rounds
    texts = documents(asked.project, asked.model, stream.row_tokens, (total + 1) * rows)
    separator = Rows.open(next(iter(stream.rows.values())).path).separator  # type: ignore[attr-defined]
    ours = Ours(folder, stream, rows, separator=separator)
    theirs = Theirs(folder, stream, rows, total + 1, texts)
    lengths = np.array([len(one) for one in texts]).reshape(-1, rows)
    for one in (ours, theirs):
        one.steps(asked.warm)
    rates: dict[str, list[float]] = {"ratoon": [], "Trainer": []}
    for number in range(asked.rounds):
        for one in (ours, theirs) if number % 2 else (theirs, ours):
            before, seconds = ours.useful, one.steps(asked.steps)
            first = asked.warm + number * asked.steps
            useful = ours.useful - before if one is ours else int((lengths[first : first + asked.steps] - 1).sum())
            rates[one.name].append(useful / seconds)
    ratios = [a / b for a, b in zip(rates["ratoon"], rates["Trainer"], strict=True)]
    return {
        "useful_tokens_per_second": {name: round(statistics.median(found)) for name, found in rates.items()},
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(one, 2) for one in ratios],
        "not_padding": {
            "ratoon": round(float(sum(stream.read(s * rows, rows).valid.sum() for s in range(total)) / ours.read), 5),
            "Trainer": round(float(lengths.sum() / (lengths.max(axis=1) * rows).sum()), 3),
        },
    }


def speed(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    stream, rows = mixture(asked.project, asked.model), asked.rows_per_step
    tokens = rows * stream.row_tokens
    total = asked.warm + asked.steps * asked.rounds
    ours = Ours(folder, stream, rows)
    theirs = Theirs(folder, stream, rows, total + 1)
    rates: dict[str, list[float]] = {"ratoon": [], "Trainer": []}
    of_products, of_scores, busy = list[float](), list[float](), list[float]()
    for one in (ours, theirs):
        one.steps(asked.warm)
    ours.waited = 0.0
    for number in range(asked.rounds):
        for one in (ours, theirs) if number % 2 else (theirs, ours):
            rates[one.name].append(asked.steps * tokens / one.steps(asked.steps))
        model, row_tokens = ours.state.model, stream.row_tokens
        found = of_weights(model, rows, row_tokens), of_attention(model.config, rows, row_tokens)
        flops, seconds = (sum(each) for each in zip(*found, strict=True))
        of_products.append(seconds * asked.steps / ours.busy)
        of_scores.append(found[1][1] * asked.steps / ours.busy)
        busy.append(theirs.busy / ours.busy)
    ratios = [a / b for a, b in zip(rates["ratoon"], rates["Trainer"], strict=True)]
    mine = statistics.median(rates["ratoon"])
    apart = max(
        float((a - b).detach().abs().max())
        for a, b in zip(ours.state.model.parameters(), theirs.model.parameters(), strict=True)
    )
    return {
        "tokens_per_second": {name: round(statistics.median(found)) for name, found in rates.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(one, 2) for one in ratios],
        "ratio_of_processor_time": round(statistics.median(busy), 3),
        "ratios_of_processor_time": [round(one, 2) for one in busy],
        "largest_difference_of_a_weight": apart,
        "share_of_a_step_waiting_for_rows": round(ours.waited * mine / (asked.steps * asked.rounds * tokens), 5),
        "share_of_the_rate_of_matrix_products": round(statistics.median(of_products), 3),
        "of_that_attention": round(statistics.median(of_scores), 3),
        "gigaflops_of_matrix_products_alone": round(flops / seconds / 1e9, 1),
    }


def alone(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One of the two, this process to itself: seconds to the first step; of `--steps` more, processor time and peak."""
    begun = time.perf_counter()
    stream, rows = mixture(asked.project, asked.model), asked.rows_per_step
    one = Ours(folder, stream, rows) if asked.alone == "ratoon" else Theirs(folder, stream, rows, asked.steps + 2)
    one.steps(1)
    first = time.perf_counter() - begun
    one.steps(asked.steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"first_step_seconds": first, "peak_mib": peak, "processor_seconds_a_step": one.busy / asked.steps}


def apart(asked: argparse.Namespace) -> dict[str, Any]:
    """Either in a process of its own, turn by turn; medians."""
    found: dict[str, list[dict[str, float]]] = {"ratoon": [], "Trainer": []}
    for _ in range(asked.rounds):
        for name, kept in found.items():
            command = [sys.executable, __file__, "--alone", name]
            for option in ("project", "model", "rows_per_step", "steps", "threads"):
                command += [f"--{option.replace('_', '-')}", str(getattr(asked, option))]
            command += ["--width", str(asked.width)] if asked.width else []
            begun = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if not done.stdout.strip():  # Trainer's process sometimes aborts at its very end, with all said
                raise SystemExit(f"{' '.join(command)} ended with {done.returncode}\n{done.stderr[-2000:]}")
            kept.append({**json.loads(done.stdout.splitlines()[-1]), "process_seconds": time.perf_counter() - begun})
    return {
        name: {key: round(statistics.median(one[key] for one in kept), 3) for key in kept[0]}
        for name, kept in found.items()
    }


def random_llama(width: int, folder: Path) -> Path:
    """A Llama of four layers with nano's vocabulary, as it is before training."""
    shape = Scratch(
        kind="scratch",
        hidden=width,
        layers=4,
        heads=max(1, width // 32),
        feed_forward=11 * width // 4,
        tokens=1,
        learning_rate=1,
        rows_per_step=1,
    )
    new_llama(shape, shape.vocabulary, 0).save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--rows-per-step", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm", type=int, default=3, help="updates before that are not timed")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--width", type=int, help="in place of the base, a random model so wide, on its rows")
    parser.add_argument("--ragged", action="store_true", help="documents as they come, packed or padded")
    parser.add_argument("--apart", action="store_true", help="start-up and peak memory, each in its own process")
    parser.add_argument("--alone", choices=("ratoon", "Trainer"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    spare = tempfile.TemporaryDirectory()
    base = weights_folder(asked.project, config.base(asked.project, asked.model))
    folder = random_llama(asked.width, Path(spare.name)) if asked.width else base
    if asked.alone:
        found = alone(asked, folder)
    elif asked.apart:
        found = apart(asked)
    else:
        found = (ragged if asked.ragged else speed)(asked, folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
