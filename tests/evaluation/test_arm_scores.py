"""Arms beside the parent and the candidate: the same items, and what may be said of them."""

import pyarrow.parquet as parquet
import pytest
from training_text import training_texts, write_training

from ratoon.config import AssessConfig, Benchmark, ConfigError
from ratoon.config.arms import FewShot
from ratoon.evaluation import harness, paired, suite
from ratoon.evaluation.arms import compare, keep, standing
from ratoon.evaluation.contexts import Library, Nothing
from ratoon.evaluation.prompted import Planner, Reader, Room, encode
from ratoon.records import Comparison, Interval, read, write

BENCHMARKS = [
    Benchmark(name="held-out", version=1, form={"kind": "held_out"}),
    Benchmark(name="next-passage", version=1, form={"kind": "next_passage", "context_bytes": 60}),
]
ROW = 144
ASSESS = AssessConfig(items=24, max_bytes=400, bootstrap=300)
AT = Interval(value=0.0, low=-1.0, high=1.0, confidence=0.95)


@pytest.fixture
def scored(sources, models, tmp_path):
    """Suite, library and the score folders of two models."""
    for role, (_, folder) in sources.items():
        write_training(folder, training_texts(role))
    made = suite.build(BENCHMARKS, sources, ASSESS, tmp_path / "suite")
    for name, model in zip(("parent", "candidate"), models, strict=True):
        harness.score(model, tmp_path / "suite", tmp_path / name, row_tokens=ROW, device="cpu", threads=1)
    return Library({name: [folder] for name, (_, folder) in sources.items()}, ["code"], tmp_path / "suite", made.tasks)


def asked(library, model, context, like, out, tasks=None):
    reader = Reader(model, device="cpu", precision="fp32")
    made = context(reader) if context else Nothing()
    tasks = library.tasks if tasks is None else tasks
    plan = Planner(reader.tokenizer, made, Room(ROW, ROW, 60 if context else 0)).plan(library.suite, tasks)
    keep(plan, reader.logliks(plan.of(tasks)), tasks, like, out)
    return out


def test_an_arm_that_is_shown_nothing_stands_where_the_parent_stands(scored, models, tmp_path):
    arm = asked(scored, models[0], None, tmp_path / "parent", tmp_path / "few_shot" / "scores")
    ours = compare(arm, tmp_path / "candidate", scored.suite, ASSESS)
    theirs = paired.compare(tmp_path / "parent", tmp_path / "candidate", scored.suite, ASSESS)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.benchmark, a.source, a.items, a.outcome) == (b.benchmark, b.source, b.items, b.outcome)
        assert a.difference.value == pytest.approx(b.difference.value, abs=1e-5)
        assert a.difference.low == pytest.approx(b.difference.low, abs=1e-5)


def test_scores_of_a_shown_model_join_with_those_of_the_others_item_by_item(scored, models, tmp_path):
    def context(reader):
        return scored.drawn(FewShot(), 60, lambda text: encode(reader.tokenizer, [text])[0])

    arm = asked(scored, models[0], context, tmp_path / "parent", tmp_path / "few_shot" / "scores")
    found = compare(arm, tmp_path / "candidate", scored.suite, ASSESS)
    assert [item.items for item in found] == [24, 24, 24, 24]
    for task in scored.tasks:
        keys = [
            parquet.read_table(folder / f"{task.name}.parquet").select(["id", "doc_hash", "prompt_hash"]).to_pylist()
            for folder in (arm, tmp_path / "parent")
        ]
        assert keys[0] == keys[1]
    values = {score.task: score.value for score in read(arm / "scores.json", harness.Scores).tasks}
    for item in found:
        assert item.parent.value == pytest.approx(values[f"{item.benchmark}--{item.source}"])
    assert values != {score.task: score.value for score in read(tmp_path / "parent/scores.json", harness.Scores).tasks}


def test_an_arm_that_could_not_be_asked_everything_is_compared_on_what_it_was(scored, models, tmp_path):
    some = [task for task in scored.tasks if task.metric == "bits_per_byte"]
    arm = asked(scored, models[0], None, tmp_path / "parent", tmp_path / "few_shot" / "scores", some)
    found = compare(arm, tmp_path / "candidate", scored.suite, ASSESS)
    assert [item.metric for item in found] == ["bits_per_byte"] * 2
    whole = paired.compare(tmp_path / "parent", tmp_path / "candidate", scored.suite, ASSESS)
    assert [item.difference.value for item in found] == pytest.approx([item.difference.value for item in whole[:2]])


def test_scores_of_other_items_are_not_written_over_these(scored, models, tmp_path):
    file = tmp_path / "parent" / "held-out--docs.parquet"
    parquet.write_table(parquet.read_table(file).slice(1), file)
    with pytest.raises(ConfigError, match="not the items of this suite"):
        asked(scored, models[0], None, tmp_path / "parent", tmp_path / "few_shot" / "scores")
    assert not (tmp_path / "few_shot" / "scores").exists()


def test_the_order_of_items_on_disk_changes_nothing(scored, models, tmp_path):
    before = asked(scored, models[0], None, tmp_path / "parent", tmp_path / "a" / "scores")
    for file in (tmp_path / "parent").glob("*.parquet"):
        rows = parquet.read_table(file)
        parquet.write_table(rows.take(list(reversed(range(rows.num_rows)))), file)
    after = asked(scored, models[0], None, tmp_path / "parent", tmp_path / "b" / "scores")
    assert compare(before, after, scored.suite, ASSESS)[0].difference.value == 0
    assert {item.outcome for item in compare(before, after, scored.suite, ASSESS)} == {"tie"}


def comparison(outcome, metric="bits_per_byte"):
    return Comparison(
        benchmark="b",
        source="s",
        role="domain",
        metric=metric,
        items=1,
        parent=AT,
        candidate=AT,
        difference=AT,
        relative=AT,
        outcome=outcome,
    )


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        (["win", "win"], "beat"),
        (["win", "tie"], "beat"),
        (["tie", "tie"], "tied"),
        (["win", "loss"], "mixed"),
        (["loss", "tie"], "lost"),
    ],
)
def test_how_a_candidate_stands_is_decided_by_held_out_text_alone(outcomes, said):
    found = [comparison(outcome) for outcome in outcomes]
    assert standing(found) == said
    assert standing([*found, comparison("loss", "accuracy"), comparison("win", "accuracy")]) == said


def test_records_read_back_as_they_were_written(scored, tmp_path):
    from ratoon.evaluation.arms import Arm, Arms, Cost
    from ratoon.evaluation.prompted import Told

    cost = Cost(reading_flops=1.0, reading_bytes=1)
    comparisons = paired.compare(tmp_path / "parent", tmp_path / "candidate", scored.suite, ASSESS)
    arm = Arm(
        name="few_shot",
        asked="0",
        model="m",
        cost=cost,
        comparisons=comparisons,
        standing=standing(comparisons),
        told=Told(tokens=3),
        notes=("n",),
    )
    found = Arms(
        refresh="r",
        line="l",
        parent="p",
        candidate="c",
        cost=cost,
        parent_cost=cost,
        against_parent=comparisons,
        arms=(arm,),
    )
    write(tmp_path / "arms.json", found)
    assert read(tmp_path / "arms.json", Arms) == found
