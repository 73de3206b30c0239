"""Checkpoints along a run, the alarm, and which tasks are fit to judge."""

import json
import os

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from ratoon.config import AssessConfig, Benchmark, QualityConfig, TrajectoryConfig
from ratoon.evaluation import harness, suite, trajectory
from ratoon.evaluation.quality import quality, spearman

BENCHMARKS = [
    Benchmark(name="held-out", version=1, form={"kind": "held_out"}),
    Benchmark(name="next-passage", version=1, form={"kind": "next_passage", "context_bytes": 60}),
]
ASKED = QualityConfig(last=3, min_runs=2, min_spearman=0.5, min_snr=2)


@pytest.fixture
def tests(sources, tmp_path):
    suite.build(BENCHMARKS, sources, AssessConfig(items=40, max_bytes=300), tmp_path / "suite")
    return tmp_path / "suite"


class Checkpoints:
    """Scores models called by their step as the test says: step -> (bits per byte, share of right answers)."""

    def __init__(self, known):
        self.known, self.asked = known, []

    def __call__(self, model, tests, out):
        self.asked.append(model.name)
        bits, right = self.known[int(model.name)]
        out.mkdir(parents=True)
        tasks = []
        for task in suite.load(tests).tasks:
            items = [json.loads(line) for line in (tests / f"{task.name}.jsonl").read_text().splitlines()]
            rows = [{"doc_hash": i["id"], "prompt_hash": i["id"], "document": i["document"]} for i in items]
            for k, row in enumerate(rows):
                row |= {"correct": int(k < right * len(rows))} if task.metric == "accuracy" else {}
                row |= {"loglik_nats": [-bits * np.log(2) * 100], "bytes": 100}
            parquet.write_table(pyarrow.Table.from_pylist(rows), out / f"{task.name}.parquet")
            value = bits if task.metric == "bits_per_byte" else sum(r["correct"] for r in rows) / len(rows)
            tasks.append(harness.TaskScore(task=task.name, value=value, items=len(rows), sha256=""))
        settings = harness.Settings(row_tokens=1, precision="fp32", device="cpu", lm_eval="")
        return harness.Scores(
            model=model.name, weights="", suite="", settings=settings, truncated=0, tasks=tuple(tasks)
        )


def follow(tests, tmp_path, known):
    score = Checkpoints(known)
    models = {step: tmp_path / str(step) for step in known}
    return trajectory.follow("run", models, tests, tmp_path / "out", TrajectoryConfig(), score), score


def test_an_alarm_is_raised_where_loss_falls_and_answers_get_worse(tests, tmp_path):
    found, _ = follow(tests, tmp_path, {0: (3.0, 0.5), 10: (2.8, 0.9), 20: (2.6, 0.7), 30: (2.4, 0.4)})
    assert {each.task for each in found.alarms} == {"next-passage--docs", "next-passage--code"}
    alarm = found.alarms[0]
    assert (alarm.best_step, alarm.best, alarm.last) == (10, 0.9, 0.4)
    assert alarm.loss_fell == pytest.approx(0.4)
    assert "at step 10 to 40.0%" in alarm.said


@pytest.mark.parametrize(
    "known",
    [
        {0: (3.0, 0.5), 10: (2.8, 0.6), 20: (2.6, 0.9)},  # both get better
        {0: (3.0, 0.5), 10: (2.8, 0.9), 20: (2.9, 0.4)},  # loss rises with it: no divergence
        {0: (3.0, 0.5), 10: (2.8, 0.9), 20: (2.6, 0.875)},  # one item may be chance
    ],
    ids=["better", "together", "chance"],
)
def test_no_alarm_is_raised_where_there_is_none(tests, tmp_path, known):
    assert follow(tests, tmp_path, known)[0].alarms == ()


def test_checkpoints_are_scored_in_order_on_one_part_of_the_suite(tests, tmp_path):
    found, score = follow(tests, tmp_path, {20: (2.6, 0.6), 0: (3.0, 0.4), 10: (2.8, 0.5)})
    assert found.steps == (0, 10, 20)
    assert score.asked == ["0", "10", "20"]
    curve = next(c for c in found.curves if c.task == "held-out--docs")
    assert curve.values == pytest.approx((3.0, 2.8, 2.6))
    assert all(task.items <= 40 for task in suite.load(tmp_path / "out" / "suite").tasks)


def test_a_part_of_a_suite_is_a_suite_and_a_larger_part_holds_it(tests, tmp_path):
    small, large = (trajectory.subset(tests, n, tmp_path / f"part-{n}") for n in (5, 15))
    assert suite.load(tmp_path / "part-5") == small
    assert {task.items for task in small.tasks} == {5}
    for task in small.tasks:
        few, many = (
            [
                json.loads(line)["id"]
                for line in (tmp_path / f"part-{n}" / f"{task.name}.jsonl").read_text().splitlines()
            ]
            for n in (5, 15)
        )
        assert many[:5] == few
    assert small.digest != large.digest


def test_the_scorer_reads_a_part_of_a_suite(models, tests, tmp_path):
    trajectory.subset(tests, 6, tmp_path / "part")
    found = harness.score(models[0], tmp_path / "part", tmp_path / "scores", row_tokens=144, device="cpu", threads=1)
    assert {task.items for task in found.tasks} == {6}


def test_weights_outlive_the_checkpoint_they_came_with_and_leave_its_state_behind(tmp_path):
    saved = tmp_path / "checkpoints" / "step-00000010"
    (saved / "state").mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "manifest.json", "state/optimizer.safetensors"):
        (saved / name).write_text(name)
    unfinished = tmp_path / "checkpoints" / ".step-00000020.77"
    unfinished.mkdir()
    trajectory.keep_weights(tmp_path / "checkpoints", tmp_path / "kept")
    trajectory.keep_weights(tmp_path / "checkpoints", tmp_path / "kept")
    kept = tmp_path / "kept" / "step-00000010"
    assert os.stat(kept / "model.safetensors").st_ino == os.stat(saved / "model.safetensors").st_ino
    for file in saved.rglob("*"):
        if file.is_file():
            file.unlink()
    assert sorted(p.name for p in kept.iterdir()) == ["config.json", "manifest.json", "model.safetensors"]
    assert (kept / "model.safetensors").read_text() == "model.safetensors"
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["step-00000010"]


# ---------------------------------------------------------------- which tasks may judge


def runs(slope, scatter, seeds=3, steps=6, sign=1):
    rng = np.random.default_rng(0)
    return {
        f"seed-{seed}": [
            (step, 0.5 if step == 0 else 0.5 + sign * slope * step + scatter * float(rng.normal()))
            for step in range(steps + 1)
        ]
        for seed in range(seeds)
    }


def test_a_task_that_grows_with_little_noise_may_gate_and_a_noisy_one_may_not():
    clear = quality("a", "accuracy", "domain", runs(0.05, 0.001), 0.01, QualityConfig(last=2, min_runs=3))
    assert clear.use == "gate"
    assert clear.spearman > 0.9
    noisy = quality("b", "accuracy", "domain", runs(0.0, 0.05), 0.01, QualityConfig(last=5, min_runs=3))
    assert noisy.use == "show"
    assert "signal to noise" in noisy.why


def test_signal_noise_and_their_ratio_are_those_of_their_definition():
    known = {"a": [(0, 0.4), (1, 0.5), (2, 0.6), (3, 0.7)], "b": [(0, 0.4), (1, 0.6), (2, 0.7), (3, 0.8)]}
    found = quality("t", "accuracy", "domain", known, 0.02, QualityConfig(last=2))
    mean = (0.6 + 0.7 + 0.7 + 0.8) / 4
    noise = float(np.std([0.6, 0.7], ddof=1)) / mean
    signal = (0.8 - 0.4) / mean  # the models: both ends and the parent
    assert found.noise == pytest.approx(noise)
    assert found.signal == pytest.approx(signal)
    assert found.snr == pytest.approx(signal / noise)
    assert found.mde == pytest.approx((1.6449 + 0.8416) * np.sqrt(0.02**2 + 2 * (noise * mean) ** 2), rel=1e-4)


def test_a_loss_grows_when_it_falls():
    found = quality("l", "bits_per_byte", "domain", runs(0.05, 0.001, sign=-1), 0.01, ASKED)
    assert found.spearman > 0.9
    assert quality("l", "bits_per_byte", "domain", runs(0.05, 0.001), 0.01, ASKED).spearman < -0.9


def test_what_is_to_be_kept_may_fall_as_long_as_it_does_so_steadily():
    falls, asked = runs(0.05, 0.001, sign=-1), QualityConfig(last=2)
    assert quality("k", "accuracy", "general", falls, 0.01, asked).use == "gate"
    learned = quality("k", "accuracy", "domain", falls, 0.01, asked)
    assert learned.use == "show"
    assert learned.why.startswith("grows with training at -")


def test_one_run_is_too_little_evidence_and_says_so():
    found = quality("a", "accuracy", "domain", runs(0.05, 0.0001, seeds=1), 0.01, QualityConfig())
    assert found.use == "show"
    assert found.why.startswith("1 of 3 reference runs")


def test_what_cannot_be_known_is_none_and_not_zero():
    found = quality("a", "accuracy", "domain", {"r": [(0, 0.5), (9, 0.6)]}, None, QualityConfig())
    assert found.noise is found.snr is found.spearman is found.mde is None
    assert found.use == "show"
    assert spearman([1, 2], [1, 2]) is None
    assert spearman([1, 2, 3], [5, 5, 5]) == 0


def test_trajectories_of_several_seeds_are_judged_together(tests, tmp_path):
    found = []
    for seed in range(3):
        known = {step: (3 - 0.1 * step - 0.001 * seed, 0.4 + 0.05 * step) for step in range(7)}
        made, _ = follow(tests, tmp_path / str(seed), known)
        found.append(made.model_copy(update={"run": f"seed-{seed}"}))
    judged = {each.task: each for each in trajectory.qualities(found, QualityConfig(last=2))}
    assert judged["held-out--docs"].runs == 3
    assert judged["held-out--docs"].use == "gate"
    assert {each.use for each in found[0].qualities} == {"show"}
