"""Byte-level BPE for a base made here, and what identifies a tokenizer wherever it came from."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ratoon.config import ConfigError
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import read_ledger, shards
from ratoon.corpus.portions import folders

SEPARATOR = "<|endoftext|>"


def train_tokenizer(clean_dirs: list[Path], vocabulary: int, out: Path, max_bytes: int = 16 << 20) -> str:
    """Train on the training parts of clean editions, save to `out`, and return its digest.

    Any text decodes back to itself, byte by byte; there is no BOS; end and padding are both `<|endoftext|>`.
    The same text gives the same files. Of more than `max_bytes` of text, a sample of whole documents is read,
    chosen by their ids.

    What was in `out` is replaced: a model trained with it depends on its ids, so whoever calls this decides
    whether it is time (a grown corpus alone is no reason).

    Raises ConfigError, with `out` untouched, when there is too little text for the vocabulary.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    # No normalizer and no added space: either would make text that cannot be got back.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[SEPARATOR],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample(clean_dirs, max_bytes), trainer)
    if tokenizer.get_vocab_size() != vocabulary:
        raise ConfigError(
            f"the text gives a vocabulary of {tokenizer.get_vocab_size()}, not {vocabulary}; "
            f"add general text or ask for a smaller vocabulary in models/bases"
        )
    _save(tokenizer, out)
    return tokenizer_digest(out)


def _sample(clean_dirs: list[Path], max_bytes: int) -> Iterator[str]:
    ledgers = [read_ledger(directory) for directory in clean_dirs]
    total = sum(ledger.funnel.bytes_kept - (ledger.held_out_bytes or 0) for ledger in ledgers)
    below = 2**32 * max_bytes // max(total, 1)
    for directory, ledger in zip(clean_dirs, ledgers, strict=True):
        for folder in folders(ledger):
            for shard in shards(directory, f"{folder}train-"):
                for row in rows(shard, ["id", "text"]):
                    if int(row["id"][:8], 16) < below:
                        yield row["text"]


def _save(tokenizer: Any, out: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=SEPARATOR, pad_token=SEPARATOR, clean_up_tokenization_spaces=False
    )
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        wrapped.save_pretrained(str(beside))
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():
            shutil.rmtree(out)
        beside.replace(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def load(directory: Path) -> tuple[Any, int]:
    """(tokenizers.Tokenizer, id of the separator) of a saved tokenizer, ready to encode plain text.

    Special tokens spelled out in a text are encoded as the text they are: a document must not be able to end
    itself. Raises ConfigError when the files, or an end-of-text token, are missing.
    """
    from tokenizers import Tokenizer

    path = directory / "tokenizer.json"
    if not path.exists():
        raise ConfigError(f"{path}: not found; packing needs a fast tokenizer (tokenizer.json)")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the binding raises bare Exception
        raise ConfigError(f"{path}: not readable as a tokenizer: {error}") from error
    eos = end_of_text(directory)
    separator = None if eos is None else tokenizer.token_to_id(eos)
    if separator is None:
        raise ConfigError(
            f"{directory}: {'names no eos_token' if eos is None else f'its eos_token {eos!r} is not in the vocabulary'}"
            f"; documents are separated by it: name one in tokenizer_config.json"
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer, separator


def end_of_text(directory: Path) -> str | None:
    """The eos token as the tokenizer's own files name it."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (directory / name).exists():
            token = read_json(directory / name).get("eos_token")
            token = token.get("content") if isinstance(token, dict) else token
            if token:
                return str(token)
    return None


def tokenizer_digest(directory: Path) -> str:
    """Twelve hex digits over what decides the ids of a text, and the separator.

    Padding, truncation and the post-processor do not count: they differ between saved copies of one tokenizer
    and play no part in packing. Raises ConfigError when there is no tokenizer.
    """
    path = directory / "tokenizer.json"
    if not path.exists():
        raise ConfigError(f"{path}: not found; packing needs a fast tokenizer (tokenizer.json)")
    whole = read_json(path)
    parts = {key: whole.get(key) for key in ("added_tokens", "normalizer", "pre_tokenizer", "model")}
    text = json.dumps([parts, end_of_text(directory)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: found {type(found).__name__}, expected keys and values")
    return found
