"""Two ranks are one process, to rounding; what they read is what it reads; what they cannot do is refused."""

import json
from pathlib import Path

import forked
import numpy as np
import on_ranks
import pytest
import torch
from families import FAMILIES
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ratoon import records
from ratoon.config import ConfigError, TrainConfig
from ratoon.config.loss import Distill, Loss, Reweight, Select
from ratoon.stream.mixture import Batch
from ratoon.training import ranks as module
from ratoon.training.faults import Book, Ended, Fault
from ratoon.training.ranks import ALONE, Ranks, check, muted
from ratoon.training.request import Result
from ratoon.training.run import Run, train

pytestmark = forked.needs_fork
STEPS = 5
SHORT = {"tokens": STEPS * 8 * 16, "evaluations": 1, "checkpoints": 1, "schedule": {"warmup_steps": 2}, "trunk": "none"}
OPTIONS = {
    "plain": {"micro_rows": 2, "attention": "document"},
    "reweight": {"loss": Loss(reweight=Reweight(burn_in_steps=2), noise_alpha=5.0)},
    "select": {"loss": Loss(select=Select(reference="parent", keep=0.5)), "micro_rows": 2},
    "others": {
        "loss": Loss(distill=Distill(teacher="parent"), label_smoothing=0.1),
        "forgetting": {"parent": {"beta": 0.5}},
        "optimizer": {"freeze": ["*layers.0*"], "rates": {"*layers.1*": 0.5}},
        "activation_checkpointing": True,
    },
}


def weights(result):
    return load_file(Path(result.model) / "model.safetensors")


def near(a, b):
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=1e-4) for k in a)


def journal(request):
    lines = [json.loads(line) for line in (Path(request.out) / "metrics.jsonl").read_text().splitlines()]
    return {(line["step"], key): value for line in lines for key, value in line["metrics"].items()}


@pytest.mark.parametrize("name", OPTIONS)
def test_two_ranks_end_where_one_process_does(name, request_for):
    one, two = (request_for(out, **SHORT, **OPTIONS[name]) for out in ("one", "two"))
    alone, shared = train(one), on_ranks.trained(two)
    assert near(weights(alone), weights(shared))
    assert [o.loss_nats for o in shared.observations] == pytest.approx(
        [o.loss_nats for o in alone.observations], rel=1e-5
    )
    for key in ("loss_nats", "grad_norm"):
        assert journal(two)[STEPS, f"train/{key}"] == pytest.approx(journal(one)[STEPS, f"train/{key}"], rel=1e-4)
    assert not near(weights(alone), load_file(Path(one.model) / "model.safetensors"))


def test_other_families_are_cut_up_and_put_together_again(request_for, tmp_path):
    asked, made = {**SHORT, "tokens": 2 * 8 * 16, "schedule": {"warmup_steps": 1}}, {}
    for family in ("gpt2", "gpt_neox", "gemma3"):  # no two name their blocks, or tie and scale their heads, alike
        config = FAMILIES[family]()
        config.vocab_size = 512
        for dropout in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):  # ranks draw other chance than one process
            if hasattr(config, dropout):
                setattr(config, dropout, 0.0)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / family)
        made[family] = str(tmp_path / family)

    def trained(out, bound=ALONE):
        found = {}
        for family, model in made.items():
            request = request_for(f"{out}-{family}", **asked).model_copy(update={"model": model})
            found[family] = weights(train(request, bool, bound))
        return found

    def work(number):
        with module.joined(request_for(**asked).recipe) as bound:
            return trained("ranks", bound)

    alone, shared = trained("alone"), on_ranks.results(2, work)[0]
    for family in made:
        assert near(alone[family], shared[family]), family


def test_ranks_with_unequal_numbers_of_rows_count_each_token_alike(request_for):
    """Three ranks, eight rows: 2, 3 and 3, and short ones among them."""
    asked = {**SHORT, "mixture": {"lengths": [{"until": 0.5, "row_tokens": 8}]}}
    alone, shared = train(request_for("one", **asked)), on_ranks.trained(request_for("three", **asked), count=3)
    assert near(weights(alone), weights(shared))


def test_averaged_gradients_would_not_be_those_of_the_step(request_for, monkeypatch):
    """The trap: FSDP divides by the ranks, and the loss is divided by the tokens of all of them already."""
    from torch.distributed.fsdp import FSDPModule

    one, two = (request_for(out, **SHORT) for out in ("one", "two"))
    train(one)
    monkeypatch.setattr(FSDPModule, "set_gradient_divide_factor", lambda self, factor: None)
    on_ranks.trained(two)
    halved = journal(one)[STEPS, "train/grad_norm"] / journal(two)[STEPS, "train/grad_norm"]
    assert halved == pytest.approx(2, rel=0.1)


def test_a_mean_of_the_ranks_means_would_end_elsewhere(request_for, monkeypatch):
    """The trap: documents of different lengths give ranks different numbers of tokens with a loss."""
    asked = {**SHORT, "attention": "document"}
    alone = train(request_for("one", **asked))
    monkeypatch.setattr(Ranks, "total", lambda self, count: 2 * count if count > 1 else on_all(count))
    assert not near(weights(alone), weights(on_ranks.trained(request_for("two", **asked))))


def on_all(flag):
    found = torch.tensor(flag)
    torch.distributed.all_reduce(found)
    return int(found)


def stream(request, world, steps):
    """What `world` ranks read, one after the other, without what fills a rank up."""
    found = []
    runs = [Run(request) for _ in range(world)]
    for step in steps:
        for number, run in enumerate(runs):
            run.ranks = Ranks(number, world)  # where rows lie is asked of nobody
            batch = run.batch_at(step)
            found.append(batch.tokens[batch.valid > 1])
    return np.concatenate(found)


@pytest.mark.parametrize("left_out", [(), (0, 3, 5)])
def test_the_token_stream_is_the_same_at_every_world_size(left_out, request_for):
    request = request_for(**SHORT)
    alone = Run(request)
    alone.left_out = {1: left_out}

    def left_out_too(ask):
        return lambda made, *args: (ask(made, *args), setattr(made, "left_out", {1: left_out}))[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "__init__", left_out_too(Run.__init__))
        expected = np.concatenate([alone.batch_at(step).tokens for step in range(STEPS)])
        for world in (1, 2, 3, 4, 8):
            assert (stream(request, world, range(STEPS)) == expected).all()
        # Started again with another number of ranks in the middle.
        again = [stream(request, 2, range(3)), stream(request, 4, range(3, STEPS))]
        assert (np.concatenate(again) == expected).all()


def test_every_rank_takes_as_many_forward_passes(request_for):
    run = Run(request_for(**SHORT))
    run.left_out = {0: (0, 1, 2)}
    for world in (2, 3, 5, 8):
        lengths = set()
        for number in range(world):
            run.ranks = Ranks(number, world)
            lengths |= {len(run.batch_at(0).tokens), len(run.ranks.part(Run.whole_batch_at(run, 0)).tokens)}
        assert lengths == {-(-8 // world)}


def test_a_rank_alone_changes_nothing():
    batch = Batch(np.ones((3, 4), np.int64), np.full(3, 4))
    assert ALONE.part(batch) is batch
    assert ALONE.padded(batch, 3) is batch
    assert muted(batch, 0) is batch
    assert ALONE.same(5) == 5


def test_how_many_processes_share_a_run_is_no_part_of_what_it_is(request_for):
    assert request_for(processes=4).identity() == request_for().identity()


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ({"optimizer": {"name": "muon"}}, "train.optimizer.name: muon"),
        ({"optimizer": {"moments": "8bit"}}, "train.optimizer.moments: 8bit"),
        ({"precision": "bf16_pure"}, "train.precision: bf16_pure"),
        ({"adapter": {"name": "lora"}}, "train.adapter: lora"),
        ({"forgetting": {"average": {"decay": 0.9}}}, "train.forgetting.average: it is set, and"),
        ({"forgetting": {"anchor": {"epsilon": 0.5}}}, "train.forgetting.anchor: it is set, and"),
        ({"forgetting": {"elastic": {"strength": 5}}}, "train.forgetting.elastic: it is set, and"),
        ({"forgetting": {"soft_mask": {"strength": 1}}}, "train.forgetting.soft_mask: it is set, and"),
        ({"forgetting": {"interpolation": 0.5}}, "train.forgetting.interpolation: 0.5"),
        ({"rows_per_step": 1}, "train.rows_per_step: 1 rows for 2 ranks"),
    ],
)
def test_what_needs_whole_weights_is_refused_on_ranks(asked, key):
    recipe = TrainConfig(**{"tokens": 1000, "learning_rate": 0.1, "rows_per_step": 8, **asked})
    with pytest.raises(ConfigError, match=f"^{key}"):
        check(recipe, 2)
    # Where params.yaml asks for the ranks itself it is told at once: not when the proxies are trained.
    with pytest.raises(ValueError, match=key.removeprefix("train.")):
        TrainConfig(**recipe.model_dump(exclude={"processes"}), processes=2)


def test_a_rank_that_is_not_told_where_the_others_are_says_so(monkeypatch, request_for):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with (
        pytest.raises(ConfigError, match=r"MASTER_ADDR, MASTER_PORT not set.*start it with torchrun"),
        module.joined(request_for().recipe),
    ):
        pass


def test_a_signal_to_one_rank_ends_all_at_one_step_and_is_gone_on_from(request_for):
    request = request_for("ended", **SHORT, faults={"saving": "beside"})  # which ranks end writing at different times
    asks = iter([False, False, False, True])

    def work(number):
        with module.joined(request.recipe) as ranks:
            try:
                train(request, (lambda: next(asks, True)) if number else bool, ranks)
            except Ended as error:
                return str(error)

    ended = on_ranks.results(2, work)
    assert ended[0] == ended[1]
    assert "at step 3 of 5; its state is saved" in ended[0]
    assert near(weights(train(request_for("whole", **SHORT))), weights(on_ranks.trained(request)))


def test_rows_without_a_gradient_are_left_out_by_all_ranks(request_for, monkeypatch):
    from ratoon.training import loop

    request = request_for("broken", **SHORT)
    poisoned = bytes(Run(request).batch_at(3).tokens[6])
    rows_loss = loop.rows_loss

    def lost(model, step, part, *others):
        factor = float("nan") if poisoned in {bytes(row) for row in step.batch.tokens[part]} else 1.0
        return rows_loss(model, step, part, *others) * factor

    monkeypatch.setattr(loop, "rows_loss", lost)
    shared = on_ranks.trained(request)
    monkeypatch.undo()
    assert [(f.kind, f.step, f.left_out) for f in shared.faults] == [("gradient", 3, {3: (6,)})]
    spared = request_for("spared", **SHORT)
    book = Book(Path(spared.out) / "faults.json", spared.identity())
    book.add(Fault(kind="gradient", step=3, why="known", left_out={3: (6,)}))
    assert near(weights(shared), weights(train(spared)))


def test_the_first_rank_alone_writes_the_record(request_for, tmp_path):
    import sys

    request = request_for("two", **{**SHORT, "checkpoints": 3})

    def work(number):
        opened = []

        def watch(event, found):
            if event == "open" and isinstance(found[1], str) and set(found[1]) & set("wax+"):
                opened.append(Path(str(found[0])))

        if number:
            sys.addaudithook(watch)
        with module.joined(request.recipe) as ranks:
            train(request, bool, ranks)
        return {path.suffix for path in opened if Path(request.out) in path.parents}

    assert on_ranks.results(2, work)[1] <= {".distcp"}
    steps = [json.loads(line)["step"] for line in (Path(request.out) / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert records.read(Path(request.out) / "result.json", Result).steps == STEPS
