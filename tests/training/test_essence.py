"""What a recipe is: how it is carried out, and what options say that are off, is no part of it."""

import pytest

from ratoon.config.loss import Distill, Loss, Prefix, Select
from ratoon.config.train import MACHINE
from ratoon.training.group import Group, table_of

STEP = 8 * 16
NEUTRAL = {
    "an anchor that keeps all": {"forgetting": {"anchor": {"epsilon": 1, "every": 3}}},
    "an average that keeps nothing": {"forgetting": {"average": {"decay": 0, "every": 2, "start": 1}}},
    "a parent without weight": {"forgetting": {"parent": {"beta": 0, "on": "all", "top_k": 5}}},
    "springs without strength": {"forgetting": {"elastic": {"strength": 0, "rows": 3}}},
    "masks without strength": {"forgetting": {"soft_mask": {"strength": 0, "rows": 3}}},
    "all tokens kept": {"loss": Loss(select=Select(keep=1, reference="parent"))},
    "a teacher without weight": {"loss": Loss(distill=Distill(teacher="parent", weight=0))},
    "prefixes in no step": {"loss": Loss(prefix=Prefix(until_share=0))},
    "the uniform curriculum": {"mixture": {"curriculum": {"score": "any", "order": "paced", "start": 1}}},
    "what is done at a cap, without one": {"mixture": {"at_cap": "others"}},
    "how far early evaluations reach, without any": {"early_share": 0.5},
}
BY_MACHINE = {
    "device": "cpu",
    "threads": 3,
    "processes": 2,
    "micro_rows": 2,
    "checkpoints": 9,
    "activation_checkpointing": True,
    "budget": {"hours": 3.0},
    "faults": {"rollbacks": 9},
}
OTHERS = {
    "seed": {"seed": 1},
    "an anchor": {"forgetting": {"anchor": {"epsilon": 0.5, "every": 3}}},
    "a parent": {"forgetting": {"parent": {"beta": 0.1}}},
    "prefixes": {"loss": Loss(prefix=Prefix(until_share=0.5))},
    "early evaluations": {"early_evaluations": 3},
}


def names(request):
    group = Group(request=request, horizons=(10 * STEP,), target_tokens=20 * STEP)
    return request.identity(), table_of(group).name


@pytest.mark.parametrize("asked", NEUTRAL.values(), ids=NEUTRAL)
def test_what_an_option_says_that_is_off_makes_no_other_run(asked, request_for):
    assert names(request_for(**asked)) == names(request_for())


@pytest.mark.parametrize("name", MACHINE)
def test_how_a_run_is_carried_out_makes_no_other_run(name, request_for):
    assert names(request_for(**{name: BY_MACHINE[name]})) == names(request_for())


@pytest.mark.parametrize("asked", OTHERS.values(), ids=OTHERS)
def test_what_changes_numbers_makes_another_run(asked, request_for):
    ours, plain = names(request_for(**asked)), names(request_for())
    assert ours[0] != plain[0]
    assert ours[1] != plain[1]


def test_an_option_that_is_not_asked_for_leaves_digests_as_they_were_before_it(request_for):
    said = request_for().recipe.model_dump_json()
    assert "prefix" not in said
    assert "processes" not in said
