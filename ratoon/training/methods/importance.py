"""What the parent's knowledge of general text hangs on: slopes of its loss on some general rows, before training.

Each row's loss is its mean in nats per token, so that rows weigh alike however short, and in float32 but for flash
attention, which has none. Rows lie evenly spread over the training parts of all general sources laid end to end,
whether the mixture reads them or not.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ratoon.config import ConfigError
from ratoon.lm.attention import is_flash
from ratoon.stream.mixture import Batch
from ratoon.stream.rows import Rows
from ratoon.training.checkpoint import trainable
from ratoon.training.loop import count_predicted, summed_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.methods import Setting


def general_rows(setting: "Setting", count: int, key: str) -> list[Batch]:
    """`count` rows, one a batch. key  of params.yaml that asks for them"""
    sources = [
        Rows.open(Path(portion.rows), "train", setting.mixture.row_tokens)
        for _, portion in sorted(setting.portions.items())
        if portion.role == "general"
    ]
    ends = np.cumsum([rows.num_rows for rows in sources], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    if count > total:
        raise ConfigError(
            f"{key}: {count} rows of {total} in the general sources; allowed: at most as many as there are"
        )
    found = []
    for place in np.arange(count, dtype=np.int64) * total // count:
        source = int(np.searchsorted(ends, place, side="right"))
        row = place - (ends[source - 1] if source else 0)
        found.append(Batch(*sources[source].read(np.array([row]))))
    return found


def row_losses(model: "PreTrainedModel", rows: list[Batch], separator: int | None) -> Iterator[Tensor]:
    """Mean loss of each row that has one, with its graph; dropout is off until the last is taken."""
    trained = model.training
    model.eval()
    try:
        for tokens, valid in (row[:2] for row in rows):
            if predicted := count_predicted(tokens, valid, separator):
                with torch.autocast(model.device.type, torch.bfloat16, enabled=is_flash(model)):
                    loss = summed_loss(model, tokens, valid, separator) / predicted
                yield loss
    finally:
        model.train(trained)


def fisher(model: "PreTrainedModel", rows: list[Batch], separator: int | None) -> dict[str, Tensor]:
    """Name -> mean over rows of the squared slope of a row's loss: the diagonal of the empirical Fisher matrix."""
    parameters = dict(trainable(model))
    found = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    count = 0
    for loss in row_losses(model, rows, separator):
        slopes = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, slope in zip(parameters, slopes, strict=True):
            if slope is not None:
                found[name].addcmul_(slope.float(), slope.float())
        count += 1
    return {name: total / max(count, 1) for name, total in found.items()}
