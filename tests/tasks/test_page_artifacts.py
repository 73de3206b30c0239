"""What the page of a run shows: names, the choice, the verdict, and how far a stage is."""

import ast
import contextlib
import threading
import time
from pathlib import Path

import pytest
import yaml

from ratoon.records import Choice, FurtherRun, Interval, LawReport, Refresh
from ratoon.records.verdict import Comparison, Verdict
from tasks import artifacts, live, names
from tasks.artifacts import Live, choice_text, quietly, verdict_text
from tasks.names import artifact_key, named, run_name


def between(low, value, high):
    return Interval(value=value, low=low, high=high, confidence=0.9)


CHOICE = Choice(
    share=0.36,
    interval=between(0.3, 0.36, 0.45),
    reason="limited by general tolerance",
    law="D-CPT",
    laws=(
        LawReport(
            law="D-CPT",
            role="general",
            params={},
            seen_error=0.004,
            unseen_error=None,
            agreement=0.8,
            observations=12,
        ),
    ),
    params_non_embedding=1_000_000,
    tokens=500_000,
    parent_general_nats=3.4,
    parent_domain_nats=4.1,
    ceiling_nats=3.5,
    tolerance=0.02,
    predicted_general=between(3.4, 3.49, 3.6),
    predicted_domain=between(3.6, 3.7, 3.8),
    second_opinion={"R-scaling": 0.4},
    further=FurtherRun(
        share=0.5,
        params_non_embedding=1_000_000,
        tokens=100_000,
        flops=1e12,
        width_now=0.15,
        width_after=0.1,
        regret_now=0.02,
        regret_after=0.01,
        worth_it=False,
        reason="one more run would narrow it to 0.10",
    ),
    warnings=("a | and `b` <b>c</b>",),
)


def test_the_law_on_the_page_says_share_interval_laws_and_what_one_more_run_buys(tmp_path):
    said = choice_text(CHOICE, tmp_path)
    assert "**36% domain text**: limited by general tolerance" in said
    assert "30%" in said
    assert "45%" in said
    assert "| D-CPT | general | 0.4% |" in said
    assert "one more run would narrow it to 0.10" in said
    assert "R-scaling 40%" in said
    assert str(tmp_path / "report.html") in said
    assert "<b>" not in said
    assert len(said) < 3000


def refresh_of(decision, **comparisons):
    item = Comparison(
        benchmark="held-out",
        source="code|x",
        role="domain",
        metric="bits_per_byte",
        items=200,
        parent=between(1.4, 1.5, 1.6),
        candidate=between(1.2, 1.3, 1.4),
        difference=between(-0.25, -0.2, -0.15),
        relative=between(-0.17, -0.13, -0.1),
        outcome="win",
    )
    verdict = Verdict(decision=decision, reasons=("code improved",), comparisons=(item,), parent="/p", candidate="/c")
    known = {name: None for name, field in Refresh.model_fields.items() if field.is_required()}
    return Refresh.model_construct(
        **{
            **known,
            "name": "nano 2026",
            "line": "nano",
            "seconds": {"train": 12.0},
            "verdict": verdict,
            "version": 3,
            "choice": CHOICE,
            "params": {},
        }
    )


@pytest.mark.parametrize(("decision", "title"), [("promote", "Promoted"), ("refuse", "Refused"), ("ask", "Asks a pe")])
def test_the_verdict_on_the_page_has_headline_intervals_reasons_and_report(decision, title, tmp_path):
    said = verdict_text(refresh_of(decision), tmp_path / "report.html")
    assert said.startswith(f"**{title}")
    assert "| held-out | code\\|x (domain) | 200 |" in said
    assert "[" in said.split("code\\|x (domain)")[1]
    assert "- code improved" in said
    assert str(tmp_path / "report.html") in said


def test_every_artifact_of_a_refresh_is_described_in_one_line(monkeypatch, tmp_path):
    kept = {}
    for kind in ("markdown", "link", "table"):
        monkeypatch.setattr(artifacts, f"create_{kind}_artifact", lambda **given: kept.update({given["key"]: given}))
    artifacts.show_choice("nano", CHOICE, tmp_path)
    artifacts.show_verdict(refresh_of("refuse"), tmp_path / "report.html")
    artifacts.show_table("nano", "funnel", [], "documents and bytes, stage by stage")
    assert {key: given["description"] for key, given in kept.items()} == {
        "nano-law": "36% domain text: limited by general tolerance",
        "nano-verdict": "version 3, refused: code improved",
        "nano-report": "version 3 of nano: figures, reasons and costs on one page; opens on the machine where it lies",
        "nano-funnel": "documents and bytes, stage by stage",
    }


# ---------------------------------------------------------------- how far a stage is


class Page:
    """Prefect's API as the artifacts see it."""

    def __init__(self, monkeypatch, fails=0):
        self.told, self.fails = [], fails
        monkeypatch.setattr(artifacts, "create_progress_artifact", lambda **given: self.take("create", given))
        monkeypatch.setattr(artifacts, "update_progress_artifact", lambda **given: self.take("update", given))

    def take(self, what, given):
        if self.fails:
            self.fails -= 1
            raise ConnectionError("all connection attempts failed")
        self.told.append((what, given["progress"], given["description"]))
        return "id"


def wait_for(condition):
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(artifacts, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(artifacts, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(artifacts, "AWAY_SECONDS", 0.01)


def test_a_stage_is_shown_from_its_first_word_to_its_last(quick, monkeypatch):
    page, stage = Page(monkeypatch), live.Stage("train", "tokens", 1000.0)
    with Live("nano-train-progress", lambda: (stage.share, stage.line())):
        stage.update(100, note="loss 3.200")
        wait_for(lambda: page.told and page.told[-1][1] == 10.0)
        stage.update(1000)
    assert [what for what, _, _ in page.told].count("create") == 1
    assert page.told[-1][1] == 100.0
    assert "loss 3.200" in page.told[-1][2]


@pytest.fixture
def in_a_run(monkeypatch):
    """A stage of this thread is one of a run that a server shows."""
    monkeypatch.setattr(live, "has_page", lambda: True)
    monkeypatch.setattr("prefect.context.TaskRunContext.get", lambda: object())
    monkeypatch.setattr(live, "_logger", lambda: live.logging.getLogger("ratoon"))
    monkeypatch.delenv(live.SHOWN, raising=False)


def test_a_stage_that_counts_pieces_ends_at_all_of_them_with_what_was_done(quick, in_a_run, monkeypatch):
    page = Page(monkeypatch)
    with live.stage("closer", "looks", 2, "nano") as stage:
        for number, name in enumerate(("shift", "probes")):
            stage.update(number, note=name)
            wait_for(lambda number=number: page.told and page.told[-1][1] == 50.0 * number)
        stage.update(2, note="shift, probes")
    assert page.told[-1][1] == 100.0
    assert "2/2 looks" in page.told[-1][2]
    assert page.told[-1][2].endswith("shift, probes")


def test_a_stage_that_failed_stays_where_it_was(quick, in_a_run, monkeypatch):
    page = Page(monkeypatch)
    with pytest.raises(ValueError, match="no"), live.stage("closer", "looks", 4, "nano") as stage:  # noqa: PT012
        stage.update(1, note="shift")
        wait_for(lambda: page.told and page.told[-1][1] == 25.0)
        raise ValueError("no")
    assert {share for _, share, _ in page.told} == {25.0}


def test_every_stage_with_an_end_is_kept_in_the_name_of_its_line():
    """stage(name, unit, total, line): without the last, artifacts of all lines would share one key."""
    calls = [
        (path.name, call)
        for path in (Path(__file__).parents[2] / "tasks").glob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "stage"
    ]
    assert len(calls) > 8
    nameless = [path for path, call in calls if len(call.args) < 4 and not call.keywords]
    assert set(nameless) == {"estimate.py"}  # it tells no end, and no page shows it


def test_an_api_that_is_away_stops_nothing_and_is_asked_again(quick, monkeypatch):
    page, stage = Page(monkeypatch, fails=3), live.Stage("train", "tokens", 1000.0)
    stage.update(500)
    with Live("nano-train-progress", lambda: (stage.share, stage.line())):
        wait_for(lambda: page.told)
    assert page.told[0][:2] == ("create", 50.0)


def test_an_api_that_hangs_does_not_hold_up_the_end_of_a_stage(quick, monkeypatch):
    monkeypatch.setattr(artifacts, "LAST_SECONDS", 0.05)
    reached, released = threading.Event(), threading.Event()
    monkeypatch.setattr(artifacts, "create_progress_artifact", lambda **_: (reached.set(), released.wait(30)))
    monkeypatch.setattr(artifacts, "update_progress_artifact", lambda **_: None)
    with Live("key", lambda: (0.5, "half")) as shown:
        assert reached.wait(10)
    assert not released.is_set()
    released.set()
    shown.thread.join(30)  # what it says last is said to this API, not to the next test's


def test_between_two_words_of_a_stage_ten_seconds_pass():
    assert artifacts.EVERY_SECONDS >= 10
    assert artifacts.AWAY_SECONDS > artifacts.EVERY_SECONDS


def test_without_a_server_a_stage_asks_no_api(monkeypatch):
    monkeypatch.setattr(live, "has_page", lambda: False)
    with live._page(live.Stage("train", "tokens", 10.0), "nano") as shown:
        assert shown is None
    monkeypatch.setattr(live, "has_page", lambda: True)
    assert isinstance(live._page(live.Stage("train", "tokens", 10.0), "nano"), contextlib.nullcontext)  # no run


def test_what_the_api_refuses_is_said_in_the_log_and_no_more(caplog):
    def refuse(**given):
        raise RuntimeError("validation error\nmore")

    assert quietly(refuse, key="nano-law") is None
    assert "nano-law: validation error" in caplog.text


def test_the_rate_leaves_out_what_an_earlier_try_had_done(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    stage = live.Stage("train", "tokens", 10_000.0)
    now[0] += 30  # the start of the process
    stage.update(5_000)
    assert stage.rate == 0
    now[0] += 10
    stage.update(6_000)
    assert stage.rate == 100
    assert "0:40 left" in stage.line()


# ---------------------------------------------------------------- names


@pytest.fixture
def called(monkeypatch, tmp_path):
    """The name of a flow run with these parameters, in a project of its own."""
    raw = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    raw["refresh"] |= {"sources": ["docs", "code", "web", "more"], "model": "nano-x"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    monkeypatch.chdir(tmp_path)

    def name(verb, **ask):
        monkeypatch.setattr(names, "flow_run", type("Run", (), {"flow_name": verb, "parameters": {"ask": ask}}))
        return run_name()

    return name


def test_a_run_is_called_by_its_line_its_text_its_share_and_its_tokens(called):
    whole = called("refresh")
    assert whole.startswith("refresh nano-x: docs, code, web, 1 more, ")
    assert whole.endswith(" tokens")
    assert called("train", ratio=0.3, tokens=500_000) == "train nano-x: docs, code, web, 1 more, at 30%, 500k tokens"
    assert called("assess") == "assess nano-x: docs, code, web, 1 more"
    assert called("refresh", force=True, seed=3).endswith("seed 3, whether or not anything is new")


def test_a_decision_is_called_by_its_version_and_who_decided(called):
    assert called("promote", version=3, by="Ann", because="better") == "promote nano-x version 3 by Ann"
    assert called("rollback", model="other", by=None, because=None) == "rollback other"


def test_wrong_parameters_have_a_name_too_and_are_told_by_the_run(called, tmp_path):
    (tmp_path / "params.yaml").write_text("refresh: [")
    assert called("train", ratio=0.3) == "train ratio 0.3"
    assert called("train", tokns=5) == "train tokns 5"


def test_a_task_run_is_called_by_what_it_is_given(monkeypatch):
    monkeypatch.setattr(names, "task_run", type("Run", (), {"parameters": {"share": 0.3}, "task_name": "train"}))
    assert named(lambda given: f"train at {given['share']:.0%}")() == "train at 30%"
    assert named(lambda given: given["job"].line)() == "train"


@pytest.mark.parametrize("line", ["Ratoon nano_2", "modèle", "a/b:c"])
def test_every_line_has_a_key_that_prefect_takes(line):
    key = artifact_key(line, "train", "progress")
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert key.endswith("-train-progress")
