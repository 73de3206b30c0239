"""Small sources on disk, and the way from text to rows for them."""

import json
from collections.abc import Iterable
from pathlib import Path

from ratoon.config import Base, Files, HeldOut, PrepareConfig, Source, parse

WORDS = (
    "field",
    "river",
    "stone",
    "quiet",
    "garden",
    "morning",
    "letter",
    "window",
    "answer",
    "yellow",
    "bridge",
    "market",
)


def sentence(i: int) -> str:
    """A text no other number has."""
    return f"Text {i}: " + " ".join(WORDS[(i * 7 + k * (i % 5 + 1)) % len(WORDS)] for k in range(12)) + f" and {i}."


def notes(path: str = "raw", **changes: object) -> Source:
    """A source of everything in raw/."""
    return Source(**{"name": "notes", "role": "general", "origins": (Files(path=path),), **changes})  # type: ignore[arg-type]


def lines(path: Path, texts: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def tree(directory: Path) -> dict[str, bytes]:
    """Every file below, by name: what "the same bytes" means."""
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def recipe(share: float = 0.2, least: int = 2, **rules: object) -> PrepareConfig:
    return PrepareConfig(
        rules={"prose": rules, "code": {}},  # type: ignore[dict-item]
        held_out=HeldOut(share=share, min_documents=least),  # type: ignore[call-arg]
    )


def base(row_tokens: int = 16) -> Base:
    size = {"hidden": 8, "layers": 1, "heads": 1, "feed_forward": 8}
    weights = {"kind": "scratch", **size, "tokens": 1, "learning_rate": 1e-3, "rows_per_step": 1}
    return parse(Base, {"name": "tiny", "row_tokens": row_tokens, "weights": weights}, "test")
