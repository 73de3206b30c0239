"""`ratoon fit` and `ratoon choose` on anybody's runs: what is printed, written and refused."""

import csv
import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from ratoon import cli
from ratoon.laws.equations.chinchilla import Chinchilla

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "docs" / "examples" / "runs.csv"
ROLES = ["--columns", "general=loss_prose,domain=loss_code"]
TARGET = ["--target", "N=150976,D=800k"]
PUBLISHED = ROOT.parent / "shared" / "published"
published = pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tables are not beside this checkout")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder with no project in it or above."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Everything `--out` leaves for the example's runs, and what was printed."""
    out = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out)
        code = cli.main(["fit", str(RUNS), *ROLES, *TARGET, "--tolerance", "2%", "--out", str(out)])
    assert code == cli.DONE
    return out


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A table of runs from scratch: size, tokens, one loss."""
    random = np.random.default_rng(0)
    N, D = (x.ravel() for x in np.meshgrid(np.geomspace(5e7, 2e9, 5), np.geomspace(1e9, 4e10, 5)))
    loss = Chinchilla(E=1.8, A=0.35, a=0.35, B=1.1, b=0.37).loss(N, D) * (1 + random.normal(0, 0.002, len(N)))
    path = tmp_path_factory.mktemp("scratch") / "scratch.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("params", "tokens", "eval_loss"), *zip(N, D, loss, strict=True)])
    return path


def test_fit_prints_laws_evidence_and_the_choice_within_80_columns(elsewhere, capsys):
    assert cli.main(["fit", str(RUNS), *ROLES, *TARGET, "--tolerance", "2%"]) == cli.DONE
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert said.isascii()
    for law in ("warm", "dcpt", "cmr"):
        assert law in said
    for word in (
        "seen",
        "unseen",
        "agree",
        "condition",
        "+-",
        "(fixed)",
        "(edge)",
        "domain share",
        "because",
        "regret",
    ):
        assert word in said


def test_fit_without_a_tolerance_shows_the_laws_and_chooses_nothing(elsewhere, capsys):
    assert cli.main(["fit", str(RUNS), *ROLES, *TARGET]) == cli.DONE
    said = capsys.readouterr().out
    assert "warm   general" in said
    assert "domain share " not in said


def test_fit_and_choose_give_the_same_share(elsewhere, capsys):
    assert cli.main(["fit", str(RUNS), *ROLES, *TARGET, "--tolerance", "2%", "--json"]) == cli.DONE
    fitted = json.loads(capsys.readouterr().out)
    assert cli.main(["choose", str(RUNS), *ROLES, *TARGET, "--tolerance", "2%", "--json"]) == cli.DONE
    assert fitted["choice"] == json.loads(capsys.readouterr().out)
    assert all(law["standard_errors"].keys() == law["params"].keys() for law in fitted["laws"])
    assert {law["role"] for law in fitted["laws"]} == {"general", "domain"}


def test_a_named_law_is_the_one_believed(elsewhere, capsys):
    assert cli.main(["fit", str(RUNS), *ROLES, *TARGET, "--law", "dcpt", "--json"]) == cli.DONE
    laws = json.loads(capsys.readouterr().out)["laws"]
    assert {law["law"] for law in laws if law["believed"]} == {"dcpt"}


def test_a_tolerance_nothing_meets_ends_with_the_laws_shown_and_exit_code_2(elsewhere, capsys):
    parent = ["--parent", "general=3.2,domain=4.4"]
    assert cli.main(["fit", str(RUNS), *ROLES, *TARGET, "--tolerance", "1%", *parent]) == cli.WRONG
    said = capsys.readouterr()
    assert "warm   general" in said.out
    assert "smallest tolerance met" in said.err


def test_any_law_is_fitted_by_its_columns(scratch, elsewhere, capsys):
    arguments = ["fit", str(scratch), "--law", "chinchilla", "--target", "N=4B,D=80B", "--json"]
    assert cli.main(arguments) == cli.DONE
    found = json.loads(capsys.readouterr().out)
    law = found["laws"][0]
    assert abs(law["params"]["E"] - 1.8) < 4 * law["standard_errors"]["E"]
    truth = float(Chinchilla(E=1.8, A=0.35, a=0.35, B=1.1, b=0.37).loss(4e9, 8e10))
    assert found["predicted"]["loss"]["low"] < truth < found["predicted"]["loss"]["high"]


def test_the_page_shows_every_figure_and_loads_nothing(page):
    html = (page / "laws.html").read_text(encoding="utf-8")
    for section in ("ratio", "contours", "pareto", "laws", "residuals", "calibration"):
        assert f'<section id="{section}">' in html
    drawn = len(list((page / "figures").glob("*.svg")))
    assert html.count('class="figure"') == drawn - 1  # measured against predicted is for laws without a ratio
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert "not measured" not in html


def test_every_figure_is_a_drawing_of_its_own_with_a_title_and_both_modes(page):
    drawn = {path.stem: path.read_text(encoding="utf-8") for path in (page / "figures").glob("*.svg")}
    wanted = {f"{kind}-{role}" for kind in ("ratio", "contours") for role in ("general", "domain")}
    wanted |= {"pareto", "agreement", "calibration-runs", "calibration-coverage"}
    assert set(drawn) >= wanted | {"residuals-predicted", "residuals-share", "residuals-D"}
    for name, text in drawn.items():
        tree = ET.fromstring(text)
        assert tree.tag == "{http://www.w3.org/2000/svg}svg", name
        assert tree.find("{http://www.w3.org/2000/svg}title").text, name
        assert "prefers-color-scheme: dark" in text, name
        assert ".band" in text, name
        assert "nan" not in text, name


def test_the_numbers_of_the_page_are_kept_beside_it(page):
    found = json.loads((page / "result.json").read_text(encoding="utf-8"))
    assert 0 < found["choice"]["share"] < 1
    assert found["target"] == {"N": 150976, "D": 800_000}
    points = found["held_out"]["general"]
    assert all(point["low"] <= point["high"] for point in points)
    html = (page / "laws.html").read_text(encoding="utf-8")
    inside = sum(p["low"] <= p["measured"] <= p["high"] for points in found["held_out"].values() for p in points)
    total = sum(len(points) for points in found["held_out"].values())
    assert f"{inside} of {total} lie inside their 90% intervals" in html


def test_the_same_runs_give_the_same_page(page, tmp_path, elsewhere):
    assert cli.main(["fit", str(RUNS), *ROLES, *TARGET, "--tolerance", "2%", "--out", str(tmp_path / "again")]) == 0
    for path in page.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(page)).read_bytes()


def test_a_law_of_one_loss_has_a_page_too(scratch, elsewhere):
    assert cli.main(["fit", str(scratch), "--law", "chinchilla", "--out", "fitted"]) == cli.DONE
    drawn = {path.stem for path in Path("fitted/figures").glob("*.svg")}
    assert {"along-loss", "agreement", "residuals-D", "residuals-N", "calibration-runs"} <= drawn


@published
def test_somebody_elses_continued_pretraining_is_read_by_one_word(elsewhere, capsys):
    path = str(PUBLISHED / "dml_ct_pythia70m.csv")
    parent = "general=2.8733675921404798,domain=1.8381195068359375"
    arguments = ["choose", path, "--columns", "domain=python_loss", "--parent", parent, "--tolerance", "2%", "--json"]
    assert cli.main(arguments) == cli.DONE
    choice = json.loads(capsys.readouterr().out)
    # Measured at the last step: 2.9126 at a share of 0.875, under the ceiling of 2.9308.
    assert choice["interval"]["high"] > 0.875
    assert choice["predicted_general"]["low"] < 2.93


def test_the_share_of_a_target_is_each_texts_own_share_of_it(elsewhere, capsys):
    target = ["--target", "N=150976,D=800k,share=0.4"]
    assert cli.main(["fit", str(RUNS), *ROLES, "--law", "bimix", *target, "--json"]) == cli.DONE
    both = json.loads(capsys.readouterr().out)["predicted"]
    for role, own in (("general", 0.6), ("domain", 0.4)):
        said = ["--columns", f"{role}=loss_{'prose' if role == 'general' else 'code'}"]
        target = ["--target", f"N=150976,D=800k,r={own}"]
        assert cli.main(["fit", str(RUNS), *said, "--law", "bimix", *target, "--json"]) == cli.DONE
        assert json.loads(capsys.readouterr().out)["predicted"][role] == both[role]


def test_what_was_left_out_of_a_table_is_in_the_json_of_a_choice(elsewhere, capsys):
    rows = RUNS.read_text().splitlines()
    Path("runs.csv").write_text("\n".join([f"{rows[0]},U", *(f"{row}," for row in rows[1:])]) + "\n")
    assert cli.main(["choose", "runs.csv", *ROLES, *TARGET, "--json"]) == cli.DONE
    assert any("U left unread" in each for each in json.loads(capsys.readouterr().out)["warnings"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit"], "no table of runs; name a CSV or Parquet file"),
        (["fit", "nowhere.csv"], "nowhere.csv: not found; name a CSV or Parquet table"),
        (["fit", "RUNS"], "which column is a loss? Say --columns general=COLUMN,domain=COLUMN"),
        (["fit", "RUNS", *ROLES, "--law", "dcptt"], "no law 'dcptt'; did you mean 'dcpt'?"),
        (["fit", "RUNS", "--columns", "general=loss_pros"], "no column 'loss_pros'; did you mean 'loss_prose'?"),
        (["fit", "RUNS", "--columns", "general"], "'general' is not NAME=COLUMN"),
        (
            ["fit", "RUNS", *ROLES, "--target", "D=10"],
            "N and D are plain counts; for billions, D=10e9 or D=10B",
        ),
        (["fit", "RUNS", *ROLES, "--target", "D=ten"], "'D=ten' is not N=... or D=..."),
        (["fit", "RUNS", *ROLES, "--parent", "both=3"], "'both=3' is not general=NATS or domain=NATS"),
        (
            ["fit", "RUNS", *ROLES, "--law", "bimix", "--tolerance", "2%"],
            "bimix chooses no ratio; those that do are",
        ),
        (["fit", "RUNS", *ROLES, "--parent", "general=3.4,general=3.9"], "--parent: general is given twice"),
        (
            ["fit", "RUNS", *ROLES, "--parent", "general=3.4", "--parent-general", "3.9"],
            "--parent and --parent-general: general is given twice",
        ),
        (["fit", "RUNS", *ROLES, "--target", "D=800k,D=900k"], "--target: D is given twice"),
        (["fit", "RUNS", *ROLES, "--set", "seed=1,seed=2"], "--set: seed is given twice"),
        (
            ["fit", "RUNS", *ROLES, "--tolerance", "3"],
            "'3' lets general loss rise by 300%; for percent, --tolerance 3%",
        ),
        (["fit", "RUNS", *ROLES, "--out", str(RUNS / "in")], "runs.csv/in: nothing can be written there"),
        (["fit", "RUNS", *ROLES, "--out", "RUNS"], "nothing can be written there"),
        (
            ["fit", "RUNS", *ROLES, "--tolerance", "2%", "--target", "D=800k,share=0.9"],
            "--target share=...: the share is what is asked",
        ),
        (
            ["fit", "RUNS", *ROLES, "--law", "bimix", "--target", "D=800k,r=0.4"],
            "r=0.4 is a text's own share of the training tokens",
        ),
        (["choose", "RUNS", "--columns", "general=loss_prose"], "there is no domain; name its column"),
        (["choose", "RUNS", *ROLES, "--target", "N=1e9,D=800k"], "1,000,000,000"),
        (["fit", "RUNS", "--experiment", "sweep"], "two tables of runs; name one"),
        (["fit", "--experiment", "sweep"], "set MLFLOW_TRACKING_URI to your MLflow, or go to a ratoon project"),
    ],
)
def test_what_cannot_be_done_gets_a_letter_and_exit_code_2(arguments, message, elsewhere, capsys):
    assert cli.main([str(RUNS) if word == "RUNS" else word for word in arguments]) == cli.WRONG
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


# ---------------------------------------------------------------- MLflow


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The example's runs logged by somebody who has never heard of ratoon, one MLflow run each, and a failed one."""
    from tasks import environment, tracking

    root = tmp_path_factory.mktemp("store")
    before = dict(os.environ)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    environment.apply(root)
    client = tracking.client()
    number = client.create_experiment("my sweep")
    with RUNS.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        run = client.create_run(number, run_name=row["run"])
        for name in ("params", "share", "group"):
            client.log_param(run.info.run_id, name, row[name])
        client.log_metric(run.info.run_id, "eval/prose", 9.0, step=0)
        client.log_metric(run.info.run_id, "eval/prose", float(row["loss_prose"]), step=1)
        client.log_metric(run.info.run_id, "eval/code", float(row["loss_code"]))
        client.log_metric(run.info.run_id, "tokens", float(row["tokens"]))
        client.set_terminated(run.info.run_id)
    client.set_terminated(client.create_run(number).info.run_id, "FAILED")
    yield root
    os.environ.clear()
    os.environ.update(before)


def test_an_mlflow_experiment_is_a_table_of_runs(experiment, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    columns = ["--columns", "general=eval/prose,domain=eval/code"]
    assert cli.main(["choose", "--experiment", "my sweep", *columns, *TARGET, "--json"]) == cli.DONE
    found = json.loads(capsys.readouterr().out)
    assert cli.main(["choose", str(RUNS), *ROLES, *TARGET, "--json"]) == cli.DONE
    assert found == json.loads(capsys.readouterr().out)


def test_the_proxies_of_our_newest_sweep_are_read_and_no_other_runs(experiment, tmp_path):
    from ratoon.laws import read_runs
    from ratoon.laws.tables.reading import from_columns
    from tasks import tracking

    observations = read_runs(RUNS, "general=loss_prose,domain=loss_code").observations()
    for name, offset in (("older", 0.5), ("newer", 0.0)):
        moved = [
            x.model_copy(update={"loss_nats": x.loss_nats + offset}) for x in observations[:4] + observations[60:64]
        ]
        tracking.log_sweep("ours", name, moved, tmp_path)
    rows = tracking.finished_runs("ours")
    assert [row["run"] for row in rows] == [x.run for x in observations[:4]]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    sheet = from_columns("ours", columns)
    found = read_runs(sheet, "general=held_out/loss_prose/loss_nats,domain=held_out/loss_code/loss_nats")
    assert found.losses["general"].tolist() == [x.loss_nats for x in observations[:4]]


def test_an_experiment_that_is_not_there_is_answered_with_those_that_are(experiment, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["fit", "--experiment", "my swep"]) == cli.WRONG
    assert "no experiment 'my swep'; did you mean 'my sweep'?; there are Default, my sweep" in capsys.readouterr().err
