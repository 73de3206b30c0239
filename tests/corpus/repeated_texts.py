"""Texts that are near-duplicates of each other by construction, and the way to a clean edition of them."""

import random
import shutil

import pyarrow.parquet as parquet
from small_sources import lines, notes, recipe

from ratoon.config import Dedup, HeldOut, NearDuplicates
from ratoon.corpus.clean import clean, held_out, text_key
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import shards
from ratoon.corpus.sources import ingest

SHARE = 0.2


def essay(i: int, words: int = 60) -> str:
    """No 5 words of it are in any other."""
    draw = random.Random(i)
    return " ".join(f"{draw.choice('bdfgklmnprst')}{draw.choice('aeiou')}{draw.randrange(10**5)}" for _ in range(words))


def variant(i: int, k: int, words: int = 60) -> str:
    """Near essay(i), and a little longer: similarity 55/58."""
    return f"{essay(i, words)} revised {k}"


FORTY = [essay(i) for i in range(40)]


def fate(text: str) -> bool:
    return held_out(text_key(text), SHARE)


def pick(held: bool, k: int = 1, of_essay: bool = False) -> int:
    """An essay that is (not) trained on, whose variant k is (not) held out, as `held` says of the variant."""
    return next(i for i in range(500, 5000) if fate(essay(i)) is of_essay and fate(variant(i, k)) is held)


def config(**changes: object):
    dedup = Dedup(**{"near": NearDuplicates(), **changes})  # type: ignore[arg-type, call-arg]
    return recipe().model_copy(update={"dedup": dedup, "held_out": HeldOut(share=SHARE, min_documents=1)})


def prepare(tmp_path, files, settings=None, name="clean", source="notes", **options):
    raw, declared = tmp_path / f"raw-{source}", notes(f"raw-{source}", name=source)
    shutil.rmtree(raw, ignore_errors=True)
    for file, texts in files.items():
        lines(raw / file, texts)
    ingest(declared, tmp_path, tmp_path / f"documents-{source}")
    return clean(declared, settings or config(), tmp_path / f"documents-{source}", tmp_path / name, **options)


def texts(directory, which):
    return [row["text"] for path in shards(directory, f"{which}-") for row in rows(path)]


def everything(directory):
    return sorted(texts(directory, "train") + texts(directory, "held_out"))


def clusters(directory):
    return [row for path in shards(directory, "clusters/") for row in parquet.read_table(path).to_pylist()]
