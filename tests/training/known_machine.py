"""A machine whose times and memory are round numbers: what an estimate says of it can be reckoned by hand."""

from ratoon.training.meter import Reading
from ratoon.training.probe import Probe

GIB = 2**30


def line(rows, seconds, gib):
    return Reading(rows=rows, seconds=seconds, peak_bytes=round(gib * GIB))


def machine(*passes, **more):
    """A row takes 1 s and 1 GiB over 2 GiB, an update 2 s, a held-out row 0.25 s, a checkpoint 5 s."""
    return Probe(
        device="CPU",
        device_bytes=64 * GIB,
        disk_free_bytes=1000 * GIB,
        threads=2,
        params=1000,
        flops_per_token=6000,
        forward_flops_per_token=2000,
        weights_bytes=GIB // 2,
        gradients_bytes=GIB // 2,
        optimizer_bytes=GIB // 2,
        methods_bytes=0,
        process_bytes=GIB // 2,
        start_seconds=10,
        update_seconds=2,
        passes=tuple(line(rows, rows, 2 + rows) for rows in passes),
        evaluations=(line(1, 0.25, 2), line(40, 10, 2.5)),
        held_out_rows=40,
        held_out_at_once=40,
        checkpoint=line(0, 5, 2.5),
        checkpoint_bytes=2 * GIB,
        **more,
    )
