"""Near-duplicates in the clean edition: one of each stays, the first to come, and never on both sides of the split."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter

import pytest
from repeated_texts import FORTY, clusters, config, essay, everything, fate, pick, prepare, texts, variant
from small_sources import recipe, tree

from ratoon.config import ConfigError, NearDuplicates
from ratoon.corpus.clean import text_key
from ratoon.corpus.dedup import index
from ratoon.corpus.edition import read_ledger


def test_of_near_duplicates_the_longest_stays_and_the_ledger_adds_up(tmp_path):
    i = pick(False)
    ledger = prepare(tmp_path, {"a.jsonl": [*FORTY, variant(i, 1), essay(i)], "b.jsonl": [essay(i).upper()]})
    assert everything(tmp_path / "clean") == sorted([*FORTY, variant(i, 1)])
    assert ledger.funnel.dropped == {"near_duplicate": 1, "duplicate": 1}
    assert ledger.funnel.documents_in == 43 == ledger.funnel.documents_kept + 2
    assert len(ledger.examples["near_duplicate"]) == 1


def test_the_size_of_a_cluster_and_its_survivor_are_kept(tmp_path):
    i = pick(False)
    prepare(tmp_path, {"a.jsonl": [*FORTY, essay(i), essay(i)], "b.jsonl": [variant(i, 1)]})
    found = clusters(tmp_path / "clean")
    assert [row["size"] for row in found] == [3, 3, 3]
    assert {row["survivor"] for row in found} == {text_key(variant(i, 1))[:8]}


def test_numbers_tell_texts_apart_and_texts_of_four_words_are_compared_as_a_whole(tmp_path):
    reports = [f"Report {n} of year {n + 1900}" for n in range(60)]
    short = ["one two three four", "one two three five", "One  two three FOUR"]
    ledger = prepare(tmp_path, {"a.jsonl": [*reports, *short]})
    assert ledger.funnel.dropped == {"duplicate": 1}


@pytest.mark.parametrize("seed", range(3))
def test_survivors_do_not_depend_on_the_order_of_files_or_documents(tmp_path, seed):
    draw = random.Random(seed)
    every = [*FORTY, *(variant(i, k) for i in range(20) for k in range(3))]
    prepare(tmp_path, {"a.jsonl": every}, name="one")
    draw.shuffle(every)
    prepare(tmp_path, {f"{draw.random()}.jsonl": every[n::4] for n in range(4)}, name="other")
    for part in ("train", "held_out"):
        assert sorted(texts(tmp_path / "one", part)) == sorted(texts(tmp_path / "other", part))


@pytest.mark.parametrize("seed", range(3))
def test_what_an_earlier_edition_kept_stays_and_a_new_batch_adds_what_is_like_none_of_it(tmp_path, seed):
    draw = random.Random(seed)
    pool = [*FORTY, *(variant(i, k) for i in range(40) for k in range(2))]
    first, second = draw.sample(pool, 50), draw.sample(pool, 50)
    prepare(tmp_path, {"b.jsonl": first})
    before = {part: set(texts(tmp_path / "clean", part)) for part in ("train", "held_out")}
    prepare(tmp_path, {"b.jsonl": first, "a.jsonl": second})
    after = {part: set(texts(tmp_path / "clean", part)) for part in before}
    prepare(tmp_path, {"a.jsonl": second}, name="alone")
    like = {text.split(" revised")[0] for text in first}
    added = {text for text in everything(tmp_path / "alone") if text.split(" revised")[0] not in like}
    assert all(before[part] <= after[part] for part in before)
    assert after["train"] | after["held_out"] == before["train"] | before["held_out"] | added


def test_the_same_batch_again_changes_no_byte_and_no_text_is_signed_twice(tmp_path, monkeypatch):
    signed = []
    monkeypatch.setattr(index, "sign", _spy(index.sign, signed))
    files = {f"{n}.jsonl": FORTY[n::3] for n in range(3)}
    first = prepare(tmp_path, files)
    before = tree(tmp_path / "clean")
    assert len(signed) == 3
    assert prepare(tmp_path, files) == first
    assert tree(tmp_path / "clean") == before
    grown = {**files, "new.jsonl": [variant(i, 1) for i in range(5)] + [essay(i) for i in range(70, 80)]}
    ledger = prepare(tmp_path, grown)
    assert len(signed) == 4
    assert ledger.funnel.dropped == {"near_duplicate": 5}
    grown_tree = tree(tmp_path / "clean")
    assert {name for name in before if name.startswith(("train", "held"))} <= set(grown_tree)
    prepare(tmp_path, grown)
    assert tree(tmp_path / "clean") == grown_tree
    assert len(signed) == 4


def _spy(function, heard):
    def spy(*args):
        heard.append(args[0])
        function(*args)

    return spy


@pytest.mark.parametrize("together", [True, False])
def test_nothing_like_a_held_out_text_is_trained_on(tmp_path, together):
    of_variant, of_essay = pick(True), pick(False, of_essay=True)
    first = [*FORTY, essay(of_variant), essay(of_essay)]
    second = [variant(of_variant, 1), variant(of_essay, 1)]
    if not together:
        prepare(tmp_path, {"a.jsonl": first})
    prepare(tmp_path, {"a.jsonl": first, "b.jsonl": second})
    train, held = texts(tmp_path / "clean", "train"), texts(tmp_path / "clean", "held_out")
    assert all(fate(text) for text in held)
    assert not any(fate(text) for text in train)
    # What was trained on before cannot be taken back: then the newcomer goes.
    assert (essay(of_variant) in train) is not together
    assert (variant(of_variant, 1) in held) is together
    assert essay(of_essay) in held
    assert variant(of_essay, 1) not in train


ACROSS = ("notes", "letters")


def test_a_text_is_in_the_source_of_highest_priority_alone(tmp_path):
    both, exact = config(across=ACROSS), config(near=None, across=ACROSS)
    prepare(tmp_path, {"a.jsonl": FORTY}, both, "notes")
    mine = {"b.jsonl": [*(essay(i) for i in range(100, 140)), FORTY[0].upper(), variant(1, 1), variant(100, 1)]}
    dropped = [prepare(tmp_path, mine, asked, "letters", "letters").funnel.dropped for asked in (both, exact, config())]
    assert dropped == [{"in_other_source": 2, "near_duplicate": 1}, {"in_other_source": 1}, {"near_duplicate": 1}]
    ledger = prepare(tmp_path, {"a.jsonl": FORTY}, both, "notes")
    assert ledger.funnel.dropped == {}


def test_a_source_without_an_edition_or_signatures_cannot_be_compared_with(tmp_path):
    with pytest.raises(ConfigError, match=r"prepare.dedup.across: 'notes' comes before 'letters' and has no clean"):
        prepare(tmp_path, {"b.jsonl": FORTY}, config(across=ACROSS), "letters", "letters")
    prepare(tmp_path, {"a.jsonl": FORTY}, recipe(), "notes")
    with pytest.raises(ConfigError, match=r"notes: has no signatures to compare with; prepare this source first"):
        prepare(tmp_path, {"b.jsonl": FORTY}, config(across=ACROSS), "letters", "letters")


def test_signatures_of_another_recipe_are_refused(tmp_path):
    prepare(tmp_path, {"a.jsonl": FORTY}, config(near=NearDuplicates(ngram=4)), "notes")
    with pytest.raises(ConfigError, match=r"signatures were made by .*'ngram': 4.*, not by .*'ngram': 5"):
        prepare(tmp_path, {"b.jsonl": FORTY}, config(across=ACROSS), "letters", "letters")


def test_larger_clusters_are_trained_on_more_often_and_what_is_held_out_once(tmp_path):
    trained, held = pick(False), pick(True, of_essay=True)
    extra = [essay(trained), variant(trained, 1), essay(held), variant(held, 1)]
    ledger = prepare(tmp_path, {"a.jsonl": [*FORTY, *extra]}, config(copies={2: 3}))
    train, held_out = Counter(texts(tmp_path / "clean", "train")), Counter(texts(tmp_path / "clean", "held_out"))
    assert train.pop(variant(trained, 1)) == 3
    assert set(train.values()) == set(held_out.values()) == {1}
    assert variant(held, 1) in held_out
    assert ledger.funnel.documents_kept == 42


def test_more_agreement_asked_drops_fewer(tmp_path):
    every = [
        *FORTY,
        *(
            " ".join([*text.split()[: 60 - 3 * k], *essay(1000 + k).split()[: 3 * k]])
            for k, text in enumerate(FORTY[:15])
        ),
    ]
    dropped = []
    for agreement in (0, 0.5, 0.7, 0.9, 1):
        near = NearDuplicates(agreement=agreement)
        funnel = prepare(tmp_path, {"a.jsonl": every}, config(near=near), name=str(agreement)).funnel
        assert funnel.documents_kept + funnel.dropped.get("near_duplicate", 0) == len(every) - 1
        dropped.append(funnel.dropped.get("near_duplicate", 0))
    assert dropped == sorted(dropped, reverse=True)
    assert dropped[0] > dropped[-1] == 0


def test_the_same_documents_give_the_same_bytes_whatever_the_number_of_processes(tmp_path):
    files = {f"{n}.jsonl": [*FORTY[n::4], *(variant(i, n) for i in range(5))] for n in range(4)}
    one = prepare(tmp_path, files, name="one", processes=1)
    two = prepare(tmp_path, files, name="two", processes=2)
    assert one == two
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


KILL = """
import os, signal, sys
from ratoon.corpus import edition
from repeated_texts import FORTY, prepare, variant
from pathlib import Path
count = 0
def place(self, name, of=edition.Edition.place):
    global count
    count += 1
    if count == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return of(self, name)
def publish(path, record, of=edition.records.write):
    if sys.argv[2] == "ledger" and "clean" in str(path):
        os.kill(os.getpid(), signal.SIGKILL)
    return of(path, record)
edition.records.write = publish
if sys.argv[2] != "ledger":
    from ratoon.corpus import clean
    def start(out, of=clean.renew):
        edition.Edition.place = place
        return of(out)
    clean.renew = start
batch = [variant(1, 1), variant(300, 1), variant(300, 2)]
prepare(Path(sys.argv[1]), {"a.jsonl": FORTY, "b.jsonl": batch}, processes=1)
"""


@pytest.mark.parametrize("moment", ["1", "2", "3", "4", "5", "6", "ledger"])
def test_killed_anywhere_and_run_again_the_bytes_are_those_of_an_unbroken_run(tmp_path, moment):
    files = {"a.jsonl": FORTY, "b.jsonl": [variant(1, 1), variant(300, 1), variant(300, 2)]}
    for name in ("broken", "whole"):
        prepare(tmp_path / name, {"a.jsonl": FORTY})
    prepare(tmp_path / "whole", files)
    here = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, *sys.path])}
    ended = subprocess.run([sys.executable, "-c", KILL, str(tmp_path / "broken"), moment], env=environment)
    assert ended.returncode == -signal.SIGKILL
    prepare(tmp_path / "broken", files)
    assert tree(tmp_path / "broken" / "clean") == tree(tmp_path / "whole" / "clean")
    assert not list((tmp_path / "broken").glob(".clean*"))


def test_a_damaged_record_of_arrivals_is_refused_and_the_edition_stays(tmp_path):
    prepare(tmp_path, {"a.jsonl": FORTY})
    (path,) = (tmp_path / "clean").glob("arrivals-*")
    path.write_bytes(path.read_bytes()[:-1])
    before = tree(tmp_path / "clean")
    with pytest.raises(ConfigError, match=r"arrivals-\w+.parquet: not there or not the file its ledger speaks of"):
        prepare(tmp_path, {"a.jsonl": FORTY[:30]})
    assert tree(tmp_path / "clean") == before
    assert read_ledger(tmp_path / "clean").funnel.documents_kept == 40


def test_the_joint_pass_tells_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("ratoon.corpus.dedup.bands.PARTITION", 64)
    heard = []

    def hear(done, total, what, seen=None):
        heard.append((what.split()[0], done, total))

    prepare(tmp_path, {f"{n}.jsonl": FORTY[n::3] for n in range(3)}, report=hear, processes=1)
    for phase in ("gather", "join"):
        told = [(done, total) for which, done, total in heard if which == phase]
        assert len(told) >= 3
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1]
    assert [phase for phase, _, _ in heard].index("gather") < [phase for phase, _, _ in heard].index("join")
