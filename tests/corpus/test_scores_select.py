"""From scores to what is kept: budgets, ties, draws and refusals."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from scored_texts import KINDS, config

from ratoon.config import ConfigError, PrepareConfig, Select, parse
from ratoon.corpus.edition import renew
from ratoon.corpus.scores.select import choose, control, keep, left_out
from ratoon.records import Funnel, Ledger

RANDOM = np.random.default_rng(1)
COUNT = 400
SCORES = np.round(RANDOM.normal(0, 1, COUNT), 1)  # with ties
SCORES[::37] = np.nan
SIZES = RANDOM.integers(1, 5000, COUNT)
KEYS = RANDOM.integers(0, 2**63, COUNT).astype(np.uint64)
ELIGIBLE = RANDOM.random(COUNT) < 0.8


def asked(score="it", **changes):
    return Select(
        **{"score": score, **({"keep": 0.3} if not {"bytes", "tokens", "per_target"} & {*changes} else {}), **changes}
    )


def kept(select, eligible=ELIGIBLE, **changes):
    return keep(select, SCORES, SIZES, KEYS, eligible, **changes)


@pytest.mark.parametrize("budget", [{"keep": 0.1}, {"keep": 0.77}, {"bytes": 123_456}, {"tokens": 20_000}])
@pytest.mark.parametrize("method", ["top", "gumbel"])
def test_never_more_than_the_budget_is_kept_and_one_document_more_would_be(budget, method):
    select = asked(method=method, **budget)
    limit = select.budget(int(SIZES[ELIGIBLE].sum()))
    chosen = kept(select)
    larger = kept(asked(method=method, bytes=limit + int(SIZES.max())))
    more = SIZES[larger & ~chosen]
    assert not (chosen & ~ELIGIBLE).any()
    assert SIZES[chosen].sum() <= limit
    # Those next in order are small enough to see which one would be the first.
    steps = {int(SIZES[kept(asked(method=method, bytes=limit + int(n)))].sum()) for n in range(0, int(SIZES.max()), 7)}
    following = min(step for step in steps if step > SIZES[chosen].sum())
    assert following > limit
    assert len(more)


def test_best_scores_are_kept_first_and_a_document_without_a_score_last():
    chosen = kept(asked())
    assert SCORES[chosen].min() >= np.nanmax(SCORES[ELIGIBLE & ~chosen])
    low = kept(asked(prefer="low"))
    assert SCORES[low].max() <= np.nanmin(SCORES[ELIGIBLE & ~low])
    assert not np.isnan(SCORES[kept(asked(bytes=int(SIZES[ELIGIBLE & ~np.isnan(SCORES)].sum())))]).any()
    assert np.array_equal(kept(asked(keep=1.0)), ELIGIBLE)


@pytest.mark.parametrize("method", ["top", "gumbel"])
def test_a_larger_budget_keeps_what_a_smaller_one_keeps(method):
    masks = [kept(asked(keep=share, method=method)) for share in np.linspace(0.01, 1, 40)]
    assert all((small <= large).all() for small, large in pairwise(masks))


@pytest.mark.parametrize("select", [asked(), asked(method="gumbel", seed=3), asked(prefer="low")])
def test_the_same_documents_are_kept_in_whatever_order_they_come(select):
    order = np.random.default_rng(5).permutation(COUNT)
    again = keep(select, SCORES[order], SIZES[order], KEYS[order], ELIGIBLE[order])
    assert np.array_equal(again, kept(select)[order])


def test_gumbel_draws_with_the_odds_of_the_score():
    two = np.array([np.log(3.0), 0.0])
    first = [
        keep(asked(method="gumbel", bytes=1, seed=seed), two, np.ones(2, int), KEYS[:2], np.ones(2, bool))[0]
        for seed in range(4000)
    ]
    assert np.mean(first) == pytest.approx(0.75, abs=0.025)


def test_random_is_spread_evenly_and_controls_go_by_length():
    def drawn(seed):
        return keep(asked("random", keep=0.5, seed=seed), control("random", SIZES, KEYS, seed), SIZES, KEYS, ELIGIBLE)

    share = np.mean([drawn(seed) for seed in range(200)], axis=0)[ELIGIBLE]
    assert share.mean() == pytest.approx(0.5, abs=0.02)
    assert share.min() > 0.3
    for name, sign in (("longest", 1), ("shortest", -1)):
        chosen = keep(asked(name), control(name, SIZES, KEYS, 0), SIZES, KEYS, ELIGIBLE)
        assert (sign * SIZES[chosen]).min() >= (sign * SIZES[ELIGIBLE & ~chosen]).max()


def test_per_target_keeps_at_most_that_many_of_each_target_and_the_nearest():
    nearest = RANDOM.integers(0, 30, COUNT).astype(float)
    nearest[::11] = np.nan
    chosen = kept(asked(per_target=3), nearest=nearest)
    assert chosen.sum() <= 3 * 30
    assert not np.isnan(nearest[chosen]).any()
    for target in range(30):
        of = ELIGIBLE & (nearest == target)
        assert chosen[of].sum() == min(3, of.sum())
        rest = SCORES[of & ~chosen]
        assert not len(rest) or np.isnan(rest).all() or np.nanmin(SCORES[of & chosen]) >= np.nanmax(rest)


# ---------------------------------------------------------------- a whole source


def scores_of(out, **columns):
    """An edition of scores of two shards."""
    with renew(out) as edition:
        names = []
        for stem, rows in (("a-1", slice(0, 150)), ("b-2", slice(150, COUNT))):
            names.append(f"{stem}-0123456789ab.parquet")
            table = pa.table({name: pa.array(values[rows], from_pandas=True) for name, values in columns.items()})
            parquet.write_table(table, edition.place(names[-1]))
        funnel = Funnel(documents_in=0, bytes_in=0, documents_kept=0, bytes_kept=0)
        return edition.publish(
            Ledger(
                source="notes", role="general", stage="score", config="x", funnel=funnel, shards=edition.hashes(names)
            )
        )


def test_selections_follow_each_other_on_what_the_one_before_kept(tmp_path):
    scores_of(tmp_path / "notes", good=SCORES)
    first, second = asked("good", keep=0.5), asked("shortest", keep=0.5)
    chosen = choose("notes", [first, second], tmp_path / "notes", ["a-1", "b-2"], SIZES, KEYS, ELIGIBLE)
    half = kept(first)
    assert np.array_equal(chosen, keep(second, control("shortest", SIZES, KEYS, 0), SIZES, KEYS, half))
    assert np.array_equal(choose("notes", [], tmp_path / "none", [], SIZES, KEYS, ELIGIBLE), ELIGIBLE)


def test_what_is_left_out_is_said_per_shard_and_never_what_is_held_out_or_gone(tmp_path):
    scores_of(tmp_path / "scores" / "notes", good=SCORES)
    parts = (slice(0, 150), slice(150, COUNT))
    times = np.where(ELIGIBLE, RANDOM.integers(1, 4, COUNT), 0).astype(np.uint8)
    verdicts = []
    for number, rows in enumerate(parts):
        keys = [
            bytes(np.array([key], ">u8").tobytes() + bytes(8)) if fit else None
            for key, fit in zip(KEYS[rows], ELIGIBLE[rows], strict=True)
        ]
        verdicts.append(tmp_path / f"{number}.parquet")
        parquet.write_table(pa.table({"key": pa.array(keys, pa.binary()), "bytes": SIZES[rows]}), verdicts[-1])
    shards = [tmp_path / "a-1.parquet", tmp_path / "b-2.parquet"]
    select = asked("good", keep=0.4)
    found = left_out(
        "notes", [select], tmp_path / "scores" / "notes", shards, verdicts, [times[rows].tobytes() for rows in parts]
    )
    assert [len(part) for part in found] == [150, COUNT - 150]
    chosen = keep(select, SCORES, SIZES * times, KEYS, ELIGIBLE)
    assert np.array_equal(np.frombuffer(b"".join(found), np.uint8), ELIGIBLE & ~chosen)
    assert (SIZES * times)[chosen].sum() <= 0.4 * (SIZES * times).sum()


@pytest.mark.parametrize(
    ("score", "stems", "rows", "letter"),
    [
        ("bad", ["a-1", "b-2"], COUNT, "no score 'bad' of a-1; run `ratoon prepare score notes`"),
        ("good", ["a-1", "c-3"], COUNT, "no score 'good' of c-3; run `ratoon prepare score notes`"),
        ("good", ["a-1"], COUNT, "150 scores of 400 documents"),
    ],
)
def test_scores_of_other_documents_are_refused(tmp_path, score, stems, rows, letter):
    scores_of(tmp_path / "notes", good=SCORES)
    with pytest.raises(ConfigError, match=letter):
        choose("notes", [asked(score)], tmp_path / "notes", stems, SIZES[:rows], KEYS[:rows], ELIGIBLE[:rows])


def test_a_budget_too_small_for_the_best_document_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"'longest' keeps nothing of 400 documents .* the first alone is more"):
        choose("notes", [asked("longest", bytes=10)], tmp_path, [], SIZES, KEYS, np.ones(COUNT, bool))


# ---------------------------------------------------------------- what is asked for

GOOD = {"kind": "classifier", "positive": ["books"], "negative": ["web"]}


@pytest.mark.parametrize(
    ("scores", "select", "letter"),
    [
        ({"good": {**GOOD, "negative": ["web", "books"]}}, [], "'books' is both positive and negative; it can be one"),
        ({"d": {"kind": "importance", "target": ["a"], "raw": ["a"]}}, [], "'a' is both target and raw"),
        ({"good": {**GOOD, "positive": []}}, [], "at least 1 item"),
        ({"random": GOOD}, [], "'random' is there already; choose another name"),
        ({"good": GOOD}, [{"score": "goood", "keep": 0.1}], "no score 'goood'; did you mean 'good'"),
        ({"good": GOOD}, [{"score": "good"}], "found no budget; give one of keep, bytes, tokens, per_target"),
        ({"good": GOOD}, [{"score": "good", "keep": 0.1, "bytes": 5}], "found keep, bytes; give one"),
        ({"good": GOOD}, [{"score": "good", "keep": 0}], "greater than 0"),
        ({"good": GOOD}, [{"score": "good", "per_target": 5}], "per_target is of retrieval; 'good' is classifier"),
        (
            {"good": {**GOOD, "sources": ["web"]}},
            [{"score": "good", "keep": 0.1, "sources": ["x"]}],
            "not made for 'x'",
        ),
        ({}, [{"score": "longest", "keep": 0.1, "method": "gumbel"}], "leave method and prefer out"),
        ({"good": {**GOOD, "kind": "oracle"}}, [], "classifier"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_can(scores, select, letter):
    with pytest.raises(ConfigError, match=letter):
        parse(PrepareConfig, {"rules": {}, "scores": scores, "select": select}, "params.yaml")


def test_off_unless_told():
    plain = PrepareConfig(rules={})
    assert plain.scorers("web") == {}
    assert plain.selects("web") == ()


def test_a_score_for_some_sources_selects_from_these_alone():
    some = config(
        good={"kind": "perplexity", **KINDS["perplexity"], "sources": ["web"]}, select=({"score": "good", "keep": 0.5},)
    )
    assert list(some.scorers("web")) == ["good"]
    assert some.scorers("books") == {}
    assert len(some.selects("web")) == 1
    assert some.selects("books") == ()
