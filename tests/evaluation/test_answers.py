"""Right, and valid, whatever the dress."""

import pytest

from ratoon.evaluation.answers import is_correct, is_valid


@pytest.mark.parametrize("output", ["Paris", " paris.\n", "PARIS", '"Paris"', "pa-ris"])
def test_case_punctuation_and_blanks_around_do_not_matter(output):
    assert is_correct(output, ["London", "Paris"])


@pytest.mark.parametrize("output", ["", "Pari", "Paris France", "the Paris"])
def test_anything_else_is_wrong(output):
    assert not is_correct(output, ["Paris", "London"])


def test_an_answer_of_punctuation_alone_must_be_that_one():
    assert is_correct(" + ", ["+"])
    assert not is_correct("-", ["+"])
    assert not is_correct("", ["+"])


def test_a_wrong_label_is_valid_and_an_empty_output_never_is():
    item = {"labels": ["yes", "no"]}
    assert is_valid("No.", item)
    assert not is_correct("No.", ["yes"])
    assert not is_valid("perhaps", item)
    assert not any(is_valid(" \n", it) for it in ({}, item, {"pattern": r"\d+"}))


def test_a_pattern_is_of_the_whole_output():
    assert is_valid(" 1984\n", {"pattern": r"\d{4}", "labels": None})
    assert not is_valid("in 1984", {"pattern": r"\d{4}"})
    assert is_valid("anything", {"pattern": None, "labels": None})
