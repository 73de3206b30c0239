"""The stability gap of the demo's base on new text, and what remedies do about it; the picture of docs/training.md.

    OMP_NUM_THREADS=1 python benchmarks/training_gap.py [--out FOLDER] [--draw docs/images/stability-gap.svg]

Needs what `make demo` leaves: data/rows/nano and models/weights. One run each, some minutes together; a run whose
observations lie in FOLDER already is not made again. The published remedies (arXiv:2406.14833) as options: a mixture
nearer to pretraining, a right-sized part read several times; the third, the best part, is prepare.select's.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from ratoon import config, records
from ratoon.config import Schedule, TrainConfig
from ratoon.lm.base import weights_folder
from ratoon.records import Observation
from ratoon.stream.rows import Rows
from ratoon.training.request import Portion, Request
from ratoon.training.run import train

HERE = Path(__file__).resolve().parent.parent
ROLES = {"python-docs": "general", "python-code": "domain"}
RUNS: dict[str, dict[str, Any]] = {
    "half": {"share": 0.5, "warmup": 0, "said": "half domain text, no warm-up", "colour": "#c2571a"},
    "warm": {"share": 0.5, "warmup": 50, "said": "half, 50 warm-up steps", "colour": "#8a6d1f"},
    "third": {"share": 0.25, "warmup": 0, "said": "a quarter, no warm-up", "colour": "#3b6ea8"},
    "subset": {"share": 0.5, "warmup": 0, "subset_epochs": 4.0, "said": "half, read 4 times", "colour": "#5f8a3b"},
    "all": {"share": 1.0, "warmup": 0, "rate": 0.001, "steps": 480, "said": "domain text alone", "colour": "#777777"},
}
STEPS, ROWS_PER_STEP, PEAK = 320, 16, 0.003


def observed(name: str, folder: Path) -> list[Observation]:
    kept = folder / name / "observations.csv"
    if not kept.exists():
        train(request(name, folder))
    return records.read_observations(kept)


def request(name: str, folder: Path) -> Request:
    asked = RUNS[name]
    rows = {source: HERE / "data" / "rows" / "nano" / source for source in ROLES}
    row_tokens = Rows.open(rows["python-docs"]).row_tokens
    shares = {"python-docs": 1 - asked["share"], "python-code": asked["share"]}
    recipe = TrainConfig(
        tokens=row_tokens * ROWS_PER_STEP * asked.get("steps", STEPS),
        learning_rate=asked.get("rate", PEAK),
        rows_per_step=ROWS_PER_STEP,
        evaluations=10,
        early_evaluations=12,
        early_share=0.5,
        checkpoints=1,
        trunk="none",
        subset_epochs=asked.get("subset_epochs"),
        schedule=Schedule(name="wsd", warmup_steps=asked["warmup"], decay_share=0.2),
    )
    return Request(
        name=name,
        label="nano",
        model=str(weights_folder(HERE, config.base(HERE, "nano"))),
        portions={s: Portion(rows=str(path), role=ROLES[s], share=shares[s]) for s, path in rows.items()},
        row_tokens=row_tokens,
        recipe=recipe,
        held_out_tokens=16384,
        out=str(folder / name),
    )


def draw(found: dict[str, list[Observation]]) -> plt.Figure:
    """Loss above the parent's over the steps, by role; the first steps are what it is about, hence the scale."""
    figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.4), layout="constrained")
    for axis, role in zip(axes, ("general", "domain"), strict=True):
        for name, of in found.items():
            losses = {o.step: o.loss_nats for o in of if o.role == role and o.loss_nats is not None}
            steps = sorted(losses)
            rise = [losses[step] - losses[0] for step in steps]
            axis.plot(steps, rise, color=RUNS[name]["colour"], label=RUNS[name]["said"], marker=".", markersize=3)
        axis.axhline(0, color="#444444", linewidth=0.7)
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xlim(left=0)
        axis.set_title(f"{role} loss above the parent's, nats", fontsize=9)
        axis.set_xlabel("step (logarithmic)", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None, help="folder of the runs; none: a temporary one")
    parser.add_argument("--draw", type=Path, default=HERE / "docs" / "images" / "stability-gap.svg")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as spare:
        found = {name: observed(name, asked.out or Path(spare)) for name in RUNS}
    for name, of in found.items():
        general = {o.step: o.loss_nats for o in of if o.role == "general" and o.loss_nats is not None}
        bottom = max(general, key=lambda step: general[step])
        last = max(general)
        domain = {o.step: o.loss_nats for o in of if o.role == "domain"}[last]
        print(
            f"{RUNS[name]['said']:<30} depth {general[bottom] - general[0]:+.3f} at step {bottom:>3}, "
            f"end {general[last]:.3f}, domain {domain:.3f}"
        )
    plt.rcParams["svg.hashsalt"] = "ratoon"  # the same picture, the same file
    figure = draw(found)
    figure.savefig(asked.draw, metadata={"Date": None})


if __name__ == "__main__":
    main()
