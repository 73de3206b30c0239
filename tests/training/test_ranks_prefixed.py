"""Documents behind prefixes, on ranks: what each reads is its part of what one process reads, as long and as silent."""

from pathlib import Path

import forked
import numpy as np
import on_ranks
import pytest
import torch
from safetensors.torch import load_file

from ratoon.config import MixtureConfig
from ratoon.config.loss import Loss, Prefix, Reweight, Select
from ratoon.config.mixture import Length
from ratoon.training.ranks import Ranks, muted
from ratoon.training.run import Run, train

STEPS = 4
SHORT = {"tokens": STEPS * 8 * 16, "evaluations": 1, "checkpoints": 1, "schedule": {"warmup_steps": 1}, "trunk": "none"}
GROWING = MixtureConfig(lengths=(Length(until=0.5, row_tokens=8),))


@pytest.mark.parametrize("mixture", [MixtureConfig(), GROWING])
@pytest.mark.parametrize("left_out", [(), (0, 3, 5)])
def test_rows_of_all_ranks_laid_end_to_end_are_the_step(mixture, left_out, prefixed_for):
    run = Run(prefixed_for(mixture=mixture, **SHORT))
    run.left_out = {1: left_out}
    for step in range(STEPS):
        run.ranks = Ranks()
        whole, found = run.batch_at(step), []
        for world in (2, 3, 8):
            found.append([])
            for number in range(world):
                run.ranks = Ranks(number, world)
                batch = run.batch_at(step)
                found[-1].append(batch.some(batch.valid > 1))
        assert (whole.silent is None) == (step >= STEPS // 2)
        for parts in found:
            for name in ("tokens", "valid", "silent"):
                if (expected := getattr(whole, name)) is not None:
                    assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), expected)


def test_what_fills_a_rank_up_is_silent_about_nothing(prefixed_for):
    batch = Run(prefixed_for(**SHORT)).batch_at(0)
    filled = muted(batch, 2)
    assert len(filled.tokens) == len(filled.silent) == len(filled.place.row) == 10
    assert np.array_equal(filled.silent[:8], batch.silent)
    assert not filled.silent[8:].any()


@forked.needs_fork
@pytest.mark.parametrize("name", ["plain", "reweight", "select"])
def test_two_ranks_end_where_one_process_does_behind_prefixes(name, prefixed_for):
    loss = {
        "plain": Loss(prefix=Prefix(until_share=0.5)),
        "reweight": Loss(prefix=Prefix(until_share=1), reweight=Reweight(burn_in_steps=1), noise_alpha=5.0),
        "select": Loss(prefix=Prefix(until_share=0.5), select=Select(reference="parent", keep=0.5)),
    }[name]
    more = {"plain": {"attention": "document", "mixture": GROWING}, "reweight": {}, "select": {"micro_rows": 2}}[name]
    one, two = (prefixed_for(out, loss, **SHORT, **more) for out in ("one", "two"))
    alone, shared = train(one), on_ranks.trained(two)
    ends = [load_file(Path(found.model) / "model.safetensors") for found in (alone, shared)]
    assert all(torch.allclose(ends[0][key], ends[1][key], atol=1e-4) for key in ends[0])
    assert [o.loss_nats for o in shared.observations] == pytest.approx(
        [o.loss_nats for o in alone.observations], rel=1e-5
    )
    assert shared.data == alone.data
