from ratoon.records import Observation
from ratoon.report import dip


def curve(role, losses):
    return [
        Observation(
            run="r", group="r", commit=None, config="", model="m", params_non_embedding=1, tokens=100 * step, share=0.5,
            learning_rate=1e-3, step=step, finished=False, evaluated=role, role=role, loss_nats=loss,
            bits_per_byte=None,
        )
        for step, loss in enumerate(losses)
    ]  # fmt: skip


def test_a_gap_that_closed_is_told_with_its_steps():
    assert dip.gaps(curve("domain", [2.0, 2.1, 2.05, 1.9])) == [
        "domain loss was +5.0% at step 1, back where it was by step 3"
    ]


def test_a_gap_that_closes_halfway_says_how_far():
    assert dip.gaps(curve("general", [2.0, 2.2, 2.1])) == [
        "general loss was +10.0% at step 1, 50% of it made good by the end"
    ]


def test_forgetting_that_stays_and_noise_are_no_gaps():
    assert dip.gaps(curve("general", [2.0, 2.1, 2.2])) == []
    assert dip.gaps(curve("general", [2.0, 2.004, 1.9])) == []
