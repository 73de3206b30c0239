"""Several ranks of one run, each a fork of this process: quick, because nothing is imported again."""

import os
import socket
import tempfile
from pathlib import Path

import forked
import torch
import torch.distributed.checkpoint  # here once, and not in every fork
import torch.distributed.fsdp
import torch.distributed.tensor

from ratoon.training.ranks import joined
from ratoon.training.run import train


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def start(count, work):
    """Process ids of `count` ranks that do work(rank)."""
    found = []
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for number in range(count):

        def one(number=number):
            os.environ.update(shared, RANK=str(number), LOCAL_RANK=str(number))
            torch.set_num_threads(1)
            work(number)

        found.append(forked.start(one))
    return found


def run(count, work):
    """Exit codes."""
    return [forked.end_of(child) for child in start(count, work)]


def results(count, work):
    """What work(rank) returned on each of `count` ranks."""
    with tempfile.TemporaryDirectory() as folder:
        codes = run(count, lambda number: torch.save(work(number), Path(folder) / str(number)))
        assert codes == [0] * count
        return [torch.load(Path(folder) / str(number), weights_only=False) for number in range(count)]


def trained(request, count=2, asked=bool):
    """The result of `request` on so many ranks."""

    def work(number):
        with joined(request.recipe) as ranks:
            return train(request, asked, ranks)

    return results(count, work)[0]
