"""Benchmarks made from held-out documents: what is asked, and that nobody answers it without reading."""

import json
import random
from collections import Counter

import pytest
from made_up_world import NAMES, almanac, article, edition, module

from ratoon.config import AssessConfig, Benchmark, ConfigError
from ratoon.config.building import BuildRecipe
from ratoon.evaluation import suite
from ratoon.evaluation.asking import ask
from ratoon.evaluation.building import answerers, choices
from ratoon.evaluation.building.build import build, fair, log_frequency, refused
from ratoon.evaluation.building.candidates import Candidate, candidates, stands
from ratoon.evaluation.building.publish import publish
from ratoon.evaluation.held_out import held_out_documents
from ratoon.evaluation.passages import rank

RECIPE = BuildRecipe(source="world", items=60, per_document=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    held_out = {f"d{i:03}": article(i) for i in range(90)}
    training = {f"t{i}": almanac(i) for i in range(3)} | {"copy": f"Quoted: {article(7)} and {article(8)}"}
    return edition(tmp_path_factory.mktemp("clean") / "world", held_out, training)


@pytest.fixture(scope="module")
def built(world):
    return build(RECIPE, world, [world])


def asked(text, kind, code=False):
    text = LEAD[code] + text
    recipe = BuildRecipe(source="x", text="code" if code else "prose", answer_bytes=20)
    return [one.answer for one in candidates("d", text, kind, recipe)]


LEAD = ("a lead of some words that say enough to ask about what follows, ", f"{'a = 1 + 2; ' * 9}")


@pytest.mark.parametrize(
    ("text", "kind", "code", "expected"),
    [
        ("in 1998 it had 3.25 of 7 and x12, or 1998 again", "number", False, [" 1998", " 3.25"]),
        ("it was Ada Lovelace. However she met Babbage", "name", False, [" Ada Lovelace", " Babbage"]),
        ("call np.sum or array_equal with toArray", "name", False, [" array_equal", " toArray"]),
        (
            "1 + 2\nx = first_value\ny = first_value + MAX_SIZE\nreturn None",
            "name",
            True,
            [" first_value", " MAX_SIZE"],
        ),
        ("said so. A digraph is a graph whose edges have directions", "definition", False, [" a graph whose edges"]),
        ("args\n\nnodes : list of nodes to look at in turn", "definition", False, [" list of nodes to lo"]),
        ("1\n\ndef area(w, h):\n    return w * h * 2 + 1\n", "definition", True, ["\n    return w * h * "]),
        ("class Foo {\n  bar = 12345678 + 9;\n}", "definition", True, []),
    ],
)
def test_what_is_asked_begins_with_white_space_and_does_not_stand_before(text, kind, code, expected):
    assert asked(text, kind, code) == expected


def test_the_body_of_a_title_is_asked_for_and_code_has_none():
    body = "The body of it says a few words about cane, and some more of them, and then it ends after a while."
    text = f"How cane is grown\n\n{body}\n\n## On the press itself\n\n{body}"
    recipe = BuildRecipe(source="x", answer_bytes=30)
    found = list(candidates("d", text, "title", recipe))
    assert [one.answer for one in found] == [f"\n\n{body[:60]}"] * 2
    assert [one.context.split("\n")[-1] for one in found] == ["How cane is grown", "## On the press itself"]
    assert asked(text, "title", code=True) == []


def test_every_item_is_answered_by_its_document_and_no_wrong_answer_stands_near(built, world):
    texts = {one.id: one.text for one in held_out_documents(world)}
    assert {item.asked.kind for item in built.items} == {"number", "name", "definition", "title", "passage"}
    for item in built.items:
        one = item.asked
        assert one.context + one.answer in texts[one.document]
        assert item.choices[item.gold] == one.answer
        assert len({choice.strip().casefold() for choice in item.choices}) == RECIPE.choices
        assert [stands(one._replace(answer=c), one.evidence) for c in item.choices].index(True) == item.gold
        assert sum(stands(one._replace(answer=choice), one.evidence) for choice in item.choices) == 1
        if one.kind in ("definition", "title", "passage"):
            assert len({len(choice.encode()) for choice in item.choices}) == 1


def test_whoever_sees_the_choices_of_whole_blocks_alone_gets_exactly_as_many_right_as_by_guessing(world):
    found = [one for name, text, _ in held_out_documents(world) for one in candidates(name, text, "name", RECIPE)]
    made = choices.items(found, 4, lambda text: 0.0, seed=0)
    assert len(made) > 100
    for strategy in range(20):
        picked = [max(item.choices, key=lambda text, s=strategy: rank(s, text)) for item in made]
        assert sum(p == item.asked.answer for p, item in zip(picked, made, strict=True)) == len(made) // 4
    assert set(Counter(item.gold for item in made).values()) == {len(made) // 4}


def test_nothing_that_stands_in_training_text_is_asked(built):
    assert not {"d007", "d008"} & {item.asked.document for item in built.items}
    assert all(made.dropped["in training text"] > 0 for made in built.kinds.values())


def test_numbers_and_names_that_training_text_never_says_are_not_asked(world, tmp_path):
    texts = {one.id: one.text for one in held_out_documents(world)}
    silent = edition(tmp_path / "silent", texts, {"t": "nothing of it is said in here"})
    made = build(RECIPE, world, [silent])
    assert set(made.left_out) == {"number", "name"}
    assert made.kinds["name"].dropped["unknown to training text"] == made.kinds["name"].candidates
    assert made.left_out["name"].startswith("0 items of ")


def test_the_counts_add_up_and_every_kind_says_what_became_of_it(built):
    for kind, made in built.kinds.items():
        assert made.candidates == made.items + sum(made.dropped.values())
        assert made.items == sum(item.asked.kind == kind for item in built.items) >= RECIPE.least
        assert made.open_book is not None
        assert made.open_book > 0.9
        assert min(one.p for one in made.blind) >= RECIPE.significance


# ---------------------------------------------------------------- answerers


def item(i, answer, wrong, evidence="", block=None):
    one = Candidate(f"d{i}", i, "name", "s", "context", answer, evidence)
    gold = i % (len(wrong) + 1)
    return choices.Item(one, (*wrong[:gold], answer, *wrong[gold:]), gold, i if block is None else block)


def by_name(items, frequency=lambda text: 0.0):
    return {one.name: one for one in answerers.blind(items, frequency, 0)}


def test_items_whose_right_answer_is_the_longest_the_most_frequent_or_first_are_told_apart():
    draw = random.Random(0)
    names = [draw.sample(NAMES, 4) for _ in range(80)]
    plain = [item(i, a, rest) for i, (a, *rest) in enumerate(names)]
    assert all(one.p > 0.01 for one in by_name(plain).values())
    long = [item(i, f"{a} {a}", rest) for i, (a, *rest) in enumerate(names)]
    found = by_name(long)
    assert found["longest"].accuracy == 1
    assert found["longest"].p < 1e-9
    assert found["trained on choices"].p < 1e-9
    common = {a for a, *_ in names[:40]}
    often = by_name([item(i, a, rest) for i, (a, *rest) in enumerate(names)], lambda text: float(text in common))
    assert often["most frequent"].p < 1e-4
    first = [
        one._replace(gold=0, choices=(one.asked.answer, *rest)) for one, (_, *rest) in zip(plain, names, strict=True)
    ]
    assert by_name(first)["first"].accuracy == 1


def test_a_pattern_that_only_training_finds_is_found_by_the_trained_answerer():
    draw = random.Random(1)
    items = [item(i, f"{a[:-1]}q", [n[:-1] + "x" for n in rest]) for i, (a, *rest) in enumerate(
        draw.sample(NAMES, 4) for _ in range(100)
    )]  # fmt: skip
    found = by_name(items)
    assert found["trained on choices"].accuracy > 0.9
    assert found["longest"].p > 0.01


def test_items_told_by_their_choices_are_dropped_but_for_whole_blocks_and_a_kind_of_them_is_refused():
    told = [item(i, f"{a} {a}", rest) for i, (a, *rest) in enumerate(
        random.Random(2).sample(NAMES, 4) for _ in range(60)
    )]  # fmt: skip
    assert fair(told, RECIPE, lambda text: 0.0) == []
    block = ["Aba", "Bcbcb", "Cdcdcdcd", "Deb"]
    whole = [item(k, block[k], [other for other in block if other != block[k]], block=99) for k in range(4)]
    assert fair([*told, *whole], RECIPE, lambda text: 0.0) == whole
    seen = answerers.blind(told, lambda text: 0.0, 0)
    from ratoon.evaluation.building.build import Made, recorded

    made = Made(candidates=60, items=60, documents=60, blind=tuple(map(recorded, seen)))
    assert refused(made, RECIPE) == "choices alone tell the answer: longest is right in 100% of 60"


def test_a_reader_who_finds_a_wrong_answer_as_near_makes_the_item_unfit():
    weights = answerers.rarity(["the mill by the river", "cane and syrup", "Bodo met Kara at the mill"])
    fit = item(0, " Bodo", [" Vasu", " Zuli"], "Bodo met Kara at the mill")
    twice = item(0, " Bodo", [" Kara", " Zuli"], "Bodo met Kara at the mill")
    absent = item(0, " Bodo", [" Vasu", " Zuli"], "nobody was at the mill")
    assert answerers.open_book([fit, twice, absent], weights) == [True, False, False]


def test_holm_adjusts_as_by_hand():
    assert answerers.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


def test_frequency_is_of_all_words_of_an_answer():
    frequency = log_frequency(Counter({"cane": 7, "mill": 0}))
    assert frequency(" cane mill") == pytest.approx(frequency("cane") / 2)
    assert frequency("?!") == 0


# ---------------------------------------------------------------- code, and too little text


def test_code_yields_names_and_definitions_and_says_that_it_has_no_titles(tmp_path):
    held_out = {f"m{i}": module(i) for i in range(60)}
    clean = edition(tmp_path / "code", held_out, {f"t{i}": module(900 + i) + almanac(i) for i in range(2)})
    made = build(RECIPE.model_copy(update={"text": "code", "known": 0}), clean, [clean])
    assert {"name", "definition"} <= {item.asked.kind for item in made.items}
    assert made.left_out["title"] == "0 items of 0 candidates, 20 are asked for"
    for one in made.items:
        if one.asked.kind == "definition":
            assert one.asked.context.endswith(":")
            assert all(choice.startswith("\n    ") for choice in one.choices)


def test_too_little_text_is_refused_with_what_each_kind_came_to(tmp_path):
    clean = edition(tmp_path / "few", {f"d{i}": article(i) for i in range(5)}, {"t": almanac(0)})
    with pytest.raises(ConfigError) as error:
        build(RECIPE, clean, [clean])
    said = str(error.value).splitlines()
    assert said[0] == "source 'world': 5 held-out documents make no benchmark:"
    assert [line.split(":")[0].strip() for line in said[1:6]] == ["number", "name", "definition", "title", "passage"]
    assert "ask for less with --least" in said[-1]


# ---------------------------------------------------------------- on disk


def test_a_built_benchmark_is_asked_like_any_file_of_items(built, tmp_path):
    report, benchmark = publish(tmp_path, "facts", RECIPE, built)
    assert (benchmark.version, benchmark.form.role, benchmark.form.source) == (1, "domain", "world")
    made = suite.build([benchmark], {}, AssessConfig(), tmp_path / "suite", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "suite" / "facts.jsonl").read_text().splitlines()]
    assert [(line["context"], tuple(line["choices"]), line["gold"], line["document"]) for line in lines] == [
        (item.asked.context, item.choices, item.gold, item.asked.document) for item in built.items
    ]
    assert made.tasks[0].items == len(built.items) == sum(one.items for one in report.kinds.values())


def test_built_names_can_be_asked_for_in_the_models_own_words(built, tmp_path):
    _, benchmark = publish(tmp_path, "facts", RECIPE, built)
    columns = {"question": "context", "answer": "answers", "id": "id", "document": "document"}
    form = benchmark.form.model_dump() | {"ask": "generation", "columns": columns, "until": ["\n", " "]}
    asked = ask(Benchmark.model_validate(benchmark.model_dump() | {"form": form}), tmp_path)
    for line, item in zip(asked.test["plain"], built.items, strict=True):
        assert line["prompt"] == item.asked.context
        assert line["answers"] == [item.asked.answer.strip()]


def test_the_same_text_gives_the_same_items_and_other_items_another_version(world, built, tmp_path):
    first, _ = publish(tmp_path, "facts", RECIPE, built)
    path = tmp_path / "data" / "benchmarks" / "facts.yaml"
    path.write_text(f"# mine\n{path.read_text().replace('min', 'min')}min_documents: 30\n")
    again, unchanged = publish(tmp_path, "facts", RECIPE, build(RECIPE, world, [world]))
    assert (again.digest, unchanged.version, unchanged.min_documents) == (first.digest, 1, 30)
    other = RECIPE.model_copy(update={"seed": 1})
    changed, benchmark = publish(tmp_path, "facts", other, build(other, world, [world]))
    assert changed.digest != first.digest
    assert (benchmark.version, benchmark.min_documents) == (2, 30)
    assert path.read_text().startswith("# mine\n")


def test_a_benchmark_that_somebody_wrote_is_not_written_over(built, tmp_path):
    folder = tmp_path / "data" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "held-out.yaml").write_text("name: held-out\nversion: 1\nform:\n  kind: held_out\n")
    with pytest.raises(ConfigError, match=r"held-out\.yaml: is of kind held_out and was not built"):
        publish(tmp_path, "held-out", RECIPE, built)
