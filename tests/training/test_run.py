import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ratoon import records
from ratoon.config import ConfigError
from ratoon.training import checkpoint
from ratoon.training.loop import accumulate, new_step, summed_loss
from ratoon.training.run import Run, train
from ratoon.training.supervise import Tail, supervise


def weights(result):
    return load_file(Path(result.model) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_training_lowers_the_loss_of_both_sources(request_for):
    result = train(request_for(tokens=60 * 8 * 16))
    for source in ("general", "domain"):
        losses = [o.loss_nats for o in result.observations if o.evaluated == source]
        assert losses[-1] < losses[0] - 0.3


def test_equal_requests_give_equal_weights(request_for):
    assert same(weights(train(request_for("a"))), weights(train(request_for("b"))))


def test_a_run_cut_off_and_resumed_ends_where_an_unbroken_one_ends(request_for, monkeypatch):
    whole = train(request_for("whole"))
    saves = 0
    save = checkpoint.save

    def save_then_die(*args, **kwargs):
        nonlocal saves
        save(*args, **kwargs)
        saves += 1
        if saves == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        train(request_for("cut"))
    resumed = train(request_for("cut"))
    assert same(weights(whole), weights(resumed))
    assert [o.loss_nats for o in whole.observations] == [o.loss_nats for o in resumed.observations]
    assert [o.step for o in whole.observations] == [o.step for o in resumed.observations]


def test_a_killed_process_is_started_again_and_ends_with_the_same_weights(request_for):
    whole = train(request_for("whole", tokens=400 * 8 * 16, checkpoints=20))
    request = request_for("killed", tokens=400 * 8 * 16, checkpoints=20)
    out = Path(request.out)
    killed = []

    def kill_once(line):
        if not killed and checkpoint.whole(out / "checkpoints"):
            killed.append(int((out / "pid").read_text()))
            os.killpg(killed[0], signal.SIGKILL)

    lines = []
    supervise("run", request, out, on_line=lambda line: (lines.append(line["step"]), kill_once(line)))
    assert killed
    result = records.read(out / "result.json", type(whole))
    assert same(weights(whole), weights(result))
    assert lines == sorted(lines)


def test_the_child_ends_when_its_supervisor_is_gone(request_for):
    request = request_for("orphan", tokens=200_000 * 8 * 16)
    out = Path(request.out)
    out.mkdir(parents=True)
    records.write(out / "request.json", request)
    command = [sys.executable, "-m", "ratoon.training", "run", str(out / "request.json"), "--supervised"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.stdin.close()
    assert process.wait(20) != 0


def test_a_wrong_request_is_told_once_and_not_repeated(request_for, tmp_path, monkeypatch):
    request = request_for("wrong").model_copy(update={"model": str(tmp_path / "nowhere")})
    # Whatever libraries say on standard error is no part of the letter.
    monkeypatch.setenv("OMP_NUM_THREADS", "none")
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/nowhere: no model here"):
        supervise("run", request, Path(request.out))


def test_accumulated_gradients_equal_those_of_the_whole_batch(request_for):
    one, four = Run(request_for("one")), Run(request_for("four", micro_rows=2))
    batch = one.batch_at(0)
    batch.valid[3] = 5  # rows of different lengths: a mean of means would differ
    for run in (one, four):
        accumulate(run.model, new_step(batch, None), run.request.recipe)
    for a, b in zip(one.model.parameters(), four.model.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


def test_padding_is_never_learned_nor_scored(request_for):
    run = Run(request_for())
    tokens, valid = run.batch_at(0)[:2]
    valid[:] = 9
    before = summed_loss(run.model, tokens, valid)
    tokens[:, 9:] = 7
    assert torch.equal(before, summed_loss(run.model, tokens, valid))


def test_a_checkpoint_loads_in_transformers_and_older_ones_go(request_for):
    from transformers import AutoModelForCausalLM

    request = request_for()
    result = train(request)
    AutoModelForCausalLM.from_pretrained(result.model)
    assert len(list((Path(request.out) / "checkpoints").iterdir())) == checkpoint.KEEP


def test_a_checkpoint_cut_short_is_passed_over(request_for):
    request = request_for()
    train(request)
    last = checkpoint.whole(Path(request.out) / "checkpoints")[-1]
    file = last / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    found = checkpoint.whole(Path(request.out) / "checkpoints")
    assert found
    assert last not in found


def test_a_checkpoint_of_another_run_is_refused(request_for):
    request = request_for()
    train(request)
    (Path(request.out) / "result.json").unlink()
    with pytest.raises(ConfigError, match="written by another run"):
        train(request_for(learning_rate=0.02))


def test_a_full_disk_leaves_the_earlier_checkpoint_whole(request_for, monkeypatch):
    request = request_for()
    seal = checkpoint.seal
    calls = []

    def full_at_second(folder):
        calls.append(folder)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        seal(folder)

    monkeypatch.setattr(checkpoint, "seal", full_at_second)
    with pytest.raises(OSError, match=r"could not save .*No space left on device; free space"):
        train(request)
    left = sorted(p.name for p in (Path(request.out) / "checkpoints").iterdir())
    assert len(left) == 1
    monkeypatch.undo()
    assert same(weights(train(request)), weights(train(request_for("whole"))))


def test_a_base_with_a_smaller_vocabulary_than_its_rows_is_refused(request_for, tiny, tmp_path):
    import shutil

    small = tmp_path / "small"
    shutil.copytree(tiny / "model", small)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    with pytest.raises(ConfigError, match=r"packed with a tokenizer of 512 entries.*has 100"):
        Run(request_for().model_copy(update={"model": str(small)}))


def test_bf16_learns_too(request_for):
    result = train(request_for(tokens=60 * 8 * 16, precision="bf16"))
    losses = [o.loss_nats for o in result.observations if o.evaluated == "general"]
    assert losses[-1] < losses[0] - 0.2


def test_lines_written_twice_after_a_resume_are_passed_on_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)

    def lines(*steps):
        return "".join(json.dumps({"step": s, "tokens": s, "metrics": {}}) + "\n" for s in steps)

    path.write_text(lines(1, 2, 3, 4))
    assert [line["step"] for line in tail.new()] == [1, 2, 3, 4]
    path.write_text(lines(1, 2))  # cut back to the checkpoint
    assert tail.new() == []
    path.write_text(lines(1, 2, 3, 4, 5) + '{"step": 6, "tok')
    assert [line["step"] for line in tail.new()] == [5]


def test_a_run_that_went_back_tells_each_step_once_and_an_evaluation_that_was_not_told_yet(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)

    def line(step, kind):
        return json.dumps({"step": step, "tokens": step, "metrics": {f"{kind}/loss": 1.0}}) + "\n"

    def told():
        return [(each["step"], *(name.split("/")[0] for name in each["metrics"])) for each in tail.new()]

    def begin_anew(text):
        beside = tmp_path / "beside"
        beside.write_text(text)
        beside.replace(path)

    path.write_text(line(1, "train") + line(2, "train") + line(3, "train"))
    assert told() == [(1, "train"), (2, "train"), (3, "train")]
    begin_anew(line(1, "train"))
    assert told() == []
    with path.open("a") as file:
        file.write(line(2, "train") + line(3, "train"))
        file.flush()
        assert told() == []
        file.write(line(3, "held_out") + line(4, "train"))
    assert told() == [(3, "held_out"), (4, "train")]
