"""The choice, on sweeps shaped like the demo's whose truth is known."""

import itertools
import re

import numpy as np
import pytest

from ratoon.config import ChooseConfig, ConfigError
from ratoon.laws.decision.believe import crossing
from ratoon.laws.decision.choose import choose, fit_report
from ratoon.laws.decision.goals import INTERIOR, TOLERANCE, lowest
from ratoon.records import Choice, Observation

SIZES, RATIOS, HORIZONS = (40_000, 160_000), (0.1, 0.25, 0.4, 0.55, 0.7, 1.0), (50_000, 100_000, 200_000, 400_000)
TARGET = 1_200_000


def warm_truth(role, N, D, own):
    """Falls ever faster in log D, as a continued run does; forgetting bends with the share kept."""
    size, fresh = 0.2 * np.log(160_000 / N) / np.log(4), (1 + D / 3e5) ** -0.5
    if role == "general":
        return 3.1 + size + 0.5 * fresh + (0.65 - 0.5 * fresh) * (1 - own**0.3)
    return 2.9 + size + 1.0 * fresh + (0.9 - 0.5 * fresh) * (1 - own**0.15)


def dcpt_truth(role, N, D, own):
    if role == "general":
        return 2.9 + 0.4 * (N / 1e5) ** -0.34 + 0.05 * own * (D / 1e5) ** -0.4 + 0.16 / (own + 0.15) ** 0.5
    return 1.7 + 0.3 * (N / 1e5) ** -0.34 + 0.35 * own**0.2 * (D / 1e5) ** -0.3 + 1.3 / (own + 0.05) ** 0.2


def observation(N, ratio, tokens, role, loss, **changes):
    fields = {
        "run": f"{N}-{ratio}-{tokens}",
        "group": f"{N}-{ratio}",
        "commit": None,
        "config": "",
        "model": "proxy",
        "params_non_embedding": N,
        "tokens": tokens,
        "share": ratio,
        "learning_rate": 1e-3,
        "step": 1,
        "finished": True,
        "evaluated": role,
        "role": role,
        "loss_nats": loss,
        "bits_per_byte": None,
    }
    return Observation(**{**fields, **changes})


def sweep(truth=warm_truth, noise=0.003, seed=0, ratios=RATIOS, sizes=SIZES):
    random = np.random.default_rng(seed)

    def measured(N, ratio, D, role):
        return truth(role, N, D, ratio if role == "domain" else 1 - ratio) + random.normal(0, noise)

    runs = itertools.product(sizes, ratios, HORIZONS, ("general", "domain"))
    return [observation(N, ratio, D, role, measured(N, ratio, D, role)) for N, ratio, D, role in runs]


def ask(
    observations, *, right=0.6, truth=warm_truth, tolerance=0.02, tokens=TARGET, available=None, **config
) -> Choice:
    """The parent is placed so that `right` is the largest share within tolerance."""
    ceiling = truth("general", SIZES[-1], tokens, 1 - right)
    return choose(
        observations,
        params_non_embedding=SIZES[-1],
        tokens=tokens,
        parent_general=ceiling / (1 + tolerance),
        parent_domain=4.4,
        config=ChooseConfig.model_validate({"bootstrap": 100, "tolerance": tolerance, **config}),
        available_domain_tokens=available,
    )


@pytest.mark.parametrize("truth", [warm_truth, dcpt_truth])
def test_the_share_is_right_and_its_losses_are_predicted_within_three_percent(truth):
    choice = ask(sweep(truth), truth=truth)
    assert choice.reason == TOLERANCE
    assert choice.interval.low <= 0.6 <= choice.interval.high
    assert 0.35 <= choice.share <= 0.61
    for role, predicted in (("general", choice.predicted_general), ("domain", choice.predicted_domain)):
        own = choice.share if role == "domain" else 1 - choice.share
        assert predicted.value == pytest.approx(truth(role, SIZES[-1], TARGET, own), rel=0.03)
    assert len(choice.curve) == 25
    assert {report.law for report in choice.laws} == {"warm", "dcpt", "cmr"}


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """A small simulation; benchmarks/laws_coverage.py is the large one."""
    choices = [ask(sweep(noise=0.002, seed=seed), law="warm", bootstrap=60) for seed in range(6)]
    assert sum(one.interval.low - 0.005 <= 0.6 <= one.interval.high + 0.005 for one in choices) >= 5
    assert sum(one.share <= 0.605 for one in choices) >= 4
    assert np.mean([one.interval.high - one.interval.low for one in choices]) < 0.4


def test_the_same_question_gets_the_same_answer():
    observations = sweep()
    assert ask(observations) == ask(observations)


def test_the_share_is_a_whole_hundredth_and_more_confidence_is_more_careful():
    bold, careful = (ask(sweep(), confidence=level).share for level in (0.6, 0.95))
    assert careful < bold
    assert bold == round(bold, 2)


def test_a_tolerance_nothing_meets_is_answered_with_the_smallest_that_could_be_met():
    with pytest.raises(
        ConfigError, match=r"no share keeps general loss within tolerance; at the smallest.*0\.1"
    ) as letter:
        ask(sweep(), right=0.02, tolerance=0.005)
    needed = float(str(letter.value).split("confidence 0.9 is ")[1].split("%")[0]) / 100
    parent = warm_truth("general", SIZES[-1], TARGET, 0.98) / 1.005
    met = choose(
        sweep(),
        params_non_embedding=SIZES[-1],
        tokens=TARGET,
        parent_general=parent,
        parent_domain=4.4,
        config=ChooseConfig.model_validate({"bootstrap": 100, "tolerance": needed + 1e-3}),
    )
    assert met.share >= 0.1


def test_a_tolerance_everything_meets_lets_the_domain_have_it_all():
    choice = choose(
        sweep(),
        params_non_embedding=SIZES[-1],
        tokens=TARGET,
        parent_general=3.9,
        parent_domain=4.4,
        config=ChooseConfig.model_validate({"bootstrap": 100, "tolerance": 0.9}),
    )
    assert choice.share == 1.0
    assert choice.reason == "not limited: domain only keeps general loss within tolerance"


def test_scarce_domain_text_caps_the_share():
    choice = ask(sweep(), available=24_000, domain_epochs=10)
    assert (choice.share, choice.reason) == (0.2, "limited by domain data")
    assert "at 0.2 the domain text is read 10.0 times" in choice.warnings[-1]  # and no law of a share counts repeats
    plenty = ask(sweep(), available=TARGET, domain_epochs=10)
    assert not any("is read" in line for line in plenty.warnings)
    with pytest.raises(ConfigError, match="add domain text, shorten the run"):
        ask(sweep(), available=100, domain_epochs=10)


def test_a_ratio_fixed_by_the_user_is_taken_and_still_predicted():
    choice = ask(sweep(), ratio=0.9)
    assert (choice.share, choice.reason) == (0.9, "fixed by the user")
    assert choice.predicted_general.value > choice.ceiling_nats
    assert any("above its ceiling" in warning for warning in choice.warnings)


def test_an_optimum_inside_is_taken_and_called_so():
    shares = np.array([0.1, 0.2, 0.3])
    assert lowest(shares, np.array([3.0, 2.8, 2.9]), TOLERANCE) == (0.2, INTERIOR)
    assert lowest(shares, np.array([3.0, 2.9, 2.8]), TOLERANCE) == (0.3, TOLERANCE)


def test_a_curve_crosses_its_ceiling_where_it_does():
    shares = np.array([0.1, 0.2, 0.3])
    curves = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0], [1.0, 1.1, 1.2]])
    np.testing.assert_allclose(crossing(shares, curves, 2.5), [0.25, -1.0, 0.3])


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"tokens": 8_000_000}, "extrapolates beyond 10 times the longest run"),
        ({"sizes": (160_000,)}, "one model size: A is fixed at 0"),
    ],
)
def test_what_a_reader_should_know_is_said(change, warning):
    observations = sweep(sizes=change.get("sizes", SIZES))
    choice = ask(observations, tokens=change.get("tokens", TARGET), law="dcpt", ratio=0.5, extrapolate=True)
    assert any(warning in line for line in choice.warnings), choice.warnings


def test_a_larger_target_than_any_proxy_is_answered_by_the_law_that_knows_size():
    choice = choose(
        sweep(dcpt_truth),
        params_non_embedding=1_000_000,
        tokens=TARGET,
        parent_general=dcpt_truth("general", 1_000_000, TARGET, 0.4) / 1.02,
        parent_domain=4.4,
        config=ChooseConfig.model_validate({"bootstrap": 100, "extrapolate": True}),
    )
    assert choice.law == "dcpt"
    assert any("4 times the largest model" in line for line in choice.warnings)


def test_sources_of_one_role_are_averaged_and_a_missing_one_is_not_made_up():
    whole = sweep()
    second = [
        item.model_copy(update={"evaluated": "books", "loss_nats": item.loss_nats + 0.2})
        for item in whole
        if item.role == "general"
    ]
    report = fit_report([*whole, *second[1:]])
    assert any("1 general points left out" in line for line in report.warnings)
    one, two = fit_report(whole), fit_report([*whole, *second])
    assert two.curve[5].general.value == pytest.approx(one.curve[5].general.value + 0.1, abs=0.01)


def test_unfinished_runs_and_the_parents_row_are_not_fitted():
    whole = sweep()
    noise = [
        observation(SIZES[-1], 0.4, 300_000, "general", 9.0, finished=False),
        observation(SIZES[-1], 0.0, 0, "general", 3.7),
        observation(SIZES[-1], 0.4, 310_000, "general", None),
    ]
    assert fit_report([*whole, *noise]).laws == fit_report(whole).laws


def changed(item, *, role, **changes):
    return item.model_copy(update=changes) if item.role == role else item


def measured(item, bytes_per_token=3.46):
    """With bits per byte that agree with its nats."""
    return item.model_copy(update={"bits_per_byte": item.loss_nats / np.log(2) / bytes_per_token})


def in_bits(item):
    return item.model_copy(update={"loss_nats": item.loss_nats / np.log(2)})


def perplexity(item):
    """Small enough to pass for a loss."""
    half = measured(item.model_copy(update={"loss_nats": item.loss_nats / 2}))
    return half.model_copy(update={"loss_nats": float(np.exp(half.loss_nats))})


def few(rows):
    """Four observations of either role at three ratios and two lengths: five parameters at least are free."""
    kept = [x for x in rows if x.params_non_embedding == SIZES[-1] and x.share in (0.1, 0.4, 0.7)]
    return [x for x in kept if x.tokens == HORIZONS[-1] or (x.tokens == HORIZONS[-2] and x.share == 0.7)]


def swapped(item):
    return item.model_copy(update={"role": "general" if item.role == "domain" else "domain"})


@pytest.mark.parametrize(
    ("change", "letter"),
    [
        (lambda rows: [x for x in rows if x.role == "domain"], "no general loss among the observations"),
        (lambda rows: [swapped(x) for x in rows], "the roles, or the share, are swapped"),
        (lambda rows: [x.model_copy(update={"share": 1 - x.share}) for x in rows], "the roles, or the share, are"),
        (lambda rows: [x for x in rows if x.share in (0.1, 0.7)], "2 ratios .* run at least three"),
        (lambda rows: [x for x in rows if x.share == 0.4], r"1 ratio \(0\.6\) cannot show how loss bends"),
        (lambda rows: few(rows), "4 observations cannot pin its 5 free parameters; add ratios or run lengths"),
        (
            lambda rows: [changed(x, role="general", loss_nats=3.0) for x in rows],
            r"all 48 general losses are 3 \(observations 1, 3, 5, 7, 9 and 43 more\); a constant says nothing",
        ),
        (
            lambda rows: [*rows[:6], rows[6].model_copy(update={"loss_nats": float("nan")}), *rows[7:]],
            r"observation 7 \(run 40000-0.1-400000, 400000 tokens, general\): loss_nats is nan; leave it empty",
        ),
        (lambda rows: [changed(x, role="domain", loss_nats=None) for x in rows], "no domain loss among"),
        (
            lambda rows: [x.model_copy(update={"loss_nats": float(np.exp(x.loss_nats))}) for x in rows],
            r"observation 1 .*worse than guessing from any vocabulary .* take its natural logarithm",
        ),
        (
            lambda rows: [*map(measured, rows[:-3]), *(in_bits(measured(x)) for x in rows[-3:])],
            r"is 1\.44 times what bits_per_byte and the other rows say; it is in bits, not nats: multiply by ln 2 = "
            r"0\.6931 \(observations 95\)",
        ),
        (
            lambda rows: [*(in_bits(measured(x)) for x in rows[:80]), *map(measured, rows[80:])],
            r"observation 1 .* in bits, not nats: .* \(observations 1, 3, 5, 7, 9 and 35 more\)",
        ),
        (
            lambda rows: [measured(x).model_copy(update={"loss_nats": measured(x).bits_per_byte}) for x in rows],
            "equals bits_per_byte; it is bits per byte, not nats per token: multiply by ln 2 and by the bytes of a",
        ),
        (
            lambda rows: [perplexity(x) for x in rows],
            "moves with bits_per_byte as its exponential does; it is a perplexity: take its natural logarithm",
        ),
        (
            lambda rows: [measured(rows[0]).model_copy(update={"loss_nats": 1.0}), *map(measured, rows[1:])],
            r"observation 1 .* on one text they must keep one ratio \(observations 1\)",
        ),
        (
            lambda rows: [rows[0].model_copy(update={"share": 30.0}), *rows[1:]],
            r"observation 1 .*: share is 30; allowed is 0..1. If it is in percent, divide by 100",
        ),
        (lambda rows: [x.model_copy(update={"finished": False}) for x in rows], "none of a finished run"),
        (
            lambda rows: [*rows, rows[0].model_copy(update={"loss_nats": 3.3})],
            r"run 40000-0.1-50000 at 50000 tokens has two losses on general, .* in observation 1 and 3\.3 in 97; keep",
        ),
        (lambda rows: [*rows, rows[0].model_copy(update={"share": 0.2})], "has two shares on general"),
        (lambda rows: [], "none of a finished run"),
    ],
)
def test_observations_that_cannot_carry_a_choice_are_refused_with_what_would_mend_them(change, letter):
    with pytest.raises(ConfigError, match=letter):
        ask(change(sweep()))


def test_where_no_share_is_sure_enough_the_most_careful_one_tried_is_taken_with_a_warning():
    choice = ask(sweep(), right=0.3, confidence=0.99)
    assert choice.share == 0.1
    assert choice.predicted_general.value <= choice.ceiling_nats
    assert "confidence only, 99% was asked for: 0.1 is the most careful share tried" in choice.warnings[0]


def parent_rows(general=3.7, domain=4.4):
    return [
        observation(SIZES[-1], 0.4, 0, "general", general, finished=False),
        observation(SIZES[-1], 0.4, 0, "domain", domain, finished=False),
    ]


@pytest.mark.parametrize(
    ("parent", "rows", "letter"),
    [
        ((3.7 / np.log(2), 4.4), [], "parent_general is 5.33.*in bits where the runs are in nats; multiply it by ln"),
        ((3.7 * np.log(2), 4.4), [], "parent_general is 2.56.*in nats where the runs are in bits.*add the parent"),
        ((3.7 / np.log(2), 4.4), parent_rows(), r"1/ln 2 times what its own rows say \(3\.7000\): it is in bits"),
        ((3.7, 4.4 * np.log(2)), parent_rows(), r"ln 2 times what its own rows say \(4\.4000\): it is in nats where"),
        ((3.7, np.exp(2.2)), parent_rows(domain=2.2), "the exponential of what its own rows say .*a perplexity"),
        ((40.4, 4.4), [], r"parent_general is 40\.4, worse than guessing .*natural logarithm, 3\.6988"),
        ((float("nan"), 4.4), [], "parent_general is nan; expected its held-out loss in nats per token"),
    ],
)
def test_a_parents_loss_in_another_unit_than_the_runs_is_refused_with_the_conversion(parent, rows, letter):
    with pytest.raises(ConfigError, match=letter):
        choose(
            [*rows, *sweep()],
            params_non_embedding=SIZES[-1],
            tokens=TARGET,
            parent_general=parent[0],
            parent_domain=parent[1],
            config=ChooseConfig(),
        )


@pytest.mark.parametrize(
    ("target", "sizes", "letter"),
    [
        ((SIZES[-1], 4_100_000), SIZES, r"4,100,000 tokens are 10\.2 times the longest run .*proxies of 410,000"),
        ((700_000, TARGET), SIZES, r"700,000 parameters are 4\.4 times the largest .*a model of 175,000 parameters"),
        ((SIZES[-1], 400), SIZES, r"400 tokens are 1/\d+\.\d of the shortest run .*below 1/10 of it.*proxies of 4,000"),
        ((1_000, TARGET), SIZES, r"1,000 parameters are 1/40\.\d of the smallest model.*below 1/4.*model of 4,000 "),
        ((SIZES[-1], TARGET), SIZES[:1], r"all 24 general observations are of one size \(40,000.*run the target"),
    ],
)
def test_a_target_far_from_the_runs_is_answered_only_on_demand_and_with_a_warning(target, sizes, letter):
    asked = {
        "params_non_embedding": target[0],
        "tokens": target[1],
        "parent_general": 3.9,
        "parent_domain": 4.4,
    }
    told = {"bootstrap": 60, "ratio": 0.5}
    with pytest.raises(ConfigError, match=letter + ".*set choose.extrapolate to true"):
        choose(sweep(sizes=sizes), **asked, config=ChooseConfig.model_validate(told))
    choice = choose(sweep(sizes=sizes), **asked, config=ChooseConfig.model_validate({**told, "extrapolate": True}))
    assert any(re.search("extrapolates (beyond|below)", line) for line in choice.warnings)


def test_the_interval_is_wider_the_farther_the_target_lies():
    near, far = (
        ask(sweep(), tokens=tokens, ratio=0.5, law="warm", extrapolate=True).predicted_general
        for tokens in (800_000, 8_000_000)
    )
    assert far.high - far.low > 2 * (near.high - near.low)


def test_repeated_rows_count_once_and_are_named():
    rows = sweep()
    report = fit_report([*rows, rows[3], rows[4]])
    assert report.laws == fit_report(rows).laws
    assert any("1 repeated rows counted once: 97" in line for line in report.warnings)
    assert any("1 repeated rows counted once: 98" in line for line in report.warnings)


def test_rows_without_a_loss_and_runs_of_several_learning_rates_are_said():
    rows = sweep()
    rows[7] = rows[7].model_copy(update={"loss_nats": None})
    rows[90] = rows[90].model_copy(update={"learning_rate": 5e-3})
    said = fit_report(rows).warnings
    assert any("1 rows of finished runs without a loss left out: 8" in line for line in said)
    assert any("160,000 parameters have 2 peak learning rates (0.001 to 0.005)" in line for line in said)
