from pathlib import Path

import pytest

from ratoon.config import TrainConfig
from ratoon.records import Observation
from ratoon.training import checkpoint, dip
from ratoon.training.request import Portion
from ratoon.training.run import Run, train
from ratoon.training.subset import limit_of


def curve(general, domain=(), every=10):
    """Observations of one run with these losses, `every` steps apart."""
    return [
        Observation(
            run="r",
            group="r",
            commit=None,
            config="",
            model="m",
            params_non_embedding=1,
            tokens=100 * step,
            share=0.5,
            learning_rate=1e-3,
            step=step,
            finished=False,
            evaluated=role,
            role=role,
            loss_nats=loss,
            bits_per_byte=None,
        )
        for role, losses in (("general", general), ("domain", domain))
        for step, loss in ((every * n, loss) for n, loss in enumerate(losses))
    ]


def test_a_dip_is_measured_as_its_formulas_say():
    (found,) = dip.dips(curve([2.0, 2.3, 2.1, 1.9]))
    assert found.depth_nats == pytest.approx(0.3)
    assert (found.bottom_step, found.recovery_step) == (10, 30)
    # a triangle up, a trapezium, and half of the last ten steps above the start
    assert found.area == pytest.approx(0.3 * 10 / 2 + (0.3 + 0.1) * 10 / 2 + 0.1 * 5 / 2)
    assert found.regained == 1


def test_a_run_that_was_never_worse_has_no_dip():
    (found,) = dip.dips(curve([2.0, 1.9, 1.95]))
    assert (found.depth_nats, found.bottom_step, found.recovery_step, found.area) == (0, None, None, 0)
    assert found.regained is None


def test_what_is_not_made_good_has_no_recovery_and_says_how_much_is():
    (found,) = dip.dips(curve([2.0, 2.4, 2.1]))
    assert (found.bottom_step, found.recovery_step) == (10, None)
    assert found.regained == pytest.approx(0.75)


def test_a_role_of_several_sources_is_their_mean_and_a_step_with_one_missing_is_left_out():
    both = curve([2.0, 2.5, 2.0]) + [
        one.model_copy(update={"evaluated": "other", "loss_nats": None if one.step == 10 else 4.0})
        for one in curve([2.0, 2.0, 2.0])
    ]
    (found,) = dip.dips(both)
    assert found.start_nats == 3.0
    assert found.depth_nats == 0  # the rise at step 10 is known of one source only


def test_a_run_without_its_start_has_no_dip_rather_than_a_wrong_one():
    assert dip.dips([one for one in curve([2.0, 2.5, 2.0]) if one.step]) == ()


def test_early_evaluations_are_even_in_logarithm_and_lie_in_their_share():
    assert dip.early_steps(1000, 5, 0.1) == [1, 3, 10, 32, 100]
    assert dip.early_steps(1000, 0, 0.1) == []
    assert dip.early_steps(1000, 1, 0.1) == [100]
    assert dip.early_steps(4, 8, 0.5) == [1, 2]


@pytest.mark.parametrize(
    ("what", "general", "domain", "expected"),
    [
        ("nothing is known yet", [2.0], [3.0], True),
        ("one evaluation is no course", [2.0, 1.9], [3.0, 2.9], True),
        ("still getting worse", [2.0, 2.1, 2.2], [3.0, 2.9, 2.8], True),
        ("on the way back", [2.0, 2.4, 2.2], [3.0, 2.9, 2.8], True),
        ("the domain is in it, the general text is not", [2.0, 2.0, 2.0], [3.0, 3.3, 3.2], True),
        ("back where it was", [2.0, 2.4, 2.0], [3.0, 2.9, 2.8], False),
        ("never worse", [2.0, 1.9, 1.8], [3.0, 2.9, 2.8], False),
        ("settled on a worse level", [2.0, 2.4, 2.4], [3.0, 2.9, 2.8], False),
    ],
)
def test_a_run_is_inside_its_dip_while(what, general, domain, expected):
    assert dip.inside(curve(general, domain), steps=1000) is expected


def test_a_rise_that_lasts_is_no_dip_for_ever():
    worse = [2.0 + 0.1 * n for n in range(60)]
    assert dip.inside(curve(worse[:40]), steps=1000)
    assert not dip.inside(curve(worse), steps=1000)


def test_nothing_is_known_of_a_run_that_was_not_evaluated():
    assert dip.inside([], steps=1000)


def weights(result):
    return (Path(result.model) / "model.safetensors").read_bytes()


def test_early_evaluations_move_no_weight_and_are_in_the_record(request_for):
    plain, seen = train(request_for("plain")), train(request_for("seen", early_evaluations=4, early_share=0.5))
    assert weights(plain) == weights(seen)
    assert sorted({o.step for o in seen.observations}) == [0, 1, 2, 5, 10, 20]
    assert [o.loss_nats for o in seen.observations if o.step in (0, 10, 20)] == [
        o.loss_nats for o in plain.observations
    ]
    assert seen.dips == dip.dips(seen.observations)
    assert {one.role for one in seen.dips} == {"general", "domain"}


def test_a_run_with_early_evaluations_cut_off_ends_with_the_dips_of_an_unbroken_one(request_for, monkeypatch):
    early = {"early_evaluations": 5, "early_share": 1.0}
    whole = train(request_for("whole", **early))
    save = checkpoint.save

    def save_then_die(*args, **kwargs):
        save(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        train(request_for("cut", **early))
    monkeypatch.undo()
    resumed = train(request_for("cut", **early))
    assert weights(whole) == weights(resumed)
    assert whole.dips == resumed.dips


def test_a_neutral_setting_is_no_part_of_a_runs_identity(request_for):
    plain = request_for()
    assert request_for(early_evaluations=0, subset_epochs=None).identity() == plain.identity()
    assert request_for(early_evaluations=3).identity() != plain.identity()
    assert request_for(subset_epochs=4.0).identity() != plain.identity()
    assert request_for(budget={"hours": 1.0}).identity() == plain.identity()


def rows_read(run, name):
    """How often each row of a source is read in the whole run."""
    place = run.mixture.read(0, run.request.steps * run.request.recipe.rows_per_step).place
    rows = place.row[place.source == run.mixture.order.names.index(name)]
    return [int((rows == row).sum()) for row in set(rows.tolist())]


def test_a_right_sized_part_of_the_domain_is_read_as_often_as_asked_and_general_text_as_ever(request_for):
    tokens = 40 * 10 * 16
    plain = Run(request_for("plain", share=0.5, tokens=tokens, rows_per_step=10))
    four = Run(request_for("four", share=0.5, tokens=tokens, rows_per_step=10, subset_epochs=4.0))
    assert set(rows_read(plain, "domain")) == {1}
    assert set(rows_read(four, "domain")) == {4}
    assert len(rows_read(four, "domain")) == 50
    assert rows_read(four, "general") == rows_read(plain, "general")


def test_a_proxys_own_limit_stands():
    portion = Portion(rows="r", role="domain", share=0.5, limit_rows=7)
    assert limit_of(portion, 4.0, 10_000, 16) == 7


def test_a_part_read_less_than_once_is_refused():
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        TrainConfig(tokens=1, learning_rate=1, rows_per_step=1, subset_epochs=0.5)


def test_a_sweep_repeats_a_part_as_often_as_its_target_will(request_for):
    from ratoon.training.group import Group, branches, limited

    request = request_for(share=0.5, tokens=64 * 8 * 16, subset_epochs=4.0)
    step = request.step_tokens
    group = Group(request=request, horizons=(16 * step, 64 * step), target_tokens=64 * step)
    assert not branches(group)
    for horizon in group.horizons:
        assert limited(group, horizon) == {"domain": horizon // 16 // 2 // 4}
    plain = request.model_copy(update={"recipe": request.recipe.model_copy(update={"subset_epochs": None})})
    assert branches(group.model_copy(update={"request": plain}))


def test_a_dip_is_of_one_kind_of_weights(request_for):
    """Released by an average or an interpolation, the last losses are of other weights than those on the way."""
    asked = {"evaluations": 4, "tokens": 20 * 8 * 16}
    plain = train(request_for("plain", **asked))
    turned = train(request_for("turned", **asked, forgetting={"interpolation": 0.1}))
    raw = [o for o in plain.observations if not o.finished]
    assert turned.dips == dip.dips(raw)
    assert plain.dips == dip.dips(plain.observations)
