"""Work on shards: the same on one process, on several, and on a Ray cluster whose workers die."""

import os
import signal
from pathlib import Path

import pytest
from small_sources import lines, notes, sentence, tree

from ratoon.config import ConfigError, Dedup, Engine, HeldOut, NearDuplicates, PrepareConfig
from ratoon.corpus.clean import clean
from ratoon.corpus.sources import ingest
from ratoon.corpus.workers import each

RAY = Engine(kind="ray", workers=2)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """A real one, of two workers, on this machine."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Workers import what they run: this file too.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
        yield
        ray.shutdown()


def double(number):
    return 2 * number


def die_once(marker, number):
    """As a machine that goes away: no error, no word."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_always():
    os.kill(os.getpid(), signal.SIGKILL)


def refuse():
    raise ConfigError("the text says so")


def test_results_come_with_their_number_from_more_tasks_than_run_at_once():
    found = dict(each(double, [(i,) for i in range(20)], [1] * 20, RAY))
    assert found == {i: 2 * i for i in range(20)}


def test_a_worker_that_dies_loses_nothing(tmp_path):
    tasks = [(str(tmp_path / f"died-{i}"), i) for i in range(3)]
    assert sorted(each(die_once, tasks, [1, 1, 1], RAY)) == [(0, 0), (1, 1), (2, 2)]


def test_a_task_that_kills_every_worker_is_told_of():
    with pytest.raises(ConfigError, match="died 4 times on the same shard"):
        list(each(die_always, [()], [1], RAY))


def test_an_error_of_a_task_arrives_as_itself():
    with pytest.raises(ConfigError, match=r"^the text says so$"):
        list(each(refuse, [()], [1], RAY))


def test_an_edition_has_the_same_bytes_on_one_process_on_two_and_on_ray(tmp_path):
    for part in range(4):
        texts = [sentence(i) * 3 for i in range(40 * part, 40 * part + 45)]
        lines(tmp_path / "raw" / f"{part}.jsonl", texts)
    config = PrepareConfig(
        rules={"prose": {"min_bytes": 20}},
        dedup=Dedup(near=NearDuplicates(agreement=0.7)),
        held_out=HeldOut(share=0.2, min_documents=2),
    )
    made = {}
    for name, engine in {"one": 1, "two": 2, "ray": RAY}.items():
        documents, out = tmp_path / name / "documents" / "notes", tmp_path / name / "clean" / "notes"
        ingest(notes(), tmp_path, documents, processes=engine)
        clean(notes(), config, documents, out, processes=engine)
        made[name] = tree(tmp_path / name)
    assert made["one"] == made["two"] == made["ray"]
    assert len([name for name in made["ray"] if "train-" in name]) > 1


def test_a_cluster_that_does_not_answer_is_refused_with_its_address():
    import ray

    ray.shutdown()
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at 127.0.0.1:1"):
        list(each(double, [(1,)], [1], RAY.model_copy(update={"address": "127.0.0.1:1"})))
