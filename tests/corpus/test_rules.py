"""Rules: each just below and just above its threshold, and what is said of one there is not."""

import pytest

from ratoon.config import ConfigError
from ratoon.corpus.rules import RULES, build, verdict

# rule -> threshold, a text it keeps, a text it drops; the two differ as little as they can
CASES = {
    "min_bytes": (4, "éé", "é1"),
    "max_bytes": (4, "éé", "éé1"),
    "mean_word_length": ([2, 3], "aaa aaa", "aaa aaaa"),
    "alphabetic_words": (0.5, "a 1", "a 1 2"),
    "symbols": (0.5, "# b", "# b c..."),
    "repeated_lines": (0.25, "a\nb\nc\n\n a ", "a\nb\n\n a "),
    "top_bigram": (0.5, "ab cd ab cd ef gh ij kl", "ab cd ab cd ef gh ij"),
    "max_line_length": (3, "abc\nabc", "abc\nabcd"),
    "mean_line_length": (3, "ab\nabc", "abcd\nabc"),
    "alphanumeric": (0.5, "ab()", "ab(;)"),
    "generated": (1, "x = 1\n# @generated", "# This file is auto-generated\nx = 1"),
    "encoded_data": (0.5, "x" * 63 + " y", "x" * 64 + " y"),
}


def test_every_rule_has_a_case():
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_keeps_below_its_threshold_and_drops_above_with_its_own_name(name):
    threshold, kept, dropped = CASES[name]
    asked = build({name: threshold}, "rules")
    assert verdict(kept, asked) is None
    assert verdict(dropped, asked) == name


def test_rules_are_asked_in_the_order_of_params():
    assert verdict("x", build({"min_bytes": 5, "alphabetic_words": 1, "max_bytes": 0}, "rules")) == "min_bytes"
    assert verdict("x", build({"max_bytes": 0, "min_bytes": 5}, "rules")) == "max_bytes"


@pytest.mark.parametrize("name", RULES)
def test_no_rule_breaks_on_an_odd_text(name):
    (rule,) = build({name: CASES[name][0]}, "rules")
    for text in ("", " \n", "\n\n", "#", "…", "\u2028", "\U0001f9ed", "a"):
        assert rule(text) in (None, name)


def test_a_huge_line_costs_seconds_at_most():
    asked = build({name: case[0] for name, case in CASES.items() if name != "max_bytes"}, "rules")
    for rule in asked:
        rule("0f," * 1_000_000)


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"min_byte": 5}, "rules.min_byte: no rule 'min_byte'; did you mean 'min_bytes'?"),
        ({"symbols": 1.5}, "rules.symbols: found 1.5; give a share, 0 to 1"),
        ({"symbols": [0, 1]}, "give a share, 0 to 1"),
        ({"min_bytes": [1, 2]}, "rules.min_bytes: found [1, 2]; give one number"),
        ({"mean_word_length": 3}, "rules.mean_word_length: found 3; give [least, most]"),
        ({"mean_word_length": [4, 3]}, "give [least, most]"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_place(thresholds, message):
    with pytest.raises(ConfigError) as error:
        build(thresholds, "rules")
    assert message in str(error.value)
