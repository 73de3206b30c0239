"""A training that dies as soon as its second checkpoint is whole, and goes on."""

import pytest

from ratoon.training import checkpoint
from ratoon.training.run import train


def train_in_two(request, monkeypatch):
    saves = []
    save = checkpoint.save

    def save_then_die(*args, **kwargs):
        saves.append(save(*args, **kwargs))
        if len(saves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        train(request)
    return train(request)
