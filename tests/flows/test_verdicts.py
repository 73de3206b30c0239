"""A refresh made worse on purpose is refused with the right reason, a better one promoted, one in between asks.

One candidate is prepared, trained and assessed by the flows; the others are trained from its request or made of its
files, and scored and judged like it.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from ratoon.config import ConfigError, GateConfig
from ratoon.corpus.tokenizer import tokenizer_digest
from ratoon.evaluation import harness, replay
from ratoon.evaluation.replay import Arm, Question
from ratoon.records import read, write

POLICY = GateConfig(max_benchmark_loss=1)  # 2% of general text; forty questions are too few to ask a model of this size


class Good(NamedTuple):
    """The candidate of the flows."""

    project: object
    folder: Path  # of its refresh
    model: Path
    question: Question

    @property
    def parent(self):
        return Path(self.question.parent.model)


@pytest.fixture(scope="module")
def good(apart):
    def lighter(raw):
        raw["promote"] = {"max_benchmark_loss": 1.0}

    apart.edit("params.yaml", lighter)
    apart.edit("models/bases/nano.yaml", lambda raw: raw.update(family=[]))
    apart.ratoon("prepare")
    apart.ratoon("train", "--ratio", "0.3")
    said = json.loads(apart.ratoon("assess", "--ratio", "0.3", "--json").stdout)
    (scores,) = apart.root.glob(".ratoon/refreshes/ratoon-nano/*/assess")
    question = read(scores / replay.QUESTION, Question)
    assert said["decision"] == read(scores.parent / "verdict.json", replay.Verdict).decision
    return Good(apart, scores.parent, Path(question.candidate.model), question)


def trained(good, name, **portions):
    """The candidate's training again with other portions: shares, or rows."""
    request = json.loads((good.folder / "train" / "request.json").read_text())
    for source, change in portions.items():
        request["portions"][source.replace("_", "-")].update(change)
    out = good.project.root / ".ratoon" / "arms" / name
    out.mkdir(parents=True)
    request["out"] = str(out)
    (out / "request.json").write_text(json.dumps(request))
    subprocess.run(
        [sys.executable, "-m", "ratoon.training", "run", str(out / "request.json")],
        cwd=good.project.root,
        env={**os.environ, "PYTHONPATH": str(good.project.root)},
        check=True,
        capture_output=True,
        timeout=600,
    )
    return Path(json.loads((out / "result.json").read_text())["model"])


def judged(good, model, tmp_path, policy=POLICY, **known):
    """Scored on the same items and judged, in a folder like a refresh's own."""
    scores = tmp_path / "assess"
    shutil.copytree(good.folder / "assess" / "suite", scores / "suite")
    shutil.copytree(good.folder / "assess" / "parent", scores / "parent")
    tokens = harness.recall(scores / "parent").settings.row_tokens
    arm = Arm(model=str(model), tokenizer=tokenizer_digest(model), **known)
    try:
        harness.score(model, scores / "suite", scores / "candidate", row_tokens=tokens, device="cpu")
    except ConfigError as error:
        arm = arm.model_copy(update={"fault": str(error)})
    question = Question(policy=policy, assess=good.question.assess, parent=good.question.parent, candidate=arm)
    write(scores / replay.QUESTION, question)
    return replay.decide(scores).verdict


def general(verdict):
    (found,) = (item for item in verdict.comparisons if item.role == "general" and item.metric == "bits_per_byte")
    return found.relative


def test_a_better_candidate_is_promoted(good):
    verdict = read(good.folder / "verdict.json", replay.Verdict)
    assert verdict.decision == "promote", verdict.reasons
    assert (good.folder / "assess" / replay.LISTED).exists()


def test_stored_scores_give_the_same_verdict_without_model_or_project(good, tmp_path):
    shutil.copytree(good.folder / "assess", tmp_path / "kept" / "assess")
    shutil.copy2(good.folder / "verdict.json", tmp_path / "kept")
    done = good.project.ratoon("gate", str(tmp_path / "kept"))
    assert done.stdout.startswith("promote\n")
    assert "as in verdict.json: yes" in done.stdout
    demanding = tmp_path / "demanding.yaml"
    demanding.write_text("promote: {min_domain_gain: 0.9}\n")
    other = good.project.ratoon("gate", str(tmp_path / "kept"), "--params", str(demanding), code=3)
    assert "asked for at least 90.0% lower; too little" in other.stdout


def test_training_on_the_domain_alone_is_refused_for_what_it_forgot(alone, good, tmp_path):
    verdict = judged(good, alone, tmp_path)
    assert verdict.decision == "refuse"
    assert verdict.reasons[0].startswith("general text python-docs: bits per byte +")
    assert verdict.reasons[0].endswith("allowed +2.0%; too much")


@pytest.fixture(scope="module")
def alone(good):
    return trained(good, "alone", python_docs={"share": 0.0}, python_code={"share": 1.0})


def test_shuffled_labels_in_the_domain_are_refused_for_the_domain(good, tmp_path):
    """Every token of domain text under another's number: what follows what is learned wrong."""
    rows = tmp_path / "rows" / "nano" / "python-code"
    shutil.copytree(good.project.root / "data" / "rows" / "nano" / "python-code", rows)
    kind = json.loads((rows / "rows.json").read_text())["dtype"]
    labels = np.random.default_rng(0).permutation(1024).astype(kind)
    for file in (rows / "train").glob("*.tokens"):
        shuffled = labels[np.fromfile(file, kind)]
        file.unlink()  # a link into DVC's cache may be shared: replaced, never written through
        shuffled.tofile(file)
    model = trained(good, "shuffled", python_code={"rows": str(rows)})
    verdict = judged(good, model, tmp_path)
    assert verdict.decision == "refuse"
    assert verdict.reasons[0].startswith("domain text python-code: bits per byte +")
    assert verdict.reasons[0].endswith("asked for lower; it is a loss")


def test_training_cut_short_is_refused_though_its_scores_may_pass(good, tmp_path):
    early, *_ = sorted((good.folder / "train" / "checkpoints").glob("step-*"))
    step = json.loads((early / "state" / "progress.json").read_text())["step"]
    steps = good.question.candidate.steps
    assert step < steps == good.question.candidate.step
    verdict = judged(good, early, tmp_path, step=step, steps=steps)
    assert verdict.decision == "refuse"
    assert verdict.reasons[0] == f"training: cut short at step {step} of {steps}"


def test_a_tokenizer_that_is_not_the_parents_is_refused_as_such(good, tmp_path):
    model = tmp_path / "mismatched"
    shutil.copytree(good.model, model)
    file = model / "tokenizer.json"
    whole = json.loads(file.read_text())
    words = whole["model"]["vocab"]
    names = sorted(words, key=words.get)
    whole["model"]["vocab"] = {**words, names[300]: words[names[301]], names[301]: words[names[300]]}
    file.write_text(json.dumps(whole))
    verdict = judged(good, model, tmp_path)
    assert verdict.decision == "refuse"
    assert verdict.reasons[0].startswith("tokenizer: the candidate's is ")


def test_weights_that_cannot_be_scored_are_refused_and_not_an_error(good, tmp_path):
    model = tmp_path / "broken"
    shutil.copytree(good.model, model)
    weights = load_file(model / "model.safetensors")
    save_file({name: x * float("nan") for name, x in weights.items()}, model / "model.safetensors", {"format": "pt"})
    verdict = judged(good, model, tmp_path)
    assert (verdict.decision, len(verdict.reasons)) == ("refuse", 1)
    assert "candidate: it could not be scored" in verdict.reasons[0]
    assert "not finite" in verdict.reasons[0]


def test_one_in_between_asks(good, alone, tmp_path):
    """Between weights that keep general text and weights that lose it lie some of which forty documents cannot say."""
    ends = [load_file(model / "model.safetensors") for model in (good.model, alone)]
    low, high = 0.0, 1.0
    for turn in range(8):
        part = (low + high) / 2
        model = tmp_path / f"mixed-{turn}"
        shutil.copytree(good.model, model)
        mixed = {name: (1 - part) * x + part * ends[1][name] for name, x in ends[0].items()}
        save_file({name: x.contiguous() for name, x in mixed.items()}, model / "model.safetensors", {"format": "pt"})
        verdict = judged(good, model, tmp_path / f"turn-{turn}")
        if verdict.decision == "ask":
            break
        low, high = (part, high) if verdict.decision == "promote" else (low, part)
    assert verdict.decision == "ask", verdict.reasons
    assert general(verdict).low < POLICY.max_general_loss < general(verdict).high + 0.01
    assert "general text python-docs" in verdict.reasons[0]
    assert "that it stays below is not shown (" in verdict.reasons[0]
    good.project.ratoon("gate", str(tmp_path / f"turn-{turn}"), code=4)


def test_the_parent_itself_ties_everywhere_and_is_refused(good, tmp_path):
    verdict = judged(good, good.parent, tmp_path)
    assert verdict.outcomes == {"win": 0, "tie": 4, "loss": 0}
    assert verdict.decision == "refuse"
    assert "a gain is not shown" in verdict.reasons[0]


def test_swapping_the_arms_swaps_wins_and_losses(good, alone, tmp_path):
    there = judged(good, alone, tmp_path / "there")
    scores = tmp_path / "back" / "assess"
    shutil.copytree(tmp_path / "there" / "assess", scores)
    for now, then in (("parent", "kept"), ("candidate", "parent"), ("kept", "candidate")):
        (scores / now).rename(scores / then)
    back = replay.decide(scores).verdict
    assert there.outcomes["win"] == back.outcomes["loss"] > 0
    assert there.outcomes["loss"] == back.outcomes["win"] > 0


def test_scores_that_were_tampered_with_are_refused(good, tmp_path):
    judged(good, good.model, tmp_path)
    file = tmp_path / "assess" / "candidate" / "held-out--python-docs.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    verdict = replay.decide(tmp_path / "assess").verdict
    assert verdict.decision == "refuse"
    assert verdict.reasons[0].startswith("scores: ")
