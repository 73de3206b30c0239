"""A refresh made worse on purpose is refused with the right reason, a better one promoted, one in between asks.

Everything here is done and not made up: a small model is trained on general text, its continuations on mixtures, all
are scored on held-out text and judged.
"""

import json
import random
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from held_out_text import write_held_out
from safetensors.torch import load_file, save_file

from ratoon.cli import main
from ratoon.config import AssessConfig, Benchmark, ConfigError, GateConfig, Schedule, TrainConfig
from ratoon.corpus.tokenizer import tokenizer_digest
from ratoon.evaluation import harness, replay, suite
from ratoon.evaluation.replay import Arm, Question
from ratoon.records import read, write
from ratoon.stream.rows import Index, ShardCounts, ShardPacker, dtype_for
from ratoon.training.request import Portion, Request
from ratoon.training.run import train

ROW_TOKENS = 64
STEPS = 150
POLICY = GateConfig(max_benchmark_loss=1)  # sixty answers of so small a model say nothing
ASSESS = AssessConfig(items=40, max_bytes=300)
BENCHMARKS = [
    Benchmark(name="held-out", version=1, form={"kind": "held_out"}),
    Benchmark(
        name="next-passage", version=1, form={"kind": "next_passage", "context_bytes": 40, "continuation_bytes": 40}
    ),
]
WORDS = {
    "general": ("field", "cane", "root", "stem", "leaf", "rain", "soil", "press", "juice", "syrup", "mill", "harvest"),
    "domain": ("vat", "yeast", "brew", "malt", "hops", "keg", "cask", "froth", "mash", "wort", "cellar", "barley"),
}


def texts(source, documents, seed):
    """Sentences of the source's words, each of which has three that may follow it."""
    habits, draw, known = random.Random(source), random.Random(f"{source} {seed}"), WORDS[source]
    follows = {word: habits.sample(known, 3) for word in known}
    for _ in range(documents):
        words = [draw.choice(known)]
        for _ in range(draw.randint(20, 80)):
            words.append(draw.choice(follows[words[-1]]))
        yield " ".join(words) + "\n"


def pack(out, documents, ids, shuffled=False):
    """Rows as `ratoon prepare` packs them; `shuffled`: every document's tokens in random order."""
    shards, mix = {}, np.random.default_rng(0)
    for part, chosen in (("train", documents[20:]), ("held_out", documents[:20])):
        packer = ShardPacker(out / part / "a", len(ids), separator=0)
        for text in chosen:
            tokens = np.array([ids[letter] for letter in text])
            packer.add(iter([mix.permutation(tokens) if shuffled else tokens]))
        packer.close()
        size = sum(len(text) for text in chosen)
        shards[part] = {"a": ShardCounts(tokens=size + len(chosen), documents=len(chosen), bytes=size)}
    index = Index(
        format=1,
        base="tiny",
        tokenizer="none",
        vocabulary=len(ids),
        dtype=dtype_for(len(ids)),
        separator=0,
        row_tokens=ROW_TOKENS,
        shards=shards,
        totals={part: found["a"] for part, found in shards.items()},
    )
    (out / "rows.json").write_text(index.model_dump_json())
    return out


class World(NamedTuple):
    root: Path
    parent: Path
    good: Path

    def trained(self, name, share, domain="domain", model=None, steps=STEPS):
        return continued(self.root, name, share, model or self.parent, domain, steps)


def continued(root, name, share, model, domain="domain", steps=STEPS):
    recipe = TrainConfig(
        tokens=steps * 16 * ROW_TOKENS,
        learning_rate=0.01,
        rows_per_step=16,
        schedule=Schedule(name="wsd", warmup_steps=5, decay_share=0.3),
        threads=1,
        block_rows=16,
        evaluations=1,
    )
    parts = {"general": ("general", 1 - share), domain: ("domain", share)}
    request = Request(
        name=name,
        label="tiny",
        model=str(model),
        portions={key: Portion(rows=str(root / key), role=role, share=part) for key, (role, part) in parts.items()},
        row_tokens=ROW_TOKENS,
        recipe=recipe,
        held_out_tokens=2000,
        out=str(root / name),
    )
    return Path(train(request).model)


@pytest.fixture(scope="module")
def world(tmp_path_factory, models):
    """Text of two sources, a model that has read mostly the general one, and a better candidate."""
    from transformers import AutoTokenizer

    root = tmp_path_factory.mktemp("world")
    tokenizer = AutoTokenizer.from_pretrained(models[0])
    ids = {letter: tokenizer.encode(letter)[0] for letter in {*"".join(sum(WORDS.values(), ())), " ", "\n"}} | {None: 0}
    vocabulary = {letter: ids[letter] for letter in ids}
    sources = {}
    for source in ("general", "domain"):
        documents = list(texts(source, 400, "train"))
        pack(root / source, documents, Padded(vocabulary, len(tokenizer)))
        pack(root / f"{source}-shuffled", documents, Padded(vocabulary, len(tokenizer)), shuffled=True)
        held_out = {f"{k:03}": text for k, text in enumerate(texts(source, 60, "held out"))}
        sources[source] = (source, write_held_out(root / "clean" / source, held_out))
    suite.build(BENCHMARKS, sources, ASSESS, root / "suite")
    parent = continued(root, "parent", 0.2, models[0])
    harness.score(parent, root / "suite", root / "scores", row_tokens=ROW_TOKENS, device="cpu", threads=1)
    return World(root, parent, continued(root, "good", 0.4, parent))


class Padded(dict):
    """Ids of the letters in use, as long as the whole vocabulary."""

    def __init__(self, ids, entries):
        super().__init__(ids)
        self.entries = entries

    def __len__(self):
        return self.entries


@pytest.fixture(scope="module")
def alone(world):
    return world.trained("alone", 1.0)


def judged(world, model, out, **known):
    """Scored on the same items and judged, in a folder like a refresh's own."""
    scores = out / "assess"
    shutil.copytree(world.root / "suite", scores / "suite")
    shutil.copytree(world.root / "scores", scores / "parent")
    arm = Arm(model=str(model), tokenizer=tokenizer_digest(model), **known)
    try:
        harness.score(model, scores / "suite", scores / "candidate", row_tokens=ROW_TOKENS, device="cpu", threads=1)
    except ConfigError as error:
        arm = arm.model_copy(update={"fault": str(error)})
    parent = Arm(model=str(world.parent), tokenizer=tokenizer_digest(world.parent))
    write(scores / replay.QUESTION, Question(policy=POLICY, assess=ASSESS, parent=parent, candidate=arm))
    answer = replay.decide(scores)
    write(out / "verdict.json", answer.verdict)
    return answer.verdict


def test_a_better_candidate_is_promoted(world, tmp_path, capsys):
    verdict = judged(world, world.good, tmp_path)
    assert verdict.decision == "promote", verdict.reasons
    assert verdict.outcomes["win"] >= 1
    assert main(["gate", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("promote\n")
    assert "as in verdict.json: yes" in said
    assert max(map(len, said.splitlines())) <= 80


def test_another_policy_is_tried_on_the_same_scores(world, tmp_path, capsys):
    judged(world, world.good, tmp_path)
    (tmp_path / "params.yaml").write_text("promote: {min_domain_gain: 0.9, max_benchmark_loss: 1}\n")
    assert main(["gate", str(tmp_path), "--params", str(tmp_path / "params.yaml")]) == 3
    assert "asked for at least 90.0% lower; too little" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "params.yaml").write_text("promot: {min_domain_gain: 0.9}\n")
    assert main(["gate", str(tmp_path), "--params", str(tmp_path / "params.yaml")]) == 2
    assert "no section `promote`" in capsys.readouterr().err


def test_training_on_the_domain_alone_is_refused_for_what_it_forgot(world, alone, tmp_path):
    verdict = judged(world, alone, tmp_path)
    assert verdict.decision == "refuse"
    assert verdict.reasons[0].startswith("general text general: bits per byte +")
    assert verdict.reasons[0].endswith("allowed +2.0%; too much")
    assert all(demand.answer == "promote" for demand in verdict.demands if demand.kind == "gain")


def test_shuffled_domain_text_is_refused_for_the_domain(world, tmp_path):
    model = world.trained("shuffled", 0.4, domain="domain-shuffled")
    verdict = judged(world, model, tmp_path)
    assert verdict.decision == "refuse"
    assert any(d.kind == "gain" and d.answer == "refuse" for d in verdict.demands), verdict.reasons
    assert "domain text domain: bits per byte" in verdict.reasons[0]


def test_training_cut_short_is_refused_though_its_scores_may_pass(world, tmp_path):
    early, *_, last = sorted((world.root / "good" / "checkpoints").glob("step-*"))
    step = json.loads((early / "state" / "progress.json").read_text())["step"]
    assert step < STEPS
    assert json.loads((last / "state" / "progress.json").read_text())["step"] == STEPS
    verdict = judged(world, early, tmp_path, step=step, steps=STEPS)
    assert verdict.decision == "refuse"
    assert verdict.reasons[0] == f"training: cut short at step {step} of {STEPS}"


def test_a_tokenizer_that_is_not_the_parents_is_refused_as_such(world, tmp_path):
    model = tmp_path / "mismatched"
    shutil.copytree(world.good, model)
    whole = json.loads((model / "tokenizer.json").read_text())
    words = whole["model"]["vocab"]
    words["a"], words["e"] = words["e"], words["a"]
    (model / "tokenizer.json").write_text(json.dumps(whole))
    verdict = judged(world, model, tmp_path)
    assert verdict.decision == "refuse"
    assert verdict.reasons[0].startswith("tokenizer: the candidate's is ")


def test_weights_that_cannot_be_scored_are_refused_and_no_error(world, tmp_path):
    model = tmp_path / "broken"
    shutil.copytree(world.good, model)
    weights = load_file(model / "model.safetensors")
    save_file({name: x * float("nan") for name, x in weights.items()}, model / "model.safetensors", {"format": "pt"})
    verdict = judged(world, model, tmp_path)
    assert (verdict.decision, len(verdict.reasons)) == ("refuse", 1)
    assert "candidate: it could not be scored" in verdict.reasons[0]
    assert "not finite" in verdict.reasons[0]


def test_one_in_between_asks(world, alone, tmp_path):
    """Between weights that keep general text and weights that lose it lie some of which sixty documents cannot say."""
    ends = [load_file(model / "model.safetensors") for model in (world.good, alone)]
    low, high = 0.0, 1.0
    for turn in range(10):
        part = (low + high) / 2
        model, out = tmp_path / f"mixed-{turn}", tmp_path / f"turn-{turn}"
        shutil.copytree(world.good, model)
        mixed = {name: (1 - part) * x + part * ends[1][name] for name, x in ends[0].items()}
        save_file({name: x.contiguous() for name, x in mixed.items()}, model / "model.safetensors", {"format": "pt"})
        verdict = judged(world, model, out)
        if verdict.decision == "ask":
            break
        low, high = (part, high) if verdict.decision == "promote" else (low, part)
    assert verdict.decision == "ask", verdict.reasons
    assert verdict.reasons[0].startswith("general text general")
    assert "that it stays below is not shown (60 documents show it where the truth is" in verdict.reasons[0]
    assert main(["gate", str(out)]) == 4


def test_the_parent_itself_ties_everywhere_and_is_refused(world, tmp_path):
    verdict = judged(world, world.parent, tmp_path)
    assert verdict.outcomes == {"win": 0, "tie": 4, "loss": 0}
    assert verdict.decision == "refuse"
    assert "a gain is not shown" in verdict.reasons[0]


def test_swapping_the_arms_swaps_wins_and_losses(world, alone, tmp_path):
    there = judged(world, alone, tmp_path)
    for now, then in (("parent", "kept"), ("candidate", "parent"), ("kept", "candidate")):
        (tmp_path / "assess" / now).rename(tmp_path / "assess" / then)
    back = replay.decide(tmp_path / "assess").verdict
    assert there.outcomes["win"] == back.outcomes["loss"] > 0
    assert there.outcomes["loss"] == back.outcomes["win"] > 0


def test_scores_that_were_tampered_with_are_refused(world, tmp_path):
    judged(world, world.good, tmp_path)
    file = tmp_path / "assess" / "candidate" / "held-out--general.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    verdict = replay.decide(tmp_path / "assess").verdict
    assert verdict.decision == "refuse"
    assert verdict.reasons[0].startswith("scores: ")
    assert read(tmp_path / "verdict.json", type(verdict)).decision == "promote"
