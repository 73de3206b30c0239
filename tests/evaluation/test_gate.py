"""The gate: what is promoted, what is refused, and the sentence that says why."""

import pytest

from ratoon.config import GateConfig
from ratoon.evaluation.gate import judge
from ratoon.records import Comparison, Interval

CONFIG = GateConfig()


def interval(value, width):
    return Interval(value=value, low=value - width, high=value + width, confidence=0.95)


def held_out(role, change, width=0.004, source=None):
    return Comparison(
        benchmark="held-out",
        source=source or {"domain": "python-source", "general": "python-docs"}[role],
        role=role,
        metric="bits_per_byte",
        items=300,
        parent=interval(2.0, 0.1),
        candidate=interval(2 * (1 + change), 0.1),
        difference=interval(2 * change, 2 * width),
        relative=interval(change, width),
        outcome="tie",
    )


def passage(source, change, width=0.03):
    return Comparison(
        benchmark="next-passage",
        source=source,
        role="general",
        metric="accuracy",
        items=200,
        parent=interval(0.45, 0.05),
        candidate=interval(0.45 + change, 0.05),
        difference=interval(change, width),
        outcome="tie",
    )


PASSAGES = (passage("python-source", 0.01), passage("python-docs", -0.01))


def verdict(*comparisons, config=CONFIG):
    return judge(comparisons, config, "champion", "candidate")


def test_a_gain_that_keeps_what_was_known_is_promoted_with_its_numbers():
    found = verdict(held_out("domain", -0.095), held_out("general", 0.008), *PASSAGES)
    assert found.promoted
    assert found.reasons == (
        "domain text python-source: bits per byte -9.5% [-9.9, -9.1], asked for lower",
        "general text python-docs: bits per byte +0.8% [+0.4, +1.2], allowed +2.0%",
        "next-passage on python-source: accuracy 45.0% to 46.0%, +1.0 points [-2.0, +4.0], allowed -10.0",
        "next-passage on python-docs: accuracy 45.0% to 44.0%, -1.0 points [-4.0, +2.0], allowed -10.0",
    )


@pytest.mark.parametrize(
    ("general", "width", "reason"),
    [(0.028, 0.004, "[+2.4, +3.2], allowed +2.0%; too much"), (0.018, 0.004, "that it stays below is not shown")],
)
def test_general_text_that_may_have_become_worse_than_allowed_is_refused(general, width, reason):
    found = verdict(held_out("domain", -0.1), held_out("general", general, width), *PASSAGES)
    assert not found.promoted
    assert found.reasons[0].startswith("general text python-docs")
    assert found.reasons[0].endswith(reason)
    assert len(found.reasons) == 4


@pytest.mark.parametrize(
    ("domain", "reason"),
    [(-0.003, "asked for lower; a gain is not shown"), (0.01, "it is a loss"), (0.0, "a gain is not shown")],
)
def test_domain_text_without_a_sure_gain_is_refused(domain, reason):
    found = verdict(held_out("domain", domain), held_out("general", 0.0), *PASSAGES)
    assert not found.promoted
    assert found.reasons[0].endswith(reason)


def test_a_gain_smaller_than_asked_for_is_refused():
    config = GateConfig(min_domain_gain=0.05)
    found = verdict(held_out("domain", -0.03), held_out("general", 0.0), *PASSAGES, config=config)
    assert found.reasons[0].endswith("[-3.4, -2.6], asked for at least 5.0% lower; a gain of that size is not shown")


def test_every_domain_source_must_gain():
    items = [held_out("domain", -0.1), held_out("domain", 0.001, source="manuals"), held_out("general", 0.0)]
    found = verdict(*items, *PASSAGES, passage("manuals", 0.0))
    assert not found.promoted
    assert found.reasons[0].startswith("domain text manuals")


def test_a_benchmark_that_may_have_fallen_too_far_is_refused():
    texts = held_out("domain", -0.1), held_out("general", 0.0)
    sure = verdict(*texts, passage("python-docs", -0.2), PASSAGES[0])
    assert sure.reasons[0].endswith("-20.0 points [-23.0, -17.0], allowed -10.0; too much")
    noisy = verdict(*texts, passage("python-docs", -0.01, width=0.12), PASSAGES[0])
    assert noisy.reasons[0].endswith("that it stays above is not shown, more items would tell")


def test_what_was_not_measured_was_not_passed():
    found = verdict(held_out("domain", -0.1), passage("python-source", 0.0))
    assert not found.promoted
    assert found.reasons[0] == "general text: bits per byte were not measured on any general source"
    found = verdict(held_out("domain", -0.1), held_out("general", 0.0), PASSAGES[0])
    assert found.reasons[0] == "next-passage on python-docs: not measured, though other sources have it"
    found = verdict(held_out("domain", -0.1), held_out("general", 0.0))
    assert found.reasons[0] == "benchmarks: no accuracy was measured, so a fall of it is not excluded"
    assert not verdict().promoted


def test_who_allows_any_fall_of_accuracy_needs_no_benchmark():
    config = GateConfig(max_benchmark_loss=1)
    assert verdict(held_out("domain", -0.1), held_out("general", 0.0), config=config).promoted


def test_a_model_against_itself_is_not_promoted():
    same = [held_out("domain", 0.0, 0.0), held_out("general", 0.0, 0.0), passage("python-source", 0.0, 0.0)]
    strict = GateConfig(max_general_loss=0, max_benchmark_loss=0)
    found = verdict(*same, passage("python-docs", 0.0, 0.0), config=strict)
    assert not found.promoted
    assert ["; " in reason for reason in found.reasons] == [True, False, False, False]
