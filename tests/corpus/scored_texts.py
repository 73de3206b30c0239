"""Texts of two subjects, and scorers made of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from small_sources import lines, notes

from ratoon.config import PrepareConfig, Scorer
from ratoon.corpus.clean import held_out, text_key
from ratoon.corpus.scores.reference import Reference
from ratoon.corpus.sources import ingest


def _words(line: str) -> list[str]:
    return line.split()


SHARED = _words("the of and to in a is that for it was on are as with they be at one have")
SEA = _words("sail harbour keel tide anchor mast deck rope wave gull captain cargo")
LAW = _words("court judge appeal statute clause verdict witness contract plaintiff evidence oath counsel")
SHARE = 0.2
KINDS = {
    "classifier": {"positive": ["sea"], "negative": ["law"], "buckets": 4096},
    "perplexity": {"reference": ["sea"], "order": 4},
    "importance": {"target": ["sea"], "raw": ["law"]},
    "retrieval": {"target": ["sea"], "background": ["sea", "law"], "buckets": 4096, "max_share": 0.9},
}


def written(words: list[str], count: int, seed: int) -> list[str]:
    """Texts of 8 to 60 words, two in three of them said in any subject."""
    random = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        length = int(random.integers(8, 60))
        said = [str(random.choice(words if random.random() < 0.34 else SHARED)) for _ in range(length)]
        texts.append(" ".join(said).capitalize() + ".")
    return texts


def reference(texts: list[str]) -> Reference:
    """As reading an edition of these gives it."""
    found = sorted({text_key(text): text for text in texts}.items())
    numbers = np.array([int.from_bytes(key[:8], "big") for key, _ in found], np.uint64)
    return Reference(pa.array([text for _, text in found], pa.large_string()), numbers)


def config(
    share: float = SHARE, select: tuple[dict[str, object], ...] = (), **scores: dict[str, object]
) -> PrepareConfig:
    asked = {"rules": {"prose": {}}, "held_out": {"share": share, "min_documents": 1}}
    return PrepareConfig.model_validate({**asked, "scores": scores, "select": select})


def scorer(kind: str, **changes: object) -> Scorer:
    return config(it={"kind": kind, **KINDS[kind], **changes}).scores["it"]


def every(**changes: object) -> dict[str, dict[str, object]]:
    """A score of each kind, called like it."""
    return {kind: {"kind": kind, **asked, **changes} for kind, asked in KINDS.items()}


def documents(root: Path, **texts: list[str]) -> Path:
    """Ingested sources of these names, a few files each, in one folder."""
    for name, said in texts.items():
        for part in range(3):
            lines(root / "raw" / name / f"{part}.jsonl", said[part::3])
        ingest(notes(f"raw/{name}", name=name), root, root / "documents" / name, processes=1)
    return root / "documents"


def is_held_out(text: str) -> bool:
    return held_out(text_key(text), SHARE)
