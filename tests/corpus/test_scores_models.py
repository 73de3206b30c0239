"""What each scorer computes, against its formula spelled out one word or byte at a time."""

import math
import re
from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from odd_texts import ODD
from scored_texts import KINDS, LAW, SEA, reference, scorer, written

from ratoon.corpus.dedup.words import mix, words
from ratoon.corpus.scores import classifier, importance, perplexity, retrieval
from ratoon.corpus.scores.classifier import auc
from ratoon.corpus.scores.features import bucket, pair
from ratoon.corpus.scores.lookup import Lookup

SEA_TEXTS, LAW_TEXTS = written(SEA, 150, 1), written(LAW, 150, 2)
NEW = written(SEA, 60, 3) + written(LAW, 60, 4)
IS_SEA = np.arange(120) < 60
TRAIN = {
    kind: module.train for kind, module in zip(KINDS, (classifier, perplexity, importance, retrieval), strict=True)
}


def made(kind, first=SEA_TEXTS, second=LAW_TEXTS, **changes):
    """A scorer trained on the two sides its kind has."""
    both = list(first) + list(second) if kind == "retrieval" else second
    sides = [reference(first)] if kind == "perplexity" else [reference(first), reference(both)]
    return TRAIN[kind](scorer(kind, **changes), *sides)[0]


def scores(model, texts):
    return model.scores(pa.array(texts))[""]


@cache
def hashed(word):
    data = word.encode()
    return words(np.frombuffer(data, np.uint8), np.array([0, len(data)])).hashes


@cache
def buckets(text, count):
    """Of every word and every pair, found one at a time."""
    found = [hashed(word) for word in re.findall("[a-z0-9]+", text.lower())]
    single = [bucket(mix(one), count)[0] for one in found]
    return single + [bucket(pair(a, b), count)[0] for a, b in pairwise(found)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_subject_is_recovered(kind):
    found = scores(made(kind), NEW)
    assert auc(-found if kind == "perplexity" else found, IS_SEA) > 0.97


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_the_texts_own_whatever_stands_beside_it(kind):
    model = made(kind)
    texts = [*ODD.values(), *NEW[:20]]
    together = scores(model, texts)
    assert np.array_equal(together, [scores(model, [text])[0] for text in texts], equal_nan=True)
    assert np.array_equal(together[::-1], scores(model, texts[::-1]), equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
def test_poison_texts_have_a_finite_score_or_none_and_harm_no_neighbour(kind):
    model = made(kind)
    poison = [*ODD.values(), "word " * 700_000, "\n" * 1_000_000, "x" * 2_000_000, "\ufffd" * 10, "\u202e" * 50]
    mixed = scores(model, [NEW[0], *poison, NEW[1]])
    assert np.array_equal(mixed[[0, -1]], scores(model, NEW[:2]))
    assert not np.isinf(mixed).any()
    assert np.isnan(scores(model, [""])[0])
    if kind != "perplexity":
        assert np.isnan(scores(model, [" \n", "?!... --"])).all()


@pytest.mark.parametrize("kind", KINDS)
def test_scorers_do_not_depend_on_the_order_of_their_training_text(kind):
    one, other = made(kind), made(kind, SEA_TEXTS[::-1], LAW_TEXTS[::-1])
    assert all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


# ---------------------------------------------------------------- importance


def test_importance_equals_its_formula():
    def shares(texts):
        found = Counter(b for text in texts for b in buckets(text, 500))
        return {b: found[b] / found.total() for b in range(500)}

    target, raw = shares(SEA_TEXTS), shares(LAW_TEXTS)
    expected = [sum(math.log(target[b] + 1e-8) - math.log(raw[b] + 1e-8) for b in buckets(x, 500)) for x in NEW]
    assert scores(made("importance", buckets=500), NEW) == pytest.approx(expected, rel=1e-5, abs=1e-4)
    per_word = [total / len(buckets(x, 500)) for total, x in zip(expected, NEW, strict=True)]
    assert scores(made("importance", buckets=500, per_word=True), NEW) == pytest.approx(per_word, rel=1e-5, abs=1e-6)


def test_a_target_that_is_the_raw_text_gives_weights_of_nought():
    assert not scores(made("importance", SEA_TEXTS, SEA_TEXTS), NEW).any()
    halves = made("importance", written(SEA, 1500, 5), written(SEA, 1500, 6), buckets=200, per_word=True)
    assert np.abs(scores(halves, NEW[:60])).max() < 0.1


def test_sides_exchanged_give_the_weights_negated():
    assert np.array_equal(scores(made("importance"), NEW), -scores(made("importance", LAW_TEXTS, SEA_TEXTS), NEW))


# ---------------------------------------------------------------- classifier


def test_the_classifier_is_a_mean_over_words_and_pairs():
    model = made("classifier")
    expected = [np.mean([model.weights[b] for b in buckets(x, 4096)]) + model.bias[0] for x in NEW]
    assert scores(model, NEW) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_side_that_is_much_larger_pulls_no_harder():
    found = scores(made("classifier", SEA_TEXTS, written(LAW, 1500, 7)), NEW)
    assert ((found > 0) == IS_SEA).mean() > 0.9
    blind = scores(made("classifier", written(SEA, 60, 8), written(SEA, 1500, 9), epochs=1), NEW[:60])
    assert abs(blind.mean()) < 1  # by the count of texts alone the odds were 1 to 25, so -3.2


def test_another_seed_trains_in_another_order_to_about_the_same():
    one, other = scores(made("classifier"), NEW), scores(made("classifier", seed=1), NEW)
    assert not np.array_equal(one, other)
    assert np.corrcoef(one, other)[0, 1] > 0.98


def test_what_is_set_aside_says_how_well_the_sides_are_told_apart():
    sides = reference(written(SEA, 800, 8)), reference(written(LAW, 800, 9))
    assert classifier.train(scorer("classifier"), *sides)[1]["auc"] > 0.97
    blind = reference(written(SEA, 800, 8)), reference(written(SEA, 800, 9))
    assert 0.2 < classifier.train(scorer("classifier"), *blind)[1]["auc"] < 0.8


def test_auc_counts_pairs_and_half_of_ties():
    found, positive = np.array([3.0, 1.0, 1.0, 0.0, 2.0]), np.array([1, 1, 0, 0, 0], bool)
    pairs = [(a > b) + (a == b) / 2 for a in found[positive] for b in found[~positive]]
    assert auc(found, positive) == pytest.approx(np.mean(pairs))
    assert auc(found, np.ones(5, bool)) is None


# ---------------------------------------------------------------- perplexity


class Naive:
    """Interpolated Kneser-Ney from its definition, with dictionaries."""

    def __init__(self, texts, order):
        self.order = order
        self.counts = [Counter() for _ in range(order + 1)]
        for text in texts:
            data = b"\xff" * (order - 1) + text.encode()
            self.counts[order].update(data[i - order + 1 : i + 1] for i in range(order - 1, len(data)))
        for length in range(order - 1, 0, -1):
            self.counts[length].update(gram[1:] for gram in self.counts[length + 1])

    def chance(self, context, byte):
        length = len(context) + 1
        lower = self.chance(context[1:], byte) if context else 1 / 256
        followers = {g: c for g, c in self.counts[length].items() if g[:-1] == context}
        if not followers:
            return lower
        values = list(self.counts[length].values())
        once, twice = values.count(1), values.count(2)
        discount = max(once / (once + 2 * twice), 0.1) if once else 0.1
        total = sum(followers.values())
        rest = discount * len(followers) / total * lower
        return max(followers.get(context + bytes([byte]), 0) - discount, 0) / total + rest

    def bits_per_byte(self, text):
        data = b"\xff" * (self.order - 1) + text.encode()
        at = range(self.order - 1, len(data))
        return sum(-math.log2(self.chance(data[i - self.order + 1 : i], data[i])) for i in at) / len(text.encode())


@pytest.mark.parametrize("order", [2, 3, 5])
def test_bits_per_byte_equal_kneser_neys_definition(order):
    model, naive = made("perplexity", SEA_TEXTS[:6], order=order), Naive(SEA_TEXTS[:6], order)
    texts = ["The sail.", "harbour of it", "Über Öl \x00 und Wasser", "z", SEA_TEXTS[0][:60]]
    assert scores(model, texts) == pytest.approx([naive.bits_per_byte(text) for text in texts], rel=1e-5)


def test_the_chances_of_all_bytes_sum_to_one_after_any_context():
    model = made("perplexity", order=7)
    for context in (b"", b"the h", b"harbour"[:6], b"\xff\xff\xff\xff\xffT", b"qqqqqq", b"\x00z\x00z\x00z"):
        number = int.from_bytes(context, "big") << 8
        bits = perplexity.bits_of(np.arange(number, number + 256, dtype=np.uint64), 7, *model.tables)
        assert np.exp2(-bits).sum() == pytest.approx(1, abs=1e-4)


def test_a_table_finds_its_keys_and_no_others_up_to_the_last_number_there_is():
    random = np.random.default_rng(0)
    codes = np.unique(random.integers(0, 2**63, 5000).astype(np.uint64))
    table = Lookup.build(codes[::2], np.arange(len(codes[::2])))
    there, at = table.find(codes)
    assert np.array_equal(there, np.arange(len(codes)) % 2 == 0)
    assert table.values[at[there]].tolist() == list(range(len(codes[::2])))
    last = unmixed(2**64 - 1)
    assert mix(np.array([last], np.uint64))[0] == 2**64 - 1
    assert not table.find(np.array([last], np.uint64))[0][0]
    assert Lookup.build(np.array([last, 5], np.uint64), np.zeros(2)).find(np.array([last, 6], np.uint64))[
        0
    ].tolist() == [True, False]
    assert not Lookup.build(codes[:0], np.zeros(0)).find(codes)[0].any()


def unmixed(number):
    """The one code that is mixed to this number."""
    for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, 1)):
        number ^= number >> shift ^ number >> 2 * shift
        number = number * pow(factor, -1, 2**64) % 2**64
    return number


def test_more_text_of_a_subject_makes_it_less_surprising():
    few, many = (made("perplexity", written(SEA, count, 5), order=5) for count in (10, 500))
    assert (scores(many, NEW[:60]) < scores(few, NEW[:60])).mean() > 0.95


# ---------------------------------------------------------------- retrieval


def naive_cosines(texts, targets, background, count, max_share):
    def of(text):
        return Counter(b for b in buckets(text, count)[: len(re.findall("[a-z0-9]+", text.lower()))])

    having = Counter(b for text in background for b in of(text))
    rare = {
        b: math.log((1 + len(background)) / (1 + having[b])) * (having[b] <= max_share * len(background))
        for b in range(count)
    }

    def unit(text):
        weights = {b: (1 + math.log(n)) * rare[b] for b, n in of(text).items()}
        norm = math.sqrt(sum(w * w for w in weights.values()))
        return {b: w / norm for b, w in weights.items()}

    of_targets, of_texts = ([unit(text) for text in some] for some in (targets, texts))
    return [[sum(w * q.get(b, 0) for b, w in x.items()) for q in of_targets] for x in of_texts]


def test_similarity_equals_the_cosine_of_tf_idf_to_the_nearest():
    model = made("retrieval", SEA_TEXTS[:30], LAW_TEXTS[:30], buckets=300, max_share=0.6)
    targets = reference(SEA_TEXTS[:30]).texts.to_pylist()
    expected = np.array(naive_cosines(NEW[::4], targets, SEA_TEXTS[:30] + LAW_TEXTS[:30], 300, 0.6))
    found = model.scores(pa.array(NEW[::4]))
    assert found[""] == pytest.approx(expected.max(axis=1), abs=1e-5)
    assert found[":nearest"].astype(int).tolist() == expected.argmax(axis=1).tolist()


def test_the_neighbour_of_a_copy_of_a_target_is_that_target():
    model = made("retrieval")
    targets = reference(SEA_TEXTS).texts.to_pylist()
    found = model.scores(pa.array([text.upper() for text in targets]))
    assert found[""] == pytest.approx(1, abs=1e-6)
    assert found[":nearest"].tolist() == list(range(len(targets)))
