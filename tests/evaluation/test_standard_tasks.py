"""Tasks of lm-eval written down as items, from a cache that was filled from a local dataset."""

import json
import shutil

import pytest

from ratoon.config import AssessConfig, Benchmark, ConfigError
from ratoon.evaluation import standard, suite
from ratoon.evaluation.lm_eval_runner import quiet

ROWS = {"train": 12, "validation": 6, "test": 30}


def arc(**form):
    return Benchmark(name="arc", version=1, form={"kind": "lm_eval", "task": "arc_easy", **form})


def row(split, i):
    choices = {"text": [f"the {word} {i}" for word in ("sun", "soil", "rain")], "label": ["A", "B", "C"]}
    return {
        "id": f"{split}{i}",
        "question": f"What grows in {split} {i}?",
        "choices": choices,
        "answerKey": "ABC"[i % 3],
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """What the datasets library leaves after a download, laid out as it lays out a dataset of the hub."""
    import datasets

    folder = tmp_path_factory.mktemp("hub")
    (folder / "ai2_arc").mkdir()
    for split, count in ROWS.items():
        lines = "".join(json.dumps(row(split, i)) + "\n" for i in range(count))
        (folder / "ai2_arc" / f"{split}.jsonl").write_text(lines)
    with quiet():
        datasets.load_dataset(str(folder / "ai2_arc"), cache_dir=str(folder / "cache"))
    made = folder / "cache" / "ai2_arc"
    (made / "default").rename(made / "ARC-Easy")
    (info,) = made.glob("ARC-Easy/*/*/dataset_info.json")
    info.write_text(info.read_text().replace('"config_name": "default"', '"config_name": "ARC-Easy"'))
    made.rename(folder / "cache" / "allenai___ai2_arc")
    return folder / "cache"


@pytest.fixture
def root(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(cache, tmp_path / "data" / "datasets")
    return tmp_path


def asked_by_lm_eval(root, name, shots):
    """(context, continuation) of every request of the task, as lm-eval makes them itself."""
    from lm_eval.tasks import TaskManager

    with standard.dataset_cache(root / "data" / "datasets"):
        folder = standard.task_file(name).parent
        task = TaskManager(include_path=str(folder), include_defaults=False).load([name])["tasks"][name]
    task.set_config("num_fewshot", shots)
    task.set_fewshot_seed(seed=standard.SEED)
    task.build_all_requests(rank=0, world_size=1)
    return [instance.args for instance in task.instances], [task.doc_to_target(doc) for doc in task.eval_docs]


@pytest.mark.parametrize("shots", [0, 2])
def test_a_suite_asks_exactly_what_the_named_task_asks(root, tmp_path, shots):
    benchmark = arc(shots=shots)
    found = standard.fetch(benchmark, root)
    assert (found.items, found.dataset, found.shots, found.origin) == (30, "allenai/ai2_arc ARC-Easy", shots, "cache")
    suite.build([benchmark], {}, AssessConfig(), tmp_path / "suite", root)
    (task,) = suite.load(tmp_path / "suite").tasks
    lines = [json.loads(line) for line in (tmp_path / "suite" / "arc.jsonl").read_text().splitlines()]
    expected, golds = asked_by_lm_eval(root, "arc_easy", shots)
    assert [(line["context"], choice) for line in lines for choice in line["choices"]] == expected
    assert [line["gold"] for line in lines] == golds
    assert (task.kind, task.requests, task.role, task.source) == ("choice", 90, "general", "arc")
    assert lines[0]["context"].count("Answer:") == shots + 1


def test_a_dataset_in_no_cache_is_answered_with_how_to_fill_it(root):
    shutil.rmtree(root / "data" / "datasets")
    with pytest.raises(ConfigError) as error:
        standard.fetch(arc(), root)
    said = str(error.value)
    assert said.startswith("benchmark 'arc': the dataset of arc_easy was not found")
    assert "HF_HUB_OFFLINE is set, so only the cache was looked at: " in said
    assert "`HF_HUB_OFFLINE=0 ratoon bench fetch arc`" in said
    with pytest.raises(ConfigError, match="items are not there; `ratoon bench fetch arc` writes them"):
        suite.build([arc()], {}, AssessConfig(), root / "suite", root)


@pytest.mark.parametrize(
    ("name", "letter"),
    [
        ("arc_esay", r"lm-eval .* has no task 'arc_esay'"),
        ("mmlu", r"lm-eval's 'mmlu' is a group of tasks; declare a benchmark for each task you want"),
    ],
)
def test_a_name_that_is_no_task_is_refused(root, name, letter):
    with pytest.raises(ConfigError, match=letter):
        standard.fetch(arc(task=name), root)


def test_items_fetched_for_another_declaration_are_not_asked(root, tmp_path):
    standard.fetch(arc(shots=0), root)
    letter = "asks for arc_easy with 2 examples, and its items are of arc_easy with 0; `ratoon bench fetch arc`"
    with pytest.raises(ConfigError, match=letter):
        suite.build([arc(shots=2)], {}, AssessConfig(), tmp_path / "suite", root)


def test_a_part_of_a_standard_task_is_chosen_by_hash(root, tmp_path):
    standard.fetch(arc(), root)
    suite.build([arc(most=25)], {}, AssessConfig(), tmp_path / "suite", root)
    ids = [json.loads(line)["id"] for line in (tmp_path / "suite" / "arc.jsonl").read_text().splitlines()]
    assert len(ids) == 25
    assert ids == sorted(ids, key=int)


def test_lm_eval_reads_every_kind_of_task_a_suite_holds(root, tmp_path, models):
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from ratoon.lm.load import load_model, load_tokenizer

    lines = [{"q": f"Name {i} [1]", "a": [f"{i}", "x"], "o": ["yes", "no"], "k": i % 2} for i in range(6)]
    (root / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    forms = {
        "rolling": {"columns": {"question": "q", "answer": None}},
        "choice": {"columns": {"question": "q", "answer": "k", "choices": "o"}},
        "generation": {"columns": {"question": "q", "answer": "a"}, "max_tokens": 3},
    }
    benchmarks = [
        Benchmark(
            name=kind, version=1, min_documents=2, form={"kind": "items", "path": "own.jsonl", "ask": kind, **form}
        )
        for kind, form in forms.items()
    ]
    suite.build(benchmarks, {}, AssessConfig(), tmp_path / "suite", root)
    model = HFLM(pretrained=load_model(models[0]), tokenizer=load_tokenizer(models[0]), max_length=64)
    with quiet():
        manager = TaskManager(include_path=str(tmp_path / "suite"), include_defaults=False)
        files = {
            kind: {"data_files": {"test": str(tmp_path / "suite" / f"{kind}.jsonl")}, "cache_dir": str(tmp_path / "c")}
            for kind in forms
        }
        tasks = manager.load([manager.task_index[kind].cfg | {"dataset_kwargs": files[kind]} for kind in forms])
        found = lm_eval.evaluate(model, tasks, bootstrap_iters=0, log_samples=True)
    assert {kind: len(found["samples"][kind]) for kind in forms} == dict.fromkeys(forms, 6)
    generated = found["samples"]["generation"]
    assert all(sample["exact_match"] in (0.0, 1.0) for sample in generated)
    assert [sample["arguments"][0][0] for sample in generated] == [line["q"] for line in lines]
