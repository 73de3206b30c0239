"""A base is made by one run, whoever else wants it at the same time."""

import threading

from ratoon.config import Ask
from tasks import prepare


def test_of_two_runs_that_want_a_base_the_second_waits_and_finds_it_made(tmp_path, monkeypatch):
    begun, may_end, made = threading.Event(), threading.Event(), []

    def make(root, ask):
        if not made:
            begun.set()
            may_end.wait(60)
            made.append(threading.current_thread().name)
        return root / "weights"

    monkeypatch.setattr(prepare, "made_base", make)
    first, second = (threading.Thread(target=prepare.make_base.fn, args=(tmp_path, Ask()), name=n) for n in "ab")
    first.start()
    begun.wait(60)
    second.start()
    second.join(1)
    assert second.is_alive()
    may_end.set()
    for run in (first, second):
        run.join(60)
    assert made == ["a"]
