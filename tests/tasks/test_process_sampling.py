"""Promises of what is told of a training process's use of the machine."""

import os
import subprocess
import sys

from tasks import sampling


def test_the_process_in_the_file_is_measured_and_not_this_one(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "EVERY_SECONDS", 0.0)
    code = "held = bytearray(64 << 20)\nprint(len(held), flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        (tmp_path / "pid").write_text(str(process.pid), encoding="ascii")
        sampler = sampling.Sampler(tmp_path / "pid")
        first, second = sampler.sample(), sampler.sample()
        process.communicate(b"\n")
    assert 64 <= first["system/process_memory_megabytes"] < 150
    assert "system/cpu_utilization_percentage" not in first
    assert second["system/cpu_utilization_percentage"] >= 0
    assert second["system/disk_available_megabytes"] > 0
    assert sampler.sample() == {}


def test_between_two_samples_nothing_is_looked_at(tmp_path):
    (tmp_path / "pid").write_text(str(os.getpid()), encoding="ascii")
    sampler = sampling.Sampler(tmp_path / "pid")
    assert sampler.sample()
    assert sampler.sample() == {}


def test_a_process_that_has_not_begun_is_no_fault(tmp_path):
    assert sampling.Sampler(tmp_path / "pid").sample() == {}
