"""Selectors at equal tokens: proxies trained on what each chooses, and their held-out loss on the target.

python benchmarks/corpus_selectors.py                                       prose of sympy from all of data/clean
python benchmarks/corpus_selectors.py --target python-code/networkx --tokens 200000 --seeds 2

Half of the target's training documents are shown to the scorers; the other half is in the pool with everything else,
so there is something to be found. Every selector gets the same number of tokens of the pool, every proxy starts from
the same base and reads them once. Needs `ratoon prepare` and the base's weights (`ratoon refresh` makes both).
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ratoon import config
from ratoon.config import Files, PrepareConfig, Schedule, Select, Source, TrainConfig
from ratoon.corpus.clean import text_key
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import shards
from ratoon.corpus.packed import FORMAT, INDEX, Index, Part, ShardCounts, ShardPacker, dtype_for
from ratoon.corpus.scores.select import choose, column
from ratoon.corpus.scores.stage import score
from ratoon.corpus.sources import ingest
from ratoon.corpus.tokenizer import load, tokenizer_digest
from ratoon.layout import Layout
from ratoon.lm.base import weights_folder
from ratoon.training.request import Portion, Request
from ratoon.training.run import Run

SIDES = {"target": ["target"], "raw": ["pool"]}
SCORES: dict[str, dict[str, object]] = {
    "classifier": {"kind": "classifier", "positive": ["target"], "negative": ["pool"]},
    "perplexity": {"kind": "perplexity", "reference": ["target"]},
    "dsir": {"kind": "importance", **SIDES},
    "dsir-per-word": {"kind": "importance", "per_word": True, **SIDES},
    "retrieval": {"kind": "retrieval", "target": ["target"], "background": ["pool"]},
}
SELECTORS: dict[str, dict[str, str]] = {
    "random": {"score": "random"},
    "longest": {"score": "longest"},
    "shortest": {"score": "shortest"},
    "classifier": {"score": "classifier"},
    "perplexity, low": {"score": "perplexity", "prefer": "low"},
    "DSIR, Gumbel": {"score": "dsir", "method": "gumbel"},
    "DSIR per word, top": {"score": "dsir-per-word"},
    "retrieval, top": {"score": "retrieval"},
}


class Text(NamedTuple):
    text: str
    origin: str  # source/shard


def read(root: Path, part: str) -> Iterator[Text]:
    """All clean documents of a part, with where they come from."""
    for edition in sorted((root / "data" / "clean").iterdir()):
        for path in shards(edition, f"{part}-"):
            unit = path.stem.removeprefix(f"{part}-")
            for row in rows(path, ["text"]):
                yield Text(row["text"], f"{edition.name}/{unit}")


def ingested(folder: Path, name: str, texts: list[Text]) -> Source:
    place = folder / "raw" / name / "all.parquet"
    place.parent.mkdir(parents=True)
    parquet.write_table(pa.table({"text": [t.text for t in texts], "origin": [t.origin for t in texts]}), place)
    source = Source(name=name, role="general", origins=(Files(path=f"raw/{name}"),))
    ingest(source, folder, folder / "documents" / name, processes=1)
    return source


class Document(NamedTuple):
    ids: NDArray[np.uint16]
    bytes: int


class Pool(NamedTuple):
    """The documents to choose from, in the order of their one shard."""

    stem: str
    documents: list[Document]
    keys: NDArray[np.uint64]
    wanted: NDArray[np.bool_]  # of the target's shard

    @property
    def sizes(self) -> NDArray[np.int64]:
        """In tokens, separators included: what the budget is spent on."""
        return np.array([len(each.ids) + 1 for each in self.documents])

    @property
    def bytes(self) -> NDArray[np.int64]:
        return np.array([each.bytes for each in self.documents])


def pool_of(folder: Path, encoder: Any, target: str) -> Pool:
    (path,) = shards(folder / "documents" / "pool")
    table = parquet.read_table(path, columns=["text", "metadata"])
    texts = table["text"].to_pylist()
    whole = b"".join(text_key(text)[:8] for text in texts)
    return Pool(
        stem=path.stem,
        documents=encoded(encoder, texts),
        keys=np.frombuffer(whole, ">u8").astype(np.uint64),
        wanted=np.array([f'"{target}' in found for found in table["metadata"].to_pylist()]),
    )


def encoded(encoder: Any, texts: list[str]) -> list[Document]:
    found = encoder.encode_batch_fast(texts, add_special_tokens=False)
    sizes = (len(text.encode()) for text in texts)
    return [Document(np.array(each.ids, np.uint16), size) for each, size in zip(found, sizes, strict=True)]


class Bench(NamedTuple):
    """What all proxies have in common."""

    folder: Path
    base: config.Base
    weights: Path
    tokenizer: str
    vocabulary: int
    separator: int
    tokens: int
    measured: list[Document]  # held out, of the target
    others: list[Document]  # held out, of the rest

    def packed(self, name: str, train: list[Document], held_out: list[Document]) -> Path:
        out = self.folder / "rows" / name
        totals: dict[Part, ShardCounts] = {}
        parts: tuple[tuple[Part, list[Document]], ...] = (("train", train), ("held_out", held_out))
        for part, documents in parts:
            packer = ShardPacker(out / part / "all", self.vocabulary, self.separator)
            for each in documents:
                packer.add(iter([each.ids]))
            packer.close()
            counts = {"documents": len(documents), "bytes": sum(each.bytes for each in documents)}
            totals[part] = ShardCounts(tokens=packer.num_tokens, **counts)
        index = Index(
            format=FORMAT,
            base=self.base.name,
            tokenizer=self.tokenizer,
            vocabulary=self.vocabulary,
            dtype=dtype_for(self.vocabulary),
            separator=self.separator,
            row_tokens=self.base.row_tokens,
            shards={part: {"all": counts} for part, counts in totals.items()},
            totals=totals,
        )
        (out / INDEX).write_text(index.model_dump_json(), encoding="utf-8")
        return out

    def losses(self, chosen: list[Document], seed: int, trained: bool = True) -> dict[str, float]:
        """Held-out nats per token of the target and of the rest, after reading what was chosen once."""
        name = f"{len(list(self.folder.glob('rows/*')))}"
        recipe = TrainConfig(
            tokens=self.tokens,
            learning_rate=0.001,
            rows_per_step=16,
            schedule=Schedule(warmup_steps=10),
            device="cpu",
            threads=1,
            seed=seed,
        )
        target = str(self.packed(f"{name}-target", chosen, self.measured))
        rest = str(self.packed(f"{name}-rest", chosen[:1], self.others))
        portions = {
            "target": Portion(rows=target, role="domain", share=1.0),
            "rest": Portion(rows=rest, role="general", share=0.0),
        }
        request = Request(
            name=name,
            label=self.base.name,
            model=str(self.weights),
            portions=portions,
            row_tokens=self.base.row_tokens,
            recipe=recipe,
            held_out_tokens=40_000,
            out=str(self.folder / "run"),
        )
        run = Run(request)
        if trained:
            run.advance(request.steps, request.steps, None)
        found = run.evaluate(run=name, group=name, finished=trained)
        return {each.evaluated: float("nan" if each.loss_nats is None else each.loss_nats) for each in found}


def begin(root: Path, folder: Path, target: str, tokens: int) -> tuple[Bench, Pool]:
    """Documents ingested, scored and tokenised."""
    shown, rest = [], []
    for each in read(root, "train"):
        (shown if each.origin.startswith(target) and text_key(each.text)[-1] % 2 else rest).append(each)
    if not shown:
        raise SystemExit(f"no documents of {target!r} in data/clean; --target takes SOURCE/SHARD, or its beginning")
    ingested(folder, "target", shown)
    source = ingested(folder, "pool", rest)
    asked = PrepareConfig.model_validate({"rules": {}, "scores": SCORES})
    begun = time.perf_counter()
    score(source, asked, folder / "documents" / "pool", folder / "scores" / "pool", processes=1)
    took = f"{len(SCORES)} scores in {time.perf_counter() - begun:.0f} s"
    print(f"{len(shown)} documents of {target} shown, pool of {len(rest)}; {took}", flush=True)

    base = config.base(root, "nano")
    words = Layout(root).tokenizer(base.name)
    encoder, separator = load(words)
    held = list(read(root, "held_out"))
    bench = Bench(
        folder=folder,
        base=base,
        weights=weights_folder(root, base),
        tokenizer=tokenizer_digest(words),
        vocabulary=max(encoder.get_vocab(with_added_tokens=True).values()) + 1,
        separator=separator,
        tokens=tokens,
        measured=encoded(encoder, [each.text for each in held if each.origin.startswith(target)]),
        others=encoded(encoder, [each.text for each in held if not each.origin.startswith(target)]),
    )
    return bench, pool_of(folder, encoder, target)


def compare(bench: Bench, pool: Pool, seeds: int) -> Iterator[tuple[str, ...]]:
    """A row for the base as it is, and one per selector."""
    untrained = bench.losses(pool.documents, 0, trained=False)
    yield ("none: the base", f"{untrained['target']:.3f}", f"{untrained['rest']:.3f}", "", "", "")
    sizes, lengths = pool.sizes, pool.bytes
    # No document is more than a twentieth of the budget, so that all spend nearly the same.
    eligible = sizes <= bench.tokens // 20
    for name, settings in SELECTORS.items():
        found: list[dict[str, float]] = []
        for seed in range(seeds):
            # A little more than is read, so that no row is read twice whatever the last document's length.
            select = Select.model_validate({**settings, "bytes": int(1.1 * bench.tokens), "seed": seed})
            scores = bench.folder / "scores" / "pool"
            chosen = choose("pool", [select], scores, [pool.stem], sizes, pool.keys, eligible)
            if sizes[chosen].sum() < bench.tokens:
                raise SystemExit(f"{name}: {sizes[chosen].sum()} tokens chosen of {bench.tokens}; lower --tokens")
            found.append(bench.losses([pool.documents[i] for i in np.flatnonzero(chosen)], seed))
        yield (
            name,
            spread([each["target"] for each in found]),
            spread([each["rest"] for each in found]),
            f"{sizes[chosen & pool.wanted].sum() / sizes[chosen].sum():.0%}",
            f"{np.median(lengths[chosen]):,.0f}",
            length_correlation(bench, pool, settings["score"]),
        )


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {(max(values) - min(values)) / 2:.3f}"


def length_correlation(bench: Bench, pool: Pool, name: str) -> str:
    """Spearman's, of score and bytes."""
    if name not in SCORES:
        return {"longest": "+1.00", "shortest": "-1.00"}.get(name, "0")
    scores = column(bench.folder / "scores" / "pool", [pool.stem], name, len(pool.bytes))
    known = ~np.isnan(scores)
    return f"{spearmanr(scores[known], pool.bytes[known]).statistic:+.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="python-docs/sympy", help="SOURCE/SHARD in data/clean, or its beginning")
    parser.add_argument("--tokens", type=int, default=200_000, help="of the pool that every proxy reads")
    parser.add_argument("--seeds", type=int, default=2, help="proxies per selector")
    asked = parser.parse_args()
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as temporary:
        bench, pool = begin(root, Path(temporary), asked.target, asked.tokens)
        print("| selector | target, nats | rest, nats | of the target's shard | median bytes | score ~ length |")
        print("|---|---|---|---|---|---|")
        for row in compare(bench, pool, asked.seeds):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
