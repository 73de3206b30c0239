"""Scores no gate should trust: each is refused with a letter that says what is wrong, or judged for what it shows."""

import hashlib
import json
import math

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from ratoon.cli import main
from ratoon.config import AssessConfig, GateConfig
from ratoon.evaluation import gate, harness, paired, replay, suite
from ratoon.evaluation.paired import Pairs
from ratoon.records import Comparison, write

SETTINGS = harness.Settings(row_tokens=128, precision="fp32", device="cpu", lm_eval="0")
TASKS = {
    "held-out--code": ("domain", "bits_per_byte"),
    "held-out--docs": ("general", "bits_per_byte"),
    "quiz--code": ("domain", "accuracy"),
    "quiz--docs": ("general", "accuracy"),
}
ITEMS = 40
GAINED = {"parent": 2.0, "candidate": 1.8}  # bits per byte of domain text


def row(task, arm, i):
    """What an arm has on an item: a domain gain, everything else as it was."""
    named = {key: f"{task}:{i}" for key in ("id", "doc_hash", "prompt_hash")} | {"document": f"{i}"}
    if TASKS[task][1] == "accuracy":
        return named | {"loglik_nats": [0.0] * 4, "correct": i % 2}
    bits = GAINED[arm] if task == "held-out--code" else 2.0
    spread = 1 + 0.01 * np.random.default_rng([i, arm == "parent"]).normal()
    return named | {"bytes": 500 + i, "loglik_nats": [-(500 + i) * bits * spread * math.log(2)]}


def scored(folder, arm, rows):
    """An arm's folder as a scorer leaves it, digests and all, from {task: rows}."""
    folder, kept = folder / arm, []
    folder.mkdir(exist_ok=True)
    for task, found in rows.items():
        file = folder / f"{task}.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(found), file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        kept.append(harness.TaskScore(task=task, value=0, items=len(found), sha256=digest))
    made = suite.Suite.model_validate_json((folder.parent / "suite" / "suite.json").read_text())
    found = {"model": arm, "weights": arm, "suite": made.digest, "settings": SETTINGS, "truncated": 0}
    write(folder / "scores.json", harness.Scores(**found, tasks=tuple(kept)))


def asked(folder, items=ITEMS, digest="d"):
    """A suite of so many items."""
    folder, tasks = folder / "suite", []
    folder.mkdir(exist_ok=True)
    for name, (role, metric) in TASKS.items():
        for kind in ("yaml", "jsonl"):
            (folder / f"{name}.{kind}").write_text(f"{name}\n")
        benchmark, source = name.split("--")
        told = {"name": name, "benchmark": benchmark, "version": 1, "source": source, "role": role, "metric": metric}
        sizes = {"items": items, "documents": items, "requests": items}
        tasks.append(suite.Task(**told, **sizes, sha256=suite.digest_of(folder, name)))
    write(folder / "suite.json", suite.Suite(digest=digest, tasks=tuple(tasks)))


@pytest.fixture
def folder(tmp_path):
    asked(tmp_path)
    policy = GateConfig(max_benchmark_loss=0.2)
    arms = {arm: replay.Arm(model=arm, tokenizer="t") for arm in ("parent", "candidate")}
    write(tmp_path / replay.QUESTION, replay.Question(policy=policy, assess=AssessConfig(), **arms))
    return tmp_path


def rows(change=None, arm="candidate"):
    """Of an arm, {task: rows}; `change` of a task's name and rows gives others."""
    plain = {task: [row(task, arm, i) for i in range(ITEMS)] for task in TASKS}
    return {task: change(task, found) for task, found in plain.items()} if change else plain


def judged(folder, candidate=None, parent=None):
    """By the command that people call, so that no error may leave it."""
    scored(folder, "parent", rows(parent, "parent"))
    scored(folder, "candidate", rows(candidate))
    verdict = replay.decide(folder).verdict
    assert main(["gate", str(folder)]) == {"promote": 0, "refuse": 3, "ask": 4}[verdict.decision]
    return verdict


def test_without_a_trick_this_candidate_is_promoted(folder):
    assert judged(folder).decision == "promote"


# ---------------------------------------------------------------- what is no score


def one_item(task, **changes):
    def change(name, found):
        return [found[0] | changes, *found[1:]] if name == task else found

    return change


@pytest.mark.parametrize("arm", ["parent", "candidate"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loglik_nats": [math.nan]}, "nan over 500.0 of document 0"),
        ({"loglik_nats": [-math.inf]}, "inf over 500.0 of document 0"),
        ({"loglik_nats": [-1e30]}, "e+30 over 500.0 of document 0"),
        ({"loglik_nats": [3.0]}, "-4.3"),
        ({"loglik_nats": []}, "None over 500.0 of document 0"),
        ({"bytes": 0}, "over 0.0 of document 0"),
        ({"bytes": None}, "over None of document 0"),
        ({"document": None}, "of document None"),
        ({"doc_hash": None}, "of document 0"),
    ],
)
def test_one_text_whose_loss_is_no_loss_refuses_whatever_the_others_say(folder, arm, changes, said):
    found = judged(folder, **{arm: one_item("held-out--docs", **changes)})
    assert (found.decision, found.comparisons) == ("refuse", ())
    file = folder / arm / "held-out--docs.parquet"
    assert found.reasons[0].startswith(f"scores: {file}: 1 of 40 items have no score")
    assert said in found.reasons[0]


@pytest.mark.parametrize("correct", [2, -1, None])
def test_an_answer_that_is_neither_right_nor_wrong_refuses(folder, correct):
    found = judged(folder, one_item("quiz--docs", correct=correct))
    assert found.decision == "refuse"
    assert "quiz--docs.parquet: 1 of 40 items have no score that can be" in found.reasons[0]


def test_a_difference_that_is_no_number_refuses_and_leaves_the_other_tests_as_they_are():
    """As a record written by hand might have it: the function alone must not promote by it."""
    draw = np.random.default_rng(1)
    bits = draw.gamma(20, 40, 100)
    found = [
        comparison("held-out", "code", "domain", Pairs(bits, 0.9 * bits * draw.normal(1, 0.01, 100), bits, 100)),
        comparison("held-out", "docs", "general", Pairs(bits, bits * draw.normal(1, 0.001, 100), bits, 100)),
    ]
    policy = GateConfig(max_benchmark_loss=1)
    assert gate.judge(tuple(found), policy, "p", "c").decision == "promote"
    broken = found[1].tested.model_copy(update={"value": math.nan})
    other = found[1].model_copy(update={"source": "other", "tested": broken})
    verdict = gate.judge((*found, other), policy, "p", "c")
    assert verdict.decision == "refuse"
    assert verdict.reasons[0] == "held-out on other: its difference is not a number, so nothing was measured"
    assert [demand.state for demand in verdict.demands] == ["not shown", "shown", "shown"]


def comparison(benchmark, source, role, pairs):
    effect = paired.effect(pairs, AssessConfig(), relative=True)
    told = {"benchmark": benchmark, "source": source, "role": role, "metric": "bits_per_byte", "items": pairs.items}
    return Comparison(**told, **{k: v for k, v in effect._asdict().items() if k != "p"}, outcome="tie", p=effect.p)


# ---------------------------------------------------------------- too few documents


def of_document(name):
    return lambda _, found: [item | {"document": name} for item in found]


def test_items_that_all_come_from_one_document_say_nothing_of_others(folder):
    found = judged(folder, of_document("only"), of_document("only"))
    assert found.decision == "refuse"
    assert "nothing can be said of other documents: of the 1 its items come from, one at most" in found.reasons[0]


def test_a_suite_of_one_item_is_refused_and_no_error(folder):
    asked(folder, items=1)
    found = judged(folder, lambda _, found: found[:1], lambda _, found: found[:1])
    assert found.decision == "refuse"
    assert "give the benchmark items of more documents" in found.reasons[0]


def test_a_parent_that_is_sure_of_every_byte_leaves_nothing_to_be_compared_with(folder):
    def sure(task, found):
        return [item | {"loglik_nats": [0.0]} for item in found] if task == "held-out--docs" else found

    found = judged(folder, parent=sure)
    assert found.decision == "refuse"
    assert "carries bits of the parent (0 in all)" in found.reasons[0]


def test_one_document_that_carries_all_bits_is_no_sample(folder):
    def sure_of_the_rest(task, found):
        rest = [item | {"loglik_nats": [0.0]} for item in found[1:]]
        return [found[0], *rest] if task == "held-out--docs" else found

    found = judged(folder, parent=sure_of_the_rest)
    assert found.decision == "refuse"
    assert "one at most carries bits of the parent" in found.reasons[0]


# ---------------------------------------------------------------- other items


def half(_, found):
    return found[: ITEMS // 2]


def twice(_, found):
    """Another answer to an item that is there already, in place of one that is not."""
    again = found[1] | ({"correct": 1 - found[1]["correct"]} if "correct" in found[1] else {})
    return [again, *found[1:]]


@pytest.mark.parametrize(
    ("candidate", "parent", "said"),
    [
        (half, None, "40 and 20 items, 20 only of the parent, 0 only of the candidate; assess"),
        (None, half, "20 and 40 items, 0 only of the parent, 20 only of the candidate; assess"),
        (half, half, "20 items were scored and the suite has 40"),
        (twice, None, "1 only of the parent, 0 only of the candidate, 0 of the parent's and 1 of the candidate's"),
        (twice, twice, "40 and 40 items, 0 only of the parent, 0 only of the candidate, 1 of the parent's and 1"),
        (one_item("held-out--code", bytes=9000), None, "1 items are of another document or length for the candidate"),
        (one_item("quiz--code", document="39"), None, "1 items are of another document or length for the candidate"),
    ],
)
def test_items_that_are_not_the_parents_each_once_are_refused_with_how_many(folder, candidate, parent, said):
    found = judged(folder, candidate, parent)
    assert (found.decision, found.comparisons) == ("refuse", ())
    assert said in found.reasons[0]


def test_items_in_another_order_change_nothing(folder):
    plain = judged(folder)
    assert judged(folder, lambda _, found: found[::-1]) == plain


def test_a_task_the_candidate_was_not_scored_on_refuses(folder):
    scored(folder, "parent", rows(arm="parent"))
    scored(folder, "candidate", {task: found for task, found in rows().items() if task != "quiz--docs"})
    found = replay.decide(folder).verdict
    assert found.decision == "refuse"
    assert "quiz--docs.parquet: per-item scores are missing or damaged" in found.reasons[0]


def test_a_suite_that_changed_between_parent_and_candidate_refuses(folder):
    scored(folder, "parent", rows(arm="parent"))
    asked(folder, digest="e")
    scored(folder, "candidate", rows())
    found = replay.decide(folder).verdict
    assert found.decision == "refuse"
    assert f"{folder / 'parent'}: scored on suite d, not on e; assess both models again" in found.reasons[0]


def test_questions_that_were_edited_after_the_scoring_refuse(folder):
    assert judged(folder).decision == "promote"
    (folder / "suite" / "quiz--docs.jsonl").write_text("easier\n")
    found = replay.decide(folder).verdict
    assert found.decision == "refuse"
    assert "quiz--docs is not what suite.json says" in found.reasons[0]


# ---------------------------------------------------------------- answers all alike


def all_answers(correct):
    return lambda _, found: [item | {"correct": correct} if "correct" in item else item for item in found]


@pytest.mark.parametrize("correct", [0, 1])
def test_answers_all_wrong_or_all_right_before_and_now_are_no_fall(folder, correct):
    found = judged(folder, all_answers(correct), all_answers(correct))
    assert found.decision == "promote"
    assert [item.outcome for item in found.comparisons[2:]] == ["tie", "tie"]
    assert all(item.difference.low < 0 < item.difference.high for item in found.comparisons[2:])
    assert [item.relative_negative_rate for item in found.flips] == [None, None]


def test_a_model_that_answers_nothing_anymore_is_refused_for_the_fall(folder):
    """As one whose every generation is empty: wrong on all that its parent had right."""
    found = judged(folder, all_answers(0), all_answers(1))
    assert found.decision == "refuse"
    assert "accuracy 100.0% to 0.0%, -100.0 points" in found.reasons[0]
    assert found.reasons[0].endswith("allowed -20.0; too much")


# ---------------------------------------------------------------- margins


def policy(folder, capsys, text):
    """What `ratoon gate --params` says and its exit code."""
    scored(folder, "parent", rows(arm="parent"))
    scored(folder, "candidate", rows())
    (folder / "params.yaml").write_text(f"promote: {text}\n")
    code = main(["gate", str(folder), "--params", str(folder / "params.yaml")])
    found = capsys.readouterr()
    return code, " ".join((found.out + found.err).split())


@pytest.mark.parametrize("key", ["min_domain_gain", "max_general_loss", "max_benchmark_loss"])
@pytest.mark.parametrize("value", ["-0.01", ".nan", ".inf", "much", "null"])
def test_a_margin_that_is_none_is_refused_at_the_door(folder, capsys, key, value):
    code, said = policy(folder, capsys, f"{{{key}: {value}}}")
    assert code == 2
    assert f"params.yaml: promote.{key}" in said or f"promote: {key}" in said
    assert "Traceback" not in said


def test_a_gain_of_all_bits_cannot_be_asked_for(folder, capsys):
    """Who writes 5 for five percent is told, rather than refused every candidate for ever."""
    code, said = policy(folder, capsys, "{min_domain_gain: 5}")
    assert (code, "less than 1" in said) == (2, True)


def test_no_tolerance_at_all_asks_about_what_cannot_be_shown_and_promotes_what_can(folder):
    strict = json.loads((folder / replay.QUESTION).read_text())
    strict["policy"] = {"max_general_loss": 0, "max_benchmark_loss": 0}
    (folder / replay.QUESTION).write_text(json.dumps(strict))
    found = judged(folder)
    assert found.decision == "ask"
    assert {demand.kind for demand in found.demands if demand.answer == "ask"} == {"retention", "benchmark"}
    assert ", no rise allowed; " in " ".join(found.reasons)
    assert ", no fall allowed; " in " ".join(found.reasons)

    def better(task, found):
        if task == "held-out--docs":
            return [item | {"loglik_nats": [0.9 * item["loglik_nats"][0]]} for item in found]
        return [item | {"correct": 1} if "correct" in item else item for item in found]

    found = judged(folder, better)
    assert found.decision == "promote", found.reasons
    assert found.demands[1].limit == 0


def test_a_small_change_and_a_small_margin_are_not_told_as_none():
    draw = np.random.default_rng(2)
    bits = draw.gamma(20, 40, 400)
    pairs = Pairs(bits, bits * draw.normal(0.9997, 0.001, 400), bits, 400)
    found = comparison("held-out", "code", "domain", pairs)
    general = found.model_copy(update={"role": "general", "source": "docs"})
    verdict = gate.judge((found, general), GateConfig(max_general_loss=0.0004, max_benchmark_loss=1), "p", "c")
    assert verdict.decision == "promote"
    assert verdict.reasons[0].startswith("domain text code: bits per byte -0.04% [-0.05, -0.03], asked")
    assert verdict.reasons[1].endswith("allowed +0.04%")
