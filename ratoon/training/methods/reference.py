"""Losses of a reference model on the rows of a step, computed each time or kept on disk.

What is kept is found by the tokens of a row, not by its number: a corpus packed anew is never scored by old losses. A
row to keep is scored alone, so that its losses are the same to the bit whoever asks first, and after how many kills.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ratoon.config import ConfigError
from ratoon.stream.mixture import Batch
from ratoon.training.method import Step
from ratoon.training.methods.ahead import score
from ratoon.training.methods.other_model import open_to_read
from ratoon.training.methods.shelf import Shelf

if TYPE_CHECKING:
    from ratoon.training.methods import Setting


class Reference:
    """A frozen model that says how hard each token is."""

    def __init__(self, path: Path, setting: "Setting") -> None:
        self.recipe = setting.recipe
        self.model = open_to_read(path, setting)

    def losses(self, step: Step) -> Tensor:
        """(B, T - 1) nats, 0 where there is no label."""
        return score(self.model, step, self.recipe).losses_BT


class CachedReference(Reference):
    """Scores a row the first time it is read."""

    def __init__(self, path: Path, setting: "Setting", folder: Path) -> None:
        super().__init__(path, setting)
        self.folder = folder / f"{content(path)}-{self.recipe.attention}-{self.recipe.precision}"
        self.shelves: dict[int, Shelf] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"train.loss.select.cache: {folder}: {error.strerror}; give a directory that can be written, or none"
            ) from error

    def losses(self, step: Step) -> Tensor:
        found = np.stack([self.row(step, i) for i in range(len(step.batch.tokens))])
        return torch.from_numpy(found).to(next(self.model.parameters()).device)

    def row(self, step: Step, i: int) -> NDArray[np.float32]:
        batch = Batch(step.batch.tokens[i : i + 1], step.batch.valid[i : i + 1])
        shelf, key = self.shelf(batch.tokens.shape[1] - 1), digest(batch)
        if (found := shelf.get(key)) is None:
            losses_BT = super().losses(Step(step.number, batch, 0, step.separator))
            found = shelf.put(key, losses=losses_BT[0].cpu().numpy())
        return np.array(found["losses"])

    def shelf(self, places: int) -> Shelf:
        """That of rows so long: they may grow over a run."""
        if places not in self.shelves:
            self.shelves[places] = Shelf(self.folder / f"{places}.bin", [("losses", "<f4", (places,))])
        return self.shelves[places]


def digest(batch: Batch) -> bytes:
    """Of the tokens of its only row and how many of them are real."""
    return hashlib.blake2b(batch.tokens.tobytes() + repr(batch.valid.tolist()).encode(), digest_size=16).digest()


def content(model: Path) -> str:
    """Twelve hex digits over a model's configuration and weights."""
    found = hashlib.blake2b(digest_size=6)
    for path in (model / "config.json", *sorted(model.glob("*.safetensors"))):
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()
