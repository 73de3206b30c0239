"""One trunk with a decay per horizon, against a run of its own for each: tokens, losses, and the ratio that is chosen.

    OMP_NUM_THREADS=1 python benchmarks/training_trunk.py --root FOLDER [--tokens 61440] [--peer cosine]

FOLDER is a project in which `ratoon refresh` has made the base nano and its rows. Six evenly spaced horizons at five
ratios; decays take the last fifth. Separate runs have the same schedule, and with --peer cosine also the customary one,
a cosine over each run's own length. The choice is that of params.yaml's defaults, for a target twice as long.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ratoon.config import ChooseConfig, Schedule, SweepConfig, TrainConfig
from ratoon.laws.decision.choose import choose
from ratoon.laws.tables.parents import parent_losses
from ratoon.records import Observation
from ratoon.training.group import run_group
from ratoon.training.proxies import Group, group_tokens
from ratoon.training.sweep import Corpus, Plan

RATIOS = (0.1, 0.25, 0.4, 0.6, 0.8)
HORIZONS = 6


def plan_of(root: Path, tokens: int, out: Path) -> Plan:
    rows = root / "data" / "rows" / "nano"
    roles = {"python-docs": "general", "python-code": "domain"}
    return Plan(
        {"nano": next((root / "models" / "weights").glob("nano-*"))},
        {name: Corpus(rows=str(rows / name), role=role) for name, role in roles.items()},  # type: ignore[arg-type]
        SweepConfig(tokens=tokens, ratios=RATIOS, horizons=HORIZONS, spacing="even", workers=1, stacked="never"),
        TrainConfig(
            tokens=2 * tokens,
            learning_rate=5e-4,
            rows_per_step=8,
            schedule=Schedule.model_validate({"name": "wsd", "warmup_steps": 4, "decay_share": 0.2}),
            threads=1,
        ),
        out,
        {"row_tokens": 128, "held_out_tokens": 16384, "commit": None},
    )


def apart(group: Group, out: Path, schedule: Schedule | None = None) -> Group:
    """The same horizons, each a run of its own."""
    recipe = group.request.recipe
    changed = recipe if schedule is None else recipe.model_copy(update={"schedule": schedule})
    request = group.request.model_copy(update={"recipe": changed, "out": str(out / group.request.name)})
    return group.model_copy(update={"request": request, "separate": True})


def run(groups: list[Group]) -> tuple[list[Observation], float]:
    begun = time.process_time()
    found = [one for group in groups for one in run_group(group)]
    return found, time.process_time() - begun


def decided(observations: list[Observation], plan: Plan) -> tuple[float, str]:
    size = observations[0].params_non_embedding
    parent = parent_losses(observations, size)
    made = choose(
        observations,
        params_non_embedding=size,
        tokens=plan.recipe.tokens,
        parent_general=parent["general"],
        parent_domain=parent["domain"],
        config=ChooseConfig(),
    )
    return made.share, made.reason


def difference(ours: list[Observation], theirs: list[Observation]) -> tuple[float, float]:
    """Largest and mean of |ours / theirs - 1| over decayed losses."""
    key = {(o.share, o.tokens, o.evaluated): o.loss_nats for o in theirs if o.finished}
    found = [abs(o.loss_nats / key[o.share, o.tokens, o.evaluated] - 1) for o in ours if o.finished]  # type: ignore[operator]
    return max(found), float(np.mean(found))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--root", type=Path, required=True, help="a project with the base nano and its rows")
    asked.add_argument("--tokens", type=int, default=61440, help="of the longest horizon")
    asked.add_argument("--peer", choices=["same", "cosine"], default="same")
    given = asked.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        plan = plan_of(given.root, given.tokens, out / "trunk")
        groups = plan.grid()
        peers: dict[str, Schedule | None] = {"wsd": None}
        if given.peer == "cosine":
            peers["cosine"] = Schedule.model_validate({"name": "cosine", "warmup_steps": 4})
        ours, seconds = run(groups)
        tokens = sum(group_tokens(group) for group in groups)
        share, reason = decided(ours, plan)
        print(f"trunk: {tokens:,} tokens, {seconds:.0f} CPU s; chosen {share:.2f} ({reason})", flush=True)
        for name, schedule in peers.items():
            separate = [apart(group, out / name, schedule) for group in groups]
            theirs, seconds = run(separate)
            spent = sum(group_tokens(group) for group in separate)
            share, reason = decided(theirs, plan)
            most, mean = difference(ours, theirs)
            print(
                f"separate, {name}: {spent:,} tokens, {seconds:.0f} CPU s; chosen {share:.2f} ({reason})\n"
                f"  trunk has {tokens / spent:.1%} of its tokens; losses differ by {most:.3%} at most, {mean:.3%} on "
                f"average",
                flush=True,
            )


if __name__ == "__main__":
    main()
