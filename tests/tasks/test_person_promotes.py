"""A person's word: who may make which version the champion, and what is kept of it."""

import os

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ratoon.config import Approval, ConfigError, Retreat, parse
from ratoon.evaluation import history
from ratoon.layout import Layout
from tasks import environment, tracking
from tasks.approve import approve, retreat


@pytest.fixture(scope="module")
def run_id(tmp_path_factory):
    before = dict(os.environ)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    environment.apply(tmp_path_factory.mktemp("project"))
    with tracking.run("line", "train", kind="train") as run:
        pass
    yield run.id
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def no_artifacts(monkeypatch):
    monkeypatch.setattr("tasks.artifacts.create_link_artifact", lambda **_: None)


def model(folder, seed=0):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(seed)
    shape = LlamaConfig(vocab_size=4, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    LlamaForCausalLM(shape).save_pretrained(folder)
    bare = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<end>": 2}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<end>").save_pretrained(folder)
    return folder


def word(line, version, **more):
    given = {"version": version, "model": line, "by": "Ann Lee", "because": "old manuals do not matter", **more}
    return parse(Approval, given, "command line")


def tags(line, version):
    return next(item.tags for item in tracking.versions(line) if item.version == version)


def test_a_challenger_waits_and_becomes_champion_by_a_persons_word(run_id, tmp_path):
    first = tracking.register("asked", model(tmp_path / "a"), run_id, {"gate": "promote"})
    tracking.promote("asked", first)
    report = tmp_path / "report.html"
    report.write_text("page")
    given = {"gate": "ask", "parent": "1", "report": str(report)}
    second = tracking.register("asked", model(tmp_path / "b", 1), run_id, given)
    tracking.challenge("asked", second, ["general text: that it stays below is not shown"])
    assert tracking.champion("asked").version == first
    assert tags("asked", second)["verdict"] == "asks"
    assert tracking.challenger("asked").version == second

    done = approve.fn(tmp_path, word("asked", second))
    assert (done.version, done.replaces, done.report, done.notes) == (2, 1, str(report), ())
    assert tracking.champion("asked").version == second
    assert tracking.challenger("asked") is None
    kept = tags("asked", second)
    assert (kept["approved_by"], kept["approved_because"]) == ("Ann Lee", "old manuals do not matter")
    assert (kept["verdict"], kept["gate"], kept["replaces"]) == ("promoted", "ask", "1")

    again = approve.fn(tmp_path, word("asked", second, by="Bo"))
    assert again.notes == ("version 2 is the champion already; nothing changed",)
    assert tags("asked", second)["approved_by"] == "Ann Lee"


def test_going_back_keeps_who_and_why(run_id, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        tracking.promote("back", tracking.register("back", model(tmp_path / name, seed), run_id))
    said = retreat.fn(tmp_path, Retreat(model="back", by="Ann Lee", because="complaints"))
    assert said == {"model": "back", "from": 2, "to": 1}
    assert tags("back", 1)["rolled_back_by"] == "Ann Lee"
    assert tags("back", 1)["rolled_back_because"] == "complaints"
    assert tracking.champion("back").version == 1


def test_what_the_gate_refused_or_judged_against_another_is_promoted_with_a_note(run_id, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        tracking.promote("noted", tracking.register("noted", model(tmp_path / name, seed), run_id))
    given = {"gate": "refuse", "parent": "1", "reasons": "no gain\nmore"}
    third = tracking.register("noted", model(tmp_path / "c", 2), run_id, given)
    done = approve.fn(tmp_path, word("noted", third))
    assert done.notes == (
        "the gate refused it: no gain",
        "it was judged against version 1; the champion it replaces is 2",
    )


def test_weights_that_are_not_those_judged_are_not_promoted(run_id, tmp_path):
    folder = model(tmp_path / "a")
    version = tracking.register("swapped", folder, run_id)
    model(folder, seed=5)
    with pytest.raises(ConfigError, match=r"swapped version 1: .* is not what was registered and judged"):
        approve.fn(tmp_path, word("swapped", version))
    assert tracking.champion("swapped") is None


def test_a_card_written_beside_the_weights_later_leaves_them_what_was_judged(run_id, tmp_path):
    folder = model(tmp_path / "a")
    version = tracking.register("carded", folder, run_id)
    (folder / "README.md").write_text("# a card")
    assert tracking.intact("carded", version).version == version


def test_a_version_that_does_not_load_is_not_promoted(run_id, tmp_path):
    folder = model(tmp_path / "a")
    (folder / "config.json").write_text('{"model_type": "no-such-kind"}')
    version = tracking.register("unloaded", folder, run_id)
    with pytest.raises(ConfigError, match="transformers cannot load this model"):
        approve.fn(tmp_path, word("unloaded", version))
    assert tracking.champion("unloaded") is None


def test_a_version_of_no_line_is_told_with_those_there_are(run_id, tmp_path):
    tracking.register("known", model(tmp_path / "a"), run_id)
    with pytest.raises(ConfigError, match="known: no version 9; there are 1"):
        approve.fn(tmp_path, word("known", 9))


@pytest.mark.parametrize(
    ("given", "message"), [({"by": ""}, "by: "), ({"because": ""}, "because: "), ({"version": 0}, "version: ")]
)
def test_a_decision_without_name_or_reason_is_none(given, message):
    with pytest.raises(ConfigError, match=f"command line: {message}"):
        word("line", **{"version": 1, **given})


def test_the_history_of_a_line_knows_whom_a_person_promoted(run_id, tmp_path):
    folder = Layout(tmp_path).history("kept")
    version = tracking.register("kept", model(tmp_path / "a"), run_id, {"gate": "ask"})
    rows = [history.Row(name=name, label=name, version=n, promoted=False) for n, name in enumerate(("base", "one"))]
    history.save(folder, history.History(line="kept", rows=rows))
    approve.fn(tmp_path, word("kept", version))
    assert [row.promoted for row in history.load(folder, "kept").rows] == [False, True]
    bare = tracking.register("bare", model(tmp_path / "b"), run_id, {"gate": "ask"})
    approve.fn(tmp_path, word("bare", bare))
    assert not Layout(tmp_path).history("bare").exists()
