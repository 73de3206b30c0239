"""What is said while a stage works."""

from ratoon.corpus.workers import Seen
from ratoon.stages import Said


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_line_tells_speed_kept_dropped_and_what_is_left_of_the_phase(capsys):
    clock = Clock()
    said = Said("clean notes", clock)
    clock.now += 10
    said(100_000_000, 400_000_000, "rules a", Seen(90_000, 10_000))
    assert capsys.readouterr().err == (
        "clean notes: rules 100 of 400 MB, 10.0 MB/s, 10,000 documents/s, 90,000 kept, 10,000 dropped, 0:30 left (a)\n"
    )
    clock.now += 1
    said(200_000_000, 400_000_000, "rules b", Seen(180_000, 20_000))
    assert capsys.readouterr().err == ""  # too soon


def test_a_new_phase_is_timed_on_its_own(capsys):
    clock = Clock()
    said = Said("clean notes", clock)
    clock.now += 1000
    said(400_000_000, 400_000_000, "rules a", Seen(1, 0))
    clock.now += 20
    said(100_000_000, 400_000_000, "signatures a")
    assert capsys.readouterr().err.splitlines()[-1] == (
        "clean notes: signatures 100 of 400 MB, 5.0 MB/s, 1:00 left (a)"
    )


def test_a_total_that_is_not_known_is_not_made_up(capsys):
    clock = Clock()
    said = Said("ingest notes", clock)
    clock.now += 4
    said(8_000_000, None, "read hub", Seen(3, 1))
    assert capsys.readouterr().err == "ingest notes: read 8 MB, 2.0 MB/s, 1 documents/s, 3 kept, 1 dropped (hub)\n"
