"""A tiny model and two tiny packed sources, made once per session."""

import shutil

import numpy as np
import pytest
from prefixed_rows import give, prefix_of

from ratoon.config import Schedule, Scratch, TrainConfig
from ratoon.config.loss import Loss, Prefix
from ratoon.lm.llama import new_llama
from ratoon.stream.rows import Index, ShardCounts, ShardPacker, dtype_for
from ratoon.training.request import Portion, Request

VOCABULARY = 512


def pack_part(out, part, name, documents):
    packer = ShardPacker(out / part / name, VOCABULARY, separator=0)
    for document in documents:
        packer.add(iter([document]))
    packer.close()
    tokens = sum(len(d) + 1 for d in documents)
    return {name: ShardCounts(tokens=tokens, documents=len(documents), bytes=3 * tokens)}


def pack_rows(out, seed, documents=1200, held_out=20):
    """Documents of a first-order chain, so that there is something to learn."""
    random = np.random.default_rng(seed)
    words = random.integers(1, VOCABULARY, 24)
    follows = words[random.integers(0, 24, (VOCABULARY, 3))]

    def document():
        ids = [int(random.integers(1, VOCABULARY))]
        for _ in range(int(random.integers(20, 60))):
            ids.append(int(follows[ids[-1], random.integers(3)]))
        return np.array(ids)

    shards = {
        "train": pack_part(out, "train", "a", [document() for _ in range(documents)]),
        "held_out": pack_part(out, "held_out", "a", [document() for _ in range(held_out)]),
    }
    index = Index(
        format=1,
        base="tiny",
        tokenizer="none",
        vocabulary=VOCABULARY,
        dtype=dtype_for(VOCABULARY),
        separator=0,
        row_tokens=16,
        shards=shards,
        totals={part: found["a"] for part, found in shards.items()},
    )
    (out / "rows.json").write_text(index.model_dump_json())
    return out


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder with `model`, `general` and `domain`."""
    root = tmp_path_factory.mktemp("tiny")
    shape = Scratch(
        kind="scratch",
        vocabulary=VOCABULARY,
        hidden=16,
        layers=2,
        heads=2,
        feed_forward=32,
        context=32,
        tokens=1,
        learning_rate=1,
        rows_per_step=1,
    )
    new_llama(shape, VOCABULARY, 0).save_pretrained(root / "model")
    (root / "model" / "tokenizer_config.json").write_text("{}")
    pack_rows(root / "general", 1)
    pack_rows(root / "domain", 2)
    return root


@pytest.fixture
def request_for(tiny, tmp_path):
    def make(out="run", share=0.3, limits=None, **recipe):
        settings = {
            "tokens": 20 * 8 * 16,
            "learning_rate": 0.01,
            "rows_per_step": 8,
            "schedule": Schedule(name="wsd", warmup_steps=3, decay_share=0.25),
            "threads": 1,
            "block_rows": 10,
            "evaluations": 2,
            "checkpoints": 4,
            **recipe,
        }
        parts = {"general": 1 - share, "domain": share}
        return Request(
            name="tiny-run",
            label="tiny",
            model=str(tiny / "model"),
            portions={
                name: Portion(rows=str(tiny / name), role=name, share=part, limit_rows=(limits or {}).get(name))
                for name, part in parts.items()
            },
            row_tokens=16,
            recipe=TrainConfig(**settings),
            held_out_tokens=400,
            out=str(tmp_path / out),
        )

    return make


@pytest.fixture(scope="session")
def behind(tiny, tmp_path_factory):
    """Makes copies of the rows, each document behind its prefix."""

    def make(of=prefix_of, **more):
        root = tmp_path_factory.mktemp("behind")
        return {name: give(shutil.copytree(tiny / name, root / name), of, **more) for name in ("general", "domain")}

    return make


@pytest.fixture(scope="session")
def sources(behind):
    return behind()


@pytest.fixture
def prefixed_for(request_for, sources):
    def make(out="run", loss=None, rows=sources, **recipe):
        request = request_for(out, loss=loss or Loss(prefix=Prefix(until_share=0.5)), **recipe)
        portions = {n: p.model_copy(update={"rows": str(rows[n])}) for n, p in request.portions.items()}
        return request.model_copy(update={"portions": portions})

    return make
