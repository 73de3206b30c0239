"""Promises of the services' logs: readable, followed, bounded."""

import pytest

from ratoon.config import ConfigError
from tasks import launch, logbook, rotation


def test_a_log_is_cut_while_its_writer_goes_on_and_no_line_of_it_is_torn(tmp_path):
    log, cuts = tmp_path / "x.log", 0
    with log.open("a") as writer:  # as the services' output is opened
        for number in range(400):
            print("line", number, file=writer, flush=True)
            cuts += rotation.rotate(log, max_bytes=800)
            assert sum(path.stat().st_size for path in tmp_path.glob("x.log*")) < 5_000
    assert cuts == 4
    assert {path.name for path in tmp_path.glob("x.log.*")} == {"x.log.1", "x.log.2", "x.log.3"}
    kept = "".join((tmp_path / name).read_text() for name in ("x.log.3", "x.log.2", "x.log.1", "x.log"))
    numbers = [int(line.split()[1]) for line in kept.splitlines()]
    assert numbers == list(range(numbers[0], 400))


def test_of_a_log_that_grew_past_all_bounds_the_end_is_kept(tmp_path):
    log = tmp_path / "x.log"
    log.write_bytes(b"".join(b"line %d\n" % n for n in range(100_000)))
    assert rotation.rotate(log, max_bytes=10_000)
    assert log.stat().st_size == 0
    assert (tmp_path / "x.log.1").stat().st_size == 20_000
    assert (tmp_path / "x.log.1").read_bytes().endswith(b"line 99999\n")
    assert not rotation.rotate(log, max_bytes=10_000)


def test_following_a_log_goes_on_past_a_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(logbook, "LOOK_SECONDS", 0.01)
    log = launch.log(tmp_path, "worker")
    log.write_text("old\nbefore\n", encoding="utf-8")
    pieces = logbook.follow(tmp_path, "worker", lines=1)
    assert next(pieces) == "before\n"
    with log.open("a") as writer:
        writer.write("during\n")
        writer.flush()
        assert next(pieces) == "during\n"
        rotation.rotate(log, max_bytes=1)
        writer.write("after\n")
        writer.flush()
        assert next(pieces) == "after\n"


def test_logs_name_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match="no service 'prefekt'; did you mean 'prefect'"):
        logbook.end(tmp_path, "prefekt")
    with pytest.raises(ConfigError, match=r"prefect\.log: not found; `ratoon up` starts prefect"):
        logbook.end(tmp_path, "prefect")
