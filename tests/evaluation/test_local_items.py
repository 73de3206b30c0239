"""Items of files: asked as declared, in the wording that suits each model, chosen on development items alone."""

import json
import random

import pytest

from ratoon.config import AssessConfig, Benchmark, ConfigError, GateConfig, parse
from ratoon.evaluation import gate, harness, paired, prompts, suite
from ratoon.evaluation.asking import ask
from ratoon.records import Comparison, Interval, read

CONFIG = AssessConfig()
PLAIN = {"name": "plain", "template": "{question}\nAnswer:"}
LISTED = {"name": "listed", "template": "{question}\n{choices}\nAnswer:"}
COLUMNS = {"question": "q", "choices": "options", "answer": "key", "id": "n"}


def exam(ask="choice", columns=COLUMNS, **form):
    form = {"kind": "items", "path": "exam.jsonl", "ask": ask, "columns": columns, **form}
    return parse(Benchmark, {"name": "exam", "version": 1, "form": form}, "benchmarks/exam.yaml")


@pytest.fixture
def root(tmp_path):
    draw = random.Random(0)
    lines = []
    for n in range(60):
        options = [f"{draw.choice('abcdef')}{k}" for k in range(3)]
        line = {"n": f"i{n}", "q": f"What is {n}?", "options": options, "key": draw.randrange(3), "topic": f"t{n // 2}"}
        lines.append(line | {"text": f"Statement {n} [1]\n", "right": [f"answer {n}", f"{n}"]})
    (tmp_path / "exam.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_an_item_is_asked_as_its_columns_template_and_delimiter_say(root, tmp_path):
    built = suite.build([exam(prompts=[PLAIN])], {}, CONFIG, tmp_path / "suite", root)
    (task,) = suite.load(tmp_path / "suite").tasks
    assert (task.name, task.source, task.kind, task.metric) == ("exam", "exam", "choice", "accuracy")
    assert (task.items, task.documents, task.requests) == (60, 60, 180)
    assert built.tasks == (task,)
    first = lines(tmp_path / "suite" / "exam.jsonl")[0]
    given = lines(root / "exam.jsonl")[0]
    assert first["context"] == "What is 0?\nAnswer:"
    assert first["choices"] == [f" {option}" for option in given["options"]]
    assert first["gold"] == given["key"]


def test_listed_choices_are_answered_by_their_letter(root):
    asked = ask(exam(prompts=[LISTED]), root)
    given = lines(root / "exam.jsonl")[7]
    item = asked.test["listed"][7]
    a, b, c = given["options"]
    assert item["context"] == f"What is 7?\nA. {a}\nB. {b}\nC. {c}\nAnswer:"
    assert (item["choices"], item["gold"]) == ([" A", " B", " C"], given["key"])


def test_braces_in_questions_are_left_as_they_are(root):
    (root / "exam.jsonl").write_text(
        '{"q": "{choices} {question} {x}", "options": ["{question}", "b"], "key": 0}\n' * 1
    )
    asked = ask(exam(columns={**COLUMNS, "id": None}, prompts=[{**LISTED, "template": "{ {question}|{choices}"}]), root)
    assert asked.test["listed"][0]["context"] == "{ {choices} {question} {x}|A. {question}\nB. b"


def test_texts_are_scored_as_they_are_and_generations_say_where_they_end(root):
    rolling = ask(exam("rolling", {"question": "text", "answer": None, "document": "topic"}), root)
    assert rolling.test["plain"][3] == {"id": "3", "document": "t1", "text": "Statement 3 [1]\n"}
    columns = {"question": "q", "answer": "right"}
    form = exam("generation", columns, prompts=[PLAIN], until=["\n", "."], max_tokens=5, labels=["yes", "no"])
    assert ask(form, root).test["plain"][2] == {
        "id": "2",
        "document": "2",
        "prompt": "What is 2?\nAnswer:",
        "answers": ["answer 2", "2"],
        "until": ["\n", "."],
        "max_tokens": 5,
        "labels": ["yes", "no"],
    }


def test_a_question_that_comes_again_with_the_same_choices_is_no_document_of_its_own(root, tmp_path):
    again = [{"n": f"j{n}", "q": "Same?", "options": ["yes", "no"], "key": 0} for n in range(40)]
    other = {"n": "k", "q": "Same?", "options": ["yes", "never"], "key": 0}
    (root / "exam.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*again, other]))
    asked = ask(exam(), root).test["plain"]
    assert [item["id"] for item in asked] == [*(f"j{n}" for n in range(40)), "k"]
    assert {item["document"] for item in asked} == {"j0", "k"}
    with pytest.raises(ConfigError, match="come from 2 documents; it needs 20"):
        suite.build([exam()], {}, CONFIG, tmp_path / "suite", root)


def test_examples_are_development_items_of_other_documents_and_never_asked(root):
    shots = {"name": "shots", "template": "Q: {question}\nA:", "shots": 3, "between": "\n--\n"}
    form = exam(columns={**COLUMNS, "document": "topic"}, prompts=[{**shots, "shots": 0, "name": "none"}, shots])
    asked = ask(form, root)
    test, development = asked.test["none"], asked.development["none"]
    assert {item["document"] for item in test}.isdisjoint(item["document"] for item in development)
    assert len(test) + len(development) == 60
    given = {line["q"]: line for line in lines(root / "exam.jsonl")}
    apart = {item["id"] for item in development}
    for item in [*asked.test["shots"], *asked.development["shots"]]:
        *shown, last = item["context"].split("\n--\n")
        assert len(shown) == 3
        for example in shown:
            question, answer = example.removeprefix("Q: ").split("\nA: ")
            assert given[question]["n"] in apart
            assert given[question]["topic"] != item["document"]
            assert given[question]["options"][given[question]["key"]] == answer
        assert given[last.removeprefix("Q: ").removesuffix("\nA:")]["n"] == item["id"]


def test_more_items_or_other_prompts_move_no_document_between_the_two_sides(root):
    few = ask(exam(prompts=[PLAIN, LISTED]), root)
    (root / "exam.jsonl").write_text(
        (root / "exam.jsonl").read_text() + '{"n": "new", "q": "?", "options": ["a", "b"], "key": 0}\n'
    )
    more = ask(exam(prompts=[LISTED, {**PLAIN, "shots": 2}]), root)
    before, after = ({i["id"] for i in each.development["listed"]} for each in (few, more))
    assert before == after - {"new"}


def test_of_many_items_the_same_are_asked_when_the_file_grows(root):
    few = [item["id"] for item in ask(exam(most=20), root).test["plain"]]
    (root / "exam.jsonl").write_text("".join((root / "exam.jsonl").read_text().splitlines(True)[:50]))
    fewer = [item["id"] for item in ask(exam(most=20), root).test["plain"]]
    assert len(few) == len(fewer) == 20
    assert set(few) - {f"i{n}" for n in range(50, 60)} <= set(fewer)


@pytest.mark.parametrize(
    ("form", "letter"),
    [
        ({"columns": {"question": "q"}}, "ask is choice: columns.choices and columns.answer must name"),
        ({"ask": "rolling", "prompts": [LISTED]}, "ask is rolling: texts are scored as they are"),
        ({"prompts": [{"template": "no place"}]}, r"template 'no place' must hold \{question\} once"),
        ({"prompts": [PLAIN, PLAIN]}, "prompts are called plain, plain; each needs a name of its own"),
        ({"ask": "generation", "prompts": [LISTED]}, r"ask is generation: there are no \{choices\}"),
        ({"pattern": "("}, "is no regular expression"),
        ({"until": ["\n", ""]}, "until holds an empty text"),
        ({"labels": ["yes"], "pattern": "y.*"}, "labels and pattern both say what a valid output is; give one"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_reason(form, letter):
    with pytest.raises(ConfigError, match=letter):
        exam(**form)


def test_too_few_items_or_too_few_for_development_are_refused(root, tmp_path):
    (root / "exam.jsonl").write_text("".join((root / "exam.jsonl").read_text().splitlines(True)[:5]))
    with pytest.raises(ConfigError, match=r"'exam': its items in .* come from 5 documents; it needs 20\n  add items"):
        suite.build([exam()], {}, CONFIG, tmp_path / "suite", root)
    with pytest.raises(ConfigError, match=r"documents of exam.jsonl are for development .* 4 are needed"):
        ask(exam(prompts=[{**PLAIN, "shots": 3}], development=0.01), root)


# ---------------------------------------------------------------- prompts


@pytest.fixture
def worded(root, tmp_path):
    suite.build([exam(prompts=[PLAIN, LISTED])], {}, CONFIG, tmp_path / "suite", root)
    return tmp_path / "suite"


class Judge:
    """Scores a model that answers right under one prompt, but on the items that are asked under the other."""

    def __init__(self, likes):
        self.likes, self.seen = likes, set()

    def __call__(self, folder, out):
        found = suite.load(folder)
        values = {}
        for task in found.tasks:
            items = lines(folder / f"{task.name}.jsonl")
            self.seen |= {item["id"] for item in items}
            development = folder.name == "development"
            values[task.name] = float((self.likes in task.name) == development)
        return values


@pytest.mark.parametrize("likes", ["plain", "listed"])
def test_the_prompt_is_picked_by_development_items_and_no_asked_item_is_looked_at(worded, tmp_path, likes):
    judge = Judge(likes)
    folder = prompts.settle(worded, tmp_path / "mine", judge)
    asked = lines(folder / "exam.jsonl")
    assert judge.seen
    assert judge.seen.isdisjoint(item["id"] for item in asked)
    picks = read(tmp_path / "mine" / "picks.json", prompts.Picks)
    assert [(pick.prompt, pick.items) for pick in picks.picks] == [(likes, len(judge.seen))]
    letters = [item["choices"] == [" A", " B", " C"] for item in asked]
    assert all(letters) if likes == "listed" else not any(letters)


def test_models_that_pick_differently_spend_the_same_and_are_asked_the_same_items(worded, tmp_path):
    folders = [prompts.settle(worded, tmp_path / likes, Judge(likes)) for likes in ("plain", "listed")]
    one, other = (suite.load(folder) for folder in folders)
    assert one.digest == other.digest == suite.load(worded).digest
    assert [i["id"] for i in lines(folders[0] / "exam.jsonl")] == [i["id"] for i in lines(folders[1] / "exam.jsonl")]
    assert one.tasks[0].sha256 != other.tasks[0].sha256
    spent = [read(tmp_path / likes / "picks.json", prompts.Picks).picks[0] for likes in ("plain", "listed")]
    assert (spent[0].items, spent[0].requests) == (spent[1].items, spent[1].requests)


def test_equal_prompts_are_settled_in_the_order_of_the_declaration(worded, tmp_path):
    def equal(folder, out):
        return {task.name: 0.5 for task in suite.load(folder).tasks}

    prompts.settle(worded, tmp_path / "mine", equal)
    assert read(tmp_path / "mine" / "picks.json", prompts.Picks).picks[0].prompt == "plain"


def test_a_suite_without_prompts_to_pick_from_is_asked_as_it_is(root, tmp_path):
    suite.build([exam()], {}, CONFIG, tmp_path / "suite", root)
    assert prompts.settle(tmp_path / "suite", tmp_path / "mine", Judge("plain")) == tmp_path / "suite"
    assert not (tmp_path / "mine").exists()


def test_two_models_in_prompts_of_their_own_are_compared_item_by_item(worded, models, tmp_path):
    scored = {}
    for model, likes in zip(models, ("plain", "listed"), strict=True):

        def score(tests, into, model=model):
            found = harness.score(model, tests, into, row_tokens=144, device="cpu", threads=1)
            return {task.task: task.value for task in found.tasks}

        chosen = prompts.settle(worded, tmp_path / f"{likes}-own", score)
        picks = read(tmp_path / f"{likes}-own" / "picks.json", prompts.Picks).picks[0]
        assert picks.accuracies[picks.prompt] == max(picks.accuracies.values())
        assert suite.load(chosen).picked == {"exam": picks.prompt}
        prompts.write_picked(worded, suite.load(worded), {"exam": likes}, tmp_path / f"{likes}-suite")
        scored[likes] = tmp_path / likes
        score(tmp_path / f"{likes}-suite", scored[likes])
    (item,) = paired.compare(scored["plain"], scored["listed"], worded, AssessConfig(bootstrap=200))
    assert (item.benchmark, item.source, item.items) == ("exam", "exam", suite.load(worded).tasks[0].items)


def test_a_benchmark_with_items_of_its_own_is_not_missed_on_other_sources():
    def compared(benchmark, source, metric="accuracy"):
        value = Interval(value=0.5, low=0.4, high=0.6, confidence=0.95)
        role = "domain" if source == "code" else "general"
        arms = {"parent": value, "candidate": value, "difference": value, "relative": value}
        return Comparison(
            benchmark=benchmark, source=source, role=role, metric=metric, items=9, outcome="tie", samples="", **arms
        )

    texts = [compared("held-out", source, "bits_per_byte") for source in ("docs", "code")]
    assert list(gate.missing((*texts, compared("exam", "exam")), GateConfig())) == []
    (found,) = gate.missing((*texts, compared("exam", "exam"), compared("next-passage", "docs")), GateConfig())
    assert found.reason.startswith("next-passage on code: not measured")


def test_a_suite_of_old_reads_and_keeps_its_digest(sources, tmp_path):
    held_out = Benchmark(name="held-out", version=1, form={"kind": "held_out"})
    made = suite.build([held_out], sources, CONFIG, tmp_path / "suite")
    path = tmp_path / "suite" / "suite.json"
    old = json.loads(path.read_text())
    del old["picked"]
    for task in old["tasks"]:
        del task["kind"], task["prompts"]
    path.write_text(json.dumps(old))
    assert suite.load(tmp_path / "suite") == made
    import hashlib

    # As the digest was taken before tasks had a kind.
    assert made.digest == hashlib.sha256(json.dumps(old["tasks"], sort_keys=True).encode()).hexdigest()
