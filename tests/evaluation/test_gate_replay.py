"""A verdict out of stored scores alone."""

import hashlib
import json
import math

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from ratoon.cli import main
from ratoon.config import AssessConfig, Benchmark, ConfigError, GateConfig
from ratoon.evaluation import harness, replay, suite
from ratoon.evaluation.replay import Arm, Question
from ratoon.records import write

SETTINGS = harness.Settings(row_tokens=128, precision="fp32", device="cpu", lm_eval="0")


def stored(folder, made, bits, right):
    """Scores as an assessment leaves them: bits per byte by role, and which answers are right."""
    folder.mkdir()
    kept = []
    for task in made.tasks:
        draw, rows = np.random.default_rng(len(task.name)), []
        for i in range(task.items):
            row = {"doc_hash": f"{i}", "prompt_hash": "p", "document": f"{i}", "id": f"{task.source}:{i}"}
            if task.metric == "bits_per_byte":
                need = bits[task.role] * draw.normal(1, 0.05)
                row |= {"bytes": 500 + i, "loglik_nats": [-(500 + i) * need * math.log(2)]}
            else:
                row |= {"loglik_nats": [0.0] * 4, "correct": int(right(i))}
            rows.append(row)
        file = folder / f"{task.name}.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        kept.append((task.name, file))
    tasks = tuple(
        harness.TaskScore(task=name, value=0, items=1, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
        for name, file in kept
    )
    write(
        folder / "scores.json",
        harness.Scores(model="m", weights="w", suite=made.digest, settings=SETTINGS, truncated=0, tasks=tasks),
    )


@pytest.fixture
def folder(sources, tmp_path):
    forms = {"held-out": {"kind": "held_out"}, "next-passage": {"kind": "next_passage"}}
    benchmarks = [Benchmark(name=name, version=1, form=form) for name, form in forms.items()]
    made = suite.build(benchmarks, sources, AssessConfig(items=40), tmp_path / "assess" / "suite")
    stored(tmp_path / "assess" / "parent", made, {"domain": 2.0, "general": 2.0}, lambda i: i % 2)
    stored(tmp_path / "assess" / "candidate", made, {"domain": 1.9, "general": 2.0}, lambda i: i % 2 or i == 0)
    stored(tmp_path / "assess" / "champion", made, {"domain": 1.9, "general": 2.0}, lambda i: True)
    write(tmp_path / "assess" / replay.QUESTION, question())
    return tmp_path / "assess"


def question(champion=False, **policy):
    arms = {name: Arm(model=name, tokenizer="t") for name in ("parent", "candidate")}
    if champion:
        arms["champion"] = Arm(model="champion", tokenizer="t")
    return Question(policy=GateConfig(**{"max_benchmark_loss": 0.2, **policy}), assess=AssessConfig(), **arms)


def decide(folder, **asked):
    return replay.decide(folder, question(**asked)).verdict


def test_the_same_bytes_give_the_same_verdict(folder):
    first, again = replay.decide(folder), replay.decide(folder)
    assert first == again
    assert first.verdict.decision == "promote", first.verdict.reasons
    assert first.verdict.model_dump_json() == again.verdict.model_dump_json()


def test_the_order_of_items_in_the_files_changes_nothing(folder):
    before = replay.decide(folder).verdict
    for arm in ("parent", "candidate"):
        scores = json.loads((folder / arm / "scores.json").read_text())
        for task in scores["tasks"]:
            file = folder / arm / f"{task['task']}.parquet"
            rows = parquet.read_table(file)
            parquet.write_table(rows.take(np.random.default_rng(len(arm)).permutation(rows.num_rows)), file)
            task["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        (folder / arm / "scores.json").write_text(json.dumps(scores))
    assert replay.decide(folder).verdict == before


def test_another_policy_gives_another_verdict_on_the_same_scores(folder):
    assert decide(folder, min_domain_gain=0.2).reasons[0].endswith("asked for at least 20.0% lower; too little")
    assert decide(folder, max_benchmark_loss=0.01).decision == "ask"
    assert decide(folder, golden={"next-passage": "all"}).decision == "promote"


def test_flips_are_counted_against_the_parent_and_against_another_champion(folder):
    found = replay.decide(folder, question(champion=True))
    assert [(item.against, item.source, item.negative, item.positive) for item in found.verdict.flips] == [
        ("parent", "code", 0, 1),
        ("parent", "docs", 0, 1),
        ("champion", "code", 19, 0),
        ("champion", "docs", 19, 0),
    ]
    assert found.verdict.champion == "champion"
    assert {item.file for item in found.verdict.flips} == {"assess/flips.jsonl"}
    assert len(found.listed) == 40


def test_a_pinned_item_that_the_champion_had_right_refuses(folder):
    assert decide(folder, golden={"next-passage": ("code:2",)}).decision == "promote"
    found = decide(folder, champion=True, golden={"next-passage": ("code:2",)})
    assert found.decision == "refuse"
    assert found.reasons[0] == "golden items of next-passage: 1 of 1 that the champion had right are wrong now: code:2"
    assert found.demands[0].flipped == ("code:2",)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tokenizer": "other"}, "tokenizer: the candidate's is other, its parent's t: the same ids mean other words"),
        ({"tokenizer": None}, "tokenizer: the candidate's is missing, its parent's t"),
        ({"step": 5, "steps": 90}, "training: cut short at step 5 of 90"),
        ({"fault": "log-likelihoods are not finite"}, "candidate: it could not be scored: log-likelihoods"),
    ],
)
def test_a_candidate_that_is_another_model_than_asked_for_is_refused(folder, change, reason):
    asked = question()
    asked = asked.model_copy(update={"candidate": asked.candidate.model_copy(update=change)})
    found = replay.decide(folder, asked).verdict
    assert found.decision == "refuse"
    assert found.reasons[0].startswith(reason)


def test_scores_that_are_damaged_missing_or_of_other_items_refuse(folder):
    file = folder / "candidate" / "held-out--docs.parquet"
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + b"x")
    assert "missing, or not what scores.json says" in decide(folder).reasons[0]
    file.unlink()
    assert decide(folder).decision == "refuse"
    rows = parquet.read_table(pyarrow.BufferReader(kept))
    parquet.write_table(rows.slice(1), file)
    scores = json.loads((folder / "candidate" / "scores.json").read_text())
    for task in scores["tasks"]:
        if task["task"] == "held-out--docs":
            task["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "candidate" / "scores.json").write_text(json.dumps(scores))
    assert "not scored on the same items: 24 and 23 items" in decide(folder).reasons[0]


def test_a_folder_in_place_of_a_policy_is_a_letter(folder, capsys):
    assert main(["gate", str(folder.parent), "--params", str(folder)]) == 2
    assert f"ratoon gate --params: {folder} is a folder; name the file in it" in capsys.readouterr().err


def test_a_refresh_from_before_the_gate_kept_its_question_is_told_what_to_do(folder, capsys):
    (folder / replay.QUESTION).unlink()
    assert main(["gate", str(folder.parent)]) == 2
    said = capsys.readouterr().err
    assert "judged by a release that kept its scores and not what the gate was told" in said
    assert "`ratoon assess` judges the last training anew" in said
    assert main(["gate", str(folder.parent.parent)]) == 2
    assert "no suite and no scores here" in capsys.readouterr().err


def test_a_folder_without_a_question_is_told_what_it_lacks(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"gate\.json: not found"):
        replay.decide(tmp_path)
