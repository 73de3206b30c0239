"""Each loss against its formula, written out by hand."""

import gc
import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from ratoon.config.loss import Distill, Loss, Reweight, Select
from ratoon.lm.load import load_model
from ratoon.stream.mixture import Batch
from ratoon.training.loop import IGNORE, accumulate, forward, labels, mean_loss, new_step, part_loss, token_losses
from ratoon.training.method import Part
from ratoon.training.methods.ahead import score
from ratoon.training.methods.distill import weight_of
from ratoon.training.methods.noise import hashed, row_key
from ratoon.training.methods.reweight import row_factors
from ratoon.training.methods.selection import kept
from ratoon.training.run import Run

LENGTHS = [16, 3, 16, 9, 2, 16, 12, 16]  # tokens of the rows of a step: a mean of means is another number


def ragged(run, number=0):
    batch = run.batch_at(number)
    return Batch(batch.tokens, np.array(LENGTHS), batch.place)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny):
    """Another model of the same vocabulary."""
    return new_model(tiny, tmp_path_factory.mktemp("reference"))


def new_model(tiny, folder):
    model = load_model(tiny / "model")
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def run_with(request_for, name="run", **loss):
    run = Run(request_for(name, loss=Loss(**loss)))
    run.model.train()
    return run


def loss_of(run, number=0):
    return accumulate(run.model, new_step(ragged(run), None, number), run.request.recipe, run.state.methods)


def same_gradients(a, b):
    return all(torch.equal(p.grad, q.grad) for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True))


def of_logits(logits_BTV, tokens_BT, valid):
    labels_BT = labels(tokens_BT, valid)
    return Part(new_step((tokens_BT.numpy(), valid), None), slice(None), tokens_BT, labels_BT, None, logits_BTV)


@pytest.fixture
def part():
    torch.manual_seed(3)
    tokens_BT = torch.randint(0, 11, (3, 6))
    return of_logits(torch.randn(3, 5, 11), tokens_BT, np.array([6, 2, 4]))


def test_smoothed_targets_are_the_formula_over_labelled_tokens_alone(request_for, part):
    recipe = request_for(loss=Loss(label_smoothing=0.3)).recipe
    log_BTV = torch.log_softmax(part.logits_BTV.double(), -1)
    expected = sum(
        -(0.7 * log_BTV[b, t, part.labels_BT[b, t]] + 0.3 * log_BTV[b, t].mean())
        for b, t in (part.labels_BT != IGNORE).nonzero()
    )
    assert part_loss(part, recipe).item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_has_no_label_has_no_smoothed_loss_either(request_for, part):
    recipe = request_for(loss=Loss(label_smoothing=0.3)).recipe
    other_BTV = part.logits_BTV.clone()
    other_BTV[part.labels_BT == IGNORE] += torch.randn(11)
    assert torch.equal(part_loss(part, recipe), part_loss(replace(part, logits_BTV=other_BTV), recipe))


@pytest.mark.parametrize(
    "loss", [{"label_smoothing": 0.3}, {"noise_alpha": 50.0}, {"reweight": Reweight(burn_in_steps=0)}]
)
def test_evaluation_is_the_plain_loss_whatever_training_is(request_for, loss):
    plain, other = run_with(request_for), run_with(request_for, "other", **loss)
    accumulate(other.model, new_step(ragged(other), None), other.request.recipe, other.state.methods)
    found = [mean_loss(run.model, [ragged(run)], run.request.recipe) for run in (plain, other)]
    assert found[0] == found[1]


@pytest.mark.parametrize("form", ["linear_upper", "quadratic", "extremes"])
def test_rows_of_one_length_are_weighed_as_published(form):
    losses, delta, r = [2.0, 3.5, 2.6, 4.0], 0.8, 0.4
    low, high = min(losses), max(losses)
    h = [delta * (2 * loss - high - low) / (high - low) for loss in losses]
    f = {
        "linear_upper": [min(x + delta, delta) for x in h],
        "quadratic": [1 - x * x / delta**2 for x in h],
        "extremes": [abs(x) for x in h],
    }[form]
    total = sum(math.exp(x / r) for x in f)
    published = sum(math.exp(x / r) / total * loss for x, loss in zip(f, losses, strict=True))
    config = Reweight(form=form, delta=delta, temperature=r)
    factors = row_factors(torch.tensor(losses), torch.full((4,), 15.0), config)
    assert (factors * torch.tensor(losses)).mean().item() == pytest.approx(published, rel=1e-6)
    assert factors.mean().item() == pytest.approx(1, rel=1e-6)


def test_factors_have_mean_one_over_tokens_and_not_over_rows():
    tokens = torch.tensor([15.0, 2.0, 1.0, 8.0])
    factors = row_factors(torch.tensor([2.0, 3.0, 9.0, 4.0]), tokens, Reweight())
    assert ((factors * tokens).sum() / tokens.sum()).item() == pytest.approx(1, rel=1e-6)
    assert abs(factors.mean().item() - 1) > 0.01


def test_an_endless_temperature_is_the_plain_mean_over_tokens_and_no_mean_of_means(request_for):
    run = run_with(request_for, reweight=Reweight(temperature=1e9, burn_in_steps=0))
    losses_BT, labelled_BT = score(run.model, new_step(ragged(run), None), run.request.recipe)
    found = loss_of(run).item()
    assert found == pytest.approx((losses_BT.sum() / labelled_BT.sum()).item(), rel=1e-5)
    assert abs(found - (losses_BT.sum(1) / labelled_BT.sum(1)).mean().item()) > 1e-3


def test_rows_are_compared_by_their_mean_loss_and_not_by_their_sum(request_for):
    run = run_with(request_for, reweight=Reweight(burn_in_steps=0))
    step = new_step(ragged(run), None)
    scored = score(run.model, step, run.request.recipe)
    tokens = scored.labelled_BT.sum(1)
    found_BT = run.state.methods[0].weigh(step, scored)
    assert torch.allclose(found_BT[:, 0], row_factors(scored.losses_BT.sum(1) / tokens, tokens.float(), Reweight()))


@pytest.mark.parametrize("losses", [[3.0, 3.0, 3.0], [2.5]])
@pytest.mark.parametrize("form", ["linear_upper", "quadratic", "extremes"])
def test_equal_losses_and_a_single_row_weigh_alike(form, losses):
    factors = row_factors(torch.tensor(losses), torch.full((len(losses),), 5.0), Reweight(form=form))
    assert torch.equal(factors, torch.ones(len(losses)))


def test_a_row_without_a_label_neither_counts_nor_moves_the_others(request_for):
    run = run_with(request_for, reweight=Reweight(burn_in_steps=0))
    batch = ragged(run)
    batch.valid[3] = 1
    without = [i for i in range(8) if i != 3]
    found = [
        accumulate(run.model, new_step(one, None), run.request.recipe, run.state.methods).item()
        for one in (batch, Batch(batch.tokens[without], batch.valid[without]))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_burn_in_is_plain_to_the_bit(request_for):
    plain, other = run_with(request_for), run_with(request_for, "other", reweight=Reweight(burn_in_steps=5))
    assert torch.equal(loss_of(plain, 4), loss_of(other, 4))
    assert same_gradients(plain, other)
    loss_of(plain, 5), loss_of(other, 5)
    assert not same_gradients(plain, other)


def test_kept_are_the_highest_and_the_first_of_equal_ones():
    scores = torch.tensor([1.0, 3.0, 2.0, 2.0, -math.inf, 2.0])
    assert kept(scores, 3).tolist() == [False, True, True, True, False, False]
    assert kept(torch.zeros(5), 2).tolist() == [True, True, False, False, False]


def test_the_loss_is_divided_by_the_tokens_kept(request_for, reference):
    run = run_with(request_for, select=Select(keep=0.3, reference=str(reference)))
    step = new_step(ragged(run), None)
    losses_BT, labelled_BT = score(run.model, step, run.request.recipe)
    hard_BT = losses_BT - run.state.methods[0].reference.losses(step)
    number = math.ceil(0.3 * step.predicted)
    pairs = sorted(zip(hard_BT[labelled_BT].tolist(), losses_BT[labelled_BT].tolist(), strict=True), reverse=True)
    assert loss_of(run).item() == pytest.approx(sum(loss for _, loss in pairs[:number]) / number, rel=1e-5)


def test_all_tokens_kept_is_the_plain_loss(request_for, reference):
    run, plain = run_with(request_for, select=Select(keep=0.999, reference=str(reference))), run_with(request_for, "b")
    run.state.methods[0].keep = 1.0  # which alone is not built at all
    step = new_step(ragged(run), None)
    factors_BT = run.state.methods[0].weigh(step, scored := score(run.model, step, run.request.recipe))
    assert torch.equal(factors_BT, scored.labelled_BT.float())
    assert loss_of(run).item() == pytest.approx(loss_of(plain).item(), rel=1e-6)
    for a, b in zip(plain.model.parameters(), run.model.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


def test_a_model_scored_against_itself_keeps_the_first_tokens(request_for):
    run = run_with(request_for, select=Select(keep=0.5, reference="parent"))
    step = new_step(ragged(run), None)
    scored = score(run.model, step, run.request.recipe)
    assert torch.equal(scored.losses_BT, run.state.methods[0].reference.losses(step))
    chosen = run.state.methods[0].weigh(step, scored)[scored.labelled_BT] > 0
    number = math.ceil(step.predicted / 2)
    assert chosen[:number].all()
    assert not chosen[number:].any()


def test_a_teacher_with_the_same_weights_adds_nothing(request_for):
    run = run_with(request_for, distill=Distill(teacher="parent", weight=1.0, temperature=2.0))
    # To rounding: in training the model's own layers compute the same sums in another order than the teacher's.
    assert abs(loss_of(run).item()) < 1e-7
    assert all(p.grad.abs().max() < 1e-6 for p in run.model.parameters())


def test_text_and_teacher_share_the_loss_by_the_weight(request_for, reference):
    run = run_with(request_for, distill=Distill(teacher=str(reference), weight=0.25, temperature=1.5))
    step = new_step(ragged(run), None)
    found = loss_of(run).item()
    teacher = run.state.methods[0].teacher
    own, its = (forward(model, step, slice(None)) for model in (run.model, teacher))
    p_NV, q_NV = (torch.softmax(part.logits_BTV[own.labels_BT != IGNORE].double() / 1.5, -1) for part in (its, own))
    apart = 1.5**2 * (p_NV * (p_NV / q_NV).log()).sum()
    expected = (0.75 * token_losses(own) + 0.25 * apart) / step.predicted
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_the_teacher_is_full_then_fades_then_is_gone():
    weight = weight_of(Distill(teacher="parent", weight=0.6, until_share=0.5, fade_share=0.25), 40)
    assert [weight.at(step) for step in (0, 19, 20)] == [0.6, 0.6, 0.6]
    assert [weight.at(step) for step in (25, 29)] == pytest.approx([0.3, 0.06])
    assert [weight.at(step) for step in (30, 39)] == [0, 0]
    abrupt = weight_of(Distill(teacher="parent", until_share=0.5), 40)
    assert [abrupt.at(19), abrupt.at(20)] == [0.5, 0]


def test_after_the_teacher_the_loss_is_plain_to_the_bit_and_its_memory_is_given_back(request_for, reference):
    run = run_with(request_for, distill=Distill(teacher=str(reference), until_share=0.5))
    loss_of(run, 9)
    teacher = weakref.ref(run.state.methods[0].teacher)
    run.model.zero_grad()
    plain = run_with(request_for, "plain")
    assert torch.equal(loss_of(run, 10), loss_of(plain, 10))
    assert same_gradients(run, plain)
    gc.collect()
    assert teacher() is None
    loss_of(run, 9)  # a branch that goes back to before its end hears it again
    assert run.state.methods[0].teacher is not None


def test_noise_is_uniform_and_of_the_published_size(request_for):
    values = hashed(row_key(0, "noise"), 200_000, torch.device("cpu"))
    assert values.abs().max() < 1
    assert values.mean().abs() < 0.005
    assert values.var().item() == pytest.approx(1 / 3, rel=0.01)
    assert len(values.unique()) > 195_000
    correlation = torch.corrcoef(torch.stack([values[:-1], values[1:]]))[0, 1]
    assert correlation.abs() < 0.01
    run = run_with(request_for, noise_alpha=5.0)
    noise, embedding = run.state.methods[0], run.model.get_input_embeddings()
    step = new_step(run.batch_at(0), None)
    tokens_BT = torch.from_numpy(step.batch.tokens)
    noise.before_forward(step, slice(None))
    run.model.train()
    moved_BTD = embedding(tokens_BT) - embedding(tokens_BT)  # the second is not announced, and plain
    bound = 5 / math.sqrt(16 * 16)
    assert 0.95 * bound < moved_BTD.abs().max() <= bound


def test_the_first_numbers_of_the_noise_stay_the_same_for_good():
    # SplitMix64 from 0 begins with e220a8397b1dcdaf 6e789e6aa1b965f4 06c45d188009454f.
    first = [(x >> 40) for x in (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)]
    assert hashed(0, 3, torch.device("cpu")).tolist() == pytest.approx([(x + 0.5) / 2**23 - 1 for x in first], abs=1e-7)


def test_every_step_every_row_and_every_seed_has_noise_of_its_own(request_for):
    found = set()
    for seed in (0, 1):
        noise = Run(request_for(f"seed-{seed}", seed=seed, loss=Loss(noise_alpha=1.0))).state.methods[0]
        for number in (0, 1):
            batch = Batch(*Run(request_for("same")).batch_at(0))
            found |= {noise.key(new_step(batch, None, number), i) for i in range(8)}
    assert len(found) == 2 * 2 * 8
