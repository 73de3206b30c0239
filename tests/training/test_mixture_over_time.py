"""What is read when: shares, order and length of rows over a run, and what is counted of it."""

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ratoon import records
from ratoon.config import ConfigError, TrainConfig
from ratoon.corpus.packed import INDEX, SCORES_FORMAT
from ratoon.stream.rows import Rows
from ratoon.stream.scores import row_scores
from ratoon.training import checkpoint
from ratoon.training.loop import accumulate, new_step
from ratoon.training.reading import Reading
from ratoon.training.request import Result
from ratoon.training.run import Run, train

STEPS, ROWS, LENGTH = 20, 8, 16
EVERYTHING = {
    "phases": [{"until": 0.3, "share": 0.0}, {"until": 100 * LENGTH, "share": {"general": 0.5, "domain": 0.5}}],
    "lengths": [{"until": 0.25, "row_tokens": 4}, {"until": 0.5, "row_tokens": 8}],
    "curriculum": {"score": "good", "order": "paced"},
    "max_epochs": {"domain": 2},
    "at_cap": "others",
}


@pytest.fixture(scope="session")
def scored(tiny, tmp_path_factory):
    """The tiny rows with a score of each document packed beside them."""
    root = tmp_path_factory.mktemp("scored")
    for name in ("general", "domain"):
        shutil.copytree(tiny / name, root / name)
        rows = Rows.open(root / name)
        for shard in rows.names:
            count = len(rows.starts(shard)) - 1
            np.random.default_rng(5).random(count).astype("<f4").tofile(root / name / "train" / f"{shard}.good-1")
        raw = json.loads((root / name / INDEX).read_text())
        raw["scores"] = {"format": SCORES_FORMAT, "suffixes": {"good": "good-1"}}
        (root / name / INDEX).write_text(json.dumps(raw))
    return root


@pytest.fixture
def scored_request(request_for, scored):
    def make(out="run", limits=None, **recipe):
        request = request_for(out, limits=limits, **recipe)
        rows = {name: p.model_copy(update={"rows": str(scored / name)}) for name, p in request.portions.items()}
        return request.model_copy(update={"portions": rows})

    return make


def weights(result):
    return load_file(Path(result.model) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def read(request):
    """Place of every row of a run, one after the other."""
    reading = Reading(request)
    return reading, [reading.batch_at(step) for step in range(request.steps)]


def rows_of(reading, batches, name):
    number = reading.mixture.order.names.index(name)
    return np.concatenate([batch.place.row[batch.place.source == number] for batch in batches])


NEUTRAL = {
    "a phase like the run": {"phases": [{"until": 0.3, "share": 0.3}, {"until": 0.6, "share": 0.3}]},
    "rows as long as ever": {"lengths": [{"until": 0.5, "row_tokens": LENGTH}]},
    "a pool that is whole at once": {"curriculum": {"score": "good", "order": "paced", "start": 1}},
    "a cap no source comes to": {"max_epochs": 50, "at_cap": "others"},
    "no warm-up": {"curriculum": {"score": "good", "order": "warmup", "share": 0.001}},
}


@pytest.fixture(scope="session")
def kept():
    return {}


@pytest.mark.parametrize("case", NEUTRAL)
def test_a_neutral_setting_is_plain_training_to_the_bit(scored_request, case, kept):
    if not kept:
        kept.update(weights(train(scored_request("plain"))))
    assert same(kept, weights(train(scored_request("neutral", mixture=NEUTRAL[case]))))


def test_what_continues_a_version_does_not_read_what_made_it_once_more(request_for):
    plain = request_for()
    later = [plain.model_copy(update={"continues": version}) for version in (1, 2)]
    assert "continues" not in plain.model_dump(mode="json")
    assert len({each.identity() for each in (plain, *later)}) == 3
    assert plain.identity() == plain.model_copy(update={"continues": None}).identity()
    found = [rows_of(*read(each), "general") for each in (plain, *later)]
    there = Rows.open(Path(plain.portions["general"].rows), "train", LENGTH).num_rows
    for one, other in ((0, 1), (0, 2), (1, 2)):
        again = len({*found[one].tolist()} & {*found[other].tolist()})
        assert again < 3 * len(found[one]) ** 2 / there < len(found[one]) / 2  # what chance brings
    assert {len(rows) for rows in found} == {len(found[0])}


def test_settings_left_alone_are_no_part_of_what_a_run_is(request_for):
    plain = request_for()
    assert request_for(mixture={}).identity() == plain.identity()
    assert request_for(mixture={"temperature": math.inf}).identity() == plain.identity()
    for key, value in EVERYTHING.items():
        if key != "at_cap":
            assert request_for(mixture={key: value}).identity() != plain.identity()


def test_a_run_with_all_of_it_cut_off_and_resumed_ends_as_an_unbroken_one(scored_request, monkeypatch):
    mixture = {**EVERYTHING, "max_epochs": {"domain": 0.01}}
    whole = train(scored_request("whole", mixture=mixture, checkpoints=1))
    assert whole.data["domain"].epochs <= 0.01
    save, saves = checkpoint.save, []

    def die_in_every_part(*args, **kwargs):
        found = save(*args, **kwargs)
        saves.append(found)
        if len(saves) in (3, 8, 13):  # in the short rows, the first phase and after it
            raise KeyboardInterrupt
        return found

    assert whole.data["domain"].tokens > 0
    monkeypatch.setattr(checkpoint, "save", die_in_every_part)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train(scored_request("cut", mixture=mixture, checkpoints=STEPS))
    resumed = train(scored_request("cut", mixture=mixture, checkpoints=STEPS))
    assert same(weights(whole), weights(resumed))
    assert resumed.data == whole.data


def test_phases_change_shares_and_not_the_rows_of_a_source(request_for):
    phases = [{"until": 0.3, "share": 0}, {"until": 0.6, "share": {"general": 0.5, "domain": 0.5}}]
    plain, of_plain = read(request_for(tokens=40 * ROWS * LENGTH))
    phased, of_phased = read(request_for(tokens=40 * ROWS * LENGTH, mixture={"phases": phases}))
    first = Counter(np.concatenate([batch.place.source for batch in of_phased[:11]]).tolist())
    assert first.keys() == {phased.mixture.order.names.index("general")}
    for name in ("general", "domain"):
        a, b = rows_of(plain, of_plain, name), rows_of(phased, of_phased, name)
        assert len({*b.tolist()}) == len(b)
        whole = min(len(a), len(b))
        ahead = 10  # rows of one block come in another order
        assert {*a[: whole - ahead].tolist()} <= {*b[:whole].tolist()}


def test_a_source_without_a_share_of_its_own_may_have_one_in_a_phase(request_for):
    request = request_for(share=0.0, mixture={"phases": [{"until": 0.5, "share": 0.4}]})
    reading, _ = read(request)
    assert reading.account(STEPS)["domain"].tokens == 0.4 * 0.5 * request.recipe.tokens


@pytest.mark.parametrize(("own", "phase"), [(0.5, 0.0), (0.1, 0.5), (0.0, 0.5)])
def test_a_part_of_the_domain_is_sized_for_what_all_phases_read_of_it(request_for, own, phase):
    tokens = 200 * ROWS * LENGTH
    phases = [{"until": 0.5, "share": phase}]
    reading, _ = read(request_for(share=own, tokens=tokens, subset_epochs=4.0, mixture={"phases": phases}))
    assert reading.account(200)["domain"].epochs == pytest.approx(4, rel=0.02)


def test_shorter_rows_are_the_same_tokens_in_the_same_step(request_for):
    lengths = EVERYTHING["lengths"]
    plain, cut = (read(request_for(mixture=mixture))[1] for mixture in ({}, {"lengths": lengths}))
    assert [batch.tokens.shape for batch in cut[::5]] == [(32, 4), (16, 8), (8, 16), (8, 16)]
    for a, b in zip(plain, cut, strict=True):
        assert np.array_equal(a.tokens.ravel(), b.tokens.ravel())
        assert a.valid.sum() == b.valid.sum()


def test_short_rows_change_nothing_in_how_a_step_may_be_cut_up(request_for):
    one, four = (Run(request_for(out, mixture={"lengths": EVERYTHING["lengths"]}, **micro))
                 for out, micro in (("one", {}), ("four", {"micro_rows": 2})))  # fmt: skip
    batch = one.batch_at(0)
    calls = []
    four.model.register_forward_pre_hook(lambda module, args, kwargs: calls.append(1), with_kwargs=True)
    for run in (one, four):
        accumulate(run.model, new_step(batch, None), run.request.recipe)
    assert len(calls) <= 4  # two rows of the base's length at a time, not two short ones
    for a, b in zip(one.model.parameters(), four.model.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


@pytest.mark.parametrize("direction", ["ascending", "descending"])
@pytest.mark.parametrize("order", ["vanilla", "interleaved", "paced", "warmup"])
def test_a_run_in_order_reads_what_a_run_without_reads_each_row_once(scored_request, order, direction):
    asked = {"score": "good", "order": order, "direction": direction, "sources": ["general"]}
    plain, of_plain = read(scored_request())
    ordered, of_ordered = read(scored_request(mixture={"curriculum": asked}))
    for a, b in zip(of_plain, of_ordered, strict=True):
        assert np.array_equal(a.place.source, b.place.source)
    assert np.array_equal(rows_of(plain, of_plain, "domain"), rows_of(ordered, of_ordered, "domain"))
    a, b = rows_of(plain, of_plain, "general"), rows_of(ordered, of_ordered, "general")
    assert sorted(a) == sorted(b)
    assert len({*b.tolist()}) == len(b)
    assert plain.account(STEPS) == ordered.account(STEPS)
    scores = row_scores(ordered.mixture.rows["general"], "good")[b]
    rising = np.diff(scores) >= 0 if direction == "ascending" else np.diff(scores) <= 0
    share = {"vanilla": 1, "interleaved": 0.95, "paced": 0, "warmup": 0}[order]
    assert rising.mean() >= share
    if order in ("paced", "warmup"):
        half = slice(len(scores) // 10) if order == "warmup" else slice(len(scores) // 2)
        gap = scores[half].mean() - scores.mean()
        assert gap < 0 if direction == "ascending" else gap > 0


def test_text_that_is_repeated_is_ordered_in_every_epoch_the_run_ends(scored_request):
    reading, batches = read(
        scored_request(limits={"general": 40}, mixture={"curriculum": {"score": "good", "sources": ["general"]}})
    )
    rows = rows_of(reading, batches, "general")
    assert len(rows) == 112
    assert np.array_equal(rows[:40], rows[40:80])
    scores = row_scores(reading.mixture.rows["general"], "good")[rows]
    assert (np.diff(scores[:40]) >= 0).all()
    assert not (np.diff(scores[80:]) >= 0).all()  # begun and not ended: by lot


def test_an_order_of_a_source_without_a_share_in_a_run_is_no_mistake(scored_request):
    asked = {"curriculum": {"score": "good", "sources": ["general"]}}
    reading = Reading(scored_request(share=1.0, mixture=asked))
    assert not reading.mixture.order.courses


def test_the_ranks_are_worked_out_once_and_mapped(scored_request):
    request = scored_request(mixture={"curriculum": {"score": "good"}})
    first = Reading(request).mixture.order.courses["general"].ranked
    assert isinstance(first, np.memmap)
    files = {path: path.stat().st_mtime_ns for path in (Path(request.out) / "order").rglob("*.npy")}
    assert len(files) == 2
    Reading(request)
    assert {path: path.stat().st_mtime_ns for path in (Path(request.out) / "order").rglob("*.npy")} == files


def test_a_run_above_its_cap_is_refused_before_it_begins(request_for):
    request = request_for(limits={"domain": 20}, mixture={"max_epochs": 2})
    with pytest.raises(ConfigError, match=r"would read domain 2\.40 times \(48 rows of 20\), 2\.00 are allowed; lower"):
        Run(request)
    assert not (Path(request.out) / "checkpoints").exists()
    Run(request_for(limits={"domain": 20}, mixture={"max_epochs": {"domain": 2.4}}))


def test_what_comes_to_its_cap_gives_its_share_away_and_the_run_goes_on(request_for):
    result = train(request_for(limits={"domain": 20}, mixture={"max_epochs": {"domain": 1.5}, "at_cap": "others"}))
    assert result.data["domain"].epochs == 1.5
    assert result.data["general"].tokens == result.tokens - 30 * LENGTH
    with pytest.raises(ConfigError, match="no source 'law'"):
        Run(request_for(mixture={"max_epochs": {"law": 2}}))


def test_a_run_says_what_it_read_of_each_source_and_what_it_was_worth(request_for):
    request = request_for(limits={"domain": 20})
    result = train(request)
    assert sum(read.tokens for read in result.data.values()) == result.tokens
    domain = result.data["domain"]
    assert (domain.tokens, domain.unique_tokens, domain.epochs) == (48 * LENGTH, 20 * LENGTH, 2.4)
    assert domain.unique_tokens < domain.effective_tokens < domain.tokens
    lines = [json.loads(line) for line in (Path(request.out) / "metrics.jsonl").read_text().splitlines()]
    last = [line["metrics"] for line in lines if "data/domain/epochs" in line["metrics"]][-1]
    assert last["data/domain/effective_tokens"] == domain.effective_tokens
    assert records.read(Path(request.out) / "result.json", Result).data == result.data


def test_a_recipe_read_back_from_its_record_is_the_same():
    recipe = TrainConfig(tokens=1, learning_rate=1, rows_per_step=1, mixture=EVERYTHING)
    assert TrainConfig.model_validate_json(recipe.model_dump_json()) == recipe
