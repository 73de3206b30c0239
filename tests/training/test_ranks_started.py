"""Who starts the ranks on one machine sees them end as one process would."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import on_ranks
import pytest
import yaml
from safetensors.torch import load_file
from torch.distributed import run

from ratoon import records
from ratoon.config.faults import Faults
from ratoon.training import __main__, checkpoint
from ratoon.training.request import Result
from ratoon.training.run import train
from ratoon.training.supervise import supervise

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
# In place of training: does what its rank's line says, as a process that ends with its standard input does.
CHILD = """
import os, sys, threading, time
threading.Thread(target=lambda: (os.read(0, 1), os._exit(143)), daemon=True).start()
open(f"pid-{os.environ['RANK']}", "w").write(str(os.getpid()))
exec(sys.argv[1])
"""
LAUNCHER = """
import subprocess, sys
from pathlib import Path
from ratoon.training import launch
popen = subprocess.Popen
words = iter(sys.argv[1:])
launch.LAST_SECONDS = 0.6
launch.subprocess.Popen = lambda command, **rest: popen([sys.executable, "-c", {child!r}, next(words)], **rest)
sys.exit(launch.launch(Path("request.json").absolute(), len(sys.argv) - 1))
"""


@pytest.fixture
def started(tmp_path):
    """A launcher whose ranks do as they are told, in a process of its own."""
    made = []

    def make(*words):
        command = [sys.executable, "-c", LAUNCHER.format(child=CHILD), *words]
        made.append(subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True))
        return made[-1]

    yield make
    for process in made:
        process.kill()
        process.wait()
        process.stderr.close()


def ids(folder, count):
    until = time.monotonic() + 20
    paths = [folder / f"pid-{number}" for number in range(count)]
    while not all(path.exists() and path.read_text() for path in paths) and time.monotonic() < until:
        time.sleep(0.02)
    return [int(path.read_text()) for path in paths]


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_each_rank_is_told_who_it_is(started, tmp_path):
    say = "print(*(os.environ[k] for k in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR')), file=sys.stderr)"
    process = started(say, say)
    assert process.wait(20) == 0
    assert process.stderr.read().split() == [b"0", b"0", b"2", b"127.0.0.1"]
    assert (tmp_path / "training.rank-1.log").read_text().split() == ["1", "1", "2", "127.0.0.1"]


def test_the_letter_of_any_rank_is_heard_and_the_others_are_ended(started, tmp_path):
    process = started("time.sleep(60)", "print('ratoon: of rank 1', file=sys.stderr); os._exit(2)")
    assert process.wait(20) == 2
    assert process.stderr.read() == b"ratoon: of rank 1\n"
    assert not lives(ids(tmp_path, 2)[0])


def test_a_rank_that_a_signal_ended_ends_the_launcher_by_that_signal(started, tmp_path):
    process = started("time.sleep(60)", "time.sleep(60)")
    first, second = ids(tmp_path, 2)
    os.kill(second, signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    assert not lives(first)


@pytest.mark.parametrize(("end", "code"), [("os._exit(3)", 3), ("os.kill(os.getpid(), 9)", -signal.SIGKILL)])
def test_a_rank_that_lost_another_is_not_taken_for_the_cause(end, code, started):
    late = f"print('ratoon: of rank 1', file=sys.stderr); sys.stderr.flush(); time.sleep(0.15); {end}"
    process = started("print('Connection closed by peer', file=sys.stderr); os._exit(1)", late)
    assert process.wait(20) == code
    assert b"ratoon: of rank 1\n" in process.stderr.read() or code < 0


def test_a_signal_that_asks_to_end_reaches_each_rank_once(started, tmp_path):
    count = (
        "import signal; got = []; signal.signal(15, lambda *a: got.append(1)); "
        "open(f'pid-{os.environ[\"RANK\"]}', 'w').write(str(os.getpid())); "
        "[time.sleep(0.02) for _ in iter(lambda: bool(got), True)]; time.sleep(0.3); os._exit(75 if got == [1] else 9)"
    )
    process = started(count, count)
    ids(tmp_path, 2)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGTERM)  # as a supervisor does, to the whole group
    assert process.wait(20) == 75


def test_ranks_end_when_the_launcher_is_gone(started, tmp_path):
    process = started("time.sleep(60)", "time.sleep(60)")
    found = ids(tmp_path, 2)
    process.kill()
    until = time.monotonic() + 20
    while any(lives(pid) for pid in found) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(lives(pid) for pid in found)


def test_one_process_asked_for_is_the_process_itself(request_for, tmp_path, monkeypatch):
    for count, found in ((1, None), (3, 3)):
        records.write(tmp_path / "request.json", request_for(processes=count))
        assert __main__.processes_of("run", tmp_path / "request.json") == found
    assert __main__.processes_of("sweep", tmp_path / "request.json") is None
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")  # torchrun has started it
    assert __main__.processes_of("run", tmp_path / "request.json") is None


def test_a_rank_that_does_not_know_how_many_there_are_is_refused_and_not_alone(
    request_for, tmp_path, monkeypatch, capsys
):
    records.write(tmp_path / "request.json", request_for(processes=3))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert __main__.main(["run", str(tmp_path / "request.json")]) == 2
    assert "RANK is 1 and WORLD_SIZE is not set" in capsys.readouterr().err


def test_a_sweep_on_ranks_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert __main__.main(["sweep", str(tmp_path / "request.json")]) == 2
    assert "start it without torchrun" in capsys.readouterr().err


def test_the_job_for_kubernetes_starts_what_torchrun_and_the_run_understand():
    service, job = yaml.safe_load_all((EXAMPLES / "ranks-kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["terminationGracePeriodSeconds"] > Faults().grace_seconds
    words = pod["containers"][0]["command"][-1].replace("$JOB_COMPLETION_INDEX", "1").split()
    asked = run.get_args_parser().parse_args(words[words.index("torchrun") + 1 :])
    assert int(asked.nnodes) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(asked.nproc_per_node) == pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    assert asked.master_addr == f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert asked.module
    assert (asked.training_script, asked.training_script_args[0]) == ("ratoon.training", "run")


def test_the_batch_script_for_slurm_tells_each_task_its_rank(tmp_path):
    """Run for real, with a SLURM of two tasks that writes down what it is asked."""
    fakes = {
        "scontrol": 'echo "$@" >> asked; echo node-1; echo node-2',
        "srun": 'shift; for id in 0 1; do SLURM_PROCID=$id SLURM_LOCALID=$id "$@"; code=$?; done; exit $code',
        "python": 'echo $RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR "$@" >> told; exit 75',
    }
    for name, words in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{words}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"NTASKS": "2", "JOB_ID": "7", "JOB_NODELIST": "node-[1-2]", "CPUS_PER_TASK": "8"}
    told = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **{f"SLURM_{key}": value for key, value in slurm.items()}}
    script = [str(EXAMPLES / "ranks.sbatch"), "request.json"]
    assert subprocess.run(["bash", *script], cwd=tmp_path, env=told, check=False).returncode == 75
    run_it = "-m ratoon.training run request.json"
    assert (tmp_path / "told").read_text().splitlines() == [f"0 0 2 node-1 {run_it}", f"1 1 2 node-1 {run_it}"]
    assert (tmp_path / "asked").read_text().splitlines()[-1] == "requeue 7"


@forked.needs_fork
def test_a_process_that_is_told_it_has_others_trains_with_them(request_for, tmp_path):
    asked = {"tokens": 4 * 8 * 16, "evaluations": 1, "checkpoints": 1}
    two = request_for("two", **asked)
    records.write(tmp_path / "request.json", two)
    assert on_ranks.results(2, lambda number: __main__.main(["run", str(tmp_path / "request.json")])) == [0, 0]
    assert near(train(request_for("one", **asked)), records.read(Path(two.out) / "result.json", Result))
    # What ranks cannot follow is said by each, before they wait for each other.
    records.write(tmp_path / "request.json", request_for("muon", optimizer={"name": "muon"}))
    assert on_ranks.results(2, lambda number: __main__.main(["run", str(tmp_path / "request.json")])) == [2, 2]


def near(one, other):
    ends = [load_file(Path(found.model) / "model.safetensors") for found in (one, other)]
    return all(abs(ends[0][name] - ends[1][name]).max() < 1e-4 for name in ends[0])


def last(result):
    """Losses at the end: over hundreds of steps roundings grow into weights that differ."""
    return [o.loss_nats for o in result.observations if o.finished]


@pytest.mark.slow
def test_a_supervised_run_of_two_processes_is_killed_started_again_and_ends_where_one_does(request_for):
    """All of it, from train.processes to the result, lines passed on once."""
    asked = {"tokens": 300 * 8 * 16, "evaluations": 1, "checkpoints": 30}
    lines, killed, two = [], [], request_for("two", processes=2, **asked)
    out = Path(two.out)

    def kill_once(line):
        lines.append(line["step"])
        if not killed and checkpoint.whole(out / "checkpoints"):
            launcher = int((out / "pid").read_text())
            killed.append(int(Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()[1]))
            os.kill(killed[0], signal.SIGKILL)

    supervise("run", two, out, on_line=kill_once)
    assert killed
    assert lines == sorted(lines)
    assert last(records.read(out / "result.json", Result)) == pytest.approx(
        last(train(request_for("one", **asked))), 1e-3
    )


@pytest.mark.slow
def test_torchrun_starts_a_run_and_its_signal_ends_it_whole(request_for):
    asked = {"tokens": 400 * 8 * 16, "evaluations": 1, "checkpoints": 4}
    two = request_for("two", **asked)
    out = Path(two.out)
    records.write(out / "request.json", two)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "ratoon.training", "run", str(out / "request.json")]
    process = subprocess.Popen(command)
    until = time.monotonic() + 120
    while len(checkpoint.whole(out / "checkpoints")) < 1 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert not (out / "result.json").exists()
    saved = checkpoint.read_progress(checkpoint.whole(out / "checkpoints")[-1])["step"]
    assert saved % 100  # not one of those it saves anyway: it was asked, and saved where it was
    assert subprocess.run(command, check=False).returncode == 0
    assert last(records.read(out / "result.json", Result)) == pytest.approx(
        last(train(request_for("one", **asked))), 1e-3
    )
