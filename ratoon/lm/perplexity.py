"""Bits per byte of many texts under a causal language model, forward only.

    bits(x) = - sum over the tokens t of x of  log2 p(t | separator, tokens before)  / bytes of x

A text is read as it stands in a packed row: behind a separator. One longer than a row is read in windows of a row, each
of which knows one token of the window before; of one longer than `max_tokens` the beginning is measured. Windows are
sorted by length and run through the model as many as `batch_tokens` hold.

How a processor adds depends on the shape of a batch, in the seventh digit. Scores are rounded to the fourth, on one
core per worker: the same shard gives the same bytes, and beside other texts a text has the same score but for one in
the last digit now and then.
"""

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ratoon.config import ConfigError, ModelPerplexity
from ratoon.corpus.edition import digest, sha256
from ratoon.corpus.tokenizer import load, tokenizer_digest
from ratoon.lm.load import check_weights, load_model

VERSION = 1
DIGITS = 4
CHARS = 8  # at most so many per token are tokenised: a longer text has more than max_tokens
CORE_FLOPS = 2e10  # a core of today in float32, for an estimate of hours


class Window(NamedTuple):
    text: int  # which
    ids: list[int]  # the first is context alone


class Measure(NamedTuple):
    """Picklable; opened in the process that scores."""

    folder: Path
    weights: str  # digest
    parameters: int
    row_tokens: int
    max_tokens: int
    batch_tokens: int
    device: str

    def content(self) -> tuple[object, ...]:
        return "model", VERSION, self.weights, self.row_tokens, self.max_tokens, self.batch_tokens, self.device

    def cost(self, documents: int, num_bytes: int) -> str:
        """What scoring so much text takes, in words."""
        tokens = min(num_bytes // 3, documents * self.max_tokens)
        flops = 2 * self.parameters * tokens
        hours = f", about {flops / CORE_FLOPS / 3600:,.1f} hours of a core" if self.device == "cpu" else ""
        return (
            f"{tokens / 1e6:,.1f} M tokens through {self.parameters / 1e6:,.1f} M parameters, {flops:.1e} FLOPs{hours}"
        )

    def open(self) -> "Scorer":
        return _opened(self)


def measure(folder: Path, row_tokens: int, asked: ModelPerplexity) -> Measure:
    """The weights in `folder` as a scorer. Raises ConfigError when they cannot be read."""
    check_weights(folder)
    files = sorted(folder.glob("*.safetensors"))
    weights = digest(tokenizer_digest(folder), sha256(folder / "config.json"), *(sha256(file) for file in files))
    parameters = sum(_count(file) for file in files)
    return Measure(folder, weights, parameters, row_tokens, asked.max_tokens, asked.batch_tokens, asked.device)


def _count(file: Path) -> int:
    from safetensors import safe_open

    with safe_open(file, "numpy") as found:
        return sum(math.prod(found.get_slice(name).get_shape()) for name in found.keys())  # noqa: SIM118


@lru_cache(maxsize=1)  # a worker scores many shards
def _opened(asked: Measure) -> "Scorer":
    return Scorer(asked)


class Scorer:
    def __init__(self, asked: Measure) -> None:
        import torch

        if asked.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device: cuda was asked for and this machine has no usable GPU; allowed: cpu")
        self.asked = asked
        self.encoder, self.separator = load(asked.folder)
        self.model = load_model(asked.folder, asked.device).eval()

    def scores(self, texts: pa.Array) -> dict[str, NDArray[np.float64]]:
        said = texts.to_pylist()
        windows, sizes = self._windows(said)
        bits = np.zeros(len(said))
        windows.sort(key=lambda window: (len(window.ids), window.text, window.ids))
        for batch in self._batches(windows):
            np.add.at(bits, [window.text for window in batch], self._bits([window.ids for window in batch]))
        found = np.full(len(said), np.nan)
        there = sizes > 0
        found[there] = np.round(bits[there] / sizes[there], DIGITS)
        return {"": found}

    def _windows(self, texts: list[str]) -> tuple[list[Window], NDArray[np.int64]]:
        """What is run through the model, and the bytes of each text that are in it."""
        most, step = self.asked.max_tokens, self.asked.row_tokens
        cut = [text[: CHARS * most] for text in texts]
        windows, sizes = [], np.zeros(len(texts), np.int64)
        for number, found in enumerate(self.encoder.encode_batch(cut, add_special_tokens=False)):
            ids = [self.separator, *found.ids[:most]]
            if len(ids) == 1:
                continue
            sizes[number] = len(cut[number][: found.offsets[len(ids) - 2][1]].encode())
            windows += [Window(number, ids[at : at + step + 1]) for at in range(0, len(ids) - 1, step)]
        return windows, sizes

    def _batches(self, windows: list[Window]) -> Any:
        batch: list[Window] = []
        for window in windows:
            # They come by length, so the newest is the longest.
            if batch and (len(batch) + 1) * len(window.ids) > self.asked.batch_tokens:
                yield batch
                batch = []
            batch.append(window)
        if batch:
            yield batch

    def _bits(self, rows: list[list[int]]) -> NDArray[np.float64]:
        """Of each row's tokens after the first."""
        import torch

        longest = max(map(len, rows))
        # Behind the end of a row anything may stand: no token before it looks there.
        tokens_BT = torch.tensor([row + [self.separator] * (longest - len(row)) for row in rows])
        inside_BT = torch.tensor([[i < len(row) for i in range(1, longest)] for row in rows])
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                tokens_BT = tokens_BT.to(self.model.device)
                logits_BTV = self.model(input_ids=tokens_BT[:, :-1], use_cache=False).logits.float()
                nats_BT = -logits_BTV.log_softmax(-1).gather(-1, tokens_BT[:, 1:, None])[..., 0]
        finally:
            torch.set_num_threads(threads)
        nats = (nats_BT.cpu().double() * inside_BT).sum(1)
        return np.asarray(nats.numpy() / math.log(2), np.float64)
