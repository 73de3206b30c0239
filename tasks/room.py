"""What prepare, sweep and train will need of the disk, asked before they begin."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from ratoon.config import Base, Files, Source
from ratoon.layout import Layout
from ratoon.training.disk import KEEP
from ratoon.training.request import ended
from tasks.disk import bytes_of, room
from tasks.job import Job

COPIES = 2  # of an edition: the one to read, and the one in DVC's cache
STAGES = 3  # hold a text: documents, clean, rows
STATES = 3  # weights and AdamW's two moments
FP32_BYTES = 4


def check_prepare(root: Path, base: Base, sources: tuple[Source, ...]) -> None:
    """Before the editions are made."""
    room(root, root / "data", prepare_bytes(root, base, sources), "bringing the sources up to date")


def prepare_bytes(root: Path, base: Base, sources: tuple[Source, ...]) -> int:
    """Of a source that was never prepared: what its files hold, once per stage. Of one that was: its share of growth.

    Compressed files and packages are not read before ingest reads them: of these only what earlier editions held is
    known.
    """
    layout, needed = Layout(root), 0
    for source in sources:
        raw = sum(bytes_of(path) for path in raw_files(root, source))
        places = [layout.documents(source.name), layout.clean(source.name), layout.rows(base.name, source.name)]
        held = sum(bytes_of(place) for place in places)
        ledger = layout.documents(source.name) / "ledger.json"
        if not ledger.exists():
            needed += COPIES * STAGES * raw
            continue
        read = json.loads(ledger.read_text(encoding="utf-8"))["funnel"]["bytes_in"]
        grown = max(0, raw - read) / read if read else 1.0
        # Shards that change are written whole before the old go: as much again as the edition's growth, at least it.
        needed += round(COPIES * max(held * grown, STAGES * max(0, raw - read)))
    return needed


def raw_files(root: Path, source: Source) -> Iterator[Path]:
    for origin in source.origins:
        if isinstance(origin, Files) and "://" not in origin.path:
            place = root / origin.path
            yield from [place] if place.exists() else sorted(root.glob(origin.path))


def check_sweep(job: Job) -> None:
    if not (job.folder / "sweep" / "result.json").exists():
        room(job.layout.root, job.folder, sweep_bytes(job), "the sweep")


def sweep_bytes(job: Job) -> int:
    """Proxies leave tables. What is saved are the parent's smaller siblings, continued as it was: at most its size."""
    return len(job.base.family) * run_bytes(job) if job.parent_version is not None else 0


def check_train(job: Job) -> None:
    if ended(job.folder / "train") is None:
        room_for_run(job, job.folder, "the target run")


def room_for_run(job: Job, place: Path, what: str) -> None:
    """Of the target's length, which saves what the target saves."""
    recipe, follow = job.params.train, job.params.assess.trajectory is not None
    needed = kept_bytes(job, recipe.checkpoints) if follow else run_bytes(job)
    room(job.layout.root, place, needed, what)


def run_bytes(job: Job) -> int:
    """Checkpoints that are kept, one being written, and the trunk: no more at once."""
    recipe = job.params.train
    trunk = 0 if recipe.trunk == "none" else 1
    return (min(KEEP, recipe.checkpoints) + 1 + trunk) * checkpoint_bytes(job.parent)


def kept_bytes(job: Job, checkpoints: int) -> int:
    """Of a run whose checkpoints all stay, to be scored: weights; of several processes with the optimizer's state; of
    an adapter one whole model after the other."""
    recipe, whole = job.params.train, checkpoint_bytes(job.parent)
    if recipe.adapter is not None:
        return run_bytes(job) + whole // STATES
    return run_bytes(job) + checkpoints * (whole if recipe.processes > 1 else whole // STATES)


def checkpoint_bytes(model: Path) -> int:
    """Weights and AdamW's two moments in fp32, and the small files; what a method adds is not known before it runs."""
    files = [path for path in model.iterdir() if path.is_file()]
    weights = [path for path in files if path.suffix == ".safetensors"]
    small = sum(path.stat().st_size for path in files if path not in weights)
    return FP32_BYTES * STATES * sum(elements(path) for path in weights) + small


def elements(path: Path) -> int:
    """Numbers in a safetensors file, by its header: eight bytes of length, then JSON."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
