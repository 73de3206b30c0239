"""What could not be asked or checked after the training is told before it, with the item's file and line."""

import json

import pytest

from ratoon.config import AssessConfig, Benchmark, ConfigError, parse
from ratoon.evaluation import askable, suite

ROW_TOKENS = 128
CHOICE = {"columns": {"question": "q", "choices": "options", "answer": "key"}}
TEXT = {"columns": {"question": "q", "answer": None}}
WRITTEN = {"columns": {"question": "q", "answer": "key"}}
ITEMS = [{"q": f"Is {n} even?", "options": ["yes", "no"], "key": "no" if n % 2 else "yes"} for n in range(30)]


@pytest.fixture
def root(models, tmp_path):
    def built(ask, form, *more, **declared):
        (tmp_path / "exam.jsonl").write_text("\n" + "".join(json.dumps(item) + "\n" for item in [*ITEMS, *more]))
        form = {"kind": "items", "path": "exam.jsonl", "ask": ask, **form, **declared}
        exam = parse(Benchmark, {"name": "exam", "version": 1, "form": form}, "exam.yaml")
        suite.build([exam], {}, AssessConfig(), tmp_path / "suite", tmp_path)
        askable.check(tmp_path / "suite", [exam], tmp_path, models[0], ROW_TOKENS)
        return tmp_path / "suite"

    return built


def test_items_that_fit_are_asked_whatever_their_kind(root):
    root("choice", CHOICE, prompts=[{"name": "plain"}, {"name": "shown", "template": "{question}\n{choices}"}])
    root("rolling", TEXT)
    root("generation", WRITTEN, max_tokens=ROW_TOKENS - 1)


@pytest.mark.parametrize(
    ("ask", "form", "more", "letter"),
    [
        (
            "choice", CHOICE, {"q": "?", "options": ["long " * 80, "no"], "key": 1},
            r"^benchmark 'exam': exam.jsonl:32: item '30': a passage to score has 401 tokens; the model reads 1 to 128",
        ),
        (
            "choice", {**CHOICE, "prompts": [{"name": "p"}, {"name": "q", "template": "{question}:"}]},
            {"q": "?", "options": ["long " * 80, "no"], "key": 1}, r"exam.jsonl:32: item '30': a passage to score has",
        ),
        ("rolling", TEXT, {"q": ""}, r"^benchmark 'exam': exam.jsonl:32: item '30': its text is empty"),
        (
            "generation", {**WRITTEN, "max_tokens": ROW_TOKENS}, {"q": "a", "key": "b"},
            r"^benchmark 'exam': max_tokens is 128, and the model reads 128 at once, .*\n  lower form.max_tokens",
        ),
    ],
)  # fmt: skip
def test_an_item_that_no_such_model_can_be_asked_is_told_with_its_line(root, ask, form, more, letter):
    with pytest.raises(ConfigError, match=letter):
        root(ask, form, more)


def test_made_passages_that_are_longer_than_a_row_name_their_benchmark(models, sources, tmp_path):
    made = Benchmark(name="next", version=1, form={"kind": "next_passage"})
    suite.build([made], sources, AssessConfig(items=24), tmp_path / "suite")
    with pytest.raises(ConfigError, match=r"^benchmark 'next': item .* has 80 tokens; .* 1 to 64 .*\n.*continuation"):
        askable.check(tmp_path / "suite", [made], tmp_path, models[0], 64)


@pytest.mark.parametrize(
    ("golden", "letter"),
    [
        ({"exams": "all"}, r"^params.yaml: promote.golden: no benchmark .* 'exams'; did you mean 'exam'\?"),
        ({"exam": ("3", "99", "x")}, r"^params.yaml: promote.golden.exam: 2 of 3 are not among the items asked: 99, x"),
    ],
)
def test_pinned_items_that_are_not_asked_are_told_by_name(root, golden, letter):
    folder = root("choice", CHOICE)
    askable.check_golden({"exam": "all"}, folder)
    askable.check_golden({"exam": ("3", "29")}, folder)
    with pytest.raises(ConfigError, match=letter):
        askable.check_golden(golden, folder)
