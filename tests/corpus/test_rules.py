"""Rules: each just below and just above its threshold, and what is said of one there is not."""

import pytest

from ratoon.config import ConfigError
from ratoon.corpus.rules import RULES, build, verdict

SENTENCE = "We have to be there with the others. "
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
    "ragged_rows": (0.25, "a,b\nc,d\n\ne,f\ng", "a,b\nc,d\n\ne,f,\ng"),
    "empty_cells": (0.5, "a|b\n | ", "a|\n | "),
    "gopher_words": ([2, 3], "a b c.", "a b c. d"),
    "gopher_word_length": ([2, 3], "aaa, aaa!", "aaa, aaaa!"),
    "gopher_hashes": (0.5, "# b", "# # b"),
    "gopher_ellipses": (0.25, "a b c...", "a b..."),
    "gopher_bullets": (0.5, "- a\n\n\u2022 b\nc", "- a\n\u2022 b\nc"),
    "gopher_ellipsis_lines": (0.5, "a...\nb\u2026 \n\nc", "a...\nb\u2026 \nc"),
    "gopher_alphabetic": (0.5, "a 1 b.", "a 1 2."),
    "gopher_stop_words": (2, "the be", "the Be the"),
    "gopher_duplicate_paragraphs": (0.4, "a\n\nb\n\na\n\nc", "a\n\n\nb\n\na\n\na"),
    "gopher_duplicate_paragraph_chars": (0.4, "ab\n\ncd\n\nab", "abcdef\n\nabcdef"),
    "gopher_duplicate_lines": (0.4, "a\nb\n\na", "a\na\n"[:-1]),
    "gopher_duplicate_line_chars": (0.4, "ab\ncd\nab", "abcd\nabcd"),
    "fineweb_ended_lines": (0.5, "a.\n\nb", "a.\nb. \nc"),
    "fineweb_short_lines": (0.5, "x" * 30 + "\n" + "y" * 31, "x" * 30 + "\n" + "y" * 30),
    "fineweb_duplicate_chars": (0.5, "ab\nab", "ab\nab\nab"),
    "fineweb_newlines": (0.5, "a\nb", "a\nb\n"),
    "c4_paragraphs": (1, "x" * 200, "x" * 199),
}
# The same for rules with several reasons, by reason
SEVERAL = {
    "gopher_top_2grams": ("gopher_top_ngrams", [0.5], "ab cd ab cd efgh ijkl mn", "ab cd ab cd ef gh"),
    "gopher_top_4grams": ("gopher_top_ngrams", [1, 1, 0.6], "a b c d e f g h", "a b c d e f"),
    "gopher_duplicate_5grams": (
        "gopher_duplicate_ngrams",
        [0.2],
        "a b c d e 1 2 3 4 5 a b c d e",
        "a b c d e 1 a b c d e",
    ),
    "gopher_duplicate_6grams": ("gopher_duplicate_ngrams", [1, 0.2], "a b c d e f " * 1, "a b c d e f " * 2),
    "c4_lorem_ipsum": ("c4", 1, "Lorem dolor sit.", "A Lorem ipsum dolor."),
    "c4_brace": ("c4", 1, "one two\n{\nthree four five", "one { two } three"),
    "c4_sentences": ("c4", 2, SENTENCE * 2, SENTENCE),
    "c4_ended_lorem_ipsum": ("c4_ended", 1, "Lorem dolor sit.", "A lorem ipsum dolor."),
    "c4_ended_brace": ("c4_ended", 1, "a { b c\n" + SENTENCE, "a { b c.\n" + SENTENCE),
    "c4_ended_sentences": ("c4_ended", 2, f"{SENTENCE}\n{SENTENCE}", f"{SENTENCE}\n{SENTENCE}and"),
}
THRESHOLDS = {name: case[0] for name, case in CASES.items()} | {case[0]: case[1] for case in SEVERAL.values()}


def test_every_rule_has_a_case():
    assert set(THRESHOLDS) == set(RULES)


@pytest.mark.parametrize("reason", SEVERAL)
def test_a_rule_with_several_reasons_names_the_one(reason):
    name, threshold, kept, dropped = SEVERAL[reason]
    asked = build({name: threshold}, "rules")
    assert verdict(kept, asked) is None
    assert verdict(dropped, asked) == reason


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
    (rule,) = build({name: THRESHOLDS[name]}, "rules")
    stem = name.removesuffix("ngrams")
    for text in ("", " \n", "\n\n", "#", "…", "\u2028", "\U0001f9ed", "a", "\0", "\uffff", "'", "a'", "://", "..."):
        assert (rule(text) or name).startswith(stem)


def test_a_huge_line_costs_seconds_at_most():
    asked = build({name: value for name, value in THRESHOLDS.items() if name != "max_bytes"}, "rules")
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
        ({"gopher_top_ngrams": 0.2}, "found 0.2; give shares, 0 to 1, one for each length"),
        ({"gopher_duplicate_ngrams": [0.1] * 7}, "give shares, 0 to 1, one for each length"),
        ({"gopher_top_ngrams": []}, "give shares, 0 to 1, one for each length"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_place(thresholds, message):
    with pytest.raises(ConfigError) as error:
        build(thresholds, "rules")
    assert message in str(error.value)


def test_a_threshold_no_pattern_can_hold_is_refused_with_what_is_allowed():
    with pytest.raises(ConfigError, match="at most 1000 lines"):
        build({"generated": 10**9}, "rules")
