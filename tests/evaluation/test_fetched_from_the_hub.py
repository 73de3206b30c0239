"""`ratoon bench fetch` against a hub on loopback: pinned, cut short, lying, gone, and carried away by DVC."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import Hub, serving

from ratoon.config import Benchmark, ConfigError
from ratoon.evaluation import asking, standard

CHUNK = 10 * 2**20  # huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE: what the client takes at once
NAME, OLD, NEW = "allenai/ai2_arc", "a" * 40, "b" * 40
ROWS = {"train": 12, "validation": 6, "test": 200}
CARD = "---\nconfigs:\n- config_name: ARC-Easy\n  data_files:\n" + "".join(
    f"  - split: {split}\n    path: ARC-Easy/{split}.jsonl\n" for split in ROWS
)
FETCHED = ("items.jsonl", "fetched.json")


def lines(split, count, word):
    choices = {"text": ["the sun", "the soil", f"the {word}"], "label": ["A", "B", "C"]}
    same = {"choices": choices, "answerKey": "B"}
    asked = [{"id": f"{i}", "question": f"What grows in {word} {split} {i}?", **same} for i in range(count)]
    return "".join(json.dumps(one) + "\n" for one in asked).encode()


def repository(word):
    files = {f"ARC-Easy/{split}.jsonl": lines(split, count, word) for split, count in ROWS.items()}
    return {"README.md": f"{CARD}---\n# {word}\n".encode()} | files


def wide(files):
    """The same rows, spread over 24 MB by blanks, which a reader of JSON skips."""
    rows = files["ARC-Easy/test.jsonl"].splitlines()
    return files | {"ARC-Easy/test.jsonl": b"".join(row + b" " * 120_000 + b"\n" for row in rows)}


@pytest.fixture(scope="module")
def hub():
    found = Hub(NAME, {OLD: repository("rain"), NEW: wide(repository("snow"))})
    with serving(found) as address:
        yield found, address


def project(folder, **form):
    (folder / "data" / "benchmarks").mkdir(parents=True)
    shutil.copy(Path(__file__).parents[2] / "params.yaml", folder)
    declare(folder, **form)
    return folder


def declare(folder, **form):
    asked = {"kind": "lm_eval", "task": "arc_easy", "shots": 1, **form}
    (folder / "data" / "benchmarks" / "arc.yaml").write_text(json.dumps({"name": "arc", "version": 1, "form": asked}))


def fetch(folder, address, home, **environment):
    """In a process of its own: the client reads its address and its own cache's place once, when it is imported."""
    asked = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", **environment}
    command = [sys.executable, "-m", "ratoon", "bench", "fetch", "arc"]
    there = os.environ | asked | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, cwd=folder, env=there, capture_output=True, text=True, timeout=300)


def items(folder):
    path = folder / "data" / "benchmarks" / "arc" / "items.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def bytes_of(folder):
    return [(folder / "data" / "benchmarks" / "arc" / name).read_bytes() for name in FETCHED]


@pytest.fixture(scope="module")
def newest(hub, tmp_path_factory):
    """Fetched without a pin, over a line that broke off twice."""
    found, address = hub
    folder = project(tmp_path_factory.mktemp("newest"))
    found.cut = 2
    done = fetch(folder, address, tmp_path_factory.mktemp("home"))
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_a_download_that_broke_off_goes_on_where_it_was_and_gives_the_items_whole(hub, newest):
    found, _ = hub
    size, (folder, said) = len(found.commits[NEW]["ARC-Easy/test.jsonl"]), newest
    assert CHUNK < size // 2 < 2 * CHUNK < size
    # Half came before the first break, and of it what fills a chunk is kept; then half of the rest, less than a chunk.
    assert found.downloads("test.jsonl")[:3] == [None, f"bytes={CHUNK}-", f"bytes={CHUNK}-"]
    assert [item["context"].count("Answer:") for item in items(folder)] == [2] * ROWS["test"]
    assert all(f"in snow test {n}?\nAnswer:" in item["question"] for n, item in enumerate(items(folder)))
    kept = json.loads(bytes_of(folder)[1])
    assert (kept["origin"], kept["revision"], kept["items"]) == ("hub", NEW, ROWS["test"])
    assert f"({NAME} ARC-Easy at {NEW}) from hub" in said
    assert f"sha256 {kept['sha256']}; `revision` and `sha256`" in said


def test_a_pinned_commit_is_what_is_fetched_though_the_hub_has_a_newer_one(hub, tmp_path):
    found, address = hub
    before = len(found.asked)
    folder = project(tmp_path / "project", revision=OLD)
    done = fetch(folder, address, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert "in rain test 0?" in items(folder)[0]["question"]
    assert json.loads(bytes_of(folder)[1])["revision"] == OLD
    assert not [path for _, path, _ in found.asked[before:] if NEW in path or "/main/" in path]


def test_a_hub_that_gives_other_content_for_the_same_commit_is_refused_and_nothing_is_overwritten(
    hub, newest, tmp_path
):
    """A mirror that lies: same names, same sizes, another answer."""
    found, address = hub
    before = bytes_of(newest[0])
    pinned = json.loads(before[1])["sha256"]
    folder = tmp_path / "project"
    shutil.copytree(newest[0], folder, ignore=shutil.ignore_patterns("datasets"))
    declare(folder, revision=NEW, sha256=pinned)
    honest = found.commits[NEW]
    found.commits[NEW] = {path: text.replace(b'"answerKey": "B"', b'"answerKey": "C"') for path, text in honest.items()}
    try:
        done = fetch(folder, address, tmp_path / "home")
    finally:
        found.commits[NEW] = honest
    assert done.returncode == 2
    assert f"its items are pinned to sha256 {pinned}, and those of {NAME} ARC-Easy at revision {NEW}" in done.stderr
    assert "nothing was written" in done.stderr
    assert bytes_of(folder) == before


def test_a_hub_that_does_not_answer_is_not_replaced_by_another_commit_of_the_cache(hub, newest, tmp_path):
    found, address = hub
    folder = project(tmp_path / "project", revision=OLD)
    shutil.copytree(newest[0] / "data" / "datasets", folder / "data" / "datasets")
    found.down = True
    try:
        done = fetch(folder, address, tmp_path / "home")
    finally:
        found.down = False
    assert done.returncode == 2
    assert f"its dataset is pinned to revision {OLD}, and data/datasets has {NEW}; nothing was written" in done.stderr
    assert not (folder / "data" / "benchmarks" / "arc").exists()


def test_a_cache_kept_by_dvc_gives_the_same_items_on_a_machine_without_a_network(newest, tmp_path):
    here, there, store = tmp_path / "here", tmp_path / "there", tmp_path / "store"
    shutil.copytree(newest[0], here)
    pinned = json.loads(bytes_of(here)[1])
    declare(here, revision=pinned["revision"], sha256=pinned["sha256"])
    shutil.rmtree(here / "data" / "benchmarks" / "arc")
    for command in (
        "git init -q",
        "dvc init -q",
        f"dvc remote add -q -d store {store}",
        "dvc add -q data/datasets",
        "dvc push -q",
        "git add .",
        "git -c user.name=a -c user.email=a@b commit -qm x",
        f"git clone -q . {there}",
    ):
        run(command, here)
    assert not (there / "data" / "datasets").exists()
    run("dvc pull -q", there)
    done = fetch(there, "http://127.0.0.1:9", tmp_path / "home", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert "from cache" in done.stdout
    assert bytes_of(there)[0] == bytes_of(newest[0])[0]
    tracked = subprocess.run(["git", "ls-files"], cwd=there, capture_output=True, text=True).stdout.split()
    assert "data/datasets.dvc" in tracked
    assert not [path for path in tracked if path.startswith("data/datasets/")]


def run(command, folder):
    first, *rest = command.split()
    program = [sys.executable, "-m", first] if first == "dvc" else [first]
    there = os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / ".git" / "site")}
    done = subprocess.run([*program, *rest], cwd=folder, env=there, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"


# ---------------------------------------------------------------- what was fetched, when it is asked


def arc(**form):
    return Benchmark(name="arc", version=1, form={"kind": "lm_eval", "task": "arc_easy", **form})


def test_items_are_asked_only_as_they_were_fetched(newest, tmp_path):
    shutil.copytree(newest[0] / "data" / "benchmarks", tmp_path / "data" / "benchmarks")
    kept = standard.Fetched.model_validate_json(bytes_of(tmp_path)[1])
    assert len(asking.ask(arc(revision=NEW, sha256=kept.sha256), tmp_path).test[""]) == ROWS["test"]
    with pytest.raises(ConfigError, match=f"asks for revision {OLD}, and its items are of {NEW}; `ratoon bench fetch"):
        asking.ask(arc(revision=OLD), tmp_path)
    with pytest.raises(ConfigError, match=f"and its declaration pins {'0' * 64}: other items than were fetched"):
        asking.ask(arc(sha256="0" * 64), tmp_path)
    path = tmp_path / "data" / "benchmarks" / "arc" / "items.jsonl"
    path.write_text(path.read_text().replace('"gold": 1', '"gold": 2', 1))
    with pytest.raises(ConfigError, match=rf"and fetched\.json tells {kept.sha256}: other items than were fetched"):
        asking.ask(arc(), tmp_path)


@pytest.mark.parametrize("pin", [{"revision": "main"}, {"revision": "a" * 39}, {"sha256": "x" * 64}])
def test_a_pin_is_a_whole_commit_or_a_whole_digest(pin):
    with pytest.raises(ValueError, match="String should match pattern"):
        arc(**pin)


def test_a_declaration_without_pins_is_named_as_before_there_were_any():
    assert {"revision", "sha256"}.isdisjoint(arc().form.model_dump())
