"""A model scored by lm-eval: the numbers, the cache, and what is refused."""

import json
import math
import os
import shutil
import socket

import pyarrow.parquet as parquet
import pytest
import torch

from ratoon.config import AssessConfig, Benchmark, ConfigError
from ratoon.evaluation import harness, lm_eval_runner, suite
from ratoon.lm.load import load_model, load_tokenizer

BENCHMARKS = [
    Benchmark(name="held-out", version=1, form={"kind": "held_out"}),
    Benchmark(name="next-passage", version=1, form={"kind": "next_passage", "context_bytes": 60}),
]
ROW_TOKENS = 144


@pytest.fixture
def tests(sources, tmp_path):
    suite.build(BENCHMARKS, sources, AssessConfig(items=24, max_bytes=700), tmp_path / "suite")
    return tmp_path / "suite"


def score(model, tests, out, **settings):
    return harness.score(model, tests, out, row_tokens=ROW_TOKENS, device="cpu", threads=1, **settings)


def by_hand(model, tokenizer, text):
    """Bits of one text: windows of ROW_TOKENS, each begun by one token that is known, the last one filled up."""
    tokens = tokenizer.encode(text, add_special_tokens=False)
    known = [tokenizer.eos_token_id, *tokens]
    nats = 0.0
    for start in range(0, len(tokens), ROW_TOKENS):
        stop = min(start + ROW_TOKENS, len(tokens))
        first = max(0, stop - ROW_TOKENS) if start else 0
        with torch.no_grad():
            logits_TV = model(torch.tensor([known[first:stop]])).logits[0]
        logs_TV = torch.log_softmax(logits_TV.float(), -1)[start - first :]
        nats -= logs_TV.gather(1, torch.tensor(tokens[start:stop])[:, None]).double().sum().item()
    return nats / math.log(2)


def test_bits_per_byte_equal_those_counted_by_hand(models, tests, tmp_path):
    scores = score(models[0], tests, tmp_path / "scores")
    model, tokenizer = load_model(models[0]).eval(), load_tokenizer(models[0])
    lines = (tests / "held-out--docs.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    expected = sum(by_hand(model, tokenizer, text) for text in texts) / sum(len(text.encode()) for text in texts)
    (measured,) = [task.value for task in scores.tasks if task.task == "held-out--docs"]
    assert measured == pytest.approx(expected, rel=1e-6)
    assert max(len(tokenizer.encode(text)) for text in texts) > 2 * ROW_TOKENS


def test_every_item_keeps_its_score_and_the_right_answer_counts(models, tests, tmp_path):
    scores = score(models[0], tests, tmp_path / "scores")
    (task,) = [task for task in scores.tasks if task.task == "next-passage--code"]
    rows = parquet.read_table(tmp_path / "scores" / f"{task.task}.parquet").to_pylist()
    right = [max(range(4), key=row["loglik_nats"].__getitem__) == row["gold"] for row in rows]
    assert right == [bool(row["correct"]) for row in rows]
    assert task.items == len(rows) == 24
    assert task.value == sum(right) / 24
    assert scores.truncated == 0
    assert sorted(path.suffix for path in (tmp_path / "scores").iterdir()) == [".json", *[".parquet"] * 4]


def test_a_portion_of_a_source_is_scored_like_a_source(models, tests, sources, tmp_path):
    (role, place), other = sources["docs"], sources["code"]
    named = {"docs.de": (role, place), "code": other}
    suite.build(BENCHMARKS, named, AssessConfig(items=24, max_bytes=700), tmp_path / "portions")
    found = {task.task: task.value for task in score(models[0], tmp_path / "portions", tmp_path / "portion").tasks}
    whole = {task.task: task.value for task in score(models[0], tests, tmp_path / "whole").tasks}
    assert found["held-out--docs.de"] == whole["held-out--docs"]
    assert found["next-passage--docs.de"] > 0


def test_batch_size_does_not_change_a_score(models, tests, tmp_path):
    one, many = (score(models[0], tests, tmp_path / f"{n}", batch_size=n) for n in (1, 16))
    for a, b in zip(one.tasks, many.tasks, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-6)


def test_scoring_needs_no_network_and_says_nothing_and_leaves_the_process_as_it_was(
    models, tests, tmp_path, monkeypatch, capfd
):
    def refuse(*args):
        raise AssertionError(f"tried to reach {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    environment, threads, seen = dict(os.environ), torch.get_num_threads(), torch.random.get_rng_state()
    progress = []
    score(models[0], tests, tmp_path / "scores", report=lambda done, total: progress.append((done, total)))
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == environment
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), seen)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    assert progress[-1][0] == progress[-1][1]
    assert len({total for _, total in progress}) == 1


def test_a_model_already_scored_is_not_scored_again(models, tests, tmp_path):
    calls = []
    first = score(models[0], tests, tmp_path / "scores", report=lambda *args: calls.append(args))
    shutil.copytree(models[0], tmp_path / "tiny-1")
    count = len(calls)
    assert score(tmp_path / "tiny-1", tests, tmp_path / "scores", report=lambda *a: calls.append(a)) == first
    assert len(calls) == count
    other = score(models[1], tests, tmp_path / "scores", report=lambda *args: calls.append(args))
    assert other.weights != first.weights
    assert len(calls) == 2 * count


def test_damaged_scores_are_made_again(models, tests, tmp_path):
    first = score(models[0], tests, tmp_path / "scores")
    file = tmp_path / "scores" / "held-out--code.parquet"
    file.write_bytes(file.read_bytes()[:50])
    assert score(models[0], tests, tmp_path / "scores") == first
    assert parquet.read_table(file).num_rows == 24


def test_a_context_longer_than_the_model_reads_is_counted(models, tests, tmp_path):
    scores = harness.score(models[0], tests, tmp_path / "scores", row_tokens=100, device="cpu")
    assert scores.truncated == 24 * 4 * 2


def test_a_passage_longer_than_the_model_reads_is_refused(models, tests, tmp_path):
    with pytest.raises(ConfigError, match=r"a passage to score has 80 tokens; the model reads 1 to 64 at once"):
        harness.score(models[0], tests, tmp_path / "scores", row_tokens=64, device="cpu")
    assert not (tmp_path / "scores").exists()


def test_rows_longer_than_the_model_reads_are_refused(models, tests, tmp_path):
    with pytest.raises(ConfigError, match="reads at most 512 tokens; row_tokens is 1024"):
        harness.score(models[0], tests, tmp_path / "scores", row_tokens=1024, device="cpu")


@pytest.fixture
def spoiled(models, tmp_path):
    return shutil.copytree(models[0], tmp_path / "spoiled")


def test_a_checkpoint_cut_short_is_refused_and_leaves_nothing(spoiled, tests, tmp_path):
    file = spoiled / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match=r"model\.safetensors: checkpoint cut short or damaged"):
        score(spoiled, tests, tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


def test_a_model_without_a_tokenizer_is_refused(spoiled, tests, tmp_path):
    for file in spoiled.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ConfigError, match="no tokenizer here"):
        score(spoiled, tests, tmp_path / "scores")


def test_a_tokenizer_larger_than_the_embedding_is_refused(spoiled, tests, tmp_path):
    tokenizer = load_tokenizer(spoiled)
    tokenizer.add_tokens(["harvest", "ratoon"])
    tokenizer.save_pretrained(spoiled)
    with pytest.raises(ConfigError, match="its tokenizer has 259 entries and its embedding 257"):
        score(spoiled, tests, tmp_path / "scores")


def test_a_tokenizer_that_cannot_begin_a_text_is_refused(spoiled, tests, tmp_path):
    file = spoiled / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    del settings["eos_token"]
    file.write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="neither bos_token nor eos_token"):
        score(spoiled, tests, tmp_path / "scores")


def test_a_diverged_model_is_refused_and_earlier_scores_stay(models, spoiled, tests, tmp_path):
    first = score(models[1], tests, tmp_path / "scores")
    model = load_model(spoiled)
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    model.save_pretrained(spoiled)
    with pytest.raises(ConfigError, match="24 of 24 log-likelihoods on held-out--code are not finite"):
        score(spoiled, tests, tmp_path / "scores")
    assert harness.recall(tmp_path / "scores") == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean", "scores", "spoiled", "suite"]


def test_lm_eval_alone_reads_the_suite(models, tests, tmp_path, monkeypatch):
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    expected = score(models[0], tests, tmp_path / "scores")
    monkeypatch.chdir(tests)
    name = "held-out--docs"
    tasks = TaskManager(include_path=str(tests), include_defaults=False)
    model = HFLM(pretrained=load_model(models[0]), tokenizer=load_tokenizer(models[0]), max_length=ROW_TOKENS)
    with lm_eval_runner.quiet():
        files = {"dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}, "cache_dir": str(tmp_path / "cache")}}
        loaded = tasks.load([tasks.task_index[name].cfg | files])
        found = lm_eval.evaluate(model, loaded, bootstrap_iters=0)["results"][name]["bits_per_byte,none"]
    assert found == pytest.approx({task.task: task.value for task in expected.tasks}[name], rel=1e-6)
