"""Arms of a refresh that has ended, end to end on a tiny model: what is kept, resumed, refused, and left alone."""

import dataclasses
import hashlib
import json
import shutil
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import yaml
from held_out_text import prose, write_held_out
from training_text import pack_rows, training_texts, write_training

import tasks.arms
import tasks.history
import tasks.train
from ratoon import config, records
from ratoon.config import Ask, Benchmark, ConfigError, QualityConfig, TrajectoryConfig
from ratoon.evaluation import gate, harness, paired, prompts, suite
from ratoon.evaluation.judges import Judges, together
from ratoon.evaluation.trajectory import KEPT, Trajectory
from ratoon.records import Lineage, Refresh
from ratoon.report import judges as page
from ratoon.training.request import Request, Result
from ratoon.training.run import train
from tasks import disk
from tasks.arms import check_arms, conclude_arms, measure, open_study
from tasks.arms_estimate import estimate
from tasks.assess import candidate_of, score_one
from tasks.judges import conclude_judges, follow_seed, open_judges, seeds_of
from tasks.train import request_of

ROOT = Path(__file__).parents[2]
ROW = 144
PARAMS = {
    "refresh": {"base": "tiny", "sources": ["docs", "code"]},
    "prepare": {"bases": ["tiny"], "rules": {}, "held_out": {"max_tokens": 2000}},
    "train": {
        "tokens": 10 * 4 * ROW,
        "learning_rate": 0.003,
        "rows_per_step": 4,
        "threads": 1,
        "device": "cpu",
        "evaluations": 1,
        "checkpoints": 2,
        "schedule": {"name": "wsd", "warmup_steps": 2, "decay_share": 0.2},
    },
    "sweep": {"tokens": 1000},
    "choose": {"ratio": 0.5},
    "assess": {"items": 24, "max_bytes": 300, "bootstrap": 200},
    "arms": {"retrieved": {"tokens": 40}, "domain_only": {}},
}
BENCHMARKS = [
    Benchmark(name="held-out", version=1, form={"kind": "held_out"}),
    Benchmark(name="next-passage", version=1, form={"kind": "next_passage", "context_bytes": 60}),
]


class Tracked:
    """What would be in MLflow: name and kind of each run, and who is above it."""

    def __init__(self):
        self.runs = []

    @contextmanager
    def run(self, line, name, *, kind, parent_run_id=None, **more):
        self.runs.append((kind, name, parent_run_id))
        yield Page(f"{kind}-{name}")


class Page:
    def __init__(self, name):
        self.id = name

    def __getattr__(self, name):
        return lambda *args, **more: None


@pytest.fixture
def tracked(monkeypatch):
    found = Tracked()
    monkeypatch.setattr(tasks.arms, "tracking", found)
    monkeypatch.setattr(tasks.train, "tracking", found)
    return found


@pytest.fixture(scope="module")
def ended(models, tmp_path_factory):
    """A project whose one refresh has ended, as `ratoon refresh` leaves it."""
    root = tmp_path_factory.mktemp("project")
    for folder in ("data/sources", "models/bases"):
        (root / folder).mkdir(parents=True)
    for name, role in (("docs", "general"), ("code", "domain")):
        clean, texts = root / "data" / "clean" / name, training_texts(name)
        write_held_out(clean, {f"{i:03}": prose(f"{name} {i}", 90 + i) for i in range(24)})
        write_training(clean, texts)
        rows = root / "data" / "rows" / "tiny" / name
        rows.mkdir(parents=True)
        pack_rows(rows, models[0], list(texts.values()), "tiny", ROW)
        declared = {"name": name, "role": role, "kind": "prose", "origins": [{"path": "nowhere"}]}
        (root / "data" / "sources" / f"{name}.yaml").write_text(yaml.safe_dump(declared))
    base = {"name": "tiny", "row_tokens": ROW, "weights": {"kind": "pretrained", "path": str(models[0])}}
    (root / "models" / "bases" / "tiny.yaml").write_text(yaml.safe_dump(base))
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    refresh(root, models[0])
    return root


@pytest.fixture
def project(ended, tmp_path, tracked, monkeypatch):
    root = shutil.copytree(ended, tmp_path / "project")
    monkeypatch.setattr(tasks.train, "supervise", in_this_process)
    return root


def in_this_process(kind, request, out, *, on_line=None):
    out.mkdir(parents=True, exist_ok=True)
    records.write(out / "request.json", request)
    train(request)


def refresh(root, parent):
    """Train, score and judge; no sweep."""
    from ratoon import config
    from ratoon.layout import Layout
    from tasks.job import Job

    params = config.load(root)
    folder = Layout(root).refreshes("ratoon-tiny") / "0-on-base"
    found = [config.source(root, name) for name in params.refresh.sources]
    editions = {f"data/clean/{name}": "1" for name in params.refresh.sources}
    (root / "dvc.lock").write_text(
        yaml.safe_dump({"stages": {p: {"outs": [{"path": p, "md5": "1"}]} for p in editions}})
    )
    job = Job(Layout(root), Ask(), params, config.base(root, "tiny"), tuple(found), parent, None, editions, folder)
    request = request_of(job, 0.5)
    in_this_process("run", request, folder / "train")
    result = records.read(folder / "train" / "result.json", Result)
    assess = folder / "assess"
    held = {source.name: (source.role, Layout(root).clean(source.name)) for source in found}
    suite.build(BENCHMARKS, held, params.assess, assess / "suite")
    for name, model in (("parent", parent), ("candidate", Path(result.model))):
        harness.score(model, assess / "suite", assess / name, row_tokens=ROW, device="cpu", threads=1)
    compared = paired.compare(assess / "parent", assess / "candidate", assess / "suite", params.assess)
    verdict = gate.judge(compared, params.promote, parent=str(parent), candidate=result.model)
    records.write(
        folder / "refresh.json",
        Refresh.model_construct(
            name="ratoon-tiny 2026",
            line="ratoon-tiny",
            base="tiny",
            started="2026-11-21T00:00:00+00:00",
            seconds={},
            params=params.model_dump(mode="json"),
            ledgers=(),
            observations=(),
            curve=(),
            choice=choice(),
            verdict=verdict,
            version=1,
            lineage=Lineage(commit=None, dirty=None, config="", parent="tiny", editions=editions),
        ),
    )
    records.write_text(Layout(root).latest("ratoon-tiny"), json.dumps({"folder": folder.name, "question": "0"}))


def choice():
    at = records.Interval(value=0.5, low=0.4, high=0.6, confidence=0.9)
    return records.Choice(
        share=0.5,
        interval=at,
        reason="asked",
        law="none",
        laws=(),
        params_non_embedding=1,
        tokens=1,
        parent_general_nats=1,
        parent_domain_nats=1,
        ceiling_nats=1,
        tolerance=0.02,
        predicted_general=at,
        predicted_domain=at,
    )


def run_arms(root, *names):
    study = open_study.fn(root, Ask(), names)
    return study, conclude_arms.fn(study, [measure.fn(study, name, None) for name in study.asked.asked])


def digests(folder, leave_out=("arms", "arms.json")):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in leave_out
    }


def test_arms_are_measured_on_the_items_of_the_refresh_and_leave_it_as_it_was(project, tracked):
    folder = project / ".ratoon" / "refreshes" / "ratoon-tiny" / "0-on-base"
    before = digests(folder)
    _, found = run_arms(project)
    assert digests(folder) == before
    assert [arm.name for arm in found.arms] == ["retrieved", "domain_only"]
    for arm in found.arms:
        assert [item.items for item in arm.comparisons] == [24, 24, 24, 24]
        assert [item.candidate.value for item in arm.comparisons] == pytest.approx(
            [item.candidate.value for item in found.against_parent]
        )
    shown, trained = found.arms
    assert shown.cost.training_flops == 0
    assert shown.cost.reading_flops > found.parent_cost.reading_flops
    assert trained.cost.training_flops == found.cost.training_flops
    assert trained.told is None
    assert [run[:2] for run in tracked.runs] == [
        ("arm", "retrieved"),
        ("arm", "domain_only"),
        ("train", "domain_only 100%"),
    ]


def kill_while_scored(project, *names):
    def killed(*args, **more):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "score", killed)
        with pytest.raises(KeyboardInterrupt):
            run_arms(project, *names)


def test_an_arm_that_was_killed_goes_on_and_one_that_is_there_costs_nothing(project, tracked, monkeypatch):
    kill_while_scored(project)
    monkeypatch.setattr(tasks.train, "supervise", None)  # trained already: not again
    tracked.runs.clear()
    _, found = run_arms(project)
    assert [run[1] for run in tracked.runs] == ["domain_only"]
    tracked.runs.clear()
    assert run_arms(project)[1] == found
    assert tracked.runs == []


def test_an_arm_whose_weights_went_before_it_was_measured_is_trained_again(project, tracked, monkeypatch):
    kill_while_scored(project, "domain_only")
    (weights,) = (project / ".ratoon").rglob("arms/*/train/checkpoints")
    before = digests(weights)
    shutil.rmtree(weights)
    _, found = run_arms(project, "domain_only")
    assert [arm.name for arm in found.arms] == ["domain_only"]
    assert digests(weights) == before


def test_weights_that_are_recorded_elsewhere_are_not_gone_and_stay(project):
    """A project whose folder was moved: its records keep the old place."""
    kill_while_scored(project, "domain_only")
    (place,) = (project / ".ratoon").rglob("arms/*/train/result.json")
    result, before = records.read(place, Result), digests(place.parent / "checkpoints")
    moved = result.model.replace(str(project), "/once/here")
    records.write(place, result.model_copy(update={"model": moved}))
    with pytest.raises(ConfigError, match=r"step-0.*recorded as /once/here/.*moved\?(.|\n)*nothing was touched"):
        run_arms(project, "domain_only")
    assert digests(place.parent / "checkpoints") == before


def test_a_candidate_that_is_gone_is_not_one_that_failed(project):
    job = open_study.fn(project, Ask(), ()).job
    shutil.move(candidate_of(job), project / "kept")
    with pytest.raises(ConfigError, match=r"are gone(.|\n)*`ratoon gate .*` judges their scores again; `ratoon train`"):
        candidate_of(job)
    shutil.move(project / "kept", records.read(job.folder / "train" / "result.json", Result).model)
    assert candidate_of(job).is_dir()


def at_the_share_of_the_candidate(monkeypatch):
    """As where the share chosen is an arm's: then that arm is the candidate."""
    monkeypatch.setattr(tasks.arms, "SHARES", {"domain_only": 0.5})


def test_the_same_request_as_the_candidates_is_not_trained_again(project, tracked, monkeypatch):
    monkeypatch.setattr(tasks.train, "supervise", None)
    at_the_share_of_the_candidate(monkeypatch)
    _, found = run_arms(project, "domain_only")
    (arm,) = found.arms
    assert {item.outcome for item in arm.comparisons} == {"tie"}
    assert all(item.difference.value == 0 for item in arm.comparisons)
    assert "the same request as the candidate: not trained again" in arm.notes


def test_arms_measured_before_stay_in_the_record(project):
    run_arms(project, "retrieved")
    _, found = run_arms(project, "few_shot")
    assert [arm.name for arm in found.arms] == ["few_shot", "retrieved"]


def test_an_estimate_runs_nothing_and_knows_what_is_there(project, tracked):
    run_arms(project, "retrieved")
    tracked.runs.clear()
    study = open_study.fn(project, Ask(), ("retrieved", "few_shot", "scratch"))
    few_shot, retrieved, scratch = estimate(study)
    assert (few_shot.measured, retrieved.measured, scratch.measured) == (False, True, False)
    assert retrieved.scoring_flops >= 0.9 * study.measured("retrieved").cost.reading_flops
    assert scratch.training_tokens == 10 * 4 * ROW
    assert tracked.runs == []
    assert not study.folder("scratch").exists()


def test_an_arm_too_short_for_the_schedule_is_refused_by_its_own_key(project):
    step = 4 * ROW
    for name in ("domain_only", "scratch"):
        for tokens, why in ((step - 1, f"less than one step of {step} tokens"), (2 * step, "warm-up in a run of 2")):
            asked = {**PARAMS, "arms": {name: {"tokens": tokens}}}
            (project / "params.yaml").write_text(yaml.safe_dump(asked))
            study = open_study.fn(project, Ask(), ())
            job = dataclasses.replace(study.job, params=config.load(project))
            for ask in (partial(check_arms, job), partial(measure.fn, study, name, None)):
                with pytest.raises(ConfigError, match=rf"params.yaml: arms.{name}.tokens: [\d,]+: (.|\n)*{why}"):
                    ask()
            assert not study.folder(name).exists()


def test_an_arm_that_shows_more_than_the_parent_reads_is_refused_by_its_own_key_before_any_is_measured(project):
    study = open_study.fn(project, Ask(), ())
    reads = json.loads((study.job.parent / "config.json").read_text())["max_position_embeddings"]
    asked = {**PARAMS, "arms": {"domain_only": {}, "few_shot": {"tokens": 20}, "retrieved": {"tokens": reads}}}
    (project / "params.yaml").write_text(yaml.safe_dump(asked))
    job = dataclasses.replace(study.job, params=config.load(project))
    for ask in (partial(check_arms, job), partial(open_study.fn, project, Ask(), ())):
        with pytest.raises(ConfigError, match=rf"params.yaml: arms.retrieved.tokens: {reads} tokens are to be shown"):
            ask()
    assert list(open_study.fn(project, Ask(), ("few_shot",)).asked.asked) == ["few_shot"]


def test_text_that_has_changed_since_is_refused(project):
    lock = project / "dvc.lock"
    lock.write_text(lock.read_text().replace("'1'", "'2'"))
    for ask, what in ((partial(open_study.fn, names=("retrieved",)), "arms"), (open_judges.fn, "seeds")):
        why = (
            f"data/clean/code: the text has changed since ratoon-tiny 2026, and its {what} would be trained on another"
        )
        with pytest.raises(ConfigError, match=rf"{why}; .*`ratoon restore 1 --into \.`"):
            ask(project, Ask())


def test_without_the_candidates_weights_arms_say_how_to_make_them_and_judges_go_on(project):
    study = open_judges.fn(project, Ask())
    kept = study.job.folder / "refresh.json"
    kept.write_text(kept.read_text().replace(str(study.candidate), str(study.candidate.with_name("removed"))))
    with pytest.raises(ConfigError, match=r"ratoon gc(.|\n)*`ratoon train` makes them again"):
        open_study.fn(project, Ask(), ("retrieved",))
    assert run_judges(project, 1)[1].runs == ("seed 1",)


def test_an_arm_and_its_checkpoints_are_asked_room_for_before_it_is_trained(project, monkeypatch):
    monkeypatch.setattr(disk, "free", lambda place: 1000)
    monkeypatch.setattr(tasks.train, "supervise", None)
    with pytest.raises(ConfigError, match=r"domain_only needs about .* lies, and .* are free; nothing was begun"):
        run_arms(project, "domain_only")


def test_without_a_refresh_it_is_told_what_to_run(project):
    (project / ".ratoon" / "refreshes" / "ratoon-tiny" / "latest.json").unlink()
    with pytest.raises(ConfigError, match="no refresh of ratoon-tiny has come to a verdict yet; run `ratoon refresh`"):
        open_study.fn(project, Ask(), ("retrieved",))


QUIZ = Benchmark(
    name="quiz",
    version=1,
    min_documents=2,
    form={
        "kind": "items",
        "path": "quiz.jsonl",
        "ask": "choice",
        "columns": {"choices": "choices"},
        "development": 0.5,
        "prompts": [{"name": "first"}, {"name": "last", "template": "Now say it, please: {question}"}],
    },
)


def with_quiz(root, monkeypatch, **assess):
    """The ended refresh, its suite with a benchmark of two prompts, of which every model takes the last."""
    monkeypatch.setattr(prompts, "max", lambda names, key: [*names][-1], raising=False)
    lines = [{"question": prose(i, 6), "choices": [prose(i + 90, 3), prose(i + 50, 3)], "answer": 0} for i in range(24)]
    (root / "quiz.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = root / ".ratoon" / "refreshes" / "ratoon-tiny" / "0-on-base"
    said = json.loads((folder / "refresh.json").read_text())
    said["params"]["assess"] |= assess
    (folder / "refresh.json").write_text(json.dumps(said))
    shutil.rmtree(folder / "assess")
    study = open_study.fn(root, Ask(), ("second_seed",))
    held = {source.name: (source.role, study.job.layout.clean(source.name)) for source in study.job.sources}
    suite.build([*BENCHMARKS, QUIZ], held, study.job.params.assess, study.suite, root)
    for arm, model in (("parent", study.job.parent), ("candidate", study.candidate)):
        score_one(study.job, model, study.suite, study.scores(arm), lambda *_: None)
    return study


def answers(folder):
    rows = parquet.read_table(folder / "quiz.parquet").sort_by("id").to_pylist()
    return [nats for row in rows for nats in row["loglik_nats"]]


def test_every_arm_is_asked_in_its_own_prompt_as_parent_and_candidate_are(project, monkeypatch):
    study = with_quiz(project, monkeypatch)
    at_the_share_of_the_candidate(monkeypatch)
    asked = {"domain_only": {}, "few_shot": {"max_overlap": 0}}  # the candidate; the parent, shown nothing
    (project / "params.yaml").write_text(yaml.safe_dump({**PARAMS, "arms": asked}))
    study, found = run_arms(project)
    for arm, own in (("domain_only", "candidate"), ("few_shot", "parent")):
        assert answers(study.folder(arm) / "scores") == pytest.approx(answers(study.scores(own)), abs=1e-3)
    assert [len(arm.comparisons) for arm in found.arms] == [5, 5]
    assert {item.outcome for arm in found.arms if arm.name == "domain_only" for item in arm.comparisons} == {"tie"}


def test_an_arm_is_scored_by_the_runner_that_scored_the_candidate(project, monkeypatch):
    score, runners = harness.score, []

    def noted(*args, runner="ratoon", **more):
        runners.append(runner)
        return score(*args, **more)

    monkeypatch.setattr(harness, "score", noted)
    with_quiz(project, monkeypatch, runner="lm_eval")
    run_arms(project, "second_seed")
    assert set(runners) == {"lm_eval"}


# ---------------------------------------------------------------- which tasks may judge


def run_judges(root, *seeds):
    study = open_judges.fn(root, Ask())
    return study, conclude_judges.fn(study, [follow_seed.fn(study, seed, None) for seed in seeds_of(study, seeds)])


def test_seeds_start_alike_and_say_together_which_tasks_may_judge(project, tracked, monkeypatch):
    folder = project / ".ratoon" / "refreshes" / "ratoon-tiny" / "0-on-base"
    before = digests(folder)
    _, found = run_judges(project)
    assert digests(folder, leave_out=("judges", "judges.json")) == before
    assert found.runs == ("seed 1", "seed 2", "seed 3")  # as many as quality.min_runs; the candidate kept none
    assert [run[1] for run in tracked.runs] == ["seed 1", "seed 2", "seed 3"]
    runs = [records.read(folder / "judges" / f"seed-{seed}" / "trajectory.json", Trajectory) for seed in (1, 2, 3)]
    ends = {curve.task: [run.curves[k].values[-1] for run in runs] for k, curve in enumerate(runs[0].curves)}
    assert len(set(ends["held-out--code"])) == 3  # another order of the data, another model
    for each in found.qualities:
        assert each.runs == 3
        assert not any("reference runs" in lack for lack in each.why.split("; "))
    assert records.read(folder / "judges.json", Judges) == found
    assert max(map(len, page.text(found).splitlines())) <= 80
    monkeypatch.setattr(tasks.train, "supervise", None)  # what is there is not trained again
    monkeypatch.setattr(tasks.history.harness, "score", only_recall)
    assert run_judges(project, 1, 2, 3)[1] == found
    assert run_judges(project, 2)[1] == found  # what earlier commands measured counts too
    # A run that did not begin alike is of other items, and one of fewer checkpoints tells less: each is left out.
    other, few = (folder / "judges" / f"seed-{seed}" / "trajectory.json" for seed in (1, 3))
    begun = [each.model_copy(update={"values": (9.0, *each.values[1:])}) for each in runs[0].curves]
    records.write(other, runs[0].model_copy(update={"curves": tuple(begun)}))
    cut = [each.model_copy(update={"values": each.values[:2]}) for each in runs[2].curves]
    records.write(few, runs[2].model_copy(update={"steps": runs[2].steps[:2], "curves": tuple(cut)}))
    assert run_judges(project, 2)[1].runs == ("seed 2",)


def test_a_seed_saves_as_many_checkpoints_as_noise_is_told_by_whatever_the_refresh_saved(project):
    study = open_judges.fn(project, Ask())
    place = study.job.folder / "judges" / "seed-1" / "train"
    asked = study.job.params.train.checkpoints
    assert asked < QualityConfig().last
    follow_seed.fn(study, 1, None)
    assert records.read(place / "request.json", Request).recipe.checkpoints == 2 * QualityConfig().last
    weights = digests(place / "checkpoints")
    # One of the same seed that was made with fewer is made again, to the same end.
    request = records.read(place / "request.json", Request)
    fewer = request.model_copy(update={"recipe": request.recipe.model_copy(update={"checkpoints": asked})})
    records.write(place / "request.json", fewer)
    found = follow_seed.fn(study, 1, None)
    assert records.read(place / "request.json", Request) == request
    assert digests(place / "checkpoints") == weights
    # Of one whose weights were let go of, what was measured stands; of one that was not measured, nothing does.
    for weights_of in ("checkpoints", KEPT):
        shutil.rmtree(place / weights_of)
    assert follow_seed.fn(study, 1, None) == found
    (place.parent / "trajectory.json").unlink()
    assert follow_seed.fn(study, 1, None) == found
    assert digests(place / "checkpoints") == weights


def test_the_candidates_own_checkpoints_count_where_they_are_enough(project):
    study = open_judges.fn(project, Ask())
    assess = study.job.params.assess.model_copy(update={"trajectory": TrajectoryConfig()})
    params = study.job.params.model_copy(update={"assess": assess})
    study = dataclasses.replace(study, job=dataclasses.replace(study.job, params=params))
    curve = {"task": "t", "source": "s", "role": "general", "metric": "accuracy"}
    for steps, seeds in ((range(5), (1, 2, 3)), (range(6), (1, 2))):
        own = Trajectory(run="r", steps=tuple(steps), curves=({**curve, "values": tuple(0.5 for _ in steps)},))
        records.write(study.job.folder / "trajectory.json", own)
        assert seeds_of(study, ()) == seeds


def only_recall(model, tests, out, **settings):
    found = harness.recall(out)
    assert found is not None, f"{out} was scored again"
    return found


def test_the_candidates_own_seed_and_a_seed_twice_are_no_further_runs(project):
    study = open_judges.fn(project, Ask())
    with pytest.raises(ConfigError, match="0 is the seed the candidate was trained with; give others, such as 1"):
        seeds_of(study, (1, 0))
    with pytest.raises(ConfigError, match="1 1: each seed is one run"):
        seeds_of(study, (1, 1))


def test_runs_that_did_not_begin_alike_are_not_taken_together():
    curve = {"task": "t", "source": "s", "role": "general", "metric": "accuracy"}
    one, other = (
        Trajectory(run=name, steps=(0, 5), curves=({**curve, "values": (first, 0.5)},))
        for name, first in (("one", 0.25), ("other", 0.3))
    )
    with pytest.raises(ConfigError, match="t: one and other did not begin at the same score"):
        together([one, other], QualityConfig(), refresh="r", line="l", parent="p")
