"""Short runs in which each loss does what it is there for."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ratoon.config.loss import Distill, Loss, Reweight, Select
from ratoon.lm.load import load_model
from ratoon.training.loop import IGNORE, forward, new_step
from ratoon.training.methods.ahead import score
from ratoon.training.methods.divergence import full
from ratoon.training.methods.noise import hashed
from ratoon.training.run import Run, train

STEP = 8 * 16


@pytest.fixture
def expert(request_for):
    """A model that has read the domain, and nothing else."""
    return train(request_for("expert", share=1.0, tokens=60 * STEP, evaluations=1))


def last_losses(result):
    return {o.evaluated: o.loss_nats for o in result.observations if o.finished}


def held_out(request, source):
    return next(Run(request).held_out[source].batches())


def logits_of(result, batch):
    part = forward(load_model(Path(result.model)).eval(), new_step(batch, None), slice(None))
    return part.logits_BTV[part.labels_BT != IGNORE].detach()


def test_a_student_comes_nearer_to_its_teacher_than_plain_training_does(request_for, expert):
    settings = {"share": 0.5, "tokens": 140 * STEP, "evaluations": 1}
    distill = Distill(teacher=expert.model, weight=0.9)
    results = [train(request_for(f"{one}", loss=Loss(distill=one), **settings)) for one in (None, distill)]
    batch = held_out(request_for("look"), "domain")
    teacher_NV = logits_of(expert, batch)
    plain, student = (full(teacher_NV, logits_of(one, batch), 1.0).mean().item() for one in results)
    print(f"KL to the teacher in nats per token: plain {plain:.3f}, distilled {student:.3f}")
    assert student < 0.7 * plain


def test_selection_picks_what_the_reference_knows_and_the_model_does_not(request_for, expert):
    select = Select(keep=0.3, reference=expert.model)
    request = request_for("selected", share=0.5, tokens=30 * STEP, evaluations=1, loss=Loss(select=select))
    run = Run(request)
    (method,) = run.state.methods
    chosen = np.zeros(2)
    for number in range(10):
        step = new_step(run.batch_at(number), None)
        factors_BT = method.weigh(step, score(run.model, step, request.recipe))
        for source in (0, 1):
            here = torch.from_numpy(step.batch.place.source == source)
            chosen[source] += (factors_BT[here] > 0).sum().item()
    shares = dict(zip(run.mixture.order.names, chosen / chosen.sum(), strict=True))
    print(f"of the tokens kept, domain has {shares['domain']:.3f}, of those read 0.5")
    assert shares["domain"] > 0.8
    selected, plain = (
        last_losses(train(one)) for one in (request, request_for("plain", share=0.5, tokens=30 * STEP, evaluations=1))
    )
    print(f"domain loss: plain {plain['domain']:.3f}, selected {selected['domain']:.3f}")
    assert selected["domain"] < plain["domain"]


def test_weight_on_hard_rows_narrows_the_gap_to_what_is_read_rarely(request_for):
    settings = {"share": 0.1, "tokens": 60 * STEP, "evaluations": 1}
    reweight = Reweight(burn_in_steps=20, temperature=0.2)
    gaps = []
    for one in (None, reweight):
        found = last_losses(train(request_for(f"{one and one.form}", loss=Loss(reweight=one), **settings)))
        gaps.append(found["domain"] - found["general"])
    print(f"loss of the source read rarely above the other's, nats: plain {gaps[0]:.3f}, reweighted {gaps[1]:.3f}")
    assert gaps[1] < 0.8 * gaps[0]


def test_smoothing_makes_a_model_less_sure(request_for):
    batch = held_out(request_for("look"), "general")
    sure = []
    for smoothing in (0.0, 0.2):
        result = train(
            request_for(f"by-{smoothing}", tokens=40 * STEP, evaluations=1, loss=Loss(label_smoothing=smoothing))
        )
        sure.append(torch.softmax(logits_of(result, batch), -1).amax(-1).mean().item())
    print(f"mean probability of the likeliest word: plain {sure[0]:.3f}, smoothed {sure[1]:.3f}")
    assert sure[1] < 0.9 * sure[0]


def test_a_model_trained_with_noise_loses_less_under_noise(request_for):
    batch = held_out(request_for("look"), "general")
    lost = []
    for alpha in (0.0, 15.0):
        result = train(request_for(f"by-{alpha}", tokens=40 * STEP, evaluations=1, loss=Loss(noise_alpha=alpha)))
        run = Run(request_for("scored").model_copy(update={"model": result.model}))

        def disturb(module, inputs, embedded):
            return embedded + 15 / 16 * hashed(1, embedded.numel(), embedded.device).reshape(embedded.shape)

        run.model.get_input_embeddings().register_forward_hook(disturb)
        losses_BT, labelled_BT = score(run.model, new_step(batch, None), run.request.recipe)
        lost.append((losses_BT.sum() / labelled_BT.sum()).item())
    print(f"loss under noise: plain {lost[0]:.3f}, trained with it {lost[1]:.3f}")
    assert lost[1] < lost[0]
