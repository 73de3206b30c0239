"""Which run next: on planted laws, and on published checkpoints."""

import csv
import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from ratoon.config import ChooseConfig
from ratoon.laws.decision.choose import choose
from ratoon.laws.decision.goals import Stakes
from ratoon.laws.design.advice import advise, spaced
from ratoon.laws.design.belief import believe_weakly
from ratoon.laws.design.next_run import (
    Option,
    Outlook,
    Proposal,
    Rule,
    first_lengths,
    options,
    price,
    propose,
    stop,
)
from ratoon.laws.design.rows import Rows
from ratoon.laws.tables.bring import read_runs
from ratoon.laws.tables.table import tabulate
from ratoon.records import Observation

PUBLISHED = [up / "shared" / "published" for up in Path(__file__).parents]
DATA = next((path for path in PUBLISHED if path.exists()), None)
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "runs.csv"
OWN, SMALL, TARGET, RIGHT = 160_000, 40_000, 1_200_000, 0.6
HORIZONS = (50_000, 100_000, 200_000, 400_000)
ANY = Rule(width=0.0, price=0.0)
CONFIG = ChooseConfig()


def truth(role, N, D, own):
    if role == "general":
        return 2.9 + 0.4 * (N / 1e5) ** -0.34 + 0.05 * own * (D / 1e5) ** -0.4 + 0.16 / (own + 0.15) ** 0.5
    return 1.7 + 0.3 * (N / 1e5) ** -0.34 + 0.35 * own**0.2 * (D / 1e5) ** -0.3 + 1.3 / (own + 0.05) ** 0.2


CEILING = truth("general", OWN, TARGET, 1 - RIGHT)


def observed(size, share, tokens, role, loss):
    return Observation(
        run=f"{size}-{share}-{tokens}", group=f"{size}-{share}", commit=None, config="", model="m",
        params_non_embedding=size, tokens=tokens, share=share, learning_rate=1e-3, step=1, finished=True,
        evaluated=role, role=role, loss_nats=loss, bits_per_byte=None,
    )  # fmt: skip


def run(share, lengths=4, size=OWN, seed=0, noise=0.001):
    found = []
    for role in ("general", "domain"):
        random = np.random.default_rng([seed, round(share * 100), size, role == "domain"])
        luck, *each = random.normal(0, noise, 5)
        for k, tokens in enumerate(HORIZONS[:lengths]):
            own = share if role == "domain" else 1 - share
            found.append(observed(size, share, tokens, role, truth(role, size, tokens, own) + luck + each[k]))
    return found


def three(seed=0):
    return run(0.1, 2, seed=seed) + run(0.4, seed=seed) + run(0.8, 2, seed=seed)


def belief_of(observations, ceiling=CEILING, config=CONFIG, params=OWN, tokens=TARGET):
    rows = {role: Rows.of(table) for role, table in tabulate(observations)[0].items()}
    stakes = Stakes(ceiling / (1 + config.tolerance), 4.0, config)
    return believe_weakly(rows, params=params, tokens=tokens, stakes=stakes)


def cost(size, share, lengths):
    return Option.trunk(share, size, lengths, 0.2).flops


def open_to(observations, sizes=(OWN,)):
    made = {(o.params_non_embedding, o.share) for o in observations}
    return options(sizes, HORIZONS, made, cost)


# ---------------------------------------------------------------- the value of a run


@dataclass
class Straight:
    """r* is normal, and a run of share x measures x r* with noise of variance 1."""

    best: np.ndarray
    stakes: Stakes
    params: float = 1.0
    tokens: float = 1.0
    fall: float = 0.0
    width: float = 3.0
    regret: float = 1.0

    @property
    def turns(self):
        return self.best[:, None]

    def measured(self, runs):
        return [(np.outer(self.best, np.full(len(run[2]), run[1])), np.eye(len(run[2]))) for run in runs]

    def speaks(self, params):
        return np.ones(len(self.best), dtype=bool)

    def width_of(self, weights):
        mean = weights @ self.best
        return float(np.sqrt(weights @ (self.best - mean) ** 2))

    def regret_of(self, weights):
        return self.width_of(weights)


def test_the_value_of_a_run_is_that_of_linear_theory():
    draws = np.random.default_rng(0).normal(0, 2, 4000).clip(-3.9, 3.9)  # further ones are counted less
    belief = Straight(draws, Stakes(1.0, 1.0, CONFIG))
    variance = np.var(draws, ddof=1)
    (one,) = propose(belief, [Option(0.5, 1.0, (1.0, 2.0), 10.0)], ANY)
    assert one.gain == pytest.approx(np.log(1 + variance * 2 * 0.25), rel=1e-6)
    assert one.width_after == pytest.approx(np.sqrt(variance / (1 + variance * 2 * 0.25)), rel=0.05)


def test_of_runs_that_tell_the_same_the_cheaper_one_is_proposed_and_a_batch_does_not_repeat_itself():
    belief = Straight(np.random.default_rng(0).normal(0, 2, 2000), Stakes(1.0, 1.0, CONFIG))
    among = [Option(0.5, 1.0, (1.0,), 10.0), Option(0.5, 1.0, (2.0,), 5.0), Option(0.4, 1.0, (1.0,), 5.5)]
    found = propose(belief, among, ANY, 3)
    assert [(one.option.share, one.option.flops) for one in found] == [(0.5, 5.0), (0.4, 5.5)]
    # What the first one tells, the second cannot tell again.
    assert found[1].gain < propose(belief, among[2:], ANY)[0].gain


@dataclass
class Veiled(Straight):
    """r* under ten times as much of something else: a run of share 0.5 measures both, one of any other the veil."""

    def measured(self, runs):
        veil = 10 * np.random.default_rng(1).permutation(self.best)
        return [((veil + (run[1] == 0.5) * self.best)[:, None], np.eye(1)) for run in runs]


def test_a_handful_of_draws_far_off_is_not_all_that_is_designed_for():
    draws = np.random.default_rng(0).normal(0, 2, 2000)
    one = Option(0.5, 1.0, (1.0,), 1.0)
    (plain,) = propose(Straight(draws, Stakes(1.0, 1.0, CONFIG)), [one], ANY)
    draws[::200] *= 1000
    (far,) = propose(Straight(draws, Stakes(1.0, 1.0, CONFIG)), [one], ANY)
    assert far.gain == pytest.approx(plain.gain, rel=0.1)


def test_two_runs_that_help_only_together_are_proposed():
    belief = Veiled(np.random.default_rng(0).normal(0, 2, 2000), Stakes(1.0, 1.0, CONFIG), width=2.0, regret=2.0)
    both = [Option(0.5, 1.0, (1.0,), 1.0), Option(0.4, 1.0, (1.0,), 1.0)]
    alone, rule = propose(belief, both[:1], Rule(0.0), budget=2.0)[0], Rule(0.0, price=0.3)
    assert alone.narrows < 0.1
    assert propose(belief, both[:1], ANY) == []
    first, second = propose(belief, both, rule, 2)
    assert {first.option.share, second.option.share} == {0.4, 0.5}
    assert stop(belief, first, rule, 3) is None
    assert "worth" in stop(belief, alone, Rule(0.0, price=1.0), 3)


@dataclass
class Distracted(Straight):
    """Something else varies ten times as much and moves r* nowhere: a run of share 0.9 measures it."""

    @property
    def other(self):
        return 10 * np.random.default_rng(1).permutation(self.best)

    @property
    def turns(self):
        return np.stack([self.best, self.other], axis=1)

    def measured(self, runs):
        return [((self.other if run[1] == 0.9 else self.best)[:, None], np.eye(1)) for run in runs]


def test_with_a_budget_the_plan_is_taken_that_narrows_the_interval_and_not_what_only_varies():
    belief = Distracted(np.random.default_rng(0).normal(0, 2, 2000), Stakes(1.0, 1.0, CONFIG), width=2.0)
    among = [Option(0.9, 1.0, (1.0,), 1.0), Option(0.3, 1.0, (1.0,), 1.0)]
    assert propose(belief, among, ANY, budget=1.0)[0].option.share == 0.3


# ---------------------------------------------------------------- beliefs


def test_three_short_runs_that_pin_no_law_hold_the_truth_in_a_wide_interval():
    beliefs = [belief_of(run(0.1, 2, seed=s) + run(0.4, 2, seed=s) + run(0.8, 2, seed=s)) for s in range(6)]
    inside = [np.quantile(b.best, 0.05) <= RIGHT <= np.quantile(b.best, 0.95) for b in beliefs]
    assert np.mean(inside) >= 0.8
    assert min(b.width for b in beliefs) > 2 * belief_of(three() + run(0.6) + run(0.65)).width


def test_one_run_after_the_other_the_interval_closes_on_the_truth():
    observations, widths = three(), []
    for _ in range(3):
        belief = belief_of(observations)
        widths.append(belief.width)
        (best,) = propose(belief, open_to(observations), ANY)
        observations += run(best.option.share, len(best.option.horizons))
    belief = belief_of(observations)
    assert belief.width < widths[0] / 1.5
    assert belief.median == pytest.approx(RIGHT, abs=0.03)


def test_what_a_run_would_buy_is_foreseen():
    found = []
    for seed in range(3):
        observations = run(0.1, 2, seed=seed) + run(0.4, 3, seed=seed) + run(0.8, 2, seed=seed)
        (best,) = propose(belief_of(observations), open_to(observations), ANY)
        after = belief_of(observations + run(best.option.share, len(best.option.horizons), seed=seed))
        assert best.width_after < best.width_now
        found.append(after.width / best.width_after)
    assert 0.5 < np.median(found) < 2


def test_what_decides_the_best_share_is_in_units_of_it():
    belief = belief_of(three() + run(0.6) + run(0.65))
    middle = belief.turns[:, belief.turns.shape[1] // 2]
    assert np.std(middle) == pytest.approx(np.std(belief.best), rel=0.3)
    assert np.corrcoef(middle, belief.best)[0, 1] < -0.9  # the more general loss there, the smaller the share


def test_the_same_runs_get_the_same_proposals():
    first, second = (propose(belief_of(three()), open_to(three(), (OWN, SMALL)), ANY, 3) for _ in range(2))
    assert first == second


def test_shares_already_run_and_either_end_are_not_proposed():
    shares = {one.share for one in open_to(three())}
    assert not shares & {0.0, 0.1, 0.4, 0.8, 1.0}
    assert len(shares) == 16
    assert open_to(three())[0].horizons == HORIZONS[:1]


def test_no_law_speaks_of_a_size_that_only_laws_of_one_size_have_seen():
    config = ChooseConfig(law="warm")
    belief = belief_of(three(), config=config)
    assert not belief.speaks(SMALL).any()
    assert propose(belief, open_to(three(), (SMALL,)), ANY) == []
    assert belief_of(three(), config=ChooseConfig(law="dcpt")).speaks(SMALL).all()


def test_a_weighted_goal_is_designed_for_too():
    config = ChooseConfig(goal="weighted", general_weight=0.7)
    belief = belief_of(three(), config=config)
    assert belief.roles == ("general", "domain")
    (best,) = propose(belief, open_to(three()), ANY)
    assert best.width_after < best.width_now
    assert belief.regret_of(np.eye(len(belief.best))[0]) == pytest.approx(0, abs=1e-12)


# ---------------------------------------------------------------- the first runs


@pytest.mark.parametrize(
    ("budget", "lengths"),
    [
        (None, [2, None, 2]),
        (20.0, [2, None, 2]),  # 2 + 8 + 2, and 8 more
        (19.0, [2, None, 1]),
        (18.0, [1, None, 1]),
        (17.0, [2, None, 2]),  # no second run to the end however short the others are
    ],
)
def test_the_first_runs_leave_room_for_a_second_one_to_the_end(budget, lengths):
    assert first_lengths((0.1, 0.5, 0.9), lambda share, count: float(count or 8), budget) == lengths


# ---------------------------------------------------------------- when to stop


def test_it_stops_when_narrow_enough_or_too_many_or_too_dear():
    belief = belief_of(three())
    found = propose(belief, open_to(three()), ANY)
    assert stop(belief, found[0], ANY, 3) is None
    assert "1 was asked for" in stop(belief, found[0], Rule(1.0), 3)
    assert "3 runs were made" in stop(belief, found[0], Rule(0.0, 0.0, 3), 3)
    assert "no run that could be made" in stop(belief, None, ANY, 3)
    dear = Rule(0.0, price=1e6)
    assert "worth" in stop(belief, propose(belief, open_to(three()), dear)[0], dear, 3)


def test_without_a_price_flops_are_worth_what_a_longer_target_run_would_gain():
    belief = belief_of(three() + run(0.6))
    option = Option(0.5, OWN, HORIZONS, 0.1 * 6 * OWN * TARGET)
    fall = truth("domain", OWN, TARGET, RIGHT) - truth("domain", OWN, TARGET * np.exp(0.1), RIGHT)
    assert price(belief, option.flops, Rule(0.0)) == pytest.approx(fall, rel=0.5)
    assert price(belief, option.flops, Rule(0.0, price=2.0)) == pytest.approx(0.2)


def test_a_choice_is_told_with_the_run_that_would_narrow_it():
    observations = [o for share in (0.1, 0.25, 0.4, 0.7) for o in run(share)]
    asked = {"params_non_embedding": OWN, "tokens": TARGET}
    stakes = Stakes(CEILING / 1.02, 4.0, ChooseConfig(bootstrap=60))
    choice = choose(observations, **asked, parent_general=stakes.general, parent_domain=4.0, config=stakes.config)
    found = advise(choice, observations, stakes=stakes, rule=Rule(0.01, price=0.0)).further
    assert found.width_now == choice.interval.high - choice.interval.low
    assert found.regret_now == choice.regret
    assert found.width_after < found.width_now
    lengths = [h for h in HORIZONS if h < found.tokens]
    assert found.flops == cost(found.params_non_embedding, found.share, [*lengths, found.tokens])
    assert not advise(choice, observations, stakes=stakes, rule=Rule(1.0)).further.worth_it
    assert "wide already" in advise(choice, observations, stakes=stakes, rule=Rule(1.0)).further.reason
    # With no run left to make at these lengths, a longer one is told too.
    longer = advise(choice, observations, stakes=stakes, rule=Rule(0.01, price=0.0), among=[]).further
    assert longer.tokens == min(2 * max(HORIZONS), TARGET)
    assert f"a run of {longer.tokens:,} tokens" in longer.reason


def test_a_longer_run_is_told_where_those_of_the_lengths_there_are_tell_little():
    runs = read_runs(EXAMPLE, "general=loss_prose,domain=loss_code").observations()
    asked = {"params_non_embedding": 150_976, "tokens": 800_000, "parent_general": 3.4696, "parent_domain": 4.4402}
    for tolerance in (0.02, 0.03):
        config = ChooseConfig(tolerance=tolerance, bootstrap=60)
        found = choose(runs, **asked, config=config, rule=Rule(width=0.05)).further
        assert found.tokens == 512_000
        assert found.width_after < found.width_now / 2


def test_a_share_that_was_run_only_short_is_proposed_at_full_length():
    every = [round(step * 0.05, 2) for step in range(1, 20)]
    observations = [o for share in every for o in run(share, 4 if share in (0.1, 0.5, 0.9) else 2)]
    asked = {"params_non_embedding": OWN, "tokens": max(HORIZONS)}  # so that none is longer than the longest
    stakes = Stakes(truth("general", OWN, max(HORIZONS), 0.4) / 1.02, 4.0, ChooseConfig(bootstrap=60))
    choice = choose(observations, **asked, parent_general=stakes.general, parent_domain=4.0, config=stakes.config)
    found = advise(choice, observations, stakes=stakes, rule=Rule(0.001, price=0.0)).further
    assert found.tokens > HORIZONS[1]
    assert found.share not in (0.1, 0.5, 0.9)


def test_of_a_run_that_is_dull_alone_it_is_said_with_how_many_others_it_helps(monkeypatch):
    observations = [o for share in (0.1, 0.25, 0.4, 0.7) for o in run(share)]
    stakes = Stakes(CEILING / 1.02, 4.0, ChooseConfig(bootstrap=60))
    parents = {"parent_general": stakes.general, "parent_domain": 4.0}
    choice = choose(observations, params_non_embedding=OWN, tokens=TARGET, **parents, config=stakes.config)
    dull = Proposal(Option(0.5, OWN, HORIZONS, 1.0), 0.01, 0.2, 0.199, 0.1, 0.1)

    def told(*widths):
        ahead = tuple(Outlook(2.0 + n, width, 0.1) for n, width in enumerate(widths))
        monkeypatch.setattr("ratoon.laws.design.advice.propose", lambda *_: [replace(dull, together=ahead)])
        return advise(choice, observations, stakes=stakes, rule=Rule(0.01)).further.reason

    assert "only together with others: 3 runs would take" in told(0.198, 0.1, 0.05)
    assert "neither it nor 3 runs together" in told(0.199, 0.199)


# ---------------------------------------------------------------- published


@pytest.mark.skipif(DATA is None, reason="shared/published is not here")
@pytest.mark.parametrize("middle", [0.625, 0.75])
def test_two_fifths_of_the_published_checkpoints_answer_nearly_as_all_of_them(middle):
    """Pythia-70M on Pile and Python: a run to step s costs s. Three ratios, the middle one (there are two) to the
    end, then what is proposed for the rest of the budget."""
    with (DATA / "dml_ct_pythia70m.csv").open() as file:
        table = list(csv.DictReader(file))
    with (DATA / "dml_ct_base.csv").open() as file:
        base = float(next(csv.DictReader(file))["general_loss"])
    size, unit = int(table[0]["model_params"]), float(table[0]["tokens"]) / float(table[0]["step"])
    rows = [
        observed(size, float(line["domain_proportion"]), int(line["tokens"]), role, float(line[column]))
        for line in table
        for role, column in (("general", "general_loss"), ("domain", "python_loss"))
    ]

    def seen(made):
        return [o for o in rows if any(o.share == share and o.tokens <= step * unit for share, step in made)]

    def believe(observations):
        return belief_of(observations, ceiling=base, params=size, tokens=1e4 * unit)

    made = [(0.5, 2000), (middle, 10_000), (0.875, 2000)]
    while True:
        among = [
            Option(share, size, tuple(k * 1000 * unit for k in range(1, n + 1)), 6 * size * n * 1000 * unit)
            for share, n in itertools.product({o.share for o in rows} - {s for s, _ in made}, range(1, 11))
        ]
        left = 6 * size * unit * (16_000 - sum(step for _, step in made))
        found = propose(believe(seen(made)), among, ANY, budget=left)
        if not found:
            break
        made.append((found[0].option.share, round(max(found[0].option.horizons) / unit)))
    assert sum(step for _, step in made) <= 0.4 * 40_000
    assert believe(seen(made)).median == pytest.approx(believe(rows).median, abs=0.02)
    assert believe(rows).median == pytest.approx(0.7138, abs=0.01)  # printed in the source


def test_with_a_budget_the_run_that_leads_furthest_is_taken_though_another_is_better_per_flop():
    belief = Straight(np.random.default_rng(0).normal(0, 2, 2000), Stakes(1.0, 1.0, CONFIG))
    among = [Option(0.3, 1.0, (1.0,), 1.0), Option(0.9, 1.0, (1.0,), 9.5)]
    assert propose(belief, among, ANY)[0].option.share == 0.3
    assert propose(belief, among, ANY, budget=10.0)[0].option.share == 0.9
    assert propose(belief, among, ANY, budget=2.0)[0].option.share == 0.3
    assert propose(belief, among, ANY, budget=0.5) == []


# ---------------------------------------------------------------- tables as people have them


def test_of_many_checkpoints_a_further_run_is_measured_at_few():
    tokens = np.repeat(np.linspace(1e8, 1e10, 80), 3)
    found = spaced(tokens)
    assert len(found) <= 6
    assert {found[0], found[-1]} == {1e8, 1e10}
    assert set(found) <= set(tokens.tolist())
    assert spaced(np.array([4e8, 1e8, 4e8])) == [1e8, 4e8]


def test_runs_that_repeat_to_the_last_digit_are_believed_and_advised_on():
    """A noise of nothing cannot be told from a noise that rounding hides."""
    once = [one for share in (0.1, 0.3, 0.5, 0.7, 0.9) for one in run(share, noise=0.0)]
    again = [one.model_copy(update={"run": f"{one.run}-again", "group": f"{one.group}-again"}) for one in once]
    belief = belief_of([*once, *again])
    assert belief.median == pytest.approx(RIGHT, abs=0.03)
    assert propose(belief, open_to([*once, *again]), ANY)
