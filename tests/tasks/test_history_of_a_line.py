"""Two refreshes and the question of drift, as the flow asks for them: real models, real scores, no training."""

import copy
import json
import math
import random
import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ratoon import records
from ratoon.config import (
    AssessConfig,
    Base,
    Benchmark,
    ConfigError,
    GateConfig,
    HeldOut,
    Pretrained,
    RefreshConfig,
    Source,
    TrainConfig,
)
from ratoon.evaluation import history as past
from ratoon.evaluation import suite
from ratoon.evaluation.drift import Drift
from ratoon.evaluation.forgetting import Matrix
from ratoon.evaluation.noise import Sensitivity
from ratoon.evaluation.probe import Probes
from ratoon.evaluation.replay import Arm, Question
from ratoon.evaluation.shift import Shift
from ratoon.layout import Layout
from ratoon.report import history as page
from tasks import drift, history, tracking

LINE = "ratoon-tiny"
WORDS = ("field", "cane", "root", "stem", "leaf", "rain", "soil", "press", "juice", "syrup", "mill", "harvest", "tall")
ASSESS = AssessConfig(
    bootstrap=200,
    max_bytes=200,
    items=20,
    history={"documents": 6, "min_documents": 5},
    probe={"sequences": 4, "tokens": 16, "items": 8, "context_bytes": 20, "choice_bytes": 10},
    noise={"scales": [0.05], "draws": 1, "documents": 3},
    drift={"min_documents": 5, "bootstrap": 200, "roles": ["domain"]},
)


def prose(seed, words=60):
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(words))


def tiny(folder, seed):
    entries = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bare = Tokenizer(models.BPE(vocab={entry: i for i, entry in enumerate(entries)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    shape = LlamaConfig(
        vocab_size=257,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=96,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(shape).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|end|>").save_pretrained(folder)
    return folder


class Project:
    """What a Job is to these tasks, on text that the test writes."""

    def __init__(self, root):
        self.layout = Layout(root)
        self.models = [tiny(root / f"model-{k}", k) for k in range(3)]
        weights = Pretrained(kind="pretrained", path=str(self.models[0]))
        self.base = Base(name="tiny", row_tokens=96, weights=weights)
        self.sources = [
            Source(name=name, role=role, origins=[{"path": "raw"}])
            for name, role in (("docs", "general"), ("code", "domain"), ("law", "domain"))
        ]
        watched = root / "data" / "sources" / "law.yaml"
        watched.parent.mkdir(parents=True)
        watched.write_text("name: law\nrole: domain\norigins: [{path: raw}]\n")

    def write(self, **counts):
        for name, (begin, end) in counts.items():
            folder = self.layout.clean(name)
            folder.mkdir(parents=True, exist_ok=True)
            columns = {"id": [], "text": []}
            for k in range(begin, end):
                columns["id"].append(f"{name}-{k}")
                columns["text"].append(prose(f"{name} {k}") if k < 1000 else prose(k).upper()[::-1])
            parquet.write_table(pyarrow.table(columns), folder / f"held_out-{begin}.parquet")

    def job(self, name, parent=0, version=None, **assess):
        params = SimpleNamespace(
            assess=ASSESS.model_copy(update=assess),
            prepare=SimpleNamespace(held_out=HeldOut(share=0.4)),
            train=TrainConfig(tokens=100, learning_rate=0.1, rows_per_step=1, device="cpu", threads=1),
            refresh=RefreshConfig(sources=("docs", "code"), watch=("law",), model=LINE),
        )
        return SimpleNamespace(
            layout=self.layout,
            params=params,
            base=self.base,
            sources=tuple(self.sources[:2]),
            parent=self.models[parent],
            parent_version=version,
            folder=self.layout.refreshes(LINE) / name,
            line=LINE,
        )

    def refresh(self, name, candidate, version, parent=0, parent_version=None, **assess):
        job = self.job(name, parent, parent_version, **assess)
        form = Benchmark(name="next", version=1, min_documents=2, form={"kind": "next_passage", "context_bytes": 40})
        clean = {s.name: (s.role, self.layout.clean(s.name)) for s in job.sources}
        suite.build([form], clean, ASSESS, job.folder / "assess" / "suite")
        history.look_back.fn(job, self.models[candidate], f"2026-0{version}-01T00:00:00+00:00")
        history.look_closer.fn(job, self.models[candidate])
        history.remember.fn(job, version, True, None)
        return job


@pytest.fixture(scope="module")
def untracked():
    """MLflow is asked nothing here."""

    @contextmanager
    def run(*_, **__):
        yield SimpleNamespace(metrics=lambda *_: None, artifact=lambda *_: None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "run", run)
        yield


@pytest.fixture
def project(tmp_path, untracked):
    made = Project(tmp_path)
    made.write(docs=(0, 30), code=(0, 30), law=(0, 10))
    return made


@pytest.fixture(scope="module")
def after_two(tmp_path_factory, untracked):
    made = Project(tmp_path_factory.mktemp("line"))
    made.write(docs=(0, 30), code=(0, 30), law=(0, 10))
    made.refresh("one", 1, 1)
    made.write(docs=(30, 40), code=(1000, 1012))
    made.refresh("two", 2, 2, parent=1, parent_version=1)
    return made


@pytest.fixture
def two(after_two, tmp_path):
    """A copy of a line with two refreshes, and the job of the second."""
    shutil.copytree(after_two.layout.root, tmp_path, dirs_exist_ok=True)
    made = copy.copy(after_two)
    made.layout = Layout(tmp_path)
    return made, made.job("two", parent=1, version=1)


def test_a_chain_of_refreshes_leaves_a_matrix_and_every_other_record(two):
    _, job = two
    found = records.read(job.folder / "matrix.json", Matrix)
    assert [row.label for row in found.models] == ["base", "v1", "v2"]
    assert [each.name for each in found.slices] == ["code.r1", "docs.r1", "law.r1", "code.r2", "docs.r2"]
    assert all(value is not None for row in found.scores for value in row[:3])
    assert found.figures["domain"]["bwt"] is not None
    assert set(found.figures["watched"]) == {"acc", "step", "total"}
    assert records.read(job.folder / "shift.json", Shift).total.distance > 0
    assert records.read(job.folder / "probes.json", Probes).parent.model == "model-1"
    assert records.read(job.folder / "noise.json", Sensitivity).documents == 9
    assert not (job.folder / "trajectory.json").exists()
    assert not (job.folder / "periods.json").exists()
    said = page.text(found, page.beside(job.folder))
    assert max(map(len, said.splitlines())) <= 80
    assert "law (watched)" in said


def test_a_frozen_model_has_forgotten_nothing(project):
    project.refresh("one", 0, 1)
    project.write(code=(1000, 1012))
    job = project.refresh("two", 0, 2, parent=0, parent_version=1)
    figures = records.read(job.folder / "matrix.json", Matrix).figures["domain"]
    for name in ("bwt", "forgetting", "plasticity", "step", "total"):
        assert figures[name].value == pytest.approx(0, abs=1e-9), name


def test_a_refresh_that_was_killed_and_runs_again_keeps_its_text_and_its_scores(two):
    project, job = two
    folder = project.layout.history(LINE)
    before = {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    history.look_back.fn(job, project.models[2], "2026-02-01T00:00:00+00:00")
    history.remember.fn(job, 2, True, None)
    assert {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()} == before


def test_a_parent_from_before_there_was_a_history_begins_one(project):
    job = project.refresh("later", 2, 8, parent=1, parent_version=7)
    found = records.read(job.folder / "matrix.json", Matrix)
    assert [row.label for row in found.models] == ["base", "v7", "v8"]
    assert all(value is not None for row in found.scores for value in row)


def test_without_history_nothing_is_kept_and_the_records_of_an_earlier_run_go(project):
    job = project.refresh("one", 1, 1, history=None, probe=None, noise=None)
    assert not project.layout.history(LINE).exists()
    assert sorted(p.name for p in job.folder.glob("*.json")) == ["shift.json"]


def costs(known):
    """In place of the scorer: source -> bits per byte of every document."""

    def score(_model, tests, out):
        out.mkdir(parents=True, exist_ok=True)
        for file in tests.glob("*.jsonl"):
            items = [json.loads(line) for line in file.read_text().splitlines()]
            bits = known[file.stem.partition("--")[2]]
            rows = [{"document": i["id"], "loglik_nats": [-bits * math.log(2) * 100], "bytes": 100} for i in items]
            parquet.write_table(pyarrow.Table.from_pylist(rows), out / f"{file.stem}.parquet")

    return lambda _job: score


@pytest.mark.parametrize(("factor", "drifted"), [(1.2, True), (1.01, False)])
def test_text_that_moved_away_is_announced_and_text_that_did_not_is_not(two, monkeypatch, factor, drifted):
    project, _ = two
    project.write(code=(2000, 2008), law=(2000, 2008))
    said = []
    monkeypatch.setattr(drift, "emit_event", lambda name, **more: said.append((name, more)))
    known = {"code.new": 2 * factor, "code.old": 2.0, "law.new": 9.0, "law.old": 2.0}
    monkeypatch.setattr(drift, "scorer", costs(known))
    found = drift.measure_drift.fn(project.job("none", 2, 2))
    by = {each.source: each for each in found.sources}
    assert (found.champion, found.drifted) == ("v2", drifted)
    assert by["code"].drift.value == pytest.approx(factor - 1)
    assert by["code"].new_documents == 8
    assert by["docs"].drift is None  # nothing new came of it
    assert by["law"].over  # told, but watched sources do not ask for a refresh here
    assert len(said) == drifted
    if drifted:
        ((name, more),) = said
        assert name == "ratoon.drift"
        assert more["resource"]["prefect.resource.id"] == f"ratoon.line.{LINE}"
    assert records.read(project.layout.history(LINE) / "drift.json", Drift) == found
    assert "new is what came since 2026-02-01" in " ".join(page.drift_text(found).split())


def test_a_batch_too_small_for_a_slice_is_old_to_the_model_that_was_made_of_it_and_waits_for_the_next(two):
    project, _ = two
    project.write(code=(2000, 2003))  # three; a slice takes five
    project.refresh("three", 2, 3, parent=2, parent_version=2)
    found = past.load(project.layout.history(LINE), LINE)
    assert not any(each.refresh == "three" for each in found.slices)
    assert found.row("three").waiting == ("code-2000", "code-2001", "code-2002")
    project.write(code=(2003, 2008))
    (code,) = (each for each in drift.measure_drift.fn(project.job("none", 2, 3)).sources if each.source == "code")
    assert (code.new_documents, code.old_documents) == (5, 45)
    project.refresh("four", 2, 4, parent=2, parent_version=3)
    found = past.load(project.layout.history(LINE), LINE)
    (made,) = (each for each in found.slices if each.refresh == "four")
    assert (made.name, made.documents) == ("code.r3", 6)
    assert made.arrived == 8
    assert found.row("four").waiting == ()


def test_a_champion_is_asked_about_new_text_with_its_own_scorer(two):
    project, _ = two
    project.write(code=(2000, 2008))
    (code,) = (each for each in drift.measure_drift.fn(project.job("none", 2, 2)).sources if each.source == "code")
    assert code.new == pytest.approx(8, rel=0.2)  # a model that knows nothing, of bytes
    assert code.old == pytest.approx(8, rel=0.2)


def test_the_newest_row_is_the_last_refresh(two):
    project, _ = two
    found = past.load(project.layout.history(LINE), LINE)
    assert past.newest(found).name == "two"


def test_a_candidate_that_cannot_be_scored_is_refused_and_asked_no_more(project):
    job = project.job("one")
    (broken,) = project.models[1].glob("*.safetensors")
    weights = {name: torch.full_like(tensor, math.nan) for name, tensor in load_file(broken).items()}
    save_file(weights, broken, {"format": "pt"})
    with pytest.raises(ConfigError, match="are not finite; training has diverged") as found:
        history.look_back.fn(job, project.models[1], "2026-01-01T00:00:00+00:00")
    shutil.rmtree(project.layout.history(LINE))
    arms = {"parent": Arm(model="p"), "candidate": Arm(model="c", fault=str(found.value))}
    records.write(job.folder / "assess" / "gate.json", Question(policy=GateConfig(), assess=ASSESS, **arms))
    history.look_back.fn(job, project.models[1], "2026-01-01T00:00:00+00:00")
    history.look_closer.fn(job, project.models[1])
    history.remember.fn(job, 1, False, None)
    assert not project.layout.history(LINE).exists()
    assert not list(job.folder.glob("*.json"))
