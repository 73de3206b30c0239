"""A whole run with `attention: document`: it learns, resumes to the bit, and is another run than with `row`."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ratoon.training import checkpoint
from ratoon.training.run import train


def weights(result):
    return load_file(Path(result.model) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_on_documents_cut_off_and_resumed_ends_where_an_unbroken_one_ends(request_for, monkeypatch):
    whole = train(request_for("whole", attention="document"))
    save, saves = checkpoint.save, []

    def save_then_die(*args, **kwargs):
        saves.append(save(*args, **kwargs))
        if len(saves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        train(request_for("cut", attention="document"))
    resumed = train(request_for("cut", attention="document"))
    assert same(weights(whole), weights(resumed))
    assert [o.loss_nats for o in whole.observations] == [o.loss_nats for o in resumed.observations]


def test_a_run_on_documents_learns_and_is_another_than_one_on_rows(request_for):
    document = train(request_for("document", attention="document", tokens=60 * 8 * 16))
    row = train(request_for("row", attention="row", tokens=60 * 8 * 16))
    losses = [o.loss_nats for o in document.observations if o.evaluated == "general"]
    assert losses[-1] < losses[0] - 0.3
    assert not same(weights(document), weights(row))
    assert document.observations[0].config != row.observations[0].config
