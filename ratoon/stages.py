"""The commands of dvc.yaml: one stage each, from declaration to edition on disk."""

import json
import os
import sys
import time
from pathlib import Path

from ratoon import config
from ratoon.config import Base, ConfigError, Scratch, Source
from ratoon.layout import Layout
from ratoon.records import Ledger


class Said:
    """Progress for whoever runs `dvc repro`: a line on standard error now and then."""

    def __init__(self, what: str) -> None:
        self.what, self.last = what, time.monotonic()

    def __call__(self, done: int, total: int | None, what: str = "") -> None:
        if time.monotonic() - self.last > 2:
            self.last = time.monotonic()
            of = f" of {total:,}" if total else ""
            print(f"{self.what}: {done:,}{of} {what}", file=sys.stderr, flush=True)


def ingest(root: Path, source: str) -> Ledger:
    """Files, packages or datasets of a source to documents."""
    from ratoon.corpus.sources import ingest as read

    return read(config.source(root, source), root, Layout(root).documents(source), Said(f"ingest {source}"))


def clean(root: Path, source: str) -> Ledger:
    """Rules, duplicates, held-out part."""
    from ratoon.corpus.clean import clean as sift

    layout, prepare = Layout(root), config.load(root).prepare
    return sift(
        config.source(root, source), prepare, layout.documents(source), layout.clean(source), Said(f"clean {source}")
    )


def tokenizer(root: Path, base: str) -> None:
    """A base's tokenizer, made or copied once. It stays when the text grows: the base was trained with it."""
    layout, declared = Layout(root), config.base(root, base)
    out = layout.tokenizer(base)
    made = out / "made.json"
    if made.exists() and json.loads(made.read_text(encoding="utf-8"))["base"] == declared.digest():
        return
    if isinstance(declared.weights, Scratch):
        if declared.weights.tokenizer:
            raise ConfigError(
                f"params.yaml: prepare.bases: {base!r} uses the tokenizer of {declared.weights.tokenizer!r}; "
                f"name that one instead: the same rows serve both"
            )
        from ratoon.corpus.tokenizer import train_tokenizer

        general = [s for s in declared_sources(root) if s.role == "general"]
        train_tokenizer([layout.clean(s.name) for s in general], declared.weights.vocabulary, out)
    else:
        from ratoon.lm.base import copy_tokenizer, obtain

        copy_tokenizer(obtain(declared, root), out)
    made.write_text(json.dumps({"base": declared.digest()}), encoding="utf-8")


def declared_sources(root: Path) -> list[Source]:
    return [config.source(root, name) for name in config.load(root).refresh.sources]


def pack(root: Path, base: str, source: str) -> Ledger:
    """Clean documents to token rows."""
    # Nothing forks here, so the tokenizer may use its threads; they are most of the speed.
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    from ratoon.corpus.pack import pack as tokens

    layout = Layout(root)
    declared: Base = config.base(root, base)
    return tokens(
        config.source(root, source),
        layout.clean(source),
        layout.tokenizer(base),
        declared,
        layout.rows(base, source),
        Said(f"pack {source} for {base}"),
    )
