"""One model, opened once and asked for the loss of rows of tokens: for probes that are no items of a suite."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ratoon.config import ConfigError
from ratoon.lm.load import load_model, load_tokenizer, pick_device

if TYPE_CHECKING:
    pass

F64 = NDArray[np.float64]
LOGITS_AT_ONCE = {"cpu": 2**25, "cuda": 2**30}  # in float32, and as many again for their logarithms


class Reader:
    """A model and its tokenizer. Forward only, in float32."""

    def __init__(self, path: Path, row_tokens: int, device: str = "auto") -> None:
        self.path = path
        self.row_tokens = row_tokens
        self.tokenizer = load_tokenizer(path)
        self.model = load_model(path, str(pick_device(device).type)).eval()
        first = self.tokenizer.bos_token_id
        separator = first if first is not None else self.tokenizer.eos_token_id
        if separator is None:
            raise ConfigError(f"{path}: its tokenizer names neither bos_token nor eos_token; name it in its config")
        self.separator = int(separator)

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def nats(self, rows: Sequence[Sequence[int]]) -> list[F64]:
        """Of each row the loss of its tokens after the first, which is context alone."""
        import torch

        entries = int(self.model.get_input_embeddings().weight.shape[0])  # type: ignore[arg-type,index,union-attr]
        most = LOGITS_AT_ONCE[self.model.device.type]
        found: list[F64] = [np.empty(0)] * len(rows)
        waiting = sorted(range(len(rows)), key=lambda k: len(rows[k]))
        while waiting:
            width = len(rows[waiting[-1]])
            if width > self.row_tokens + 1:
                raise ValueError(f"a row of {width - 1} tokens; {self.path} reads {self.row_tokens} at once")
            count = max(1, most // (width * entries))
            batch, waiting = waiting[-count:], waiting[:-count]
            with torch.inference_mode():
                nats_BT = self._nats([rows[k] for k in batch], width)
            for k, nats_T in zip(batch, nats_BT, strict=True):
                found[k] = nats_T[: len(rows[k]) - 1].astype(np.float64)
        return found

    def _nats(self, rows: list[Sequence[int]], width: int) -> NDArray[np.float32]:
        """What stands behind the end of a row does not matter: no token before it looks there."""
        import torch

        tokens_BT = torch.tensor([[*row, *[self.separator] * (width - len(row))] for row in rows])
        tokens_BT = tokens_BT.to(self.model.device)
        logits_BTV: torch.Tensor = self.model(input_ids=tokens_BT[:, :-1], use_cache=False).logits.float()
        nats_BT = torch.nn.functional.cross_entropy(
            logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten(), reduction="none"
        )
        shaped: NDArray[np.float32] = nats_BT.view(len(rows), -1).cpu().numpy()
        return shaped

    def bits(self, texts: Sequence[str]) -> F64:
        """Of each text, read in windows of a row; each window knows one token of the one before."""
        windows: list[list[int]] = []
        of: list[int] = []
        for k, text in enumerate(texts):
            ids = [self.separator, *self.encode(text)]
            parts = [ids[at : at + self.row_tokens + 1] for at in range(0, len(ids) - 1, self.row_tokens)]
            windows += parts
            of += [k] * len(parts)
        total = np.zeros(len(texts))
        np.add.at(total, of, [float(nats.sum()) / math.log(2) for nats in self.nats(windows)])
        return total
