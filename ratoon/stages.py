"""The commands of dvc.yaml: one stage each, from declaration to edition on disk."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ratoon import config
from ratoon.config import Base, ConfigError, ModelPerplexity, PrepareConfig, Scratch, Source
from ratoon.layout import Layout
from ratoon.records import Ledger

if TYPE_CHECKING:
    from ratoon.corpus.decontaminate.judge import Clear
    from ratoon.corpus.scores.models import Measure
    from ratoon.corpus.workers import Seen


class Said:
    """Progress for whoever runs `dvc repro`: a line on standard error now and then.

    ingest notes: read 1,250 of 5,000 MB, 14.2 MB/s, 9,800 documents/s, 81,204 kept, 920 dropped, 4:24 left (a.jsonl)
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.what, self.clock = what, clock
        self.phase = ""
        self.begun = self.heard = self.said = clock()

    def __call__(self, done: int, total: int | None, what: str = "", seen: "Seen | None" = None) -> None:
        phase, _, item = what.partition(" ")
        if phase != self.phase:  # a phase is first heard of when its first part has ended
            self.phase, self.begun = phase, self.heard
        self.heard = self.clock()
        if self.heard - self.said > 2:
            self.said = self.heard
            parts = ", ".join(_progress(done, total, seen, max(self.heard - self.begun, 1e-3)))
            print(f"{self.what}: {phase} {parts} ({item})", file=sys.stderr, flush=True)


def _progress(done: int, total: int | None, seen: "Seen | None", seconds: float) -> Iterator[str]:
    yield f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if total else f"{done / 1e6:,.0f} MB"
    yield f"{done / 1e6 / seconds:,.1f} MB/s"
    if seen:
        yield f"{(seen.kept + seen.dropped) / seconds:,.0f} documents/s"
        yield f"{seen.kept:,} kept"
        yield f"{seen.dropped:,} dropped"
    if total and done:
        minutes, rest = divmod(round((total - done) * seconds / done), 60)
        yield f"{minutes}:{rest:02d} left"


def ingest(root: Path, source: str) -> Ledger:
    """Files, packages or datasets of a source to documents."""
    from ratoon.corpus.sources import ingest as read

    declared, prepare = config.source(root, source), config.load(root).prepare
    out = Layout(root).documents(source)
    return read(declared, root, out, Said(f"ingest {source}"), asked=prepare.amend.get(declared.kind))


def scorers(root: Path) -> None:
    """Train the scorers that are to be kept and are not there yet."""
    from ratoon.corpus.scores.kept import scorers as train

    layout, prepare = Layout(root), config.load(root).prepare
    known(root, prepare)
    train(prepare, layout.documents("."), layout.scorers, prepare.engine)


def score(root: Path, source: str) -> Ledger:
    """A number per document from every scorer that concerns the source."""
    from ratoon.corpus.scores.stage import score as rate

    layout, prepare = Layout(root), config.load(root).prepare
    known(root, prepare)
    asked = prepare.scorers(source)
    return rate(
        config.source(root, source),
        prepare,
        layout.documents(source),
        layout.scores(source),
        Said(f"score {source}"),
        prepare.engine,
        kept=layout.scorers,
        given={name: _measure(root, source, name, one) for name, one in asked.items() if one.kind == "model"},
    )


def known(root: Path, prepare: PrepareConfig) -> None:
    """Refuse lists of sources that name one nobody declared: asked for by a wrong name, nothing would be done."""
    for place, names in prepare.named():
        for name in names:
            try:
                config.source(root, name)
            except ConfigError as error:
                raise ConfigError(f"params.yaml: prepare.{place}: {error}") from error


def _measure(root: Path, source: str, name: str, asked: ModelPerplexity) -> "Measure":
    """A base's weights as a scorer; says what it will cost."""
    from ratoon.corpus.edition import read_ledger
    from ratoon.lm.base import obtain, weights_folder
    from ratoon.lm.perplexity import measure

    try:
        declared = config.base(root, asked.base)
        folder = weights_folder(root, declared) if isinstance(declared.weights, Scratch) else obtain(declared, root)
        if not (folder / "config.json").exists():
            raise ConfigError(
                f"base {asked.base!r} has no weights yet: they are trained on packed rows\n"
                f"  prepare once without this score, or name a base whose weights exist"
            )
        found = measure(folder, declared.row_tokens, asked)
    except ConfigError as error:
        raise ConfigError(f"params.yaml: prepare.scores.{name}: {error}") from error
    told = read_ledger(Layout(root).documents(source)).funnel
    print(f"score {source}: {name}: {found.cost(told.documents_kept, told.bytes_kept)}", file=sys.stderr, flush=True)
    return found


def clean(root: Path, source: str) -> Ledger:
    """Rules, duplicates, held-out part."""
    from ratoon.corpus.clean import clean as sift

    layout, params = Layout(root), config.load(root)
    prepare = params.prepare
    known(root, prepare)
    if source in params.refresh.watch:  # never trained on, and not scored for it: there is nothing to select
        prepare = prepare.model_copy(update={"select": ()})
    return sift(
        config.source(root, source),
        prepare,
        layout.documents(source),
        layout.clean(source),
        Said(f"clean {source}"),
        prepare.engine,
        also=decontamination(root, prepare),
        scores=layout.scores(source),
    )


def decontamination(root: Path, prepare: PrepareConfig) -> "tuple[Clear, ...]":
    """The judge that keeps text clear of the declared benchmarks; none where it is not asked for."""
    from ratoon.corpus.clean import held_out, text_key
    from ratoon.corpus.decontaminate.judge import judge

    if not prepare.decontaminate:
        return ()
    names = sorted(path.stem for path in (root / "data" / "benchmarks").glob("*.yaml"))
    benchmarks = [config.benchmark(root, name) for name in names]
    fate = partial(held_out, share=prepare.held_out.share)
    return (judge(prepare.decontaminate, benchmarks, root, Layout(root).documents("."), text_key, fate),)


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


def beside(root: Path, wanted: Iterable[str]) -> list[tuple[str, str]]:
    """(stage, source) of the stages that read what dvc.yaml cannot name, in the order in which they are to run.

    Lists lie anywhere, and the items of a foreach cannot depend on each other. `wanted`: sources to be cleaned.
    """
    params = config.load(root)
    known = (*params.refresh.sources, *params.refresh.watch)
    dedup, asked = params.prepare.dedup, set(wanted)
    ordered = [name for name in dedup.across if any(name == one or name in dedup.above(one) for one in asked)]
    return [
        *(("ingest", name) for name in known if config.source(root, name).lists),
        *(("clean", name) for name in ordered if name in known),
    ]


def behind(root: Path, stage: str, source: str) -> bool:
    """Whether an edition, DVC finding it new, was made of lists or held against editions that are others now."""
    from ratoon.corpus.clean import held_against
    from ratoon.corpus.edition import read_ledger
    from ratoon.corpus.sources import lists

    layout = Layout(root)
    if stage == "ingest":
        return read_ledger(layout.documents(source)).also_read != lists(config.source(root, source), root)
    out = layout.clean(source)
    return read_ledger(out).also_read != held_against(source, config.load(root).prepare, out)


def declared_sources(root: Path) -> list[Source]:
    return [config.source(root, name) for name in config.load(root).refresh.sources]


def pack(root: Path, base: str, source: str) -> Ledger:
    """Clean documents to token rows."""
    # Nothing forks here, so the tokenizer may use its threads; they are most of the speed.
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    from ratoon.corpus.pack import pack as tokens

    layout, prepare = Layout(root), config.load(root).prepare
    known(root, prepare)
    declared: Base = config.base(root, base)
    return tokens(
        config.source(root, source),
        layout.clean(source),
        layout.tokenizer(base),
        declared,
        layout.rows(base, source),
        Said(f"pack {source} for {base}"),
        layout.scores(source),
        prepare.prefixes and prepare.prefixes.of(source),
    )
