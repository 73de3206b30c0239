"""Learning rate, schedule and ratio at once, against brute force on planted truths."""

import itertools

import numpy as np
import pytest

from ratoon.config import ChooseConfig, ConfigError
from ratoon.laws.decision.goals import INTERIOR, TOLERANCE
from ratoon.laws.decision.joint import Space, best_on_surfaces, best_stage, blend, recentre
from ratoon.laws.decision.rates import choose_rate
from ratoon.laws.equations import almr
from ratoon.laws.equations.almr import Surface
from ratoon.laws.equations.dynamics import Dynamics, sums
from ratoon.laws.fitting.fit import fit
from ratoon.records import Observation

PARENT = sums(np.concatenate([np.full(3600, 2e-3), np.linspace(2e-3, 0, 400)])).end
ON_OLD = Dynamics(L0=3.057, A=0.49, alpha=0.497, C1=0.299, C2=0.298, B=0.366, E=28, beta=0.189, a2=2.0)
ON_NEW = Dynamics(L0=3.024, A=0.412, alpha=0.677, C1=0.278, C2=0.324, B=-0.666, E=500, beta=0.146, a2=2.0)


def constant(peak, steps):
    return np.full(steps, peak)


def annealed(peak, steps):
    return peak * np.minimum(1.0, np.linspace(5.0, 0.0, steps))


def space(**changes):
    return Space(**{
        "peaks": np.geomspace(1e-5, 2e-3, 30),
        "steps": (250, 500, 1000),
        "shares": np.linspace(0.05, 1, 39),
        "schedules": {"constant": constant, "annealed": annealed},
        "parents": {"annealed parent": PARENT},
        **changes,
    })  # fmt: skip


def brute_force(weight, limit, over):
    best = (np.inf, None)
    for (shape, rates), peak, steps, share in itertools.product(
        over.schedules.items(), over.peaks, over.steps, over.shares
    ):
        change = [
            float(law.trajectory(PARENT, rates(peak, steps), new=share)[-1])
            - float(law.loss(PARENT.S1, PARENT.S2, 0, 0, share))
            for law in (ON_OLD, ON_NEW)
        ]
        value = weight * change[0] + (1 - weight) * change[1]
        if value < best[0] and (limit is None or change[0] <= limit):
            best = value, (shape, peak, steps, share)
    return best


@pytest.mark.parametrize(("weight", "limit"), [(0.7, None), (0.0, 0.08)])
def test_peak_rate_steps_replay_and_schedule_are_those_of_brute_force(weight, limit):
    over = space(peaks=np.geomspace(1e-5, 2e-3, 12), steps=(250, 1000), shares=np.linspace(0.1, 1, 10))
    found = best_stage([(ON_OLD, ON_NEW)], over, weight=weight, general_limit=limit)
    value, (shape, peak, steps, share) = brute_force(weight, limit, over)
    assert found.value.value == pytest.approx(value, abs=1e-12)
    assert (found.schedule, found.peak.value, found.steps.value, found.share.value) == (shape, peak, steps, share)
    if limit is not None:
        assert found.general <= limit


def test_draws_of_the_law_give_the_best_stage_its_interval():
    random = np.random.default_rng(0)
    drawn = [
        (ON_OLD._replace(B=ON_OLD.B * random.lognormal(0, 0.2)), ON_NEW._replace(B=ON_NEW.B * random.lognormal(0, 0.2)))
        for _ in range(20)
    ]
    sure = best_stage([(ON_OLD, ON_NEW)], space(), weight=0.7)
    unsure = best_stage([(ON_OLD, ON_NEW), *drawn], space(), weight=0.7)
    assert sure.peak.low == sure.peak.value == sure.peak.high == unsure.peak.value
    assert unsure.peak.low < unsure.peak.high or unsure.share.low < unsure.share.high
    assert unsure.value.low < sure.value.value < unsure.value.high


def test_a_parent_of_higher_loss_potential_is_picked_where_it_may_be():
    before = np.full(4000, 2e-3)
    parents = {"annealed": PARENT, "not annealed": sums(before).end}
    found = best_stage([(ON_OLD, ON_NEW)], space(parents=parents), weight=0.0)
    by_hand = {
        name: best_stage([(ON_OLD, ON_NEW)], space(parents={name: p}), weight=0.0) for name, p in parents.items()
    }
    assert found.parent == min(by_hand, key=lambda name: by_hand[name].value.value)


def test_a_stage_that_nothing_allows_is_refused_with_the_least_there_is():
    with pytest.raises(ConfigError, match="no stage keeps general loss within -1 nats of the parent's; the least"):
        best_stage([(ON_OLD, ON_NEW)], space(), weight=0.5, general_limit=-1)
    with pytest.raises(ConfigError, match="nothing to choose from: peaks"):
        best_stage([(ON_OLD, ON_NEW)], space(peaks=()), weight=0.5)


OLD = Surface(b0=2.6, br=0.25, by=0.02, brr=0.3, bry=0.05, byy=0.02, lr0=3e-4)
NEW = Surface(b0=2.2, br=-0.9, by=-0.06, brr=0.6, bry=0.04, byy=0.05, lr0=3e-4)
BOX = {"shares": (0.1, 0.9), "rates": (3e-5, 3e-3)}


def best_by_grid(value, kept=True):
    r, lr = np.meshgrid(np.linspace(*BOX["shares"], 801), np.geomspace(*BOX["rates"], 801), indexing="ij")
    at = np.unravel_index(np.where(kept(r, lr) if callable(kept) else kept, value(r, lr), np.inf).argmin(), r.shape)
    return r[at], lr[at]


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.6, 1.0])
def test_a_weighted_optimum_of_two_surfaces_is_that_of_a_fine_grid(weight):
    found = best_on_surfaces(OLD, NEW, **BOX, weight=weight)
    r, lr = best_by_grid(lambda r, lr: weight * OLD.loss(r, lr) + (1 - weight) * NEW.loss(r, lr))
    assert found.share == pytest.approx(r, abs=2e-3)
    assert found.rate == pytest.approx(lr, rel=0.02)
    assert ("share" in found.at_ends) == (r in BOX["shares"])


def test_a_ceiling_on_one_surface_bounds_the_other():
    ceiling = 2.7
    found = best_on_surfaces(OLD, NEW, **BOX, ceiling=ceiling)
    r, lr = best_by_grid(NEW.loss, lambda r, lr: OLD.loss(r, lr) <= ceiling)
    assert found.general <= ceiling
    assert found.domain == pytest.approx(float(NEW.loss(r, lr)), abs=2e-3)
    assert found.domain > float(NEW.loss(*NEW.optimum()))
    with pytest.raises(ConfigError, match="nowhere in the box swept"):
        best_on_surfaces(OLD, NEW, **BOX, ceiling=1.0)


def test_a_surface_is_the_same_from_wherever_its_rates_are_counted():
    moved = recentre(NEW, 1e-3)
    np.testing.assert_allclose(moved.loss(0.4, 2e-4), NEW.loss(0.4, 2e-4))
    np.testing.assert_allclose(blend(OLD, moved, 0.5).loss(0.4, 2e-4), blend(OLD, NEW, 0.5).loss(0.4, 2e-4))


CROSSED = tuple(itertools.product((0.1, 0.3, 0.5, 0.7, 0.9), (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)))


def rate_sweep(noise=0.001, seed=0, at=CROSSED):
    random, found = np.random.default_rng(seed), []
    for share, rate in at:
        for role, law in (("general", OLD), ("domain", NEW)):
            loss = float(law.loss(share, rate)) + random.normal(0, noise)
            name = f"{share}-{rate}"
            found.append(
                Observation(
                    run=name,
                    group=name,
                    commit=None,
                    config="",
                    model="planted",
                    params_non_embedding=10**9,
                    tokens=2 * 10**9,
                    share=share,
                    learning_rate=rate,
                    step=1,
                    finished=True,
                    evaluated=role,
                    role=role,
                    loss_nats=loss,
                    bits_per_byte=None,
                )
            )
    return found


@pytest.mark.parametrize("goal", ["weighted", "ceiling"])
def test_share_and_learning_rate_are_chosen_together_from_a_table_of_runs(goal):
    config = ChooseConfig.model_validate({"bootstrap": 50, "goal": goal, "general_weight": 0.5, "tolerance": 0.02})
    parent = {"parent_general": 2.65, "parent_domain": 2.4}
    found = choose_rate(rate_sweep(), params_non_embedding=10**9, config=config, **parent)
    if goal == "weighted":
        r, lr = best_by_grid(lambda r, lr: OLD.loss(r, lr) / 2.65 + NEW.loss(r, lr) / 2.4)
        assert found.reason == INTERIOR
    else:
        r, lr = best_by_grid(NEW.loss, lambda r, lr: OLD.loss(r, lr) <= 2.65 * 1.02)
        assert found.reason == TOLERANCE
    assert found.share.value == pytest.approx(r, abs=0.03)
    assert np.log(found.rate.value) == pytest.approx(np.log(lr), abs=0.15)
    assert found.share.low - 0.01 <= r <= found.share.high + 0.01
    assert found.domain.value == pytest.approx(float(NEW.loss(r, lr)), abs=0.005)


def test_a_table_at_one_learning_rate_is_no_surface():
    one = [x for x in rate_sweep() if x.learning_rate == 3e-4]
    with pytest.raises(ConfigError, match="5 shares and 1 peak learning rates; a surface needs 3 of each"):
        choose_rate(one, params_non_embedding=10**9, parent_general=2.65, parent_domain=2.4, config=ChooseConfig())


CROSS = [(share, 3e-4) for share in (0.1, 0.3, 0.5, 0.8, 0.9)] + [(0.1, 3e-5), (0.1, 3e-3)]
TOGETHER = [(share, float(f"{1e-4 * 10**share:.3g}")) for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)]


@pytest.mark.parametrize("at", [CROSS, TOGETHER], ids=["cross", "together"])
def test_runs_that_leave_the_surface_open_are_no_surface(at):
    with pytest.raises(ConfigError, match=rf"almr: {len(at)} runs .* do not span a quadratic surface; sweep three of"):
        choose_rate(
            rate_sweep(at=at), params_non_embedding=10**9, parent_general=2.65, parent_domain=2.4, config=ChooseConfig()
        )
    share, rate = np.array(at).T
    with pytest.raises(ConfigError, match="do not span a quadratic surface"):
        fit(almr.FORM, {"r": share, "lr": rate}, OLD.loss(share, rate))


def test_a_narrow_sweep_is_a_surface_all_the_same():
    share, rate = np.array(list(itertools.product((0.4, 0.41, 0.42), (1e-4, 1.1e-4, 1.2e-4)))).T
    found = fit(almr.FORM, {"r": share, "lr": rate}, OLD.loss(share, rate))
    np.testing.assert_allclose(found.loss(0.405, 1.15e-4), OLD.loss(0.405, 1.15e-4), rtol=1e-6)


@pytest.mark.parametrize(
    ("params", "tokens", "letter", "warning"),
    [
        (
            10**9,
            10**11,
            r"100,000,000,000 tokens are 50\.0 times the longest run",
            "extrapolates beyond 10 times the lon",
        ),
        (
            10**9,
            10**6,
            r"1,000,000 tokens are 1/2,000\.0 of the shortest run",
            "extrapolates below 1/10 of the shortest",
        ),
        (10**12, 10**9, "parameters are 1000.0 times the largest model run", "extrapolates beyond 4 times the largest"),
    ],
)
def test_a_rate_for_a_target_far_from_the_runs_is_told_only_on_demand(params, tokens, letter, warning):
    asked = {"params_non_embedding": params, "tokens": tokens, "parent_general": 2.65, "parent_domain": 2.4}
    with pytest.raises(ConfigError, match=letter + ".*set choose.extrapolate to true"):
        choose_rate(rate_sweep(), **asked, config=ChooseConfig(bootstrap=50))
    found = choose_rate(rate_sweep(), **asked, config=ChooseConfig(bootstrap=50, extrapolate=True))
    assert any(line.startswith(warning) for line in found.warnings)
