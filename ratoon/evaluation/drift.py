"""Has the text moved away from the champion? How much worse it predicts the newest text than older text of one source.

    drift = bits per byte of new documents / bits per byte of old documents - 1

Both are held out. New and old are different documents, so nothing is paired: the interval draws both sides anew, each
for itself. The whole interval must lie above the threshold; many documents make a small drift sure, not large.

Newer text may simply be harder. `harder` is the same ratio under a compressor that has learned nothing: where it is as
large as the drift, the text became harder for anyone, and training on it may not help much.
"""

import lzma
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from ratoon.config import AssessConfig, ConfigError, DriftConfig, Role
from ratoon.corpus.filters.dates import days
from ratoon.evaluation import slices
from ratoon.evaluation.held_out import Document, held_out_documents
from ratoon.evaluation.slices import Place, Score
from ratoon.records import Interval, Record


class SourceDrift(Record):
    source: str
    role: Role | Literal["watched"]
    new_documents: int
    old_documents: int
    new: float | None = Field(None, description="bits per byte of the champion; None: too few documents")
    old: float | None = None
    drift: Interval | None = Field(None, description="relative")
    harder: float | None = Field(None, description="the same of a compressor: what is harder for it is for anyone")
    over: bool = Field(False, description="the whole interval is above the threshold")
    said: str


class Drift(Record):
    """`drift.json` of a model line."""

    line: str
    champion: str
    measured: str = Field(description="ISO 8601, UTC")
    by: Literal["arrival", "date"]
    since: str = Field(description="what is newer counts as new: a refresh, or a day")
    threshold: float
    sources: tuple[SourceDrift, ...]
    drifted: bool = Field(description="a source of the roles that count is over the threshold")


class Sides(NamedTuple):
    new: list[Document]
    old: list[Document]


def by_arrival(where: Place, known: set[str], config: AssessConfig) -> Sides:
    """known: ids of the held-out documents of the champion's edition."""
    return _sides(where, lambda document: document.id not in known, config)


def by_date(where: Place, since: str, config: AssessConfig) -> Sides:
    """A document whose date may mean days on both sides, or that has none, is on neither."""
    border = date.fromisoformat(since[:10])

    def is_new(document: Document) -> bool | None:
        found = days(document.date) if document.date else None
        if found is None or found[0] <= border < found[1]:
            return None
        return found[0] > border

    return _sides(where, is_new, config)


def _sides(where: Place, is_new: Callable[[Document], bool | None], config: AssessConfig) -> Sides:
    """Up to `assess.drift.documents` of each side, chosen by hash; None: on neither."""
    new, old = (slices.Lowest(config.drift.documents, config.seed) for _ in range(2))
    for document in held_out_documents(where.clean):
        side = is_new(document)
        if side is not None:
            (new if side else old).add(document)
    return Sides(new.documents(), old.documents())


def measure(
    sides: Mapping[str, tuple[Place, Sides]], champion: Path, out: Path, config: AssessConfig, score: Score
) -> tuple[SourceDrift, ...]:
    """The drift of every source; one with too few documents on a side is told and not scored."""
    asked = config.drift
    folders: dict[str, tuple[Role, Path]] = {}
    for source, (where, kept) in sorted(sides.items()):
        if min(map(len, kept)) >= asked.min_documents:
            for name, side in zip((f"{source}.new", f"{source}.old"), kept, strict=True):
                slices.keep(side, config.max_bytes, out / "text" / name)
                folders[name] = (where.role, out / "text" / name)
    if folders:
        slices.suite_of(folders, config, out / "suite")
        score(champion, out / "suite", out / "scores")
    return tuple(
        _source(source, where, kept, out / "scores", config) for source, (where, kept) in sorted(sides.items())
    )


def _source(source: str, where: Place, kept: Sides, scores: Path, config: AssessConfig) -> SourceDrift:
    asked = config.drift
    told = SourceDrift(
        source=source,
        role="watched" if where.watched else where.role,
        new_documents=len(kept.new),
        old_documents=len(kept.old),
        said=f"{len(kept.new)} new and {len(kept.old)} old documents; {asked.min_documents} of each are needed",
    )
    if min(map(len, kept)) < asked.min_documents:
        return told
    # Tasks are called benchmark--source.
    sums = [slices.bits_of(scores, f"{slices.TEXT.name}--{source}.{side}")[1:] for side in ("new", "old")]
    (new_bits, new_size), (old_bits, old_size) = ((np.array(b), np.array(n, np.float64)) for b, n in sums)
    found = interval((new_bits, new_size), (old_bits, old_size), asked, config.seed)
    harder = compressed(kept.new, kept.old, config.max_bytes)
    over = found.low > asked.threshold
    return told.model_copy(
        update={
            "new": float(new_bits.sum() / new_size.sum()),
            "old": float(old_bits.sum() / old_size.sum()),
            "drift": found,
            "harder": harder,
            "over": over,
            "said": _said(found, harder, over, asked),
        }
    )


def interval(
    new: tuple[np.ndarray, np.ndarray], old: tuple[np.ndarray, np.ndarray], asked: DriftConfig, seed: int
) -> Interval:
    """(bits, bytes) of the documents of each side. Percentiles of both sides drawn with replacement, each alone."""
    rng = np.random.default_rng(seed)

    def draws(bits: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        times_BD = rng.multinomial(len(bits), np.full(len(bits), 1 / len(bits)), size=asked.bootstrap)
        return np.asarray((times_BD @ bits) / (times_BD @ sizes))

    ratios = draws(*new) / draws(*old) - 1
    value = (new[0].sum() / new[1].sum()) / (old[0].sum() / old[1].sum()) - 1
    tail = (1 - asked.confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Interval(value=float(value), low=float(low), high=float(high), confidence=asked.confidence)


def compressed(new: list[Document], old: list[Document], max_bytes: int) -> float:
    """The ratio less 1 under LZMA: one stream of each side, of the same length, since longer ones compress better."""
    streams = [b"\n".join(slices.cut(document.text, max_bytes).encode() for document in side) for side in (new, old)]
    length = min(map(len, streams))
    sizes = [len(lzma.compress(stream[:length], preset=6)) for stream in streams]
    return sizes[0] / sizes[1] - 1


def _said(found: Interval, harder: float, over: bool, asked: DriftConfig) -> str:
    told = f"new text costs {found.value:+.1%} [{found.low:+.1%}, {found.high:+.1%}] bits per byte against older text"
    verdict = f"over the threshold of {asked.threshold:.1%}" if over else f"threshold {asked.threshold:.1%}"
    also = f"; a compressor finds it {harder:+.1%} harder" if over else ""
    return f"{told}, {verdict}{also}"


def known_border(by: str, known: object, since: str | None, line: str) -> None:
    """Raises ConfigError where there is nothing that new text could be newer than."""
    if by == "arrival" and known is None:
        raise ConfigError(
            f"{line}: no refresh has left its held-out text, so nothing is known to have come since; "
            f"run `ratoon refresh`, or set assess.drift.by: date in params.yaml and `cutoff` in models/bases"
        )
    if by == "date" and since is None:
        raise ConfigError(
            f"{line}: assess.drift.by is date, and neither a refresh nor a cutoff of the base says since when; "
            f"write `cutoff: YYYY-MM-DD` in models/bases"
        )
