"""What a model makes of its context, and how it bears noise: on models whose answer is known."""

import json
import math

import numpy as np
import pytest
import torch
from held_out_text import prose

from ratoon.config import AssessConfig, Benchmark, NoiseConfig, ProbeConfig
from ratoon.evaluation import noise, probe, suite
from ratoon.evaluation.probe import Item
from ratoon.evaluation.reader import Reader
from ratoon.lm.load import load_model

NEXT = Benchmark(name="next-passage", version=1, form={"kind": "next_passage", "context_bytes": 60})
ROWS = 144


@pytest.fixture
def tests(sources, tmp_path):
    suite.build([NEXT], sources, AssessConfig(items=24, max_bytes=700), tmp_path / "suite")
    return tmp_path / "suite"


class Copier:
    """A model that knows nothing but this: what followed a token before will follow it again."""

    def __init__(self, words, sure):
        self.words, self.sure = words, sure
        self.device = torch.device("cpu")
        self.config = type("Config", (), {"vocab_size": words})()

    def get_input_embeddings(self):
        return torch.nn.Embedding(self.words, 2)

    def __call__(self, input_ids, use_cache):
        logits = torch.zeros(*input_ids.shape, self.words)
        for b, row in enumerate(input_ids.tolist()):
            for t in range(1, len(row)):
                if row[t] in row[1:t]:
                    logits[b, t, row[row.index(row[t], 1) + 1]] = self.sure
        return type("Output", (), {"logits": logits})()


def reader_of(models, model=None):
    reader = Reader(models[0], ROWS, "cpu")
    reader.model = model or reader.model
    return reader


def test_losses_of_rows_are_those_of_the_model_alone(models):
    reader = reader_of(models)
    rows = [[0, 5, 9, 200, 7], [0, 3], list(range(60))]
    for row, found in zip(rows, reader.nats(rows), strict=True):
        with torch.no_grad():
            logs = torch.log_softmax(reader.model(torch.tensor([row])).logits[0].float(), -1)
        expected = [-float(logs[t, row[t + 1]]) for t in range(len(row) - 1)]
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_model_that_copies_gains_by_the_second_copy_and_a_random_one_does_not(models):
    config = ProbeConfig(sequences=6, tokens=20)
    copier = reader_of(models, Copier(257, 30.0))
    found = probe.ask(copier, [], 0, 257, config, 0.95).probe
    assert found.first_nats == pytest.approx(math.log(257), rel=0.2)
    assert found.induction.low > 4
    none = probe.ask(reader_of(models, Copier(257, 0.0)), [], 0, 257, config, 0.95).probe
    assert none.induction.value == pytest.approx(0, abs=1e-5)


def test_sequences_are_the_same_everywhere_and_hold_no_special_token():
    first = probe.sequences(3, 12, 40, {0, 7}, separator=0)
    assert first == probe.sequences(3, 12, 40, {0, 7}, separator=0)
    for row in first:
        assert row[0] == 0
        assert row[1:13] == row[13:]
        assert not {0, 7} & set(row[1:])
    # Written down: another release of any library must draw the same.
    assert first[0][1:7] == [18, 13, 23, 29, 2, 12]


def test_an_item_is_never_shown_solved_in_front_of_itself_or_of_its_document():
    items = [Item(f"d{k // 2}", f"c{k} ", (f"a{k}", f"b{k}"), 0) for k in range(8)]
    for k in range(8):
        shown = probe.examples(items, k, 3)
        assert len(shown) == 3
        assert items[k].document not in {each.document for each in shown}
        assert probe.prompt(items, k, 3).endswith(items[k].context)


def quiz(root, name, questions):
    (root / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in questions))
    prompts = [{"name": "letters", "template": "{question}\n{choices}\nAnswer:"}]
    form = {
        "kind": "items",
        "path": f"{name}.jsonl",
        "ask": "choice",
        "prompts": prompts,
        "columns": {"choices": "choices"},
    }
    return Benchmark(name=name, version=1, min_documents=2, form=form)


def test_a_question_of_which_the_probe_would_cut_away_what_is_asked_is_not_asked(tmp_path):
    """Of a list of options only the last would be left, and the letters of the others would stand for nothing."""
    options = ["a press for cane", "a mill for grain", "a field of reeds", "a barrel of malt"]
    long = [{"question": f"What is number {k}?", "choices": options, "answer": k % 4} for k in range(6)]
    brief = [{"question": f"{k} + 1 =", "choices": ["1", "2"], "answer": k % 2} for k in range(6)]
    benchmarks = [quiz(tmp_path, "long", long), quiz(tmp_path, "brief", brief)]
    suite.build(benchmarks, {}, AssessConfig(), tmp_path / "suite", tmp_path)
    found = probe.items_of(tmp_path / "suite", ProbeConfig())
    assert len(found) == 6
    assert all(item.context.endswith("Answer:") and " + 1 =" in item.context for item in found)
    assert all("A" in item.context and "B" in item.context for item in found)


def test_shots_are_as_many_as_a_row_has_room_for(models, tests):
    config = ProbeConfig(shots=5, context_bytes=30, choice_bytes=20, items=10)
    items, reader = probe.items_of(tests, config), reader_of(models)
    shots = probe.room(reader, items, config)
    assert shots == 1  # bytes are tokens here: 30 + 20 for a shot, 2 between, as much for the item itself
    assert all(len(row) - 1 <= ROWS for k in range(10) for row in probe.rows_of(reader, items, k, shots)[0])


def test_a_model_against_itself_changes_nothing(models, tests):
    config = ProbeConfig(sequences=4, tokens=16, context_bytes=30, choice_bytes=20, items=10)
    found = probe.compare(models[0], models[0], tests, config, ROWS, "cpu", 0.95)
    assert (found.induction.value, found.induction.low, found.induction.high) == (0, 0, 0)
    assert found.few_shot.value == 0
    assert found.parent == found.candidate
    other = probe.compare(models[0], models[1], tests, config, ROWS, "cpu", 0.95)
    assert other.induction.value != 0


def test_without_multiple_choice_there_is_no_few_shot_and_it_is_not_zero(models, sources, tmp_path):
    held_out = Benchmark(name="held-out", version=1, form={"kind": "held_out"})
    suite.build([held_out], sources, AssessConfig(), tmp_path / "suite")
    found = probe.compare(models[0], models[1], tmp_path / "suite", ProbeConfig(sequences=4), ROWS, "cpu", 0.95)
    assert found.few_shot is None
    assert found.parent.few_shot is None


# ---------------------------------------------------------------- noise

TEXTS = {f"t{k}": prose(k, 60) for k in range(8)}


def assess(**more):
    return AssessConfig(bootstrap=200, noise=NoiseConfig(**more))


def test_noise_has_the_size_that_was_asked_and_is_the_same_each_time(models):
    model, again = load_model(models[0]), load_model(models[0])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    noise.shake(model, 0.1, seed=0, draw=0)
    noise.shake(again, 0.1, seed=0, draw=0)
    for (name, p), (_, q) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(p, q)
        if p.numel() > 1000:
            size = (p.detach() - before[name]).square().mean().sqrt() / before[name].square().mean().sqrt()
            assert float(size) == pytest.approx(0.1, rel=0.1)
    noise.shake(again, 0.1, seed=0, draw=1)
    assert not torch.equal(model.lm_head.weight, again.lm_head.weight)


def test_rows_that_were_added_to_an_embedding_leave_the_noise_of_the_others(models):
    short = noise._noise("embed", 0, torch.Size([40, 8]), 0, 0)
    assert torch.equal(noise._noise("embed", 0, torch.Size([60, 8]), 0, 0)[:40], short)


def test_a_model_against_itself_rises_as_much_and_gives_no_alarm(models):
    found = noise.sensitivity(models[0], models[0], TEXTS, assess(), ROWS, "cpu")
    for rise in found.rises:
        assert rise.parent == rise.candidate
        if rise.ratio:
            assert (rise.ratio.low, rise.ratio.value, rise.ratio.high) == (1, 1, 1)
    assert not found.alarm


def test_more_noise_costs_more_and_a_brittle_model_is_told(models, tmp_path, monkeypatch):
    sizes = np.array([100.0] * 8)
    rises = {"parent": {0.02: sizes * 0.01, 0.05: sizes * 0.05}, "candidate": {0.02: sizes * 0.05, 0.05: sizes * 0.4}}
    monkeypatch.setattr(noise, "rises", lambda model, *_: rises[model.name])
    found = noise.sensitivity(tmp_path / "parent", tmp_path / "candidate", TEXTS, assess(), ROWS, "cpu")
    assert found.alarm
    assert found.rises[1].ratio.value == pytest.approx(8)
    assert "8.00 times" in found.said
    assert "overtrained" in found.said
    fine = noise.sensitivity(tmp_path / "parent", tmp_path / "candidate", TEXTS, assess(max_ratio=9), ROWS, "cpu")
    assert not fine.alarm


def test_where_the_parent_does_not_mind_the_noise_there_is_no_ratio(tmp_path, monkeypatch):
    rises = {"parent": {0.02: -np.ones(8)}, "candidate": {0.02: np.ones(8)}}
    monkeypatch.setattr(noise, "rises", lambda model, *_: rises[model.name])
    found = noise.sensitivity(tmp_path / "parent", tmp_path / "candidate", TEXTS, assess(scales=(0.02,)), ROWS, "cpu")
    assert found.rises[0].ratio is None
    assert not found.alarm
    assert "raise assess.noise.scales" in found.said
