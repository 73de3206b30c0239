"""Shares that change over a run: nothing is replayed and nothing skipped, whatever changes when."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from ratoon.config import ConfigError, Phase
from ratoon.stream.account import REPEATS, account, effective
from ratoon.stream.order import Order, Stage, apportion
from ratoon.stream.stages import capped, handed_over, phased, row_at

ROLES = {"web": "general", "books": "general", "code": "domain", "law": "domain"}
OWN = {"web": 0.4, "books": 0.2, "code": 0.3, "law": 0.1}
ROWS = {"web": 130, "books": 37, "code": 50, "law": 11}
CASES = {
    "a source comes late": [Stage(0, {"web": 1.0}), Stage(3, {"web": 0.5, "code": 0.5})],
    "a source goes and comes back": [
        Stage(0, {"web": 0.5, "code": 0.5}),
        Stage(2, {"web": 0.7, "law": 0.3}),
        Stage(9, {"web": 0.3, "code": 0.6, "law": 0.1}),
    ],
    "every block anew": [Stage(n, {"web": 0.1 * n + 0.1, "books": 0.9 - 0.1 * n}) for n in range(8)],
}


def order(stages, limits=None, rows=ROWS):
    return Order(stages[0].shares, rows, block_rows=10, seed=7, later=stages[1:], limits=limits)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("limits", [None, {"web": 17, "code": 3}])
def test_no_row_is_replayed_or_skipped_where_shares_change(case, limits):
    one = order(CASES[case], limits)
    place = one.locate(np.arange(1000))
    for number, used in enumerate(one.used):
        here = place.source == number
        for epoch in range(place.epoch[here].max()):
            rows = place.row[here & (place.epoch == epoch)]
            assert len(rows) == len(set(rows)) == used
        last = place.row[here & (place.epoch == place.epoch[here].max())]
        assert len(last) == len(set(last))


@pytest.mark.parametrize("case", CASES)
def test_every_block_holds_the_shares_of_its_stage(case):
    stages = CASES[case]
    one = order(stages)
    source = one.locate(np.arange(300)).source
    for block in range(30):
        shares = max((stage for stage in stages if stage.block <= block), key=lambda stage: stage.block).shares
        found = Counter(one.names[s] for s in source[10 * block : 10 * block + 10])
        assert found == {name: count for name, count in apportion(shares, 10).items() if count}


@pytest.mark.parametrize("case", CASES)
def test_what_was_read_is_known_at_every_position_without_reading(case):
    one = order(CASES[case])
    source = one.locate(np.arange(200)).source
    for position in range(201):
        assert one.read_before(position).tolist() == np.bincount(source[:position], minlength=len(one.names)).tolist()


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_any_position_on_any_number_of_ranks_reads_the_same_rows_across_a_change(workers):
    stages = CASES["a source goes and comes back"]
    whole = order(stages).locate(np.arange(15, 255))
    again = np.empty(240, np.int64)
    for rank in range(workers):
        again[rank::workers] = order(stages).locate(15 + np.arange(rank, 240, workers)).row
    assert np.array_equal(again, whole.row)


def test_a_change_to_the_same_shares_is_no_change():
    shares = {"web": 0.5, "code": 0.29, "law": 0.21}
    plain = Order(shares, ROWS, block_rows=100, seed=7).locate(np.arange(3000))
    staged = Order(shares, ROWS, block_rows=100, seed=7, later=[Stage(4, shares), Stage(11, shares)])
    for a, b in zip(vars(plain).values(), vars(staged.locate(np.arange(3000))).values(), strict=True):
        assert np.array_equal(a, b)


def test_the_trap_of_counts_that_are_not_carried_is_seen():
    """A change that counts from nothing again reads rows twice: the promise above can fail."""
    stages = CASES["a source goes and comes back"]
    one = order(stages)
    one.before[:] = 0
    place = one.locate(np.arange(120))
    rows = place.row[(place.source == one.names.index("code")) & (place.epoch == 0)]
    assert len(set(rows)) < len(rows)


def plan(phases, own=OWN, run_rows=1000):
    return phased([Phase(**phase) for phase in phases], own, ROLES, run_rows, block_rows=10, row_tokens=16)


def test_phases_end_at_shares_of_the_run_or_at_tokens_on_whole_blocks():
    stages = plan([{"until": 0.1, "share": 0}, {"until": 333 * 16, "share": {"code": 1}}])
    assert [stage.block for stage in stages] == [0, 10, 33]
    assert stages[0].shares == pytest.approx({"web": 2 / 3, "books": 1 / 3})
    assert stages[1].shares == {"code": 1}
    assert stages[2].shares == OWN
    assert row_at(0.5, 1000, 16) == 500
    assert row_at(160, 1000, 16) == 10


def test_a_phase_like_the_run_is_the_run_to_the_bit():
    assert plan([{"until": 0.3, "share": 0.4}])[0].shares == OWN


def test_what_begins_after_the_run_is_left_out():
    assert [stage.block for stage in plan([{"until": 1, "share": 0.5}])] == [0]


def test_a_phase_that_the_run_does_not_come_to_the_end_of_is_refused():
    assert len(plan([{"until": 300 * 16, "share": 0.5}], run_rows=300)) == 1
    with pytest.raises(
        ConfigError, match=r"mixture\.phases\.0: until 1,000,000,000 tokens, and the run ends at 4,800;"
    ):
        plan([{"until": 10**9, "share": 0.5}], run_rows=300)


def test_a_role_of_one_source_needs_no_share_of_its_own():
    own = {"web": 1.0, "code": 0.0}
    assert plan([{"until": 0.5, "share": 0.25}], own)[0].shares == {"web": 0.75, "code": 0.25}


@pytest.mark.parametrize(
    ("phases", "own", "message"),
    [
        ([{"until": 0.5, "share": 0.1}, {"until": 0.2, "share": 0.1}], OWN, "until 0.2 is block 20"),
        ([{"until": 0.001, "share": 0.1}], OWN, "each must end later than the one before"),
        ([{"until": 0.5, "share": {"wab": 1}}], OWN, "phases.0.share: no source 'wab'; did you mean 'web'"),
        ([{"until": 0.5, "share": {"web": 0.5}}], OWN, "shares sum to 0.5000, not 1"),
        ([{"until": 0.5, "share": 0.5}], {**OWN, "code": 0, "law": 0}, "0.5 of domain text, of which the run's own"),
    ],
)
def test_phases_that_cannot_be_kept_are_refused(phases, own, message):
    with pytest.raises(ConfigError, match=message):
        plan(phases, own)


CAPS = {"code": 60, "law": 22, "books": 37}


@pytest.mark.parametrize("case", ["own", "phased"])
def test_no_source_goes_above_its_cap_and_all_come_close(case):
    phases = [Stage(0, {"web": 1.0}), Stage(7, OWN), Stage(60, {"code": 0.5, "web": 0.5})]
    stages = phases if case == "phased" else [Stage(0, OWN)]
    caps = {**CAPS, "code": 500} if case == "phased" else CAPS
    one = order(capped(stages, caps, ROLES, 1000, 10))
    read = dict(zip(one.names, one.read_before(1000).tolist(), strict=True))
    assert sum(read.values()) == 1000
    for name, cap in caps.items():
        assert cap - 10 < read[name] <= cap or (case == "phased" and name == "code" and read[name] <= cap)


def test_a_cap_no_source_comes_to_changes_nothing():
    assert capped([Stage(0, OWN)], {"web": 400}, ROLES, 1000, 10) == [Stage(0, OWN)]


def test_a_source_that_ended_does_not_come_back():
    stages = [Stage(0, {"web": 0.5, "law": 0.5}), Stage(20, {"web": 0.9, "law": 0.1})]
    found = capped(stages, {"law": 22}, ROLES, 1000, 10)
    assert [(stage.block, "law" in stage.shares) for stage in found] == [(0, True), (4, False), (20, False)]


def test_the_share_of_what_ends_goes_to_its_role_first():
    assert handed_over(OWN, {"books"}, ROLES) == pytest.approx({"web": 0.6, "code": 0.3, "law": 0.1})
    assert handed_over(OWN, {"code", "law"}, ROLES) == pytest.approx({"web": 0.8 / 1.2, "books": 0.4 / 1.2})
    assert sum(handed_over(OWN, {"code", "law"}, ROLES).values()) == pytest.approx(1)


def test_a_run_all_of_whose_sources_end_is_refused():
    with pytest.raises(ConfigError, match="code, law all come to their end before the run does"):
        capped([Stage(0, {"code": 0.5, "law": 0.5})], {"code": 20, "law": 20}, ROLES, 1000, 10)


def test_a_longer_run_under_caps_begins_as_a_shorter_one():
    short, long = (order(capped([Stage(0, OWN)], CAPS, ROLES, rows, 10)) for rows in (300, 900))
    assert np.array_equal(short.locate(np.arange(300)).row, long.locate(np.arange(300)).row)


@pytest.mark.parametrize("seed", range(20))
def test_random_plans_conserve_rows(seed):
    random = np.random.default_rng(seed)
    names = list(OWN)
    blocks = sorted(random.choice(np.arange(1, 40), 3, replace=False).tolist())
    stages = []
    for block in [0, *blocks]:
        counts = random.multinomial(16, [0.25] * 4) + 1
        stages.append(Stage(block, {name: count / 20 for name, count in zip(names, counts.tolist(), strict=True)}))
    caps = {"code": int(random.integers(10, 200)), "law": int(random.integers(5, 100))}
    rows = {name: int(random.integers(1, 80)) for name in names}
    found = capped(stages, caps, ROLES, 777, 20)
    assert all(a.block < b.block for a, b in pairwise(found))
    one = Order(found[0].shares, rows, block_rows=20, seed=seed, later=found[1:])
    place = one.locate(np.arange(777))
    for number, name in enumerate(one.names):
        here = place.source == number
        assert here.sum() <= caps.get(name, 777)
        times = Counter(zip(place.row[here].tolist(), place.epoch[here].tolist(), strict=True))
        assert {*times.values()} <= {1}
    assert one.read_before(777).sum() == 777


def test_what_was_read_adds_up_and_repeats_are_worth_less():
    one = order([Stage(0, OWN)])
    found = account(one, 500, 16)
    assert sum(read.tokens for read in found.values()) == 500 * 16
    law = found["law"]
    assert (law.tokens, law.unique_tokens) == (50 * 16, 11 * 16)
    assert law.epochs == pytest.approx(50 / 11)
    assert law.unique_tokens < law.effective_tokens < law.tokens
    fresh = account(one, 100, 16)["web"]
    assert fresh.tokens == fresh.unique_tokens == fresh.effective_tokens
    assert account(one, 0, 16)["web"].effective_tokens == 0


def test_effective_tokens_are_those_of_the_law():
    from ratoon.laws.equations.repetition import REPEATS as HALF_LIFE
    from ratoon.laws.equations.repetition import effective_tokens

    assert REPEATS == HALF_LIFE
    for unique, seen in [(100, 50), (100, 100), (100, 250), (7, 10_000)]:
        assert effective(unique, seen) == pytest.approx(float(effective_tokens(unique, seen)), rel=1e-12)
    assert effective(1, 4) == pytest.approx(3.726, abs=5e-4)  # arXiv:2305.16264
