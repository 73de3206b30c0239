"""Generation health: the measures where the answer is known, and both models over the same prompts."""

import shutil

import numpy as np
import pyarrow.parquet as parquet
import pytest
from held_out_text import prose, write_held_out

from ratoon.config import AssessConfig, Benchmark, GenerationConfig
from ratoon.evaluation import harness, health, suite, writing
from ratoon.evaluation.health import measure
from ratoon.records import read, write
from ratoon.report.health import text

EN = "The harvest was carried to the mill before the rain, and everybody helped with the work that was left. "
DE = "Die Ernte wurde vor dem Regen zur Mühle gebracht, und alle halfen bei der Arbeit, die noch zu tun war. "


def test_a_constant_output_repeats_all_but_one_of_its_tokens():
    found = measure([7] * 20, "", "", False)
    assert found["rep_1"] == 1 - 1 / 20
    assert found["rep_4"] == 1 - 1 / 17
    assert found["diversity"] == pytest.approx(1 / 19 * 1 / 18 * 1 / 17)
    assert found["loop"] == 1


def test_an_output_of_different_tokens_repeats_nothing():
    found = measure(list(range(20)), "", "", True)
    assert [found[f"rep_{n}"] for n in (1, 2, 3, 4)] == [0, 0, 0, 0]
    assert (found["diversity"], found["loop"], found["ended"]) == (1, 0, 1)


def test_what_is_too_short_is_undefined_and_not_zero():
    found = measure([1, 2], "", "", None)
    assert (found["rep_2"], found["rep_3"], found["diversity"], found["ended"]) == (0, None, None, None)
    assert measure([], "", "", False)["rep_1"] is None


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([1, 2, 3, 4] * 3, True),
        ([9, 8, 7, *([1, 2, 3, 4, 5] * 3)], True),
        ([1, 2, 3, 4] * 3 + [1], True),  # the piece may begin anywhere
        ([1, 2, 3, 4] * 3 + [9], False),
        ([1, 2, 3, 4, 5, 6] * 2, False),
        (list(range(30)) + [5] * 3, False),  # three line ends are no loop
        (list(range(30)) + [5] * 12, True),
    ],
)
def test_a_loop_is_one_piece_three_times_and_long(tokens, expected):
    assert health.loops(tokens) == expected


def test_an_output_in_another_language_has_strayed_and_one_in_two_is_mixed():
    assert measure([1], DE * 3, EN, False)["strayed"] == 1
    assert measure([1], EN * 3, EN, False)["strayed"] == 0
    assert measure([1], EN * 4 + "\n" + DE * 2, EN, False)["mixing"] > 0.2
    assert measure([1], EN * 4, EN, False)["mixing"] == 0
    assert measure([1], "oui", EN, False)["strayed"] is None


def test_differences_are_of_pairs_and_swapping_the_models_swaps_them():
    draw = np.random.default_rng(0)
    old = [{"length": float(value), "loop": None} for value in draw.normal(50, 20, 40)]
    new = [
        {"length": it["length"] + float(step), "loop": 1.0} for it, step in zip(old, draw.normal(2, 1, 40), strict=True)
    ]
    there, back = health.compare(old, new, old, 0.95), health.compare(new, old, old, 0.95)
    found, other = ({it.name: it for it in arm}["length"] for arm in (there, back))
    assert 1.5 < found.difference.low < found.difference.value < found.difference.high < 3
    assert (other.difference.low, other.difference.high) == (-found.difference.high, -found.difference.low)
    loop = {it.name: it for it in there}["loop"]
    assert (loop.parent, loop.candidate, loop.difference, loop.prompts) == (None, 1.0, None, 0)


@pytest.fixture
def assessed(models, sources, tmp_path):
    """Both models scored, looked at and told."""
    benchmarks = [
        Benchmark(name="held-out", version=1, form={"kind": "held_out"}),
        Benchmark(name="next-passage", version=1, form={"kind": "next_passage", "context_bytes": 60}),
    ]
    config = AssessConfig(
        items=24,
        max_bytes=700,
        generation=GenerationConfig(documents=6, prompt_tokens=20, tokens=24, searched_tokens=0),
    )
    tests = suite.build(benchmarks, sources, config, tmp_path / "suite")

    def call(parent, candidate, config=config):
        scores = {}
        for arm, model in (("parent", parent), ("candidate", candidate)):
            scores[arm] = tmp_path / arm
            harness.score(model, tmp_path / "suite", scores[arm], row_tokens=144, device="cpu")
        places = {name: writing.Place(role, clean, tmp_path) for name, (role, clean) in sources.items()}
        pair = writing.Models(parent, candidate, 144, "cpu", threads=1)
        return writing.assess(pair, places, scores, tests, config, tmp_path / "health.parquet")

    return call


def test_two_models_are_compared_on_the_same_prompts_and_every_output_is_kept(assessed, models, tmp_path):
    found = assessed(*models)
    write(tmp_path / "health.json", found)
    assert read(tmp_path / "health.json", health.Health) == found
    rows = parquet.read_table(tmp_path / "health.parquet").to_pylist()
    assert len(rows) == 12
    for each in found.writing:
        mine = [row for row in rows if row["source"] == each.source]
        assert each.prompts == len(mine) == 6
        for item in each.measures:
            for arm in ("parent", "candidate"):
                known = [row[f"{arm}_{item.name}"] for row in mine if row[f"{arm}_{item.name}"] is not None]
                assert getattr(item, arm) == pytest.approx(np.mean(known) if known else None)
    assert {(it.source, it.items) for it in found.calibration} == {("code", 24), ("docs", 24)}
    said = text(found)
    assert "written: code, 6 prompts" in said
    assert "calibration error: next-passage on docs" in said
    assert all(len(line) <= 80 and line.isascii() for line in said.splitlines())


def test_a_model_beside_itself_differs_in_nothing(assessed, models):
    found = assessed(models[0], models[0])
    for each in found.writing:
        for item in each.measures:
            assert item.parent == item.candidate
            if item.difference:
                assert (item.difference.low, item.difference.high) == (0, 0)
    assert all(it.parent == it.candidate for it in found.calibration)
    assert "*" not in text(found)


def test_a_candidate_with_another_tokenizer_is_asked_the_same_text_and_measured_in_the_same_tokens(
    assessed, models, tmp_path
):
    """The same model and alphabet, every entry under another number: it writes the same, and nothing may differ."""
    import json

    import torch

    from ratoon.lm.load import load_model

    other = shutil.copytree(models[0], tmp_path / "renumbered")
    file = other / "tokenizer.json"
    content = json.loads(file.read_text())
    order = content["model"]["vocab"]
    size = len(order)
    # The first keep their numbers: settings of model and tokenizer name ends by them.
    moved = {entry: number if number < 3 else size + 2 - number for entry, number in order.items()}
    content["model"]["vocab"] = moved
    file.write_text(json.dumps(content))
    model = load_model(other)
    places = torch.tensor([0, 1, 2, *range(size - 1, 2, -1)])
    with torch.no_grad():
        # A set: where head and embedding are one matrix, it is moved once.
        for weight in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            weight.copy_(weight[places])
    model.save_pretrained(other)
    found = assessed(models[0], other)
    rows = parquet.read_table(tmp_path / "health.parquet").to_pylist()
    assert all(row["parent"] == row["candidate"] for row in rows)
    for each in found.writing:
        assert all(item.parent == item.candidate for item in each.measures)


def test_switched_off_nothing_is_written_and_calibration_is_still_told(assessed, models, tmp_path):
    found = assessed(*models, AssessConfig(generation=None))
    assert (found.writing, found.tokens, found.samples) == ((), None, None)
    assert len(found.calibration) == 2
    assert not (tmp_path / "health.parquet").exists()
    assert "written" not in text(found)


def test_defaults_of_scoring_leave_the_identity_of_a_refresh_alone_and_changes_do_not():
    plain = AssessConfig().model_dump(mode="json")
    assert not {"runner", "generation"} & set(plain)
    assert AssessConfig(generation=None).model_dump(mode="json")["generation"] is None
    assert AssessConfig(runner="lm_eval").model_dump(mode="json")["runner"] == "lm_eval"
    assert AssessConfig(generation=GenerationConfig(tokens=32)).model_dump(mode="json") != plain


def test_one_prompt_has_values_and_no_interval(assessed, models):
    found = assessed(*models, AssessConfig(generation=GenerationConfig(documents=1, searched_tokens=0)))
    assert [each.prompts for each in found.writing] == [1, 1]
    assert all(item.difference is None for each in found.writing for item in each.measures)


def test_documents_too_short_to_be_continued_leave_nothing_measured(assessed, models, sources, tmp_path):
    for name, (_, clean) in sources.items():
        write_held_out(clean, {f"{i:03}": prose(f"{name} {i}", 4) for i in range(24)})
    found = assessed(*models, AssessConfig(generation=GenerationConfig(searched_tokens=0)))
    assert [each.prompts for each in found.writing] == [0, 0]
    assert all(item.parent is None for each in found.writing for item in each.measures)
