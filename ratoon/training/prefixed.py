"""Rows with the prefixes of their documents for the first part of a run, then plain ones (MeCo, arXiv:2501.01956).

Which rows a step has, and the learning rate, know nothing of it: from the cooldown on every batch is, to the bit, that
of a run without. Methods see a row as it is read, prefixes included.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ratoon.config import ConfigError, unknown
from ratoon.corpus.tokenizer import read_json
from ratoon.lm.suitable import context_of
from ratoon.stream.lengths import Lengths
from ratoon.stream.mixture import Batch, Mixture
from ratoon.stream.prefixes import Prefixes, prefixed
from ratoon.stream.rows import Rows
from ratoon.training.request import Request

WHERE = "train.loss.prefix"
POSITIONS = 1 << 16  # located at once, to count


class Prefixed:
    """Puts the prefixes into the batches of a run; neutral where it asks for none."""

    def __init__(self, request: Request, mixture: Mixture, lengths: Lengths) -> None:
        asked = request.recipe.loss.prefix
        self.order, self.lengths = mixture.order, lengths
        self.rows_per_step, self.row_tokens = request.recipe.rows_per_step, mixture.row_tokens
        self.until = round(asked.until_share * request.steps) if asked else 0
        self.sources: list[Prefixes | None] = [None] * len(self.order.names)
        self.context: int | None = None  # tokens that a model is given at once, at most; None: a row's
        if asked is None or not asked.until_share:
            return
        if not self.until:
            raise ConfigError(
                f"{WHERE}.until_share: {asked.until_share:g} of {request.steps} steps is none; raise it, or leave "
                f"prefix out"
            )
        if strange := sorted({*asked.sources} - {*request.portions}):
            raise ConfigError(f"{WHERE}.sources: {unknown('source', strange[0], sorted(request.portions))}")
        for number, name in enumerate(self.order.names):
            rows = mixture.rows[name]
            if name in (asked.sources or (name,)):
                assert isinstance(rows, Rows)
                self.sources[number] = Prefixes(rows)
        if all(each is None for each in self.sources):  # those that are named have no share in this run
            self.until = 0
            return
        longest = self.longest(request.recipe.attention == "document")
        check_context(Path(request.model), longest, self.row_tokens)
        self.context = max(longest, self.row_tokens)

    def longest(self, documents_apart: bool) -> int:
        """Tokens that stand before one another: of a row, or of a document where those are kept apart."""
        found = [each for each in self.sources if each is not None]
        if documents_apart:
            return max(each.longest_document(self.row_tokens) for each in found)
        return max(each.longest_row(self.row_tokens) for each in found)

    def at(self, step: int) -> bool:
        """Whether rows of a step have prefixes."""
        return step < self.until

    def put(self, batch: Batch, step: int) -> Batch:
        return prefixed(batch, self.sources) if self.at(step) else batch

    def tokens_before(self, step: int) -> dict[str, int]:
        """Source -> tokens of the prefixes that were read before a step, of those that have any."""
        total = np.zeros(len(self.sources), np.int64)
        step = min(step, self.until)
        begin = 0
        for end in [*(end for end in self.lengths.ends.tolist() if end < step), step]:
            if begin < end:
                first, last = begin * self.rows_per_step, end * self.rows_per_step
                total += self._between(first, last, self.lengths.parts_at(begin))
            begin = end
        return {name: int(count) for name, count in zip(self.order.names, total, strict=True) if count}

    def _between(self, first: int, last: int, parts: int) -> NDArray[np.int64]:
        """(sources,) between two positions of the order, whose rows are cut in so many parts."""
        counts = [None if each is None else in_rows(each, self.row_tokens, parts) for each in self.sources]
        found = np.zeros(len(counts), np.int64)
        for at in range(first, last, POSITIONS):
            place = self.order.locate(np.arange(at, min(at + POSITIONS, last)))
            for number, count in enumerate(counts):
                if count is not None:
                    found[number] += count[place.row[place.source == number]].sum()
        return found


def in_rows(prefixes: Prefixes, row_tokens: int, parts: int) -> NDArray[np.int64]:
    """(rows,) tokens of prefixes in each row when it is read in so many parts."""
    found = prefixes.tokens_in(row_tokens // parts)
    short = np.zeros(-(-len(found) // parts) * parts, np.int64)
    short[: len(found)] = found
    return short.reshape(-1, parts).sum(axis=1)


def check_context(model: Path, longest: int, row_tokens: int) -> None:
    """Refuse rows that have become longer than the model reads."""
    _, context = context_of(read_json(model / "config.json"))
    if context is not None and longest > context:
        raise ConfigError(
            f"{WHERE}: with their prefixes rows have up to {longest} tokens, the model in {model} reads {context}; "
            f"declare the base with row_tokens {max(1, row_tokens - longest + context)}, which changes no token, or "
            f"ask for shorter prefixes in prepare.prefixes"
        )
