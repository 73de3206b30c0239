"""Our scorer against lm-eval: the same numbers, the same hashes, whatever the kind of item."""

import json

import pyarrow.parquet as parquet
import pytest
import yaml

from ratoon.config import AssessConfig, Benchmark
from ratoon.evaluation import harness, suite
from ratoon.evaluation.generate import Prompt, Writer
from ratoon.lm.load import load_model, load_tokenizer

BENCHMARKS = [
    Benchmark(name="held-out", version=1, form={"kind": "held_out"}),
    Benchmark(name="next-passage", version=1, form={"kind": "next_passage", "context_bytes": 60}),
]
GENERATION = {
    "output_type": "generate_until",
    "doc_to_text": "prompt",
    "doc_to_target": "answers",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 5, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "ignore_case": True, "ignore_punctuation": True}],
    "filter_list": [{"name": "stripped", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
}
PROMPTS = ["the cane", "a field of rain", "x", "leaf and root, stem and", "mill "]


@pytest.fixture
def tests(models, sources, tmp_path):
    """All three kinds; the generations end at a new line or after five tokens, and every other is right."""
    found = suite.build(BENCHMARKS, sources, AssessConfig(items=24, max_bytes=700), tmp_path / "suite")
    folder, name = tmp_path / "suite", "write--docs"
    tokenizer = load_tokenizer(models[0])
    writer = Writer(load_model(models[0]), tokenizer, 144)
    outputs = writer.write([Prompt(tokenizer.encode(text), 5, ("\n",)) for text in PROMPTS])
    items = [
        {
            "id": f"{n}",
            "document": f"{n}",
            "prompt": text,
            "answers": ["a", f"{output.text.strip().upper()}!" if n % 2 else "b"],
            "until": ["\n"],
            "max_tokens": 5,
        }
        for n, (text, output) in enumerate(zip(PROMPTS, outputs, strict=True))
    ]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    declared = yaml.safe_load((folder / "held-out--docs.yaml").read_text())
    files = {"dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(declared | GENERATION | files | {"task": name}))
    task = found.tasks[0].model_copy(
        update={
            "name": name,
            "metric": "accuracy",
            "kind": "generation",
            "items": len(items),
            "requests": len(items),
            "sha256": suite.digest_of(folder, name),
        }
    )
    (folder / "suite.json").write_text(found.model_copy(update={"tasks": (*found.tasks, task)}).model_dump_json())
    return folder


@pytest.mark.parametrize("row_tokens", [144, 100])
def test_every_item_has_the_number_and_the_hashes_lm_eval_gives_it(models, tests, tmp_path, row_tokens):
    both = {
        runner: harness.score(
            models[0], tests, tmp_path / runner, row_tokens=row_tokens, device="cpu", threads=1, runner=runner
        )
        for runner in ("ratoon", "lm_eval")
    }
    ours, theirs = both["ratoon"], both["lm_eval"]
    assert ours.tasks[4].value == 2 / 5
    for mine, other in zip(ours.tasks, theirs.tasks, strict=True):
        assert mine.value == pytest.approx(other.value, rel=1e-6)
        assert (mine.items, mine.valid) == (other.items, other.valid)
        left, right = (
            parquet.read_table(tmp_path / runner / f"{mine.task}.parquet").to_pylist()
            for runner in ("ratoon", "lm_eval")
        )
        for one, two in zip(left, right, strict=True):
            exact = {"id", "document", "doc_hash", "prompt_hash", "target_hash", "bytes", "gold", "correct"}
            assert {k: one[k] for k in exact & one.keys()} == {k: two[k] for k in exact & two.keys()}
            if "output" in one:
                assert one["output"].strip() == two["output"]
            else:
                assert one["loglik_nats"] == pytest.approx(two["loglik_nats"], rel=1e-6)
    contexts = [task for task in ours.tasks if "next-passage" in task.task]
    assert sum(task.truncated for task in contexts) == theirs.truncated
    assert (sum(task.truncated for task in contexts) > 0) == (row_tokens == 100)
    assert ours.settings != theirs.settings


def test_a_task_scores_the_same_to_the_last_bit_beside_other_tasks(models, tests, tmp_path):
    whole = harness.score(models[0], tests, tmp_path / "whole", row_tokens=144, device="cpu", threads=1)
    found = suite.load(tests)
    (tests / "suite.json").write_text(found.model_copy(update={"tasks": found.tasks[2:3]}).model_dump_json())
    alone = harness.score(models[0], tests, tmp_path / "alone", row_tokens=144, device="cpu", threads=1)
    assert alone.tasks == whole.tasks[2:3]
