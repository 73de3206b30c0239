"""KL to the parent: each token's loss is cross-entropy + beta t^2 KL(parent || model), on general tokens or on all.

The parent is frozen and without dropout. It runs at every step, or, with top_k, once for each row: what is kept of its
answer lies in a file beside the run. A row is then asked about alone, so that its answer is the same to the bit
whenever it is asked, in which company, and after how many kills.
"""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ratoon.config import ConfigError
from ratoon.config.forgetting import ParentDivergence
from ratoon.stream.mixture import Batch
from ratoon.training.loop import IGNORE, forward
from ratoon.training.method import Method, Part, Step
from ratoon.training.methods import divergence
from ratoon.training.methods.other_model import open_to_read
from ratoon.training.methods.reference import content
from ratoon.training.methods.shelf import Shelf

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.methods import Setting


class Parent(Method):
    name = "parent"

    def __init__(self, setting: "Setting") -> None:
        self.recipe: ParentDivergence = setting.recipe.forgetting.parent
        self.setting = setting
        self.general = np.array([setting.roles[name] == "general" for name in setting.mixture.order.names])

    @cached_property
    def model(self) -> "PreTrainedModel":
        """Opened when it is first needed: a resumed run that has all answers never does."""
        kind = next(self.setting.model.parameters()).dtype
        return open_to_read(self.setting.parent, self.setting).to(kind)  # type: ignore[call-arg,arg-type]  # untyped there

    def term(self, part: Part) -> Tensor | None:
        asked = self.asked(part.step.batch)[part.rows]
        if not asked.any():
            return None
        rows = np.arange(len(part.step.batch.tokens))[part.rows][asked]
        chosen = torch.from_numpy(asked).to(part.labels_BT.device)
        labelled_BT = part.labels_BT != IGNORE
        logits_NV = part.logits_BTV[labelled_BT & chosen[:, None]]
        found = self.divergence(part.step, rows, logits_NV, labelled_BT[chosen])
        return self.recipe.beta * self.recipe.temperature**2 * found.sum()

    def asked(self, batch: Batch) -> NDArray[np.bool_]:
        """(rows,) whether the parent has a say about each row."""
        if self.recipe.on == "all":
            return np.ones(len(batch.tokens), bool)
        assert batch.place is not None  # rows of no source have no role
        return self.general[batch.place.source]  # type: ignore[no-any-return]

    def divergence(self, step: Step, rows: NDArray[np.int64], logits_NV: Tensor, labelled_BT: Tensor) -> Tensor:
        """(N,) at the labelled places of these rows of the step."""
        parent_NV = self.answer(step, rows)[labelled_BT]
        return divergence.full(parent_NV, logits_NV, self.recipe.temperature)

    @torch.no_grad()
    def answer(self, step: Step, rows: NDArray[np.int64]) -> Tensor:
        """(B, T - 1, V): the parent's logits. Called under the precision of the step."""
        some = Batch(step.batch.tokens[rows], step.batch.valid[rows])
        return forward(self.model, Step(step.number, some, 0, step.separator), slice(None)).logits_BTV


class KeptParent(Parent):
    """Its k likeliest words per place, on disk."""

    def __init__(self, k: int, setting: "Setting") -> None:
        super().__init__(setting)
        words = setting.model.config.get_text_config().vocab_size
        if k >= words:
            raise ConfigError(
                f"train.forgetting.parent.top_k: {k} of {words} words; allowed: less, or none for all of them"
            )
        self.k = k
        self.kind = np.uint16 if words <= 2**16 else np.uint32
        self.shelves: dict[int, Shelf] = {}

    @cached_property
    def folder(self) -> Path:
        """Named by all that decides an answer but the row itself."""
        recipe = self.setting.recipe
        asked = (content(self.setting.parent), recipe.attention, recipe.precision, self.k, self.recipe.temperature)
        name = hashlib.blake2b(repr(asked).encode(), digest_size=6).hexdigest()
        return self.setting.folder / "parent" / name

    def divergence(self, step: Step, rows: NDArray[np.int64], logits_NV: Tensor, labelled_BT: Tensor) -> Tensor:
        device = logits_NV.device
        found = [self.kept(step, int(row)) for row in rows]
        words = torch.from_numpy(np.stack([one["words"] for one in found]).astype(np.int64)).to(device)
        logs = torch.from_numpy(np.stack([one["logs"] for one in found])).to(device)
        return divergence.rest(
            divergence.Top(words[labelled_BT], logs[labelled_BT]), logits_NV, self.recipe.temperature
        )

    def kept(self, step: Step, row: int) -> np.void:
        """The parent's answer to one row of the step, asked for if it never was."""
        batch, shelf = step.batch, self.shelf(step.batch.tokens.shape[1] - 1)
        key = hashlib.blake2b(batch.tokens[row].tobytes() + repr(int(batch.valid[row])).encode(), digest_size=16)
        if (found := shelf.get(key.digest())) is not None:
            return found
        top = divergence.top_of(self.answer(step, np.array([row]))[0], self.k, self.recipe.temperature)
        return shelf.put(key.digest(), words=top.words_NK.cpu().numpy(), logs=top.logs_NL.cpu().numpy())

    def shelf(self, places: int) -> Shelf:
        if places not in self.shelves:
            fields = [("words", self.kind, (places, self.k)), ("logs", "<f4", (places, self.k + 1))]
            # A file of its own for each rank: two never write to one.
            rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
            shelf = self.shelves[places] = Shelf(self.folder / f"{places}-{rank}.bin", fields)
            shelf.check_room(self.rows_to_keep(places), "train.forgetting.parent.top_k")
        return self.shelves[places]

    def rows_to_keep(self, places: int) -> int:
        """Rows of this length that the run asks about, were all of them so long; of several ranks, all ranks' rows."""
        setting, order = self.setting, self.setting.mixture.order
        row_tokens, recipe = setting.mixture.row_tokens, setting.recipe
        read = order.read_before(recipe.tokens // (recipe.rows_per_step * row_tokens) * recipe.rows_per_step)
        asked = np.ones_like(self.general) if self.recipe.on == "all" else self.general
        return int(np.minimum(read, order.used)[asked].sum()) * max(1, row_tokens // (places + 1))
