"""Decisions against brute force on planted truths: goals, regret, scarce text, compute, learning rates."""

import functools
import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
from planted_runs import observation

from ratoon.config import ChooseConfig, ConfigError
from ratoon.laws.decision.allocate import allocate
from ratoon.laws.decision.believe import believe, portions
from ratoon.laws.decision.candidates import LAWS, weigh
from ratoon.laws.decision.choose import choose
from ratoon.laws.decision.goals import DATA, EDGE, INTERIOR, TOLERANCE, Stakes
from ratoon.laws.decision.regret import expected_regret, regrets
from ratoon.laws.decision.scarce import LONGEST, Supply, best_supply, choose_scarce
from ratoon.laws.equations.chinchilla import Chinchilla
from ratoon.laws.equations.dcpt import DCPT
from ratoon.laws.equations.repetition import effective_tokens

GENERAL = DCPT(E=1.9, A=0.3, a=0.3, B=0.05, n=0.5, b=0.3, C=0.25, e=0.1, c=0.4)
DOMAIN = DCPT(E=0.6, A=0.3, a=0.3, B=0.5, n=0.5, b=0.5, C=1.0, e=0.02, c=0.3)
SIZES, RATIOS = (0.5e9, 1.8e9, 4e9), (0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.95)
HORIZONS = (1e9, 2e9, 4e9, 8e9)
N, FINE = 1.8e9, np.linspace(0.1, 0.95, 8501)
EXACT = {"bootstrap": 50, "law": "dcpt"}


@functools.cache
def planted(general=GENERAL, domain=DOMAIN, noise=0.0, sizes=SIZES, seed=0):
    random = np.random.default_rng(seed)
    found = []
    for params, share, tokens in itertools.product(sizes, RATIOS, HORIZONS):
        found.append(observation("general", params, tokens, share, general.loss(params, tokens, 1 - share)))
        found.append(observation("domain", params, tokens, share, domain.loss(params, tokens, share)))
    return [x.model_copy(update={"loss_nats": x.loss_nats * (1 + noise * random.normal())}) for x in found]


def configure(**changes):
    return ChooseConfig.model_validate({**EXACT, **changes})


def decide(observations, tokens=10e9, parent=(2.7, 2.6), available=None, **changes):
    return choose(
        observations,
        params_non_embedding=int(N),
        tokens=int(tokens),
        parent_general=parent[0],
        parent_domain=parent[1],
        config=configure(**changes),
        available_domain_tokens=available,
    )


# ---------------------------------------------------------------- goals


def weighted_truth(weight, parent, tokens=10e9):
    general, domain = GENERAL.loss(N, tokens, 1 - FINE), DOMAIN.loss(N, tokens, FINE)
    return float(FINE[(weight * general / parent[0] + (1 - weight) * domain / parent[1]).argmin()])


@pytest.mark.parametrize("weight", [0.4, 0.5, 0.6])
def test_a_weighted_goal_is_met_where_brute_force_on_the_truth_finds_it(weight):
    choice = decide(planted(), goal="weighted", general_weight=weight)
    truth = weighted_truth(weight, (2.7, 2.6))
    assert 0.1 < truth < 0.95
    assert choice.share == pytest.approx(truth, abs=0.011)
    assert choice.reason == INTERIOR
    assert choice.best.low <= choice.share <= choice.best.high
    assert {*choice.second_opinion} == {"warm", "cmr"}
    assert all(0.1 <= share <= 0.95 for share in choice.second_opinion.values())


def test_the_interval_of_a_weighted_goal_widens_with_noise_and_holds_the_truth():
    calm, noisy = (decide(planted(noise=noise), goal="weighted").best for noise in (0.0, 0.003))
    assert noisy.high - noisy.low > calm.high - calm.low
    assert noisy.low - 0.01 <= weighted_truth(0.5, (2.7, 2.6)) <= noisy.high + 0.01


def test_a_goal_that_only_weighs_one_loss_ends_at_the_end_of_the_shares_tried():
    assert (decide(planted(), goal="weighted", general_weight=1).share) == 0.1
    choice = decide(planted(), goal="weighted", general_weight=0)
    assert (choice.share, choice.reason) == (0.95, EDGE)
    assert decide(planted(), goal="weighted", general_weight=0, available=100_000_000).reason == DATA


def test_a_ceiling_is_met_where_bisection_on_the_truth_meets_it():
    parent = float(GENERAL.loss(N, 10e9, 0.4)) / 1.02
    choice = decide(planted(), parent=(parent, 2.6))
    assert choice.interval.value == pytest.approx(0.6, abs=0.01)
    assert (choice.share, choice.reason) == (pytest.approx(0.6, abs=0.0101), TOLERANCE)
    assert choice.best is None


# ---------------------------------------------------------------- regret


def test_regret_under_a_ceiling_is_domain_loss_given_up_and_the_price_of_what_a_smaller_share_avoids():
    stakes = Stakes(2.0, 3.0, configure(tolerance=0.05, overrun_price=10))  # ceiling 2.1
    general = np.array([[2.0, 2.08, 2.2], [2.0, 2.05, 2.09], [2.15, 2.2, 2.3]])
    domain = np.array([[2.5, 2.4, 2.3]] * 3)
    chosen = general[:, 1], domain[:, 1]
    # within, and the best that is; too careful by 0.1; above by 0.1, of which 0.05 no share avoids
    np.testing.assert_allclose(regrets(general, domain, *chosen, stakes), [0.0, 0.1, 0.05 * 10])


def test_regret_under_a_weighted_goal_is_the_goal_less_its_least_value():
    stakes = Stakes(2.0, 4.0, configure(goal="weighted", general_weight=0.25))
    general, domain = np.array([[2.0, 2.2, 2.4]]), np.array([[4.0, 3.2, 3.0]])
    # 0.25 g/2 + 0.75 d/4: 1.0, 0.875, 0.8625
    np.testing.assert_allclose(regrets(general, domain, general[:, 0], domain[:, 0], stakes), [0.1375])
    np.testing.assert_allclose(regrets(general, domain, general[:, 2], domain[:, 2], stakes), [0.0], atol=1e-12)


def test_regret_is_nought_without_doubt_and_grows_with_noise_and_with_distance_from_the_best():
    parent = float(GENERAL.loss(N, 10e9, 0.4)) / 1.02
    calm, noisy = (decide(planted(noise=noise), parent=(parent, 2.6)) for noise in (0.0, 0.004))
    assert 0 <= calm.regret < 0.005, "rounding down to a hundredth only"
    assert noisy.regret > 2 * calm.regret
    believed = believe(planted(noise=0.002), int(N), int(10e9), configure())
    stakes = Stakes(parent, 2.6, configure())
    costs = [expected_regret(believed, stakes, share) for share in (0.2, 0.4, 0.6, 0.8, 0.9)]
    assert costs[0] > costs[1] > costs[2] < costs[3] < costs[4]
    dear = Stakes(parent, 2.6, configure(overrun_price=5))
    assert expected_regret(believed, dear, 0.8) > 3 * expected_regret(believed, stakes, 0.8)


def test_a_ratio_fixed_by_the_user_has_its_regret_told():
    parent = float(GENERAL.loss(N, 10e9, 0.4)) / 1.02
    near, far = (decide(planted(), parent=(parent, 2.6), ratio=ratio).regret for ratio in (0.6, 0.3))
    assert far > near + 0.02


# ---------------------------------------------------------------- scarce domain text


def scarce(observations=None, unique=1e9, epochs=1.0, **asked):
    return choose_scarce(
        observations or planted(), params_non_embedding=int(N), domain_tokens=int(unique),
        config=configure(domain_epochs=epochs), **asked,
    )  # fmt: skip


def test_scarce_text_read_once_has_its_best_share_inside_where_brute_force_finds_it():
    losses = DOMAIN.loss(N, 1e9 / FINE, FINE)
    truth = float(FINE[losses.argmin()])
    assert 0.15 < truth < 0.9, "the truth must have its optimum inside"
    found = scarce()
    assert found.share.value == pytest.approx(truth, abs=0.011)
    assert found.tokens.value == pytest.approx(1e9 / found.share.value, rel=0.01)
    assert found.domain.value == pytest.approx(losses.min(), rel=1e-3)
    assert (found.reason, found.epochs) == (INTERIOR, pytest.approx(1.0))


@pytest.mark.parametrize(("epochs", "unique"), [(4, 3e8), (12, 1e8)])
def test_repeated_text_counts_for_less_than_fresh_text(epochs, unique):
    fresh = effective_tokens(unique, epochs * unique) / FINE
    truth = float(FINE[DOMAIN.loss(N, fresh, FINE).argmin()])
    found = scarce(unique=unique, epochs=epochs)
    assert found.share.value == pytest.approx(truth, abs=0.011)
    assert found.domain.value > float(DOMAIN.loss(N, epochs * unique / FINE, FINE).min())


def test_a_longest_run_bounds_the_length_and_moves_the_share():
    free, short = scarce(unique=1e9), scarce(unique=1e9, longest=int(1.2e9))
    tokens = np.minimum(1e9 / FINE, 1.2e9)
    fresh = effective_tokens(1e9, tokens * FINE) / FINE
    assert short.tokens.value <= 1.2e9 < free.tokens.value
    assert short.share.value == pytest.approx(FINE[DOMAIN.loss(N, fresh, FINE).argmin()], abs=0.011)
    assert short.reason == LONGEST


def test_a_ceiling_on_general_loss_binds_scarce_text_too():
    found = scarce()
    ceiling = float(GENERAL.loss(N, 1e9 / 0.3, 0.7))
    bound = scarce(ceiling=ceiling)
    assert bound.share.value < found.share.value
    assert bound.general.value <= ceiling
    assert bound.reason == TOLERANCE
    with pytest.raises(ConfigError, match=r"no share keeps general loss under 1\.5000"):
        scarce(ceiling=1.5)


def test_text_for_far_shorter_runs_than_any_is_answered_only_on_demand():
    with pytest.raises(ConfigError, match=r"10 tokens are 1/100,000,000\.0 of the shortest run .*extrapolate to true"):
        scarce(unique=1)
    # What the laws were asked about was long enough, and the best run is not.
    asked, text = {"params": int(N), "tokens": int(1e9)}, Supply(unique=5e6, epochs=1.0, longest=1e9)
    with pytest.raises(ConfigError, match=r"tokens are 1/\d+\.\d of the shortest run \(1,000,000,000\)"):
        best_supply(believe(planted(), **asked, config=configure(domain_epochs=1.0)), text)
    told = configure(domain_epochs=1.0, extrapolate=True)
    found = best_supply(believe(planted(), **asked, config=told), text)
    assert "extrapolates below 1/10 of the shortest run (1,000,000,000 tokens)" in found.warnings


def test_the_interval_of_scarce_text_holds_the_truth_through_noise():
    found = scarce(planted(noise=0.002))
    truth = float(FINE[DOMAIN.loss(N, 1e9 / FINE, FINE).argmin()])
    assert found.share.low - 0.01 <= truth <= found.share.high + 0.01
    assert found.tokens.low < found.tokens.high


# ---------------------------------------------------------------- compute


@pytest.mark.parametrize(("share", "role"), [(0.0, "domain"), (1.0, "general")])
def test_compute_is_not_split_where_the_law_of_size_is_silent(share, role):
    with pytest.raises(ConfigError, match=rf"reads no {role} text, and about such runs dcpt is silent; ask about a"):
        allocate(planted(), share=share, flops=1e20, config=configure(), role=role)


def test_a_split_at_a_share_nobody_tried_says_so():
    found = allocate(planted(), share=0.03, flops=1e20, config=configure())
    assert "extrapolates beyond the domain shares tried, 0.1 to 0.95" in found.warnings
    tried = allocate(planted(), share=0.1, flops=1e20, config=configure())
    assert not any("shares tried" in line for line in tried.warnings)


@pytest.mark.parametrize(("share", "flops"), [(0.5, 1e20), (0.2, 4e19), (0.8, 2e20)])
def test_compute_is_split_as_chinchillas_closed_form_splits_it(share, flops):
    found = allocate(planted(), share=share, flops=flops, config=configure())
    E = DOMAIN.E + DOMAIN.C / (share + DOMAIN.e) ** DOMAIN.c
    params, tokens = Chinchilla(E, DOMAIN.A, DOMAIN.a, DOMAIN.B * share**DOMAIN.n, DOMAIN.b).allocate(flops)
    assert found.params.value == pytest.approx(float(params), rel=5e-3)
    assert found.tokens.value == pytest.approx(float(tokens), rel=5e-3)
    assert 6 * found.params.value * found.tokens.value == pytest.approx(flops)
    assert found.loss.value == pytest.approx(float(DOMAIN.loss(params, tokens, share)), rel=1e-4)
    assert found.reason == INTERIOR


def test_the_interval_of_a_split_holds_the_closed_form_through_noise():
    found = allocate(planted(noise=0.002), share=0.5, flops=1e20, config=configure(bootstrap=100))
    law = Chinchilla(0.0, DOMAIN.A, DOMAIN.a, DOMAIN.B * 0.5**DOMAIN.n, DOMAIN.b)
    params, tokens = law.allocate(1e20)
    assert found.params.low <= float(params) <= found.params.high
    assert found.tokens.low <= float(tokens) <= found.tokens.high
    assert found.params.high > 1.05 * found.params.low


def test_one_size_cannot_say_how_compute_is_split():
    with pytest.raises(ConfigError, match="all runs have 1,800,000,000 parameters; what size is worth cannot be known"):
        allocate(planted(sizes=(1.8e9,)), share=0.5, flops=1e20, config=configure())
    with pytest.raises(ConfigError, match="buy no run within"):
        allocate(planted(), share=0.5, flops=1e26, config=configure())


# ---------------------------------------------------------------- combining


def law(name, error, eligible=True):
    return SimpleNamespace(name=name, role="general", error=error, eligible=eligible)


def test_laws_are_weighed_by_their_held_out_error_and_a_hopeless_one_is_dropped():
    found = weigh(
        [law("a", 0.01), law("b", 0.02), law("c", 1.0), law("d", 0.001, eligible=False)], "general", ChooseConfig()
    )
    assert [(one.name, round(weight, 6)) for one, weight in found] == [("a", 0.8), ("b", 0.2)]
    alone = weigh([law("a", float("inf")), law("b", float("inf"))], "general", ChooseConfig())
    assert [one.name for one, _ in alone] == ["a"]


def test_draws_are_pooled_in_proportion_to_belief():
    assert portions([0.5, 0.3, 0.2], 10) == [5, 3, 2]
    assert portions([1 / 3, 1 / 3, 1 / 3], 100) in ([34, 33, 33], [33, 34, 33])
    assert sum(portions([0.61, 0.38, 0.01], 57)) == 57


def test_combined_laws_say_so_and_lie_between_those_they_combine():
    rows = planted(noise=0.003)
    believed = believe(rows, int(N), int(10e9), configure(law="combined"))
    voices = believed.voices["domain"]
    assert len(voices) > 1
    assert sum(one.weight for one in voices) == pytest.approx(1)
    alone = [float(one.candidate.loss(N, 10e9, 0.5)) for one in voices]
    assert min(alone) <= believed.best("domain", 0.5)[0] <= max(alone)
    assert believed.draws("domain", [0.3, 0.5]).shape == (50, 2)
    assert re.fullmatch(
        r"combined: (\d+% \w+( \+ )?)+ for general, (\d+% \w+( \+ )?)+ for domain", decide(rows, law="combined").law
    )


def test_every_law_that_can_be_asked_for_is_one_that_is_fitted():
    assert {*ChooseConfig.model_fields["law"].annotation.__args__} == {"auto", "combined", *LAWS}
