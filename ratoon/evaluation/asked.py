"""Items of a suite as rows of tokens, cut and hashed as lm-eval 0.4.13 cuts and hashes them.

A text is read in windows of `row_tokens`, each begun by one token that is known: first the prefix token, later the
token before. The last window is filled up with known text, or it would be read with little context. A choice is encoded
together with its context and parted where the context's own tokens end; blanks at the end of a context go to the
choice. A context that is too long loses its beginning. Choices of one item that keep the same context share it.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ratoon.config import ConfigError
from ratoon.evaluation.taskfile import lines_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AT_ONCE = 1024  # texts handed to the tokenizer
Item = dict[str, Any]


class Unfit(ConfigError):
    """An item that the model cannot be asked."""

    def __init__(self, item: Item, why: str) -> None:
        super().__init__(f"item {item['id']!r}: {why}")
        self.id = str(item["id"])


class Branch(NamedTuple):
    owner: int  # the request its nats are added to
    tokens: Sequence[int]


class Row(NamedTuple):
    context: Sequence[int]
    branches: tuple[Branch, ...]

    @property
    def length(self) -> int:
        """Tokens read: the last of a branch only has to be foretold."""
        return len(self.context) + sum(len(branch.tokens) - 1 for branch in self.branches)


class Asked(NamedTuple):
    """Requests number 0 to `requests` - 1, in the order of items and their choices."""

    rows: list[Row]
    requests: int
    truncated: int  # whose context lost its beginning

    @property
    def branches(self) -> int:
        return sum(len(row.branches) for row in self.rows)


def items_of(file: Path) -> list[Item]:
    """The lines of a suite's file; a key that other lines have and one has not is None, as lm-eval reads it."""
    found = lines_of(file)
    keys = list(dict.fromkeys(key for item in found for key in item))
    return [{key: item.get(key) for key in keys} for item in found]


def identity(item: Item, prompt: str, target: str) -> dict[str, str]:
    """Who an item is, and lm-eval's hashes of it: what two arms are joined by."""
    whole = json.dumps(item, indent=2, ensure_ascii=False)
    hashes = {"doc_hash": whole, "prompt_hash": prompt, "target_hash": target}
    return {"id": item["id"], "document": item["document"]} | {
        name: hashlib.sha256(text.encode()).hexdigest() for name, text in hashes.items()
    }


def prefix_of(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The token before a text: lm-eval's choice, and a suitable tokenizer has one of the two."""
    found = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    assert isinstance(found, int), "harness.fits refuses a tokenizer that cannot begin a text"
    return found


def encode(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> Iterator[list[int]]:
    for first in range(0, len(texts), AT_ONCE):
        part = list(texts[first : first + AT_ONCE])
        yield from tokenizer(part, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]


# ---------------------------------------------------------------- rolling


def rolling(items: Sequence[Item], tokenizer: "PreTrainedTokenizerBase", row_tokens: int) -> Asked:
    """A request per item: its text."""
    prefix = prefix_of(tokenizer)
    rows = [
        Row(context, (Branch(number, tokens),))
        for number, known in enumerate(encode(tokenizer, [item["text"] for item in items]))
        for context, tokens in windows(known, prefix, row_tokens)
    ]
    return Asked(rows, len(items), 0)


def windows(tokens: list[int], prefix: int, row_tokens: int) -> Iterator[tuple[list[int], list[int]]]:
    """(known, foretold) of each window: together all tokens once, and at most row_tokens are read."""
    if tokens:
        yield [prefix], tokens[:row_tokens]
    for start in range(row_tokens, len(tokens), row_tokens):
        stop = min(start + row_tokens, len(tokens))
        yield tokens[stop - row_tokens - 1 : start], tokens[start:stop]


# ---------------------------------------------------------------- choice


def choice(items: Sequence[Item], tokenizer: "PreTrainedTokenizerBase", row_tokens: int) -> Asked:
    """A request per choice of each item."""
    prefix = prefix_of(tokenizer)
    contexts = [item["context"].rstrip() for item in items]
    texts = [
        item["context"] + answer for item, context in zip(items, contexts, strict=True) for answer in item["choices"]
    ]
    wholes = encode(tokenizer, texts)
    rows: list[Row] = []
    number = truncated = 0
    for item, known in zip(items, encode(tokenizer, contexts), strict=True):
        shared: dict[int, list[Branch]] = {}
        context = known or [prefix]
        for _ in item["choices"]:
            whole = next(wholes)
            foretold = whole[len(known) :]
            if not known and foretold[:1] == [prefix] and len(foretold) > 1:
                foretold = foretold[1:]
            fits(item, foretold, row_tokens)
            lost = max(0, len(context) + len(foretold) - row_tokens - 1)
            truncated += lost > 0
            shared.setdefault(lost, []).append(Branch(number, foretold))
            number += 1
        rows += [Row(context[lost:], tuple(branches)) for lost, branches in shared.items()]
    return Asked(rows, number, truncated)


def fits(item: Item, foretold: list[int], row_tokens: int) -> None:
    if not 0 < len(foretold) <= row_tokens:
        raise Unfit(
            item,
            f"a passage to score has {len(foretold)} tokens; the model reads 1 to {row_tokens} at once\n"
            f"  change this choice (of kind next_passage: form.continuation_bytes), or row_tokens of the base",
        )
