"""What a budget refuses, it refuses before anything is trained."""

from pathlib import Path
from types import SimpleNamespace

import pytest

import flows.refresh
import flows.train
import tasks.estimate
from ratoon import config, records
from ratoon.config import Ask, ConfigError, TrainConfig
from ratoon.config.budget import Budget
from ratoon.training.meter import Reading
from ratoon.training.probe import Probe
from ratoon.training.request import Portion, Request, Result
from tasks.job import Job

ROOT = Path(__file__).parents[2]
RECIPE = TrainConfig(tokens=1280, learning_rate=1e-3, rows_per_step=8, evaluations=1, checkpoints=1)


@pytest.fixture
def request_():
    portions = {role: Portion(rows="rows", role=role, share=0.5) for role in ("general", "domain")}
    return Request(
        name="r", label="m", model="m", portions=portions, row_tokens=16, recipe=RECIPE, held_out_tokens=16, out="r"
    )


@pytest.fixture
def probes(monkeypatch, request_):
    """How often a machine was measured on which the run takes 10 steps of 360 s, an hour in all."""
    nothing = Reading(rows=8, seconds=0, peak_bytes=0)
    found = Probe(
        device="CPU",
        device_bytes=1,
        disk_free_bytes=1,
        threads=1,
        params=1,
        flops_per_token=1,
        forward_flops_per_token=1,
        weights_bytes=0,
        gradients_bytes=0,
        optimizer_bytes=0,
        methods_bytes=0,
        process_bytes=0,
        start_seconds=0,
        update_seconds=0,
        passes=(Reading(rows=8, seconds=360, peak_bytes=0),),
        evaluations=(nothing,),
        held_out_rows=1,
        held_out_at_once=1,
        checkpoint=nothing,
        checkpoint_bytes=0,
    )
    calls = []

    def measure(request, copies):
        calls.append(request.name)
        return found

    monkeypatch.setattr(tasks.estimate, "measure", measure)
    return calls


@pytest.fixture
def job(tmp_path, monkeypatch, request_):
    monkeypatch.setattr(tasks.estimate, "target", lambda job: request_)

    def make(**limits):
        recipe = RECIPE.model_copy(update={"budget": Budget(**limits)})
        return SimpleNamespace(params=SimpleNamespace(train=recipe), folder=tmp_path)

    return make


def test_without_a_limit_nothing_is_measured(job, probes):
    tasks.estimate.check_budget.fn(job(price=3.0))
    assert probes == []


def test_a_budget_is_asked_once_and_raising_it_needs_no_second_measurement(job, probes):
    with pytest.raises(ConfigError, match=r"train\.budget\.hours: 1 h, allowed 0\.5 h; train\.tokens 640 fits"):
        tasks.estimate.check_budget.fn(job(hours=0.5))
    tasks.estimate.check_budget.fn(job(hours=1.1))
    assert probes == ["r"]


def test_a_run_that_is_carried_out_otherwise_is_measured_anew(job, probes, request_, monkeypatch):
    tasks.estimate.check_budget.fn(job(hours=20))
    recipe = request_.recipe.model_copy(update={"micro_rows": 1})
    monkeypatch.setattr(tasks.estimate, "target", lambda job: request_.model_copy(update={"recipe": recipe}))
    tasks.estimate.check_budget.fn(job(hours=20))
    assert probes == ["r", "r"]


def test_a_run_that_is_done_is_not_asked_about(job, probes, tmp_path):
    (tmp_path / "train" / "step-1").mkdir(parents=True)
    figures = dict.fromkeys(("steps", "tokens", "params_non_embedding", "seconds", "tokens_per_second"), 1)
    result = Result(name="r", model=str(tmp_path / "train" / "step-1"), observations=(), **figures)
    records.write(tmp_path / "train" / "result.json", result)
    tasks.estimate.check_budget.fn(job(hours=0.5))
    assert probes == []


def test_neither_a_budget_nor_how_faults_are_met_nor_where_work_runs_makes_another_question_of_a_refresh():
    def question(section="train", **changes):
        params = config.load(ROOT, changes={section: changes} if changes else {})
        base = config.base(ROOT, params.refresh.base)
        return Job(None, Ask(), params, base, (), Path(), None, {}, Path()).question

    assert question(budget={"hours": 2.0}) == question()
    assert question(faults={"rollbacks": 9}) == question()
    assert question("prepare", engine={"workers": 3}) == question()
    assert question(seed=3) != question()
    by_machine = {"device": "cpu", "threads": 3, "micro_rows": 1, "checkpoints": 9, "activation_checkpointing": True}
    for key, value in (*by_machine.items(), ("processes", 2)):
        assert question(**{key: value}) == question(), key
    # What an option says that is off is no question either.
    assert question(forgetting={"anchor": {"every": 3}}) == question()
    assert question(forgetting={"anchor": {"every": 3, "epsilon": 0.5}}) != question()


def test_a_portion_of_a_source_is_recorded_under_the_sources_edition():
    job = Job(None, Ask(), None, None, (), Path(), None, {"data/rows/nano/web": "a1.dir"}, Path())
    assert job.edition_of(Path("data/rows/nano/web")) == "a1.dir"
    assert job.edition_of(Path("data/rows/nano/web/de")) == "a1.dir"
    assert job.edition_of(Path("data/rows/nano/webs")) is None


@pytest.mark.parametrize("name", ["train", "refresh"])
def test_a_flow_that_the_budget_refuses_trains_nothing(name, monkeypatch):
    flow = getattr(flows, name)
    begun = []

    def refuse(job):
        raise ConfigError("too dear")

    monkeypatch.setattr("tasks.estimate.check_budget", refuse)
    monkeypatch.setattr(flow, "open_job", lambda root, ask: SimpleNamespace(line="m"))
    steps = {"train": ["train_target"], "refresh": ["sweep", "train", "assess", "alone"]}[name]
    for step in steps:
        monkeypatch.setattr(flow, step, lambda *_, step=step: begun.append(step))
    if name == "refresh":
        monkeypatch.setattr(flow, "prepare", lambda ask: None)
        monkeypatch.setattr(flow, "question_answered", lambda job: False)
        monkeypatch.setattr(flow, "cut_short", lambda job: None)
    with pytest.raises(ConfigError, match="too dear"):
        getattr(flow, name).fn(Ask())
    assert begun == []
