"""A clean edition to packed rows: every document's tokens and one separator, nothing more, nothing lost.

The files are described in ratoon.corpus.packed and read by ratoon.stream.rows; here is what needs a tokenizer.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

from ratoon.config import Base, Prefixes, Source
from ratoon.corpus.documents import Tally, rows, tally_of
from ratoon.corpus.edition import Edition, digest, read_ledger, renew, shards
from ratoon.corpus.packed import FORMAT, INDEX, Index, Part, ShardCounts, ShardPacker, dtype_for
from ratoon.corpus.portions import folders
from ratoon.corpus.prefixes import pack_prefixes, refuse_none
from ratoon.corpus.scores.packed import pack_scores
from ratoon.corpus.tokenizer import load, tokenizer_digest
from ratoon.corpus.workers import Report, Seen
from ratoon.records import Ledger, Portion

# Text handed to the tokenizer at once: its result takes some 30 times the memory of the text.
BATCH_BYTES = 4 << 20
PIECE_CHARS = 1 << 20
# Between a letter and a space before a letter, every byte-level pre-tokenizer without a rule of its own splits.
SEAM = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])")


class Shard(NamedTuple):
    """A shard of clean text and the name its rows have. `folder`: of its portion, or nothing."""

    folder: str
    part: Part
    clean: Path
    name: str
    counted: Tally

    @property
    def place(self) -> str:
        return f"{self.folder}{self.part}/{self.name}"

    @property
    def files(self) -> tuple[str, str]:
        return f"{self.place}.tokens", f"{self.place}.starts"


def pack(
    source: Source,
    clean: Path,
    tokenizer: Path,
    base: Base,
    out: Path,
    report: Report | None = None,
    scores: Path | None = None,
    prefixes: Prefixes | None = None,
) -> Ledger:
    """Bring `out` to the rows of the clean edition for `base`, and return its ledger; unchanged shards are reused.

    A source that is split has the rows of each portion, with their index, in a folder of its own.

    `report` hears of bytes of text. `scores`: the source's edition of scores, packed with what is trained on; where it
    is empty or None, none are. `prefixes`: what is packed beside each document trained on; None: nothing. Raises
    ConfigError when the tokenizer cannot be read or has no separator, when the scores are not of these documents, and
    when no document has a prefix.
    """
    encoder, separator = load(tokenizer)
    of = tokenizer_digest(tokenizer)
    vocabulary = max(encoder.get_vocab(with_added_tokens=True).values()) + 1
    parts = folders(read_ledger(clean))
    planned = [item for folder in parts for item in _plan(clean, folder, of)]
    with renew(out) as edition:
        fresh = [item for item in planned if not all(map(edition.reusable, item.files))]
        total = sum(item.counted.bytes for item in fresh)
        done = documents = 0
        for item in fresh:
            packer = ShardPacker(edition.place(item.place), vocabulary, separator)
            for count, size in _fill(packer, encoder, item.clean):
                done, documents = done + size, documents + count
                if report:
                    report(done, total, f"encode {item.name}", Seen(documents, 0))
        found: dict[str, Index] = {}
        beside: list[str] = []
        for folder in parts:
            inside = [item for item in planned if item.folder == folder]
            trained = {item.name: item.clean for item in inside if item.part == "train"}
            scored, made = pack_scores(trained, scores, edition, folder)
            prefixed, written = pack_prefixes(trained, prefixes, encoder, edition, folder)
            index = _index(inside, edition, base, of, vocabulary, separator)
            found[folder] = index.model_copy(update={"scores": scored, "prefixes": prefixed})
            beside += [f"{folder}{INDEX}", *made, *written]
            edition.place(f"{folder}{INDEX}").write_text(
                found[folder].model_dump_json(indent=2) + "\n", encoding="utf-8"
            )
        if prefixes:
            counts = [index.prefixes.documents for index in found.values() if index.prefixes]
            refuse_none(source.name, prefixes, sum(counts))
        return edition.publish(_ledger(source, clean, base, planned, edition, found, beside))


def _plan(clean: Path, folder: str, tokenizer: str) -> Iterator[Shard]:
    for part in get_args(Part):
        for path in shards(clean, f"{folder}{part}-"):
            # Whole name of the clean shard: it carries the digest of what the shard holds.
            key = digest(FORMAT, path.name, tokenizer)
            unit = path.stem.removeprefix(f"{part}-").rsplit("-", 2)[0]
            yield Shard(folder, part, path, f"{unit}-{key}", tally_of(path))


def _fill(packer: ShardPacker, encoder: Any, path: Path) -> Iterator[tuple[int, int]]:
    """Pack one shard; yields the documents and bytes of text packed since the last time."""
    batch: list[str] = []
    size = 0
    for row in rows(path, ["text"]):
        batch.append(row["text"])
        size += len(row["text"].encode())
        if size >= BATCH_BYTES:
            _encode(packer, encoder, batch)
            yield len(batch), size
            batch, size = [], 0
    _encode(packer, encoder, batch)
    packer.close()
    yield len(batch), size


def _encode(packer: ShardPacker, encoder: Any, texts: list[str]) -> None:
    if any(len(text) > 2 * PIECE_CHARS for text in texts) and separable(encoder):
        for text in texts:
            packer.add(encoder.encode_batch_fast([piece], add_special_tokens=False)[0].ids for piece in pieces(text))
        return
    for encoding in encoder.encode_batch_fast(texts, add_special_tokens=False):
        packer.add(iter([encoding.ids]))


def separable(encoder: Any) -> bool:
    """Whether a text cut at its seams encodes to the same tokens as the whole.

    True for byte-level tokenizers that split words by the rule of GPT-2 alone, as those trained here do. Others
    get every document whole, and need memory for it.
    """
    whole = json.loads(encoder.to_str())
    steps = whole["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    plain = all(step.get("type") == "Digits" or step.get("type") == "ByteLevel" for step in steps)
    ruled = any(step.get("type") == "ByteLevel" and step.get("use_regex") for step in steps)
    added = any(SEAM.search(token["content"]) for token in whole["added_tokens"])
    return plain and ruled and not added and whole["normalizer"] is None


def pieces(text: str) -> Iterator[str]:
    """Consecutive stretches of about PIECE_CHARS that make up the text, cut at seams only."""
    begin = 0
    while seam := SEAM.search(text, begin + PIECE_CHARS):
        yield text[begin : seam.start()]
        begin = seam.start()
    yield text[begin:]


def _index(
    planned: list[Shard],
    edition: Edition,
    base: Base,
    tokenizer: str,
    vocabulary: int,
    separator: int,
) -> Index:
    dtype = dtype_for(vocabulary)
    found: dict[Part, dict[str, ShardCounts]] = {part: {} for part in get_args(Part)}
    for item in planned:
        num_tokens = edition.path(item.files[0]).stat().st_size // int(dtype[-1])
        found[item.part][item.name] = ShardCounts(
            tokens=num_tokens, documents=item.counted.documents, bytes=item.counted.bytes
        )
    return Index(
        format=FORMAT,
        base=base.name,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        dtype=dtype,
        separator=separator,
        row_tokens=base.row_tokens,
        shards=found,
        totals={part: _total(list(of.values())) for part, of in found.items()},
    )


def _total(counts: list[ShardCounts]) -> ShardCounts:
    return ShardCounts(
        tokens=sum(c.tokens for c in counts),
        documents=sum(c.documents for c in counts),
        bytes=sum(c.bytes for c in counts),
    )


def _ledger(
    source: Source,
    clean: Path,
    base: Base,
    planned: list[Shard],
    edition: Edition,
    found: dict[str, Index],
    beside: list[str],
) -> Ledger:
    total = Tally()
    for item in planned:
        total.add(item.counted)
    train, held = (_total([index.totals[part] for index in found.values()]) for part in get_args(Part))
    (tokenizer,) = {index.tokenizer for index in found.values()}
    scores = sorted({suffix for index in found.values() if index.scores for suffix in index.scores.suffixes.values()})
    prefixes = sorted({f"prefixes-{index.prefixes.key}" for index in found.values() if index.prefixes})
    return Ledger(
        source=source.name,
        role=source.role,
        stage="pack",
        config=digest(read_ledger(clean).config, tokenizer, base.name, base.row_tokens, *scores, *prefixes),
        funnel=total.funnel(),
        shards=edition.hashes([*beside, *(name for item in planned for name in item.files)]),
        held_out_documents=held.documents,
        held_out_bytes=held.bytes,
        tokens=train.tokens,
        held_out_tokens=held.tokens,
        portions={folder.rstrip("/"): _portion(index) for folder, index in found.items() if folder},
    )


def _portion(index: Index) -> Portion:
    train, held = index.totals["train"], index.totals["held_out"]
    return Portion(
        documents=train.documents + held.documents,
        bytes=train.bytes + held.bytes,
        held_out_documents=held.documents,
        held_out_bytes=held.bytes,
        tokens=train.tokens,
        held_out_tokens=held.tokens,
    )
