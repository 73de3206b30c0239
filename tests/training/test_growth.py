"""A sweep that grows by itself, on a planted law in the place of training."""

from pathlib import Path

import numpy as np
import pytest

from ratoon import records
from ratoon.config import ChooseConfig, SweepConfig, TrainConfig
from ratoon.records import Observation
from ratoon.training.growth import Question, further, grow, size_of, start
from ratoon.training.sweep import Corpus, Plan, SweepRequest, SweepResult, group_tokens

STEP = 8 * 16
SIZES = {"small": 40_000, "own": 160_000}
RIGHT = 0.5


def losses(params, share, tokens):
    seen = (1 + tokens / 4e4) ** -0.5
    general = 3.0 + 0.4 * seen + (1.2 - 0.6 * seen) * (1 - (1 - share) ** 0.4) + 0.1 * (params < 1e5)
    return {"general": general, "domain": 2.8 + 1.2 * seen * share**-0.1}


def measured(group):
    params = SIZES[group.request.label]
    random = np.random.default_rng([params, round(group.request.domain_share * 100)])
    for tokens in (0, *group.horizons):
        for role, loss in losses(params, group.request.domain_share, tokens).items():
            # The parent lies where RIGHT is the largest share within tolerance.
            at_start = losses(params, RIGHT, 40 * STEP)[role] / 1.02
            yield Observation(
                run=f"{group.request.name}-{tokens}",
                group=group.request.name,
                commit=None,
                config=group.digest(),
                model=group.request.label,
                params_non_embedding=params,
                tokens=tokens,
                share=group.request.domain_share,
                learning_rate=0.01,
                step=tokens // STEP,
                finished=tokens > 0,
                evaluated=role,
                role=role,
                loss_nats=loss * (1 + random.normal(0, 3e-4)) if tokens else at_start,
                bits_per_byte=None,
            )


class Trainer:
    """Carries a round out as the training process would, and counts the groups it ran."""

    def __init__(self):
        self.ran = []

    def __call__(self, request, folder):
        records.write(folder / "request.json", request)
        self.ran += [group.request.name for group in request.groups]
        found = tuple(o for group in request.groups for o in measured(group))
        tokens = sum(group_tokens(group) for group in request.groups)
        records.write(folder / "result.json", SweepResult(observations=found, tokens=tokens))


@pytest.fixture
def question(tiny, tmp_path):
    def make(out="sweep", **sweep):
        plan = Plan(
            {label: tiny / "model" for label in SIZES},
            {role: Corpus(rows=str(tiny / role), role=role) for role in ("general", "domain")},
            SweepConfig(**{"tokens": 20 * STEP, "horizons": 3, "workers": 2, "price": 0, "width": 0.03, **sweep}),
            TrainConfig(tokens=40 * STEP, learning_rate=0.01, rows_per_step=8, schedule={"warmup_steps": 2}),
            tmp_path / out,
            {"row_tokens": 16, "held_out_tokens": 400, "commit": None},
        )
        return Question(plan, SIZES, ChooseConfig())

    return make


def test_a_budget_is_left_a_second_run_to_the_end(question):
    plan = question().plan
    tokens = [group_tokens(plan.group("own", share, count)) for share, count in ((0.1, 2), (0.5, None), (0.9, 1))]
    enough = (sum(tokens) + tokens[1]) / plan.recipe.tokens
    assert [len(group.horizons) for group in start(plan)] == [2, 3, 2]
    assert [len(group.horizons) for group in start(question(budget=1.001 * enough).plan)] == [2, 3, 1]


def test_it_begins_with_three_ratios_and_ends_near_the_truth_for_less_than_the_grid(question):
    asked, train, said = question(width=0.04), Trainer(), []
    result = grow(asked, train, said.append)
    assert train.ran[:3] == [group.request.name for group in asked.plan.request(start(asked.plan), Path()).groups]
    assert len(train.ran) == len(set(train.ran)) > 3
    grid = [asked.plan.group("own", share) for share in (0.1, 0.25, 0.4, 0.55, 0.7, 1.0)]
    assert result.tokens < 0.7 * sum(group_tokens(group) for group in grid)
    belief = asked.believe(result.observations)
    assert belief.median == pytest.approx(RIGHT, abs=0.05)
    assert "0.04 was asked for" in said[-1]
    assert records.read_observations(asked.plan.out / "observations.csv") == list(result.observations)


def test_a_killed_sweep_plans_the_same_rounds_and_runs_no_finished_one_again(question):
    asked, train = question(), Trainer()
    whole = grow(asked, train, lambda said: None)
    last = sorted(asked.plan.out.glob("round-*"))[-1]
    assert last.name != "round-01"
    planned = (last / "request.json").read_bytes()
    (last / "result.json").unlink()
    again = Trainer()
    assert grow(asked, again, lambda said: None) == whole
    assert (last / "request.json").read_bytes() == planned
    assert again.ran == train.ran[-len(again.ran) :]
    (last / "request.json").unlink()
    (last / "result.json").unlink()
    assert grow(asked, Trainer(), lambda said: None) == whole


def test_a_round_has_as_many_groups_as_run_at_once_and_no_more_than_are_allowed(question):
    asked, train = question(max_runs=4, width=1e-6), Trainer()
    grow(asked, train, lambda said: None)
    assert len(train.ran) == 4
    wider = question("other", width=1e-6, workers=3, max_runs=6)
    observations = [o for group in start(wider.plan) for o in measured(group)]
    groups, _ = further(wider, observations)
    assert len({(group.request.label, group.request.domain_share) for group in groups}) == len(groups) == 3


def test_the_budget_is_kept(question):
    asked, train = question(width=1e-6, budget=1.5), Trainer()
    result = grow(asked, train, lambda said: None)
    spent = {one.group: one.params_non_embedding for one in result.observations}
    flops = sum(
        6 * spent[name] * group_tokens(group)
        for round_ in sorted(asked.plan.out.glob("round-*/request.json"))
        for group in records.read(round_, SweepRequest).groups
        for name in [group.request.name]
    )
    assert len(train.ran) > 3
    assert 1.2 < flops / (6 * SIZES["own"] * 40 * STEP) <= 1.5


def test_a_run_that_saves_less_than_its_price_is_not_made(question):
    asked, train, said = question(width=1e-6, price=100.0), Trainer(), []
    grow(asked, train, said.append)
    assert len(train.ran) == 3
    assert "worth" in said[-1]


def test_the_size_of_a_model_is_read_without_its_weights(tiny):
    from ratoon.lm.load import load_model, non_embedding

    assert size_of(tiny / "model") == non_embedding(load_model(tiny / "model"))
