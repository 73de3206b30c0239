"""What each option of `train` does to a run: the tables and the picture of docs/training.md.

    OMP_NUM_THREADS=1 python benchmarks/training_recipes.py [--project FOLDER] [--seeds 2] [--out FOLDER] [--draw FILE]

Needs what `make demo` leaves in the project: data/rows/nano and models/weights. Short runs of the demo's base, nano, on
python-code (domain) with python-docs (general) beside it, one after the other in this process; a run whose numbers lie
in --out already is not made again. Twenty-odd settings, about 9 minutes a seed on a quiet core.

Losses are of held-out text, of the weights that a run would release. A step's cost is processor time against the plain
recipe's of the same seed; bytes are weights, gradients and what the optimizer remembers, over parameters.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from ratoon import config, records
from ratoon.config import Schedule, TrainConfig
from ratoon.layout import Layout
from ratoon.lm.adapters import is_adapter
from ratoon.lm.base import weights_folder
from ratoon.report import drawing
from ratoon.report.axes import labelled, y_ticks
from ratoon.report.drawing import Panel
from ratoon.report.laws import standalone
from ratoon.stream.rows import Rows
from ratoon.training import checkpoint
from ratoon.training.probe import optimizer_size, size
from ratoon.training.request import Portion, Request
from ratoon.training.run import Run

ROLES = {"python-docs": "general", "python-code": "domain"}
STEPS, ROWS_PER_STEP, PEAK = 150, 16, 0.003
LOOKS = (0, 5, 10, 20, 40, 80, 120, STEPS)  # steps at which a run is scored
SMALLER_MODEL = "a smaller model that has read good text of the kind"  # its place in a recipe


class Setting(NamedTuple):
    said: str
    recipe: dict[str, Any]
    replay: float = 0.3  # share of general text
    base: str = "nano"


PLAIN = [Setting(f"plain, {share:.0%} replay", {}, replay=share) for share in (0.05, 0.15, 0.3, 0.5)]


def against(said: str, **forgetting: Any) -> Setting:
    return Setting(said, {"forgetting": forgetting}, replay=0.05)


FORGETTING = [
    *PLAIN,
    against("`parent` on general, beta 1", parent={"beta": 1.0}),
    against("`parent` on all, beta 0.5", parent={"beta": 0.5, "on": "all"}),
    against("`parent` on all, `top_k: 32`", parent={"beta": 0.5, "on": "all", "top_k": 32}),
    against("`anchor` 0.5 every 50", anchor={"epsilon": 0.5, "every": 50}),
    against("`average` 0.98", average={"decay": 0.98}),
    against("`elastic` 500", elastic={"strength": 500.0}),
    against("`elastic` 5,000", elastic={"strength": 5000.0}),
    against("`soft_mask` 1", soft_mask={"strength": 1.0}),
    against("`interpolation` 0.7", interpolation=0.7),
    against("`interpolation` 0.5", interpolation=0.5),
]
LOSSES = [
    PLAIN[2],
    Setting("`label_smoothing` 0.1", {"loss": {"label_smoothing": 0.1}}),
    Setting("`reweight`", {"loss": {"reweight": {"burn_in_steps": 10}}}),
    Setting("`select`, a smaller reference", {"loss": {"select": {"keep": 0.6, "reference": SMALLER_MODEL}}}),
    Setting("`distill`, a smaller teacher", {"loss": {"distill": {"teacher": SMALLER_MODEL, "until_share": 0.6}}}),
    Setting("`distill`, the parent", {"loss": {"distill": {"teacher": "parent", "until_share": 0.6}}}),
    Setting("`noise_alpha` 5", {"loss": {"noise_alpha": 5}}),
]
OPTIMIZERS = [
    PLAIN[2],
    Setting("`moments: bf16`", {"optimizer": {"moments": "bf16"}}),
    Setting("`moments: 8bit`", {"optimizer": {"moments": "8bit"}}),
    Setting("`muon`", {"optimizer": {"name": "muon"}}),
    Setting("`galore`, rank 16", {"optimizer": {"name": "galore", "galore": {"rank": 16}}}),
    Setting("`bf16_pure`", {"precision": "bf16_pure"}),
    Setting("`bf16_pure`, `moments: 8bit`", {"precision": "bf16_pure", "optimizer": {"moments": "8bit"}}),
    Setting("`activation_checkpointing: light`", {"activation_checkpointing": "light"}),
    Setting("`activation_checkpointing: true`", {"activation_checkpointing": True}),
    *(Setting(f"`{name}`, rank 16", {"adapter": {"name": name}}) for name in ("lora", "rslora", "dora")),
    Setting("`osf`", {"adapter": {"name": "osf"}}),
]
TABLES = {"Forgetting": FORGETTING, "Losses": LOSSES, "Optimizers, memory, adapters": OPTIMIZERS}
SMALLER = Setting("pico, 10% replay", {}, replay=0.1, base="pico")


class Outcome(records.Record):
    """Of one setting and one seed."""

    losses: dict[str, dict[int, float]]  # role -> step -> nats per token; at the last step of the released weights
    step_seconds: float  # of a processor, median
    bytes_per_parameter: float

    def last(self, role: str) -> float:
        return self.losses[role][STEPS]


def outcome(setting: Setting, seed: int, project: Path, out: Path) -> Outcome:
    """As it was kept, or measured now."""
    place = out / f"seed-{seed}" / slug(setting.said)
    if not (place / "outcome.json").exists():
        smaller = place.parent / slug(SMALLER.said)
        if setting != SMALLER and SMALLER_MODEL in str(setting.recipe):
            outcome(SMALLER, seed, project, out)
        found = measured(request(setting, seed, project, place, smaller / "model"))
        records.write(place / "outcome.json", found)
    return records.read(place / "outcome.json", Outcome)


def slug(said: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in said.lower()).strip("-")


def request(setting: Setting, seed: int, project: Path, place: Path, reference: Path) -> Request:
    rows = {source: Layout(project).rows("nano", source) for source in ROLES}
    row_tokens = Rows.open(rows["python-docs"]).row_tokens
    shares = {"python-docs": setting.replay, "python-code": 1 - setting.replay}
    recipe = TrainConfig(
        tokens=row_tokens * ROWS_PER_STEP * STEPS,
        learning_rate=PEAK,
        rows_per_step=ROWS_PER_STEP,
        trunk="none",
        seed=seed,
        schedule=Schedule(name="wsd", warmup_steps=10, decay_share=0.2),
        **resolved(setting.recipe, reference),
    )
    return Request(
        name=slug(setting.said),
        label=setting.base,
        model=str(weights_folder(project, config.base(project, setting.base))),
        portions={s: Portion(rows=str(path), role=ROLES[s], share=shares[s]) for s, path in rows.items()},
        row_tokens=row_tokens,
        recipe=recipe,
        held_out_tokens=16384,
        out=str(place),
    )


def resolved(recipe: Any, smaller: Path) -> Any:
    """The recipe, with the smaller model's directory where it is meant."""
    if isinstance(recipe, dict):
        return {key: resolved(value, smaller) for key, value in recipe.items()}
    return str(smaller) if recipe == SMALLER_MODEL else recipe


def measured(asked: Request) -> Outcome:
    Path(asked.out).mkdir(parents=True, exist_ok=True)
    run = Run(asked)
    losses: dict[str, dict[int, float]] = {role: {} for role in ROLES.values()}
    seconds: list[float] = []
    for look in LOOKS:
        begun, before = time.process_time(), run.state.step
        run.advance(look, STEPS, None)
        if look > before:
            seconds.append((time.process_time() - begun) / (look - before))
        for one in run.evaluate(run=asked.name, group=asked.name, finished=look == STEPS):
            assert one.loss_nats is not None
            losses[one.role][look] = one.loss_nats
    if asked.label == SMALLER.base:
        checkpoint.write_model(run.model, Path(asked.out) / "model", Path(asked.model))
    own = sum(p.numel() for name, p in run.model.named_parameters() if not is_adapter(name))
    held = size(run.model.parameters()) + size(p for p in run.model.parameters() if p.requires_grad)
    return Outcome(
        losses=losses,
        step_seconds=statistics.median(seconds[1:]),  # the first steps warm up
        bytes_per_parameter=(held + optimizer_size(run.state)) / own,
    )


Found = dict[str, list[Outcome]]  # of a setting -> one outcome per seed


def table(settings: Sequence[Setting], found: Found, *, memory: bool) -> Iterable[str]:
    yield "| setting | general | domain | a step |" + (" bytes a parameter |" if memory else "")
    yield "|---|---|---|---|" + ("---|" if memory else "")
    plain = found[PLAIN[2].said]
    for setting in settings:
        outcomes = found[setting.said]
        # Against the plain recipe's step of the same seed: a machine is busier at some times than at others.
        cost = statistics.mean(a.step_seconds / b.step_seconds for a, b in zip(outcomes, plain, strict=True))
        cells = [setting.said, *(spread([one.last(role) for one in outcomes]) for role in ("general", "domain"))]
        cells += [f"{cost:.2f}", *([f"{outcomes[0].bytes_per_parameter:.1f}"] if memory else [])]
        yield f"| {' | '.join(cells)} |"


def spread(values: list[float]) -> str:
    around = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{around}"


def picture(found: Found) -> Markup:
    """General against domain loss at the end: what replay alone gives, and the methods beside it."""
    places = {s.said: tuple(mean_of(found[s.said], role) for role in ("domain", "general")) for s in FORGETTING}
    xs, ys = zip(*places.values(), strict=True)
    room = 0.3 * (max(xs) - min(xs))  # for words on the left
    panel = Panel((min(xs) - room, max(xs) + 0.2 * room), drawing.padded(ys), "forgetting", width=700, height=450)
    x_ticks = labelled(drawing.ticks(*panel.x))
    body = [drawing.frame(panel, x_ticks, y_ticks(panel), ("domain loss, nats per token", "general loss"))]
    plain = {s.said: panel.at(*places[s.said]) for s in PLAIN}
    body.append(drawing.line(list(plain.values()), "law"))
    others = {name: panel.at(*place) for name, place in places.items() if name not in plain}
    middle = plain[PLAIN[2].said][0] + 10
    lowest = 0.0  # of the words on the left so far
    for name, (x, y) in sorted(others.items(), key=lambda item: item[1][1]):
        left = x < middle or x > 0.8 * panel.width
        lowest = height = max(y + 4, lowest + 14) if x < middle else y + 4
        body.append(drawing.line([(x, y), (x - 12, height - 4)], "axis") if left else Markup())
        body.append(drawing.text((x - 14 if left else x + 8, height), bare(name), "", "end" if left else "start"))
    for name, at in (plain | others).items():
        general, domain = places[name][1], places[name][0]
        css = "proxy" if name in plain else "measured"
        body.append(drawing.dot(at, css, f"{bare(name)}: general {general:.3f}, domain {domain:.3f}"))
    body += [
        drawing.text((x + 8, y - 6), bare(name).removeprefix("plain, "), "strong") for name, (x, y) in plain.items()
    ]
    title = "Lost against learned: lower and further left is better"
    return drawing.svg(
        panel, title, "The line is replay alone, at several shares; dots are methods at 5% replay.", body
    )


def mean_of(outcomes: Sequence[Outcome], role: str) -> float:
    return statistics.mean(one.last(role) for one in outcomes)


def bare(name: str) -> str:
    return name.replace("`", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder of the runs; none: a temporary one")
    parser.add_argument("--draw", type=Path, help="the picture's file; none: not drawn")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as spare:
        out = (asked.out or Path(spare)).absolute()
        found: Found = {}
        for seed in range(asked.seeds):
            for setting in {s.said: s for of in TABLES.values() for s in of}.values():
                found.setdefault(setting.said, []).append(outcome(setting, seed, asked.project.absolute(), out))
                last = found[setting.said][-1]
                print(
                    f"seed {seed}, {setting.said}: {last.last('general'):.3f} {last.last('domain'):.3f}",
                    file=sys.stderr,
                )
    for name, settings in TABLES.items():
        print(f"\n{name}\n", *table(settings, found, memory=name.startswith("Optim")), sep="\n")
    if asked.draw:
        records.write_text(asked.draw, standalone(picture(found)))


if __name__ == "__main__":
    main()
