"""Refreshes made worse on purpose, made better and made in between, each as a whole: what the flow says and moves.

Nothing is made up but the text: DVC makes the editions, models are trained, scored and judged, and MLflow keeps the
versions. Training runs in this process and not in its own, which is the one thing that is spared. Nearly every
refresh has a model line of its own, so that none depends on another; all begin at one base.
"""

import importlib
import json
import os
import random
import shutil
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SYLLABLES = {
    "fields": "cane root stem leaf rain soil press mill tall reed plow seed barn dew",
    "cellar": "vat brew malt hops keg froth mash wort yeast lag cask cork pint rye",
}
ROW = 64
STEPS = 60
SMALL = {
    "refresh": {"base": "tiny", "sources": ["fields", "cellar"], "watch": [], "push": False},
    "prepare": {
        "bases": ["tiny"],
        "rules": {"prose": {}},
        "languages": {},
        "amend": {},
        "dedup": {"near": None},
        "held_out": {"share": 0.2, "max_tokens": 2000, "min_documents": 20},
    },
    "train": {
        "tokens": STEPS * 16 * ROW,
        "learning_rate": 0.005,
        "rows_per_step": 16,
        "schedule": {"name": "wsd", "warmup_steps": 2, "decay_share": 0.3},
        "threads": 1,
        "block_rows": 16,
        "evaluations": 1,
        "checkpoints": 4,
        "device": "cpu",
    },
    "sweep": {"ratios": [0.1, 0.3, 0.5, 0.7, 0.9], "tokens": 8 * 16 * ROW, "horizons": 2, "stacked": "never"},
    "choose": {"ratio": 0.4, "bootstrap": 50},
    "assess": {
        "max_documents": 60,
        "max_bytes": 300,
        "items": 40,
        "generation": None,
        "history": None,
        "probe": None,
        "noise": None,
        "periods": None,
    },
    # Answers of so small a model say nothing.
    "promote": {"max_general_loss": 0.02, "max_benchmark_loss": 1},
}


def texts(source, documents, seed):
    """Sentences of the source's words, each of which has three that may follow it."""
    habits, draw = random.Random(source), random.Random(f"{source} {seed}")
    parts = SYLLABLES[source].split()
    known = [one + other for one in parts for other in parts]
    follows = {word: habits.sample(known, 3) for word in known}
    for _ in range(documents):
        words = [draw.choice(known)]
        for _ in range(draw.randint(20, 80)):
            words.append(draw.choice(follows[words[-1]]))
        yield " ".join(words) + "."


def shuffled(text, number):
    letters = list(text)
    random.Random(number).shuffle(letters)
    return "".join(letters)


def declare(root, folder, name, **declared):
    (root / "data" / folder / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, **declared}))


def add_source(root, name, role, found):
    raw = root / "data" / "raw" / name
    raw.mkdir(parents=True)
    (raw / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in found))
    declare(root, "sources", name, role=role, kind="prose", origins=[{"path": f"data/raw/{name}"}])


@pytest.fixture(scope="module")
def project(new_project):
    """Text, its shuffled copy, and a quiz of clean domain text that no training sees; the base is trained here."""
    made = new_project("verdicts", 1)
    root = made.root
    for folder in ("sources", "benchmarks"):
        for declared in (root / "data" / folder).glob("*.yaml"):
            declared.unlink()
    shutil.rmtree(root / "models" / "bases")
    (root / "models" / "bases").mkdir()
    add_source(root, "fields", "general", texts("fields", 400, "train"))
    domain = list(texts("cellar", 400, "train"))
    add_source(root, "cellar", "domain", domain)
    add_source(root, "garbled", "domain", [shuffled(text, k) for k, text in enumerate(domain)])
    declare(root, "benchmarks", "held-out", version=1, form={"kind": "held_out"})
    asked = root / "data" / "benchmarks" / "clean.jsonl"
    asked.write_text("".join(json.dumps({"question": text[:300]}) + "\n" for text in texts("cellar", 60, "asked")))
    form = {"kind": "items", "path": "data/benchmarks/clean.jsonl", "ask": "rolling", "role": "domain"}
    declare(root, "benchmarks", "clean", version=1, form={**form, "columns": {"answer": None}})
    shape = {"hidden": 32, "layers": 1, "heads": 2, "feed_forward": 64, "context": ROW, "vocabulary": 512}
    weights = {"kind": "scratch", **shape, "tokens": 120 * 8 * ROW, "learning_rate": 0.01, "rows_per_step": 8}
    base = {"name": "tiny", "row_tokens": ROW, "family": [], "weights": weights}
    (root / "models" / "bases" / "tiny.yaml").write_text(yaml.safe_dump(base))
    write_params(root)
    return made


def write_params(root, **changes):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())  # DVC asks for keys that have a default too
    for section, keys in [*SMALL.items(), *changes.items()]:
        params[section] = {**params.get(section, {}), **keys}
    (root / "params.yaml").write_text(yaml.safe_dump(params))


@pytest.fixture(scope="module")
def services(project):
    """Prefect's API for tests; MLflow and DVC in the project's folder."""
    for name in ("MLFLOW_TRACKING_URI", "RATOON_DEFAULTS"):
        os.environ.pop(name, None)
    from tasks import environment

    environment.apply(project.root)
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180), chdir(project.root):
        yield


@pytest.fixture
def refreshed(project, services, monkeypatch):
    """One refresh of a line of its own: its verdict, its folder, and where the line's aliases are."""
    import flows.refresh
    import tasks.prepare
    import tasks.sweep
    import tasks.train
    from ratoon import records
    from ratoon.training.__main__ import carry_out
    from ratoon.training.batch import BatchResult
    from ratoon.training.run import train
    from tasks import tracking

    def in_this_process(kind, request, out, *, on_line=None):
        records.write(out / "request.json", request)
        if kind == "batch":
            made = [train(one.model_copy(update={"recipe": alone(one.recipe)})) for one in request.requests]
            records.write(out / "result.json", BatchResult(results=tuple(made)))
        else:
            carry_out(kind, out / "request.json")

    def in_turn(function, items, workers, poll, ends=bool):
        return [function(item) for item in items]

    for module in (tasks.prepare, tasks.sweep, tasks.train):
        monkeypatch.setattr(module, "supervise", in_this_process)
    monkeypatch.setattr("ratoon.training.sweep.map_processes", in_turn)

    def refresh(line, between=None, **changes):
        write_params(project.root, **{**changes, "refresh": {"model": line, **changes.get("refresh", {})}})
        if between is not None:
            train = flows.refresh.train
            monkeypatch.setattr(flows.refresh, "train", lambda *asked: between(train(*asked)))
        state = flows.refresh.refresh(return_state=True)
        assert state.is_completed(), state.message
        folder, found = project.latest(line)
        champion = tracking.champion(line)
        return Outcome(state.message, folder, found["verdict"], champion and champion.version, tracking.versions(line))

    return refresh


def swap_words(model):
    """Two entries of its tokenizer change places."""
    file = model / "tokenizer.json"
    whole = json.loads(file.read_text())
    words = whole["model"]["vocab"]
    one, other = sorted(words, key=words.get)[40:42]
    words[one], words[other] = words[other], words[one]
    file.write_text(json.dumps(whole))


def alone(recipe):
    return recipe.model_copy(update={"threads": 1})


class Outcome(NamedTuple):
    message: str
    folder: Path
    verdict: dict
    champion: int | None
    versions: list

    @property
    def tags(self):
        (only,) = self.versions
        return only.tags


def test_a_better_model_is_promoted(refreshed):
    found = refreshed("better")
    assert found.verdict["decision"] == "promote", found.verdict["reasons"]
    assert found.message.startswith("better version 1 promoted: ")
    assert found.champion == 1
    assert "<svg" in (found.folder / "report.html").read_text()


def test_arms_that_are_asked_for_later_stand_on_the_page_and_the_card(refreshed):
    from flows.arms import arms
    from tasks import tracking

    found = refreshed("better")
    told = [found.folder / "report.html", found.folder / "model-card.md"]
    before = [path.read_text() for path in told]
    assert arms(names=("few_shot",)).keys() == {"few_shot"}
    after = [path.read_text() for path in told]
    assert 'id="arms"' in after[0]
    assert 'id="arms"' not in before[0]
    assert "## Was it worth it?" in after[1]
    assert "## Was it worth it?" not in before[1]
    assert (Path(found.verdict["candidate"]) / "README.md").read_text() == after[1]
    assert tracking.champion("better").version == found.champion


def test_a_report_made_again_has_the_links_and_the_card_it_had(refreshed, monkeypatch, capsys):
    from ratoon.cli import main

    def lost(refresh):
        raise ConnectionError("nobody answers")

    found = refreshed("better")
    card, page = Path(found.verdict["candidate"]) / "README.md", found.folder / "report.html"
    said = card.read_text()
    card.unlink()
    monkeypatch.setattr("tasks.promote.links_of", lambda refresh: {"MLflow: refresh": "http://mlflow/run"})
    assert main(["report"]) == 0
    assert "http://mlflow/run" in page.read_text()
    assert card.read_text() == said
    monkeypatch.setattr("tasks.promote.links_of", lost)
    assert main(["report"]) == 0
    assert "http://mlflow/run" not in page.read_text()


def test_an_arm_that_fails_after_the_verdict_is_told_and_the_verdict_stands(refreshed, monkeypatch, capsys):
    import flows.refresh
    from ratoon.config import ConfigError

    def broken(*asked):
        order.append("arms")
        raise ConfigError("no room for an arm")

    order = []
    monkeypatch.setenv("RATOON_LIVE", "1")
    monkeypatch.setattr("flows.arms.measure", broken)
    monkeypatch.setattr(flows.refresh.announce, "verdict", lambda *told: order.append("verdict"))
    found = refreshed("unarmed", arms={"few_shot": {}})
    assert order == ["verdict", "arms"]
    assert found.message.startswith("unarmed version 1 promoted")
    assert found.champion == 1
    said = capsys.readouterr().err
    assert "note: the verdict stands, and not all arms were measured; `ratoon arms` goes on with them: no room" in said


def test_arms_that_cannot_be_trained_are_refused_before_anything_is(refreshed, project):
    step = 16 * ROW
    for wrong, why in (
        (
            {"domain_only": {"tokens": 2 * step}},
            f"arms.domain_only.tokens: {2 * step:,}: steps of {step:,} tokens: 2, ",
        ),
        ({"second_seed": {"seed": 0}}, "arms.second_seed.seed: 0, and the candidate was trained with train.seed 0"),
    ):
        with pytest.raises(AssertionError, match=why):
            refreshed("early", arms=wrong)
    assert not list((project.root / ".ratoon" / "refreshes" / "early").glob("*/train"))


def test_a_model_of_domain_text_alone_is_refused_for_what_it_forgot(refreshed):
    found = refreshed("forgetful", choose={"ratio": 1.0})
    assert found.verdict["decision"] == "refuse"
    assert found.verdict["reasons"][0].startswith("general text fields: bits per byte +")
    assert found.verdict["reasons"][0].endswith("allowed +2.0%; too much")
    assert all(demand["state"] == "shown" for demand in found.verdict["demands"] if demand["kind"] == "gain")
    assert found.champion is None
    assert found.tags["verdict"] == "refused"


def test_a_champion_that_goes_on_with_garbled_domain_text_is_refused_for_the_domain(refreshed):
    """Its own held-out text is as garbled: only clean domain text that is no part of the source can tell."""
    assert refreshed("better").champion == 1
    found = refreshed("better", refresh={"sources": ["fields", "garbled"]})
    assert found.verdict["decision"] == "refuse"
    assert found.verdict["reasons"][0].startswith("domain text clean: bits per byte +")
    gains = {demand["source"]: demand["state"] for demand in found.verdict["demands"] if demand["kind"] == "gain"}
    assert gains == {"clean": "contradicted", "garbled": "shown"}
    assert found.champion == 1


CONCLUDING = (
    "tasks.tracking.register",
    "tasks.tracking.promote",
    "flows.refresh.registered",
    "flows.refresh.remember",
    "flows.refresh.record_pointers",
    "flows.refresh.conclude",
    "tasks.promote.finish",
    "tasks.promote.tell",
    "flows.refresh.end",
)


class Death(RuntimeError):
    """Of a machine that loses its power: nothing heals it, and nothing waits."""


def test_a_refresh_that_dies_after_its_verdict_is_ended_by_the_next_and_nothing_is_done_twice(refreshed, monkeypatch):
    """It dies behind every step in turn, of one and the same refresh."""
    import flows.refresh
    from tasks import tracking

    def dies_behind(name):
        module, step = name.rsplit(".", 1)
        done = getattr(importlib.import_module(module), step)

        def step_and_die(*given, **more):
            done(*given, **more)
            raise Death(name)

        return step_and_die

    for name in CONCLUDING:
        with monkeypatch.context() as patch:
            patch.setattr(name, dies_behind(name))
            with pytest.raises(AssertionError, match=name):
                refreshed("cut-short")
        if name == "tasks.tracking.promote":
            assert tracking.champion("cut-short").version == 1
            trained = flows.refresh.train
            monkeypatch.setattr(flows.refresh, "train", lambda *asked: pytest.fail("trained a second time"))
    monkeypatch.setattr(flows.refresh, "train", trained)
    found = refreshed("cut-short")
    assert found.message.startswith("nothing new for cut-short since ")  # at the last it died behind the last step
    assert [(item.version, item.aliases) for item in found.versions] == [(1, ("champion",))]
    assert [path.name for path in found.folder.parent.iterdir() if path.is_dir()] == [found.folder.name]
    record = json.loads((found.folder / "refresh.json").read_text())
    assert (record["version"], record["lineage"]["parent"]) == (1, "tiny")
    assert set(record["seconds"]) == {"prepare", "sweep", "train", "assess"}
    assert (found.folder / "report.html").exists()
    assert (found.folder / "model-card.md").exists()


def test_a_refusal_that_is_asked_again_by_force_is_the_same_version(refreshed):
    import flows.refresh
    from ratoon.config import Ask

    before = refreshed("forgetful", choose={"ratio": 1.0})
    assert before.verdict["decision"] == "refuse"
    assert flows.refresh.refresh(Ask(force=True), return_state=True).message.startswith("forgetful version 1 refused")
    assert len(refreshed("forgetful", choose={"ratio": 1.0}).versions) == 1


@pytest.fixture
def exam(project):
    """A benchmark that nobody was asked yet; called to declare it."""
    folder = project.root / "data" / "benchmarks"

    def declare_it():
        form = yaml.safe_load((folder / "clean.yaml").read_text())["form"]
        declare(project.root, "benchmarks", "exam", version=1, form=form)

    yield declare_it
    (folder / "exam.yaml").unlink(missing_ok=True)


def benchmarks_in(path):
    found = json.loads(path.read_text())
    return {item["benchmark"] for item in found.get("verdict", found)["comparisons"]}


@pytest.mark.parametrize("line", ["cut-short", "forgetful"])
def test_a_benchmark_that_is_declared_later_is_told_of_and_asked_without_training(refreshed, exam, line, monkeypatch):
    import flows.refresh
    from flows.assess import assess
    from ratoon.config import Ask

    asked = {"choose": {"ratio": 1.0}} if line == "forgetful" else {}
    before = refreshed(line, **asked)
    told = [before.folder / name for name in ("refresh.json", "verdict.json", "report.html")]
    kept = [path.read_bytes() for path in told]
    exam()
    monkeypatch.setattr("tasks.train.supervise", lambda *given, **more: pytest.fail("trained a second time"))
    message = refreshed(line, **asked).message
    assert "\n  data/benchmarks/exam.yaml: new or changed since, and asked of no model; `ratoon " in message
    assert ("`ratoon refresh --force` judges" in message) == (line == "forgetful")

    said = assess(Ask())
    later = before.folder / "verdict-later.json"
    assert said["note"] == f"the refresh stands as it was recorded; this verdict is in {later}"
    assert "exam" in benchmarks_in(later)
    assert [path.read_bytes() for path in told] == kept

    if line == "forgetful":
        monkeypatch.undo()
        forced = flows.refresh.refresh(Ask(force=True), return_state=True)
        assert forced.message.startswith("forgetful version 1 refused")
        assert "exam" in benchmarks_in(told[0])
        assert benchmarks_in(told[0]) == benchmarks_in(told[1])
        assert not later.exists()
        assert "new or changed" not in refreshed(line, **asked).message


@pytest.mark.slow
def test_a_training_far_too_short_is_refused_where_a_gain_worth_having_is_asked_for(refreshed):
    """In pairs the least gain is sure: that it is too little is for promote.min_domain_gain to say."""
    recipe = {"tokens": 4 * 16 * ROW, "learning_rate": 1e-5, "schedule": {"name": "constant", "warmup_steps": 0}}
    found = refreshed("brief", train=recipe, promote={"min_domain_gain": 0.05})
    assert found.verdict["decision"] == "refuse"
    assert found.verdict["reasons"][0].startswith("domain text c")
    assert found.verdict["reasons"][0].endswith("asked for at least 5.0% lower; too little")
    assert found.champion is None


@pytest.mark.slow
def test_a_checkpoint_from_the_middle_of_the_training_is_refused_though_its_scores_pass(refreshed):
    """As where the last checkpoint was lost, and a person pointed the result at one that was left."""

    def fall_back(trained):
        result = Path(trained["model"]).parents[1] / "result.json"
        early, *_ = sorted(Path(trained["model"]).parent.glob("step-*"))
        assert early != Path(trained["model"])
        raw = json.loads(result.read_text())
        result.write_text(json.dumps({**raw, "model": str(early)}))
        return {**trained, "model": str(early)}

    found = refreshed("cut", between=fall_back)
    assert found.verdict["decision"] == "refuse"
    assert found.verdict["reasons"][0].startswith("training: cut short at step ")
    assert found.verdict["reasons"][0].endswith(f" of {STEPS}")
    assert found.champion is None


@pytest.mark.slow
def test_a_tokenizer_that_changed_after_the_training_is_refused_as_such(refreshed):
    def another(trained):
        swap_words(Path(trained["model"]))
        return trained

    found = refreshed("mismatched", between=another)
    assert found.verdict["decision"] == "refuse"
    assert found.verdict["reasons"][0].startswith("tokenizer: the candidate's is ")
    assert found.champion is None


@pytest.mark.slow
def test_one_in_between_asks_and_becomes_the_challenger(refreshed):
    """The policy is drawn where the truth may lie on either side: at what a first refresh had measured."""
    first = refreshed("between", choose={"ratio": 0.9}, promote={"max_general_loss": 0.0})
    (general,) = (item for item in first.verdict["comparisons"] if item["role"] == "general")
    measured = general["relative"]["value"]
    assert measured > 0, "general text was to be forgotten a little"
    again = refreshed("between-too", choose={"ratio": 0.9}, promote={"max_general_loss": round(measured, 4)})
    assert again.verdict["decision"] == "ask", again.verdict["reasons"]
    assert "general text fields: bits per byte +" in again.verdict["reasons"][0]
    assert "that it stays below is not shown (60 documents show it where" in again.verdict["reasons"][0]
    assert again.champion is None
    assert again.tags["verdict"] == "asks"


@pytest.mark.slow
def test_rows_of_another_tokenizer_than_the_champions_are_refused_before_anything_is_trained(refreshed, project):
    """As where a champion was made elsewhere, or its folder was repaired with a newer release of the tokenizer."""
    import flows.refresh
    from ratoon.config import Ask, ConfigError

    first = refreshed("grown")
    assert first.champion == 1
    swap_words(Path(first.verdict["candidate"]))
    state = flows.refresh.refresh(Ask(force=True), return_state=True)
    assert not state.is_completed()
    with pytest.raises(ConfigError, match="packed with tokenizer"):
        state.result()
    assert project.latest("grown")[0] == first.folder
