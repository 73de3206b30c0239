"""A base made here: a small Llama trained on the general text until it is worth protecting."""

import os
import shutil
from pathlib import Path

from ratoon.config import Base, Schedule, Scratch, TrainConfig
from ratoon.lm.base import copy_tokenizer, weights_folder
from ratoon.lm.llama import new_llama
from ratoon.lm.load import load_tokenizer
from ratoon.training.batch import BatchRequest, BatchResult
from ratoon.training.request import Request
from ratoon.training.sweep import Corpus, portions


def missing(bases: list[Base], root: Path) -> list[Base]:
    """Those whose weights are not there yet: a base is made once, then reused."""
    return [base for base in bases if not (weights_folder(root, base) / "config.json").exists()]


def begin(bases: list[Base], root: Path, tokenizer: Path, corpora: dict[str, Corpus], held_out: int) -> BatchRequest:
    """Random weights on disk, and the request that trains them side by side.

    corpora   packed sources; the domain ones are evaluated only
    held_out  tokens scored per source
    """
    cores = os.cpu_count() or 1
    workers = min(len(bases), cores)
    requests = tuple(one(base, root, tokenizer, corpora, held_out, max(1, cores // workers)) for base in bases)
    out = root / ".ratoon" / "bases" / "-".join(sorted(base.digest() for base in bases))
    return BatchRequest(requests=requests, workers=workers, out=str(out))


def one(base: Base, root: Path, tokenizer: Path, corpora: dict[str, Corpus], held_out: int, threads: int) -> Request:
    shape = base.weights
    assert isinstance(shape, Scratch)
    out = root / ".ratoon" / "bases" / f"{base.name}-{base.digest()}"
    start = out / f"{base.name}-init"
    if not (start / "config.json").exists():
        words = load_tokenizer(tokenizer)
        copy_tokenizer(tokenizer, start)
        new_llama(shape, len(words), words.eos_token_id).save_pretrained(start, safe_serialization=True)
    return Request(
        name=f"base-{base.name}",
        label=base.name,
        model=str(start),
        portions=portions(corpora, 0.0),
        row_tokens=base.row_tokens,
        recipe=TrainConfig(
            tokens=shape.tokens,
            learning_rate=shape.learning_rate,
            rows_per_step=shape.rows_per_step,
            schedule=Schedule(name="wsd", warmup_steps=50, decay_share=shape.decay_share),
            threads=threads,
            evaluations=4,
            seed=shape.seed,
        ),
        held_out_tokens=held_out,
        out=str(out),
    )


def keep(bases: list[Base], root: Path, result: BatchResult) -> None:
    """Final checkpoints as the bases' weights folders, without the optimizers' state."""
    from ratoon.training.checkpoint import MANIFEST

    for base, made in zip(bases, result.results, strict=True):
        final = weights_folder(root, base)
        beside = final.with_name(f".{final.name}")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(Path(made.model), beside, ignore=shutil.ignore_patterns("state", MANIFEST))
        beside.replace(final)
