"""What is said of arms: at most 80 columns, and no more than was measured."""

import pytest

from ratoon.evaluation.arms import Arm, Arms, Cost, Expected, standing
from ratoon.evaluation.prompted import Told
from ratoon.records import Comparison, Interval
from ratoon.report import arms

NOTHING = Cost(reading_flops=2e9, reading_bytes=1000)
TRAINED = NOTHING.model_copy(update={"training_tokens": 800_000, "training_flops": 1e12, "training_seconds": 65.0})


def interval(value, wide=0.01):
    return Interval(value=value, low=value - wide, high=value + wide, confidence=0.95)


def comparison(change, source="python-code", metric="bits_per_byte", wide=0.01):
    moved = interval(change, wide)
    better = "win" if moved.high < 0 else "loss" if moved.low > 0 else "tie"
    return Comparison(
        benchmark="held-out",
        source=source,
        role="domain",
        metric=metric,
        items=10,
        parent=interval(2.0 if metric == "bits_per_byte" else 0.4),
        candidate=interval(2.0 * (1 + change)),
        difference=moved,
        relative=moved if metric == "bits_per_byte" else None,
        outcome=better,
    )


def arm(name, *changes, cost=NOTHING, **more):
    comparisons = tuple(comparison(change, f"source-{n}") for n, change in enumerate(changes))
    return Arm(
        name=name, asked="0", model="m", cost=cost, comparisons=comparisons, standing=standing(comparisons), **more
    )


def study(*measured):
    return Arms(
        refresh="ratoon-nano 2026-11-21 17:19",
        line="ratoon-nano",
        parent="p",
        candidate="c",
        cost=TRAINED,
        parent_cost=NOTHING,
        against_parent=(comparison(-0.18),),
        arms=measured,
    )


def said_of(measured, *others):
    _, first, *_ = arms.sentences(study(measured, *others))
    return first


def test_the_terminal_shows_every_arm_within_80_columns_of_ascii():
    long = comparison(-0.05, "a-source-with-a-very-long-name-indeed\x1b[31m")
    told = Told(tokens=64, places=100, with_text=90, without_room=7, own_tokens=64, shown_tokens=5000)
    shown = arm("few_shot", -0.1, 0.02, told=told).model_copy(update={"comparisons": (long, comparison(0.02))})
    text = arms.text(study(shown, arm("second_seed", 0.001, cost=TRAINED), arm("scratch", -0.4, cost=TRAINED)))
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()
    assert "\x1b" not in text
    for word in ("parent", "few_shot", "second_seed", "scratch", "800k", "1.00e+12", "1 min 05 s"):
        assert word in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ((-0.06,), "The refresh beat the parent with retrieved context: bits per byte -6.0% [-7.0, -5.0] on source-0."),
        ((0.005,), "The refresh tied with the parent with retrieved context: bits per byte +0.5% [-0.5, +1.5] on"),
        ((0.06, 0.0), "The refresh lost to the parent with retrieved context: bits per byte +6.0% [+5.0, +7.0] on"),
        (
            (-0.06, 0.02),
            "the refresh beat it on bits per byte -6.0% [-7.0, -5.0] on source-0, lost to it on bits per byte",
        ),
    ],
)
def test_the_sentence_says_who_won_and_by_how_much(changes, said):
    assert said in said_of(arm("retrieved", *changes))


def test_what_an_arm_costs_in_use_is_held_against_what_the_refresh_cost_to_make():
    dear = NOTHING.model_copy(update={"reading_flops": 6e9})
    said = said_of(arm("retrieved", -0.06, cost=dear))
    assert "costs 3.00x as many operations per byte" in said
    # 1e12 of training over (6e9 - 2e9) / 1000 more per byte
    assert "made up for its training after 250 kB of text" in said
    assert "made up for" not in said_of(arm("few_shot", -0.06))
    assert "trained with 1.00x the operations of the refresh" in said_of(arm("scratch", -0.4, cost=TRAINED))


def test_a_difference_that_another_seed_makes_as_well_is_called_so():
    seed = arm("second_seed", 0.004, cost=TRAINED)
    near = said_of(arm("domain_only", -0.003, cost=TRAINED), seed)
    assert "no more than another seed makes" in near
    assert "another seed makes" not in said_of(arm("domain_only", -0.05, cost=TRAINED), seed)


def test_the_headline_counts_only_what_is_cheaper_than_the_refresh():
    ways = [arm("few_shot", -0.1), arm("retrieved", 0.05), arm("scratch", -0.5, cost=TRAINED)]
    assert arms.headline(study(*ways)) == "Of 2 cheaper ways the refresh beat 1; not retrieved (lost)."
    assert arms.headline(study(*ways[::2])) == "The refresh beat all 1 cheaper ways that were measured."
    assert arms.headline(study(ways[2])).startswith("No arm was cheaper to make")


def test_an_estimate_counts_what_is_there_already_as_nothing():
    one = Expected(
        name="retrieved",
        measured=True,
        training_tokens=0,
        training_flops=0.0,
        training_seconds=0.0,
        rows=1000,
        scoring_flops=1e9,
        scoring_seconds=500.0,
        disk_bytes=0,
        shown_bytes=10**7,
    )
    two = one.model_copy(update={"name": "scratch", "measured": False, "training_tokens": 5, "training_seconds": 60.0})
    text = arms.estimate([one, two.model_copy(update={"scoring_seconds": 5.0, "shown_bytes": 0})])
    assert "In all 1 min 05 s" in text
    assert "already there: 1" in text
    assert "read and indexed" not in text
    assert max(map(len, text.splitlines())) <= 80
