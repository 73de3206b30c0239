"""What an edition is made of and dvc.yaml cannot name: editions of other sources, and lists of blocked hosts."""

import gzip
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ratoon import stages
from ratoon.config import Ask, ConfigError
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import read_ledger, shards
from tasks import prepare, versions

ROOT = Path(__file__).parents[2]
RULES = {"prose": {"min_bytes": 1}}


def essay(i):
    draw = random.Random(i)
    return " ".join(f"{draw.choice('bdfgklmnprst')}{draw.choice('aeiou')}{draw.randrange(10**4)}" for _ in range(40))


def write(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def page(host, i):
    html = f"<html><body><article><p>{essay(i)}</p><p>{essay(i + 5000)}</p></article></body></html>"
    body = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{html}"
    head = (
        f"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: http://{host}/{i}\r\nWARC-Date: 2026-03-04T05:06:07Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000000>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return gzip.compress(f"{head}{body}\r\n\r\n".encode(), mtime=0)


def declare(root, name, role, **origin):
    origins = [{"path": f"data/raw/{name}", **origin}]
    declared = {"name": name, "role": role, "kind": "prose", "max_bad_share": 0.5, "origins": origins}
    (root / "data" / "sources" / f"{name}.yaml").write_text(yaml.safe_dump(declared))


def edit(root, path, change):
    raw = yaml.safe_load((root / path).read_text())
    change(raw)
    (root / path).write_text(yaml.safe_dump(raw))


@pytest.fixture
def project(tmp_path):
    """The stages of dvc.yaml over two small sources; `aaa` is before `zzz` by name and after it by priority."""
    for path in ("dvc.yaml", "params.yaml", "constraints.txt", "ratoon", "models/bases", "data/benchmarks"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / path).is_dir() else shutil.copy)(ROOT / path, tmp_path / path)
    (tmp_path / "data" / "sources").mkdir()
    declare(tmp_path, "zzz", "general")
    declare(tmp_path, "aaa", "domain", web={"block": ["data/raw/block.txt"]})
    write(tmp_path / "data/raw/zzz/a.jsonl", [essay(i) for i in range(300)])
    write(tmp_path / "data/raw/aaa/a.jsonl", [essay(i) for i in range(250, 600)])
    (tmp_path / "data/raw/aaa/crawl.warc.gz").write_bytes(page("fine.example", 8000) + page("gone.example", 8001))
    (tmp_path / "data/raw/block.txt").write_text("bad.example\n")

    def small(raw):
        raw["refresh"]["sources"] = ["aaa", "zzz"]
        raw["prepare"].update(bases=["nano"], held_out={"share": 0.1, "min_documents": 2}, amend={}, rules=RULES)
        raw["prepare"]["dedup"] = {"near": None}

    edit(tmp_path, "params.yaml", small)
    edit(tmp_path, "models/bases/nano.yaml", lambda raw: raw["weights"].update(vocabulary=512))
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def texts(root, name):
    edition = root / "data/clean" / name
    return {row["text"] for part in ("train-", "held_out-") for path in shards(edition, part) for row in rows(path)}


def prepared(root):
    """The stages that ran."""
    ran, _ = prepare.make_editions.fn(root, Ask())
    return ran


@pytest.mark.slow
def test_what_a_source_of_higher_priority_comes_to_hold_leaves_the_lower_ones(project):
    edit(project, "params.yaml", lambda raw: raw["prepare"]["dedup"].update(across=["zzz", "aaa"]))
    prepared(project)
    assert len(texts(project, "zzz")) == 300
    assert not texts(project, "zzz") & texts(project, "aaa")
    assert read_ledger(project / "data/clean/aaa").funnel.dropped == {"in_other_source": 50}

    write(project / "data/raw/zzz/b.jsonl", [essay(i) for i in range(500, 550)])
    prepared(project)
    assert read_ledger(project / "data/clean/aaa").funnel.dropped == {"in_other_source": 100}
    assert not texts(project, "zzz") & texts(project, "aaa")

    # By DVC alone the lower source may come first, and is then as new as DVC can know.
    write(project / "data/raw/zzz/c.jsonl", [essay(i) for i in range(400, 450)])
    for name in ("aaa", "zzz"):
        versions.repro(project, [f"clean@{name}"])
    assert len(texts(project, "zzz") & texts(project, "aaa")) == 50
    assert prepared(project)[0] == "clean@aaa"
    assert not texts(project, "zzz") & texts(project, "aaa")
    assert prepared(project) == []


@pytest.mark.slow
def test_a_list_of_hosts_that_changes_takes_their_pages_out_of_the_text(project):
    prepared(project)
    before = texts(project, "aaa")
    assert sum(essay(8001) in text for text in before) == 1
    (project / "data/raw/block.txt").write_text("bad.example\ngone.example\n")
    ran = prepared(project)
    assert {"ingest@aaa", "clean@aaa", "pack@nano-aaa"} <= {*ran}
    assert before - texts(project, "aaa") == {text for text in before if essay(8001) in text}
    assert prepared(project) == []


def test_a_watched_source_is_not_selected_from_for_it_is_never_trained_on(project):
    declare(project, "odd", "domain")
    write(project / "data/raw/odd/a.jsonl", [essay(i) for i in range(1000, 1300)])

    def change(raw):
        raw["refresh"]["watch"] = ["odd"]
        raw["prepare"]["scores"] = {"ppl": {"kind": "perplexity", "reference": ["zzz"]}}
        raw["prepare"]["select"] = [{"score": "ppl", "keep": 0.9, "prefer": "low"}]

    edit(project, "params.yaml", change)
    stages.ingest(project, "odd")
    stages.clean(project, "odd")  # no stage scores it
    assert len(texts(project, "odd")) == 300


@pytest.mark.parametrize(
    ("place", "asked"),
    [
        ("select.0.sources", {"select": [{"score": "longest", "keep": 0.9, "sources": ["zzzz"]}]}),
        ("scores.ppl.sources", {"scores": {"ppl": {"kind": "perplexity", "reference": ["zzz"], "sources": ["zzzz"]}}}),
        ("scores.ppl.reference", {"scores": {"ppl": {"kind": "perplexity", "reference": ["zzzz"]}}}),
        ("prefixes.sources", {"prefixes": {"sources": ["zzzz"]}}),
        ("dedup.across", {"dedup": {"across": ["zzzz", "aaa"]}}),
        ("decontaminate.held_out.sources", {"decontaminate": {"held_out": {"sources": ["zzzz"]}}}),
    ],
)
def test_a_list_of_sources_that_names_one_nobody_declared_is_refused(project, place, asked):
    edit(project, "params.yaml", lambda raw: raw["prepare"].update(asked))
    letter = f"params.yaml: prepare.{place}: no source 'zzzz'; did you mean 'zzz'"
    for refuses in (prepared, lambda root: stages.clean(root, "aaa"), lambda root: stages.pack(root, "nano", "aaa")):
        with pytest.raises(ConfigError) as error:
            refuses(project)
        assert str(error.value).startswith(letter)
