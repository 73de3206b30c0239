"""What is about to be made is reckoned before it fills the disk, and a remote that is away is told."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from flows import prepare
from ratoon import config
from ratoon.config import Params, RefreshConfig
from ratoon.config.reading import parse
from tasks import disk, room
from tasks.versions import RemoteUnavailable


def test_a_checkpoint_is_reckoned_from_the_numbers_in_it_whatever_their_type(tmp_path):
    tensors = {"a": torch.zeros(3, 5, dtype=torch.bfloat16), "b": torch.zeros(7)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text("{}")
    assert room.elements(tmp_path / "model.safetensors") == 22
    assert room.checkpoint_bytes(tmp_path) == 3 * 4 * 22 + 2


def test_checkpoints_that_are_followed_are_reckoned_before_the_run(tmp_path, monkeypatch):
    save_file({"a": torch.zeros(100)}, tmp_path / "model.safetensors")
    asked = []
    monkeypatch.setattr(room, "room", lambda root, place, needed, what: asked.append(needed))
    for trajectory, processes, adapter in ((None, 1, None), ({}, 1, None), ({}, 2, None), ({}, 1, "lora")):
        changes = {"train": {"checkpoints": 10, "processes": processes, "trunk": "none"}}
        changes["train"] |= {"adapter": {"name": adapter, "rank": 1}} if adapter else {}
        changes["assess"] = {"trajectory": trajectory}
        params = config.load(Path(__file__).parents[2], changes=changes)
        room.check_train(
            SimpleNamespace(folder=tmp_path, layout=SimpleNamespace(root=tmp_path), params=params, parent=tmp_path)
        )
    without = 3 * 3 * 400  # two checkpoints and one being written, with AdamW's state
    assert asked == [without, without + 10 * 400, without + 10 * 3 * 400, without + 400]


def test_new_text_is_counted_in_every_stage_and_copy_and_text_that_was_read_is_not(tmp_path):
    raw = tmp_path / "data" / "raw" / "notes"
    raw.mkdir(parents=True)
    (raw / "a.txt").write_text("x" * 1000)
    source = config.Source(name="notes", role="general", kind="prose", origins=({"path": "data/raw/notes"},))
    base = SimpleNamespace(name="tiny")
    assert room.prepare_bytes(tmp_path, base, (source,)) == 6000
    ledger = tmp_path / "data" / "documents" / "notes" / "ledger.json"
    ledger.parent.mkdir(parents=True)
    ledger.write_text('{"funnel": {"bytes_in": 1000}}')
    assert room.prepare_bytes(tmp_path, base, (source,)) == 0
    (raw / "b.txt").write_text("x" * 500)
    assert room.prepare_bytes(tmp_path, base, (source,)) == 3000


def test_disk_use_counts_every_file_once_and_by_its_kind(tmp_path):
    for path, held in (("data/raw/a", 10), ("data/rows/tiny/a", 30), (".dvc/cache/files/md5/aa/b", 5)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x" * held)
    os.link(tmp_path / "data/rows/tiny/a", tmp_path / ".dvc/cache/files/md5/aa/c")
    used = disk.usage(tmp_path)
    assert {kind: held for kind, held in used.items() if held} == {"editions": 30, "raw text": 10, "DVC cache": 5}
    assert disk.told(tmp_path, used).startswith("disk: 45 B here, ")


def test_a_remote_that_is_away_fails_the_run_or_is_told_as_params_ask(monkeypatch, capsys):
    def away(root):
        raise RemoteUnavailable("DVC remote 'store' did not take the editions")

    monkeypatch.setattr(prepare, "push_editions", away)
    monkeypatch.setenv("RATOON_LIVE", "1")
    with pytest.raises(RemoteUnavailable):
        prepare.push_editions_or_tell(None, True)
    prepare.push_editions_or_tell(None, "later")
    assert capsys.readouterr().err == "note: DVC remote 'store' did not take the editions\n"
    assert parse(RefreshConfig, {"sources": ["a", "b"], "push": "later"}, "x").push == "later"


def test_what_is_kept_and_how_is_no_part_of_what_is_asked():
    """Params without the new sections are those of before, to the digest."""
    params = config.load(Path(__file__).parents[2])
    dumped = params.model_dump(mode="json")
    assert "retention" not in dumped
    assert "commit" not in dumped["refresh"]
    assert Params.model_validate({**dumped, "retention": {"days": 1}}).retention.days == 1
