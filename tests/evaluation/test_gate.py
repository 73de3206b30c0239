"""The gate: what is promoted, what is refused, and the sentence that says why."""

import pytest

from ratoon.config import GateConfig, Unshown
from ratoon.evaluation.flips import Golden
from ratoon.evaluation.gate import Beside, judge
from ratoon.records import Comparison, Interval, Verdict

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
    ("general", "decision", "reason"),
    [
        (0.028, "refuse", "[+2.4, +3.2], allowed +2.0%; too much"),
        (0.018, "ask", "that it stays below is not shown, more items would tell"),
        (0.022, "ask", "that it stays below is not shown, more items would tell"),
    ],
)
def test_general_text_is_refused_where_it_is_too_much_worse_and_asked_about_where_that_is_unsure(
    general, decision, reason
):
    found = verdict(held_out("domain", -0.1), held_out("general", general), *PASSAGES)
    assert (found.decision, found.promoted) == (decision, False)
    assert found.reasons[0].startswith("general text python-docs")
    assert found.reasons[0].endswith(reason)
    assert len(found.reasons) == 4


@pytest.mark.parametrize(
    ("domain", "reason"),
    [
        (-0.003, "lower; a gain is not shown, more items would tell"),
        (0.01, "loss"),
        (0.0, "not shown, more items would tell"),
    ],
)
def test_domain_text_without_a_sure_gain_is_refused(domain, reason):
    found = verdict(held_out("domain", domain), held_out("general", 0.0), *PASSAGES)
    assert found.decision == "refuse"
    assert found.reasons[0].endswith(reason)


def test_where_no_change_could_be_seen_the_reason_says_so_and_names_no_impossible_one():
    few = {"documents": 3, "detectable": 7.355}
    items = [held_out("domain", 0.0), held_out("general", 0.0), passage("python-docs", 0.0, width=0.9), PASSAGES[0]]
    found = verdict(*(item.model_copy(update=few) for item in items))
    said = [demand.reason for demand in found.demands if demand.state == "not shown"]
    assert len(said) == 2
    assert all(one.endswith("is not shown (3 documents are too few: no change could be seen)") for one in said)


def test_the_reason_tells_of_contexts_that_were_cut_and_more_where_most_were():
    few, most = (passage(name, 0.0).model_copy(update={"requests": 800, "truncated": cut}) for name, cut in
                 (("python-source", 229), ("python-docs", 401)))  # fmt: skip
    found = verdict(held_out("domain", -0.1), held_out("general", 0.0), few, most)
    assert found.promoted
    assert found.reasons[2].endswith("allowed -10.0, 229 of 800 contexts cut")
    assert found.reasons[3].endswith("; 401 of 800 contexts lost their beginning: most was not read whole")


def test_a_gain_smaller_than_asked_for_is_refused():
    config = GateConfig(min_domain_gain=0.05)
    found = verdict(held_out("domain", -0.03), held_out("general", 0.0), *PASSAGES, config=config)
    assert found.reasons[0].endswith("[-3.4, -2.6], asked for at least 5.0% lower; too little")
    unsure = verdict(held_out("domain", -0.051), held_out("general", 0.0), *PASSAGES, config=config)
    assert "a gain of that size is not shown" in unsure.reasons[0]
    assert (found.decision, unsure.decision) == ("refuse", "refuse")


def test_every_domain_source_must_gain():
    items = [held_out("domain", -0.1), held_out("domain", 0.001, source="manuals"), held_out("general", 0.0)]
    found = verdict(*items, *PASSAGES, passage("manuals", 0.0))
    assert not found.promoted
    assert found.reasons[0].startswith("domain text manuals")


def test_a_benchmark_that_fell_too_far_is_refused_and_one_that_may_have_is_asked_about():
    texts = held_out("domain", -0.1), held_out("general", 0.0)
    sure = verdict(*texts, passage("python-docs", -0.2), PASSAGES[0])
    assert sure.reasons[0].endswith("-20.0 points [-23.0, -17.0], allowed -10.0; too much")
    noisy = verdict(*texts, passage("python-docs", -0.01, width=0.12), PASSAGES[0])
    assert (sure.decision, noisy.decision) == ("refuse", "ask")
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


def test_the_policy_says_what_follows_where_nothing_is_shown():
    unsure = held_out("domain", -0.1), held_out("general", 0.018), *PASSAGES
    useless = held_out("domain", 0.0), held_out("general", 0.0), *PASSAGES
    assert verdict(*unsure, config=GateConfig(unshown=Unshown(retention="refuse"))).decision == "refuse"
    assert verdict(*useless, config=GateConfig(unshown=Unshown(gain="ask"))).decision == "ask"


def test_the_worst_answer_decides_and_is_said_first():
    found = verdict(held_out("domain", 0.01), held_out("general", 0.018), *PASSAGES)
    assert [demand.answer for demand in found.demands] == ["refuse", "ask", "promote", "promote"]
    assert [demand.kind for demand in found.demands] == ["gain", "retention", "benchmark", "benchmark"]
    assert found.reasons == tuple(demand.reason for demand in found.demands)
    assert found.decision == "refuse"


def test_many_demands_at_once_need_more_than_one_alone():
    """An interval that just stays within its limit is one of forty: Holm asks it for more, and the reason says so."""
    close = [held_out("general", 0.0155, source=f"docs-{n}") for n in range(40)]
    alone = verdict(held_out("domain", -0.1), close[0], config=GateConfig(max_benchmark_loss=1))
    crowded = verdict(held_out("domain", -0.1), *close, config=GateConfig(max_benchmark_loss=1))
    assert (alone.decision, crowded.decision) == ("promote", "ask")
    assert crowded.reasons[0].endswith("among 41 tests at once")
    assert max(d.p_shown for d in crowded.demands) < crowded.level < max(d.p_shown_holm for d in crowded.demands)


GOOD = (held_out("domain", -0.1), held_out("general", 0.0), *PASSAGES)


@pytest.mark.parametrize(
    ("golden", "decision", "reason"),
    [
        (
            Golden("quiz", 3, 2, (), ()),
            "promote",
            "golden items of quiz: all 2 that the parent had right are right still",
        ),
        (Golden("quiz", 3, 2, ("q1",), ()), "refuse", "1 of 2 that the parent had right are wrong now: q1"),
        (Golden("quiz", 9, 9, tuple("abcde"), ()), "refuse", "wrong now: a, b, c and 2 more"),
        (Golden("quiz", 3, 2, (), ("q9",)), "refuse", "1 are not among the items scored: q9"),
    ],
)
def test_a_golden_item_that_flips_or_is_not_there_refuses_what_else_would_pass(golden, decision, reason):
    found = judge(GOOD, CONFIG, "p", "c", Beside(golden=(("parent", golden),)))
    assert found.decision == decision
    assert any(reason in said for said in found.reasons)


def test_a_candidate_that_is_not_what_was_asked_for_is_refused_whatever_it_scores():
    found = judge(GOOD, CONFIG, "p", "c", Beside(faults=("training: cut short at step 3 of 90",)))
    assert (found.decision, found.reasons[0]) == ("refuse", "training: cut short at step 3 of 90")
    assert len(found.reasons) == 5
    unscored = judge((), CONFIG, "p", "c", Beside(faults=("candidate: it could not be scored",)))
    assert unscored.reasons == ("candidate: it could not be scored",)


def test_where_a_person_promotes_the_gate_asks_about_what_it_would_promote_and_no_more():
    config = GateConfig(approve="person")
    assert verdict(*GOOD, config=config).decision == "ask"
    assert verdict(held_out("domain", 0.0), *GOOD[1:], config=config).decision == "refuse"


def test_a_record_written_before_there_were_three_answers_still_reads():
    old = {"reasons": [], "comparisons": [], "parent": "p", "candidate": "c"}
    assert Verdict.model_validate({**old, "promoted": True}).decision == "promote"
    assert Verdict.model_validate({**old, "promoted": False}).decision == "refuse"
    new = verdict(*GOOD)
    assert Verdict.model_validate_json(new.model_dump_json()) == new
    with pytest.raises(ValueError, match="decision is 'ask' and promoted is True"):
        Verdict.model_validate({**old, "promoted": True, "decision": "ask"})


def test_defaults_of_the_policy_name_the_same_question_as_before():
    assert set(GateConfig().model_dump()) == {"min_domain_gain", "max_general_loss", "max_benchmark_loss"}
