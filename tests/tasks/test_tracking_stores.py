"""Promises of what MLflow's page and registry show, the same on SQLite and on a server with PostgreSQL and S3.

The second needs PostgreSQL's programs (Debian: postgresql), psycopg2 and boto3 (docker/extras.txt) and moto[server].
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest
from postgres_server import free_port, postgres, start

from ratoon import config
from ratoon.config import ConfigError
from ratoon.records import Observation
from tasks import environment, status, tracking
from tasks.tracking import experiments, naming, spool

SOURCES = {"python-docs": "general", "python-code": "domain"}
ROOT = Path(__file__).parents[2]


def storage(ends):
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    start(ends, command, ("127.0.0.1", port), stderr=subprocess.DEVNULL)
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    import boto3

    plain = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=address, **plain).create_bucket(Bucket="mlflow")
    return {**keys, "MLFLOW_S3_ENDPOINT_URL": address}


def served(ends, folder):
    """The address of an MLflow server as docker/compose.yaml lays it out."""
    for module in ("psycopg2", "boto3", "moto"):
        pytest.importorskip(module, reason=f"{module} is not installed (docker/extras.txt, moto[server])")
    port, given = free_port(), {}
    given |= {
        "MLFLOW_BACKEND_STORE_URI": postgres(ends, "mlflow")[0],
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow",
        **storage(ends),
    }
    given |= {"MLFLOW_SERVE_ARTIFACTS": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("wb") as log:
        start(ends, command, ("127.0.0.1", port), env={**os.environ, **given}, stderr=log)
    address = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            return urllib.request.urlopen(f"{address}/health", timeout=2).close() or address
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError((folder / "server.log").read_text())


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql and s3", marks=pytest.mark.slow)])
def store(request, tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("store"), dict(os.environ)
    with ExitStack() as ends:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if request.param != "sqlite":
            os.environ["MLFLOW_TRACKING_URI"] = served(ends, folder)
        environment.apply(folder)
        yield request.param
    os.environ.clear()
    os.environ.update(before)


def model(folder):
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def fetched(place, run_id, path):
    return Path(tracking.client().download_artifacts(run_id, path, str(place))).read_text(encoding="utf-8")


def test_a_run_shows_what_differs_and_keeps_all_that_was_asked(store, tmp_path):
    params = config.load(ROOT)
    with tracking.run("line", "refresh", kind="refresh") as run:
        run.params(params)
    shown = tracking.client().get_run(run.id).data.params
    assert len(shown) < 45
    assert {"refresh.base", "train.tokens", "train.learning_rate", "sweep.ratios"} <= set(shown)
    assert json.loads(fetched(tmp_path, run.id, "params.json")) == params.model_dump(mode="json")


def test_every_parameter_that_departs_from_its_default_is_shown():
    params = config.load(ROOT, changes={"promote": {"min_domain_gain": 0.03}, "train": {"weight_decay": 0.2}})
    shown = naming.telling(params)
    assert (shown["promote.min_domain_gain"], shown["train.weight_decay"]) == (0.03, 0.2)


def test_a_dataset_has_dvcs_whole_hash_as_digest_and_as_tag(store):
    whole = "3c5d3b5c78a87cf22a6606a1be9cb0eb.dir"
    with tracking.run("line", "reads", kind="train") as run:
        run.dataset("python-docs", whole, "data/rows/nano/python-docs", role="general")
    kept = tracking.client().get_run(run.id)
    assert kept.inputs.dataset_inputs[0].dataset.digest == whole
    assert kept.data.tags["dvc.md5.data/rows/nano/python-docs"] == whole


def test_tokens_are_a_metric_at_every_step(store):
    with tracking.run("line", "tokens", kind="train") as run:
        for step in range(5):
            run.metrics({"train/loss_nats": 1.0 / (step + 1)}, step=step, tokens=64 * step, at=1000.0 + step)
    points = tracking.client().get_metric_history(run.id, "tokens")
    assert [(point.step, point.value, point.timestamp) for point in points] == [
        (step, 64.0 * step, 1_000_000 + 1000 * step) for step in range(5)
    ]


def test_a_step_that_comes_twice_has_one_point_of_each_name(store):
    with tracking.run("line", "evaluated", kind="train") as run:
        run.metrics({"train/loss_nats": 2.0}, step=32, tokens=2048, at=1.0)
        run.metrics({"held_out/docs/loss_nats": 3.0}, step=32, tokens=2048, at=9.0)
        run.metrics({"train/loss_nats": 1.9}, step=33, tokens=2112, at=10.0)
    points = tracking.client().get_metric_history(run.id, "tokens")
    assert [(point.step, point.value) for point in points] == [(32, 2048.0), (33, 2112.0)]


def test_what_is_sent_twice_is_there_once(store):
    records = [{"metrics": [["loss", step / 3, 1000 + step, step] for step in range(1000)]}, {"tags": {"a": "b"}}]
    with tracking.run("line", "twice", kind="train") as run:
        for part in (records, records[:1], records):
            spool.deliver(tracking.client(), tracking.store(), run.id, part)
    points = tracking.client().get_metric_history(run.id, "loss")
    assert [(point.step, point.value) for point in points] == [(step, step / 3) for step in range(1000)]
    assert tracking.client().get_run(run.id).data.tags["a"] == "b"


def test_numbers_that_are_none_arrive_as_they_are(store):
    with tracking.run("line", "diverged", kind="train") as run:
        run.metrics({"grad_norm": float("nan"), "loss": 2.0}, step=1)
    assert tracking.client().get_run(run.id).data.metrics["loss"] == 2.0
    assert tracking.client().get_metric_history(run.id, "grad_norm")[0].value != 2.0


def test_a_version_leads_back_to_its_checkpoint_run_and_verdict(store, tmp_path):
    folder = model(tmp_path / "step-00000390")
    with tracking.run("led", "train 36%", kind="train") as run:
        run.checkpoint(folder, 390, {"held_out/python-code/loss_nats": 3.5}, {"domain_share": 0.36})
    with tracking.run("led", "assess", kind="assess") as assess:
        assess.about(folder, {"held-out/python-code/candidate": 2.25})
    number = tracking.register("led", folder, run.id, {"gate": "promote"}, "**promoted**: better")
    made = tracking.client().get_model_version("led", str(number))
    kept = tracking.client().get_logged_model(made.tags["logged_model"])
    assert (made.run_id, made.description, made.tags["gate"]) == (run.id, "**promoted**: better", "promote")
    assert kept.status == "READY"
    assert kept.source_run_id == run.id
    assert {metric.key: metric.value for metric in kept.metrics} == {
        "held_out/python-code/loss_nats": 3.5,
        "held-out/python-code/candidate": 2.25,
    }
    outputs = tracking.client().get_run(run.id).outputs.model_outputs
    assert [(output.model_id, output.step) for output in outputs] == [(kept.model_id, 390)]


def test_weights_are_pointed_to_and_never_copied(store, tmp_path):
    folder = model(tmp_path / "step-00000001")
    with tracking.run("pointed", "train", kind="train") as run:
        run.checkpoint(folder, 1, {}, {})
    tracking.register("pointed", folder, run.id)
    pointer = json.loads(fetched(tmp_path, run.id, "model/pointer.json"))
    assert pointer["path"] == str(folder)
    files = [item.path for item in tracking.client().list_artifacts(run.id, "model")]
    assert files == ["model/pointer.json"]
    assert tracking.logged_model("pointed", folder).params["step"] == "1"
    assert tracking.logged_model("pointed", tmp_path / "another") is None


def test_aliases_move_and_come_back(store, tmp_path):
    with tracking.run("line", "train", kind="train") as run:
        pass
    for name in ("a", "b"):
        tracking.promote("moved", tracking.register("moved", model(tmp_path / name), run.id))
    assert tracking.rollback("moved") == (2, 1)
    assert tracking.champion("moved").aliases == ("champion",)
    with pytest.raises(ConfigError, match="moved: no version 9; there are 2, 1"):
        tracking.version_path("moved", 9)


def test_a_sweep_has_a_run_per_proxy_with_its_history(store, tmp_path):
    known = dict(commit=None, config="", model="nano", params_non_embedding=1000, learning_rate=0.001, group="g")
    known |= dict(finished=True, role="domain", bits_per_byte=None, evaluated="python-code")
    found = [
        Observation(run=f"p{n}", tokens=64 * step, step=step, share=n / 10, loss_nats=3 - n / 10 - step / 100, **known)
        for n in range(1, 6)
        for step in range(3)
    ]
    sweep = tracking.log_sweep("swept", "s", found, tmp_path)
    experiment = tracking.client().get_experiment_by_name("swept").experiment_id
    children = tracking.client().search_runs([experiment], f"tags.`mlflow.parentRunId` = '{sweep}'")
    assert {run.info.run_name: run.data.params["share"] for run in children} == {
        f"p{n}": str(n / 10) for n in range(1, 6)
    }
    first = next(run for run in children if run.info.run_name == "p1")
    points = tracking.client().get_metric_history(first.info.run_id, "held_out/python-code/loss_nats")
    assert [(point.step, point.value) for point in points] == [(step, 3 - 0.1 - step / 100) for step in range(3)]
    assert len(tracking.finished_runs("swept")) == 5


def test_an_experiment_describes_itself_and_links_views_the_page_can_open(store):
    tracking.lay_out("shown", SOURCES)
    found = tracking.client().get_experiment_by_name("shown")
    assert "It learns python-code and is to keep python-docs." in found.tags["mlflow.note.content"]
    for name in ("refreshes", "proxies", "training"):
        view = json.loads(found.tags[f"mlflow.sharedViewState.{name}"])
        assert f"/experiments/{found.experiment_id}/runs?viewStateShareKey={name}" in found.tags["mlflow.note.content"]
        assert view["compareRunCharts"]
        tracking.client().search_runs([found.experiment_id], view["searchFilter"], order_by=["attributes.start_time"])
    assert "python-code" in json.dumps(view["selectedColumns"])


def test_a_line_of_fifty_portions_has_its_views_too(store):
    many = {f"a-corpus-split-by-language-{number:02d}": "domain" for number in range(50)}
    tracking.lay_out("portions", {**many, "python-docs": "general"})
    found = tracking.client().get_experiment_by_name("portions")
    for name in ("refreshes", "proxies", "training"):
        assert json.loads(found.tags[f"mlflow.sharedViewState.{name}"])["compareRunCharts"]


def test_a_persons_own_description_is_not_written_over(store):
    tracking.lay_out("own", SOURCES)
    experiment = tracking.client().get_experiment_by_name("own").experiment_id
    tracking.client().set_experiment_tag(experiment, "mlflow.note.content", "ours since May")
    tracking.lay_out("own", {**SOURCES, "wiki": "general"})
    found = tracking.client().get_experiment(experiment)
    assert found.tags["mlflow.note.content"] == "ours since May"
    assert "wiki" in found.tags["mlflow.sharedViewState.refreshes"]


def test_the_views_of_a_line_have_addresses_where_there_is_a_server_and_asking_makes_nothing(store, monkeypatch):
    tracking.lay_out("linked", SOURCES)
    number = tracking.client().get_experiment_by_name("linked").experiment_id
    monkeypatch.setattr(experiments, "store", lambda: "http://ann:geheim@mlflow.example:5000/")
    found = tracking.view_links(["linked", "never refreshed"])
    page = f"http://***@mlflow.example:5000/#/experiments/{number}/runs"
    rest = "compareRunsMode=CHART&workflowType=machine_learning"
    views = {name: f"{page}?viewStateShareKey={name}&{rest}" for name in ("refreshes", "proxies", "training")}
    assert found == {"linked": views}
    assert status.pages_told(found)[:2] == ["linked in MLflow", f"  refreshes  {views['refreshes']}"]
    assert tracking.client().get_experiment_by_name("never refreshed") is None
    monkeypatch.setattr(experiments, "store", lambda: "sqlite:///mlflow.db")
    assert tracking.view_links(["linked"]) == {}


def test_an_experiment_that_had_no_kind_is_one_of_training_and_a_persons_own_stays(store):
    kind = "mlflow.experimentKind"
    for name, tags in (("by hand", {}), ("of agents", {kind: "genai_development"})):
        tracking.client().create_experiment(name, tags=tags)
        tracking.lay_out(name, SOURCES)
    found = {name: tracking.client().get_experiment_by_name(name).tags[kind] for name in ("by hand", "of agents")}
    assert found == {"by hand": "custom_model_development", "of agents": "genai_development"}
