import errno
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from ratoon import records
from ratoon.config import ConfigError
from ratoon.records import Funnel, Observation


def observation(**more):
    values = {
        "run": "a-1",
        "group": "a",
        "commit": "abc",
        "config": "def",
        "model": "nano",
        "params_non_embedding": 150_000,
        "tokens": 1000,
        "share": 0.1 + 0.2,
        "unique_tokens": {"docs": 7},
        "learning_rate": 1e-3,
        "step": 3,
        "finished": True,
        "evaluated": "docs",
        "role": "general",
        "loss_nats": 3.1234567890123456,
        "bits_per_byte": None,
    }
    return Observation(**{**values, **more})


def test_observations_read_back_are_those_written(tmp_path):
    table = [observation(), observation(loss_nats=None, commit=None)]
    records.write_observations(tmp_path / "o.csv", table)
    assert records.read_observations(tmp_path / "o.csv") == table


def test_a_table_of_ones_own_needs_only_what_a_law_reads(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "run,params_non_embedding,tokens,share,evaluated,role,loss_nats\nr1,1000000,2e6,0.3,law,domain,2.5\n"
    )
    with pytest.raises(ConfigError, match="row 2, column tokens"):  # 2e6 is no whole number
        records.read_observations(path)
    path.write_text(path.read_text().replace("2e6", "2000000"))
    (found,) = records.read_observations(path)
    assert (found.group, found.finished, found.bits_per_byte) == ("r1", True, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": "30"}, "column share.*found '30'"),
        ({"role": "target"}, "column role"),
        ({"loss": "1"}, "column loss"),
    ],
)
def test_a_bad_cell_is_named_with_its_row_and_column(tmp_path, change, message):
    row = {"run": "r", "params_non_embedding": "1", "tokens": "1", "share": "0.3", "evaluated": "e", "role": "domain"}
    row |= {"loss_nats": "2", **change}
    (tmp_path / "t.csv").write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    with pytest.raises(ConfigError, match=f"row 2, {message}"):
        records.read_observations(tmp_path / "t.csv")


def test_a_ledger_that_does_not_add_up_cannot_be_written():
    with pytest.raises(ValidationError, match="10 documents in, 8 kept"):
        Funnel(documents_in=10, bytes_in=1, documents_kept=8, bytes_kept=1, dropped={"short": 1})


def test_a_full_disk_leaves_the_record_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    records.write_text(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"could not write .*No space left on device; what was there is untouched"):
        records.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in Path(tmp_path).iterdir()] == ["a.json"]
