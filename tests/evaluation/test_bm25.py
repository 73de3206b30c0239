"""Retrieval: the formula, worked out word by word, and what is found."""

import math
import random
from collections import Counter

import pyarrow as pa
import pytest
from held_out_text import WORDS

from ratoon.evaluation import bm25

K1, B = 1.2, 0.75


def spoken(seed, words):
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(words))


PASSAGES = [spoken(i, 6 + i % 11) for i in range(60)]


def strings(texts):
    return pa.array(texts, pa.large_string())


def by_hand(question, passages):
    held = [Counter(passage.split()) for passage in passages]
    mean = sum(sum(words.values()) for words in held) / len(held)
    scores = []
    for words in held:
        total = 0.0
        for word, asked in Counter(question.split()).items():
            having = sum(word in other for other in held)
            idf = math.log(1 + (len(held) - having + 0.5) / (having + 0.5))
            longer = K1 * (1 - B + B * sum(words.values()) / mean)
            total += asked * idf * words[word] * (K1 + 1) / (words[word] + longer)
        scores.append(total)
    return scores


def test_the_best_passages_are_those_of_the_formula_worked_out_word_by_word():
    index = bm25.build(strings(PASSAGES), K1, B)
    questions = [spoken(1000 + i, 9) for i in range(20)]
    for question, found in zip(questions, index.best(strings(questions), 5), strict=True):
        scores = by_hand(question, PASSAGES)
        wanted = sorted(range(len(PASSAGES)), key=lambda i: -scores[i])[:5]
        assert [scores[i] for i in found] == pytest.approx([scores[i] for i in wanted], rel=1e-5)


def test_a_rare_word_finds_the_one_passage_that_has_it():
    index = bm25.build(strings([*PASSAGES, "field cane root Molasses"]), K1, B)
    assert index.best(strings(["rain and molasses"]), 3)[0][0] == len(PASSAGES)


def test_what_shares_no_word_is_not_found_and_equals_come_in_their_order():
    index = bm25.build(strings(["soil", "mill", "soil", "mill"]), K1, B)
    assert index.best(strings(["soil", "nothing of it", ""]), 3) == [[0, 2], [], []]


def test_many_questions_are_answered_piece_by_piece_with_the_same_result(monkeypatch):
    index, questions = bm25.build(strings(PASSAGES), K1, B), strings([spoken(i, 5) for i in range(30)])
    whole = index.best(questions, 4)
    monkeypatch.setattr(bm25, "CELLS", 100)
    assert index.best(questions, 4) == whole
