"""Promises of prefect.yaml and of what `ratoon deploy` adds to it; no server here."""

import os
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prefect.cli.deploy._triggers import DeploymentTriggerAdapter
from prefect.settings import get_current_settings
from prefect.utilities.schema_tools import validation
from prefect.utilities.schema_tools.validation import ValidationError

from ratoon import config
from ratoon.config import Ask, ConfigError
from ratoon.layout import Layout
from tasks import announce, automations, catch_up, deployments, forms, job, notify, slots, switches

ROOT = Path(__file__).parents[2]
LISTED = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]


def validate(given, form):
    """As the server does before it makes a run."""
    validation.validate(given, form, raise_on_error=True)


def flow_of(deployment):
    module, name = deployment["entrypoint"].rsplit(".", 1)
    return getattr(import_module(module), name)


def form_of(name, root=ROOT, flow=None):
    module = import_module(f"flows.{name}")
    return forms.offered(getattr(module, flow or name).parameters.model_dump(), forms.choices(root))


def test_every_verb_of_the_routine_can_be_started_from_the_page():
    verbs = {deployment["entrypoint"].rsplit(".", 1)[1] for deployment in LISTED}
    parts = {"refresh", "prepare", "sweep", "train", "assess", "arms", "judges", "drift"}
    assert verbs >= parts | {"promote", "rollback", "gc", "backup"}
    assert all(deployment["description"] and deployment["tags"] for deployment in LISTED)


def test_what_trains_or_scores_belongs_to_a_gpu_and_waits_for_it():
    heavy = {it["entrypoint"].rsplit(".", 1)[1] for it in LISTED if deployments.HEAVY in it["tags"]}
    assert heavy == {"refresh", "sweep", "train", "assess", "arms", "judges", "drift"}
    for name in heavy - {"refresh"}:  # whose parts wait, each for itself
        assert import_module(f"flows.{name}").gpu_slots is slots.gpu_slots


@pytest.mark.parametrize("deployment", LISTED, ids=lambda it: it["entrypoint"])
def test_every_field_of_a_form_is_described_and_none_is_for_machines(deployment):
    form = forms.offered(flow_of(deployment).parameters.model_dump(), forms.choices(ROOT))
    assert not form["properties"].keys() & set(forms.HIDDEN)
    for definition in form["definitions"].values():
        assert all(field.get("description") for field in definition["properties"].values())
    validation.validate(deployment.get("parameters", {}), form, raise_on_error=True, ignore_required=True)


@pytest.mark.parametrize(
    "ask",
    [
        {},
        {"base": "nano"},
        {"base": "nano", "budget": "small", "sources": ["python-docs", "python-code"], "tokens": 4096, "force": True},
    ],
)
def test_what_is_declared_is_taken_by_the_form(ask):
    validate({"ask": ask}, form_of("refresh"))


@pytest.mark.parametrize("ask", [{"base": "nanno"}, {"budget": "tiny"}, {"sources": ["pyton"]}, {"ratio": 30}])
def test_what_is_not_declared_is_refused_by_the_form(ask):
    with pytest.raises(ValidationError):
        validate({"ask": ask}, form_of("refresh"))


def test_a_source_is_a_choice_from_the_day_it_is_declared(tmp_path):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "data" / "sources").mkdir(parents=True)
    (tmp_path / "data" / "sources" / "manuals.yaml").touch()
    asked = {"ask": {"sources": ["manuals"]}}
    with pytest.raises(ValidationError):
        validate(asked, form_of("refresh"))
    validate(asked, form_of("refresh", tmp_path))


def test_the_lines_and_the_arms_are_choices_too():
    assert "ratoon-nano" in form_of("promote")["definitions"]["Approval"]["properties"]["model"]["enum"]
    with pytest.raises(ValidationError):
        validate({"ask": {"version": 1, "by": "Ann", "because": "so", "model": "x"}}, form_of("promote"))
    with pytest.raises(ValidationError):
        validate({"names": ["few_shots"]}, form_of("arms"))
    validate({"names": ["few_shot"]}, form_of("arms"))


def test_what_may_be_left_empty_is_one_field_of_the_page_and_not_a_choice_between_it_and_nothing():
    form = form_of("refresh")
    fields = form["definitions"]["Ask"]["properties"]
    assert {name: field["type"] for name, field in fields.items()} == {
        "base": "string",
        "sources": "array",
        "budget": "string",
        "ratio": "number",
        "tolerance": "number",
        "tokens": "integer",
        "seed": "integer",
        "force": "boolean",
    }
    assert form["properties"]["ask"]["default"] == {"force": False}


def test_nothing_starts_by_itself_for_a_newcomer():
    declared = switches.declared(ROOT)
    assert set(declared) == {
        "refresh/default weekly",
        "refresh/default refresh on new text",
        "refresh/default refresh on drift",
        "prepare/default daily",
        "drift/default weekly",
        "gc/default weekly-look",
        "gc/default weekly-removal",
        "backup/default daily",
    }
    assert not any(declared.values())


def test_the_form_of_gc_removes_nothing_unless_it_is_asked_to():
    form = form_of("collect", flow="gc")
    assert form["properties"]["ask"]["default"] == {"remove": False, "remote": False}
    (listed,) = [it for it in LISTED if it["entrypoint"] == "flows.collect.gc"]
    removal = {it["slug"]: it.get("parameters", listed["parameters"]) for it in listed["schedules"]}
    assert removal == {"weekly-look": {"ask": {}}, "weekly-removal": {"ask": {"remove": True}}}
    for given in removal.values():
        validate(given, form)


def test_the_form_of_a_backup_names_no_place_to_write_to():
    form = form_of("backup")
    assert {*form["definitions"]["Archive"]["properties"]} == {"every", "without"}
    validate({"ask": {"without": ["mlflow"]}}, form)
    for ask in ({"folder": "/etc"}, {"without": ["weights"]}):
        with pytest.raises(ValidationError):
            validate({"ask": ask}, form)


def test_the_triggers_wait_for_the_events_that_are_told():
    refresh = next(it for it in LISTED if it["entrypoint"] == "flows.refresh.refresh")
    triggers = [DeploymentTriggerAdapter.validate_python(trigger) for trigger in refresh["triggers"]]
    assert [set(trigger.expect) for trigger in triggers] == [{announce.NEW_DATA}, {"ratoon.drift"}]
    assert refresh["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


def test_a_switch_of_the_page_stays_until_the_file_says_something_new():
    wanted = switches.wanted
    assert wanted({"a": False}, {}, {}) == {"a": False}  # first registered: the file
    assert wanted({"a": False}, {"a": False}, {"a": True}) == {"a": True}  # turned on in the page
    assert wanted({"a": True}, {"a": False}, {"a": False}) == {"a": True}  # turned on in the file
    assert wanted({"a": False}, {"a": True}, {"a": True}) == {"a": False}  # turned off in the file
    assert wanted({"b": True}, {"a": True}, {"a": False}) == {"b": True}  # what is gone from the file is gone


@pytest.mark.parametrize(
    ("tags", "asked", "gpus", "pool"),
    [
        (["model"], {}, 0, "cpu"),
        (["model"], {}, 2, "gpu"),
        (["model"], {"pool": "cpu"}, 2, "cpu"),
        (["model"], {"pool": "gpu"}, 0, "gpu"),
        (["part"], {"pool": "gpu"}, 2, "cpu"),
    ],
)
def test_what_trains_goes_where_the_gpu_is_unless_params_say_otherwise(tags, asked, gpus, pool):
    found = SimpleNamespace(deployment=SimpleNamespace(tags=tags))
    assert deployments.pool_of(found, config.OperateConfig(**asked), gpus) == pool


def test_how_it_is_run_is_no_part_of_a_refreshs_identity():
    params = config.load(ROOT)
    changed = params.model_copy(update={"operate": config.OperateConfig(gpu_slots=3)})

    def question(given):
        fields = {name: None for name in ("layout", "ask", "sources", "parent", "parent_version", "folder")}
        return job.Job(**fields, params=given, base=config.base(ROOT, "nano"), editions={}).question

    assert question(params) == question(changed)
    assert "operate" not in params.model_dump()


def test_sources_can_be_asked_for_as_a_line_or_a_list():
    assert Ask(sources="python-docs, python-code") == Ask(sources=["python-docs", "python-code"])
    assert Ask(sources=[]) == Ask()
    assert Ask(sources="a,b").changes() == {"refresh": {"sources": ("a", "b")}}


# ---------------------------------------------------------------- after a downtime


def due(name, week, *, by_hand=False, parameters=None):
    from datetime import UTC, datetime

    start = datetime(2026, 1, 5, 3, tzinfo=UTC) + timedelta(weeks=week)
    made = SimpleNamespace(type="USER" if by_hand else "SCHEDULE")
    return SimpleNamespace(
        name=name,
        expected_start_time=start,
        created=start,
        auto_scheduled=not by_hand,
        created_by=made,
        parameters=parameters or {"ask": {}},
    )


def test_of_the_runs_that_fell_due_only_the_newest_goes_on():
    runs = [due(f"week {week}", week) for week in range(3)]
    words = [catch_up.reason(run, [other for other in runs if other is not run]) for run in runs]
    assert words[0] == "gave way to week 2, due 2026-01-19 03:00 UTC: the newest catches up for all"
    assert words[1].startswith("gave way to week 2")
    assert words[2] is None


def test_a_run_gives_way_neither_to_one_of_a_person_nor_to_one_that_asks_something_else():
    mine = due("mine", 0)
    others = [due("by hand", 1, by_hand=True), due("other", 1, parameters={"ask": {"base": "pico"}})]
    assert catch_up.reason(mine, others) is None


# ---------------------------------------------------------------- automations and messages


def test_a_run_is_called_silent_only_after_three_missed_signs_of_life():
    beat = get_current_settings().flows.heartbeat_frequency
    assert beat == automations.HEARTBEAT_SECONDS
    assert automations.silent().trigger.within >= timedelta(seconds=3 * beat)


def test_an_address_is_never_in_what_is_said_of_it():
    secret = "hooks.example/CANARY"
    with pytest.raises(ConfigError) as refused:
        notify.add(secret)
    assert "CANARY" not in str(refused.value)
    assert notify.checked(f"https://{secret}") == "hooks.example"


def test_without_a_server_nothing_is_told_and_no_slot_is_asked_for(monkeypatch):
    def never(*arguments, **more):
        raise AssertionError("asked")

    monkeypatch.setattr(announce, "served", lambda: False)
    monkeypatch.setattr(slots, "served", lambda: False)
    monkeypatch.setattr(announce, "emit_event", never)
    monkeypatch.setattr(slots, "concurrency", never)
    monkeypatch.setattr(slots, "wants_gpu", never)
    announce.announce("ratoon.promoted", "ratoon-nano", {})
    with slots.gpu_slots(SimpleNamespace()):
        pass


def test_on_a_cpu_no_slot_of_a_gpu_is_taken(monkeypatch):
    monkeypatch.setattr(slots, "served", lambda: True)
    monkeypatch.setattr(slots, "concurrency", lambda *a, **m: pytest.fail("asked"))
    train = SimpleNamespace(device="cpu", processes=1)
    with slots.gpu_slots(SimpleNamespace(params=SimpleNamespace(train=train))):
        pass


def test_a_part_within_a_refresh_is_let_in_and_one_beside_it_is_not(tmp_path):
    params = SimpleNamespace(refresh=SimpleNamespace(watch=()))
    mine = SimpleNamespace(layout=Layout(tmp_path), line="mine", params=params, sources=(), editions={})
    with job.alone(mine), job.alone_or_within(mine):
        pass
    refused = pytest.raises(ConfigError, match=rf"under way \(process {os.getpid()}\)")
    with job.alone_or_within(mine), refused, job.alone(mine):
        pass
    with job.alone(mine):
        pass
