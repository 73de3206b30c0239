"""Does choosing the runs save them? Simulated sweeps of known truth, published continued pretraining, own sweeps.

    python benchmarks/laws_design.py --studies 12 --noise 0.001 --stretch 1
    python benchmarks/laws_design.py --truth warm_like --law warm    what it costs not to know the form
    python benchmarks/laws_design.py --published
    python benchmarks/laws_design.py --replay observations.csv --target 800000

Against each stands the full grid, answered by the same estimate: the median of r*, the largest domain share within
tolerance. Runs are proposed by `laws.design.next_run` one at a time, until no further one fits into 40% of the grid's
tokens or the interval is as narrow as asked.

Planted: shaped like the demo's, asked for `--stretch` times the longest run, the same noise per trunk and per run, and
the same for a run whoever asks for it. The grid is six ratios at four horizons; the start is `sweep.start`: three
ratios, the middle one at full length, the others at a quarter, or shorter where the budget wants it.

Published (shared/published, arXiv:2403.16952): Pythia-70M continued on Pile and Python, four ratios, ten checkpoints
each, one size. A run to step s costs s and shows all checkpoints up to it; a longer one is paid in full again. Asked
is the largest Python share whose Pile loss at step 10000 is the base model's. Every start of the list is answered.

Replay: a full grid that was really run, as `ratoon sweep` leaves it.

`grids apart` is the floor: how far two full grids of the same runs are apart when only their noise is drawn anew. Runs
that share no noise with a grid cannot be expected nearer to its answer than a second grid is. Of the published runs
there is no second grid: its losses are those of the laws the first one leaves, with noise as large as it shows.
"""

import argparse
import csv
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ratoon import records
from ratoon.config import ChooseConfig, Role, SweepConfig
from ratoon.laws.decision.goals import Stakes
from ratoon.laws.design.belief import Belief, believe_weakly
from ratoon.laws.design.next_run import Option, Rule, first_lengths, options, propose, stop
from ratoon.laws.design.rows import Rows
from ratoon.laws.tables.parents import parent_losses
from ratoon.laws.tables.table import own_share, tabulate
from ratoon.records import Observation

OWN, SMALL, LONGEST = 160_000, 40_000, 400_000
RATIOS = (0.1, 0.25, 0.4, 0.55, 0.7, 1.0)
HORIZONS = tuple(LONGEST // 2**n for n in (3, 2, 1, 0))
START = SweepConfig.model_fields["start"].default
DECAY = 0.2
BUDGET = 0.4
WITHIN = 0.02  # of the full grid's answer
AGAIN = 100_000  # seeds of second grids
REPEATS = 12  # of the published grid
SHARES_OF_STUDIES = ("covered", "grid covered", "within 0.02", "grids within 0.02")
ROLES: tuple[Role, ...] = ("general", "domain")
CONFIG = ChooseConfig.model_validate({})
PUBLISHED = next(
    (up / "shared" / "published" for up in Path(__file__).parents if (up / "shared" / "published").exists()),
    Path("shared/published"),
)
STEPS = tuple(range(1000, 10_001, 1000))

Measure = Callable[[Option], list[Observation]]
Truth = Callable[[Role, float, float, float], float]  # role, N, D, own share -> nats


def dcpt_like(role: Role, N: float, D: float, own: float) -> float:
    """Planted D-CPT."""
    if role == "general":
        return 2.9 + 0.4 * (N / 1e5) ** -0.34 + 0.05 * own * (D / 1e5) ** -0.4 + 0.16 / (own + 0.15) ** 0.5
    return 1.7 + 0.3 * (N / 1e5) ** -0.34 + 0.35 * own**0.2 * (D / 1e5) ** -0.3 + 1.3 / (own + 0.05) ** 0.2


def warm_like(role: Role, N: float, D: float, own: float) -> float:
    """Planted warm start: loss falls ever faster in log D."""
    size, fresh = 0.2 * np.log(OWN / N) / np.log(4), (1 + D / 3e5) ** -0.5
    if role == "general":
        return 3.1 + size + 0.5 * fresh + (0.65 - 0.5 * fresh) * (1 - own**0.3)
    return 2.9 + size + 1.0 * fresh + (0.9 - 0.5 * fresh) * (1 - own**0.15)


def cmr_like(role: Role, N: float, D: float, own: float) -> float:
    """Planted CMR: a power of tokens without a floor in sight."""
    size, tokens = 0.2 * np.log(OWN / N) / np.log(4), (D / 1e5) ** -0.2
    if role == "general":
        return 2.6 + size + 0.5 * tokens + (0.9 - 0.45 * tokens) * (1 - own**0.3)
    return 2.4 + size + 0.9 * tokens + (0.9 - 0.4 * tokens) * (1 - own**0.15)


def neither(role: Role, N: float, D: float, own: float) -> float:
    """No law here has this form: pretraining that goes on, and a shift that saturates (in the manner of
    arXiv:2505.07796)."""
    base, seen = 0.2 * np.log(OWN / N) / np.log(4), D / 1e5
    if role == "general":
        shift = 0.7 * (1 - (1 + 8 * seen) ** -0.25) * np.exp(-4.5 * own)
        return 2.2 + base + 1.55 * (16 + own * seen) ** -0.1 * 1.32 + shift
    return 2.4 + base + 1.9 * (1 + 5 * own * seen) ** -0.22


TRUTHS = (dcpt_like, warm_like, cmr_like, neither)


def tokens_of(run: Option) -> float:
    return run.flops / (6 * run.params)


@dataclass(frozen=True)
class Question:
    params: float
    tokens: float
    ceiling: float
    config: ChooseConfig = CONFIG

    def believe(self, observations: Sequence[Observation]) -> Belief:
        stakes = Stakes(self.ceiling / (1 + self.config.tolerance), 4.0, self.config)
        rows = {role: Rows.of(table) for role, table in tabulate(observations)[0].items()}
        return believe_weakly(rows, params=self.params, tokens=self.tokens, stakes=stakes)


def grow(
    question: Question,
    measure: Measure,
    start: Sequence[Option],
    among: Callable[[list[Option]], list[Option]],
    most: float,
    width: float,
) -> tuple[list[Option], Belief]:
    """Runs one at a time, within `most` tokens."""
    made = list(start)
    while True:
        belief = question.believe(distinct(o for run in made for o in measure(run)))
        spent = sum(map(tokens_of, made))
        rule = Rule(width, price=0.0)
        within = [one for one in among(made) if spent + tokens_of(one) <= most]
        left = (most - spent) * 6 * question.params
        found = propose(belief, within, rule, budget=left)
        if stop(belief, found[0] if found else None, rule, len(made), left):
            return made, belief
        made.append(found[0].option)


def begin(shares: Sequence[float], size: float, horizons: Sequence[float], most: float) -> list[Option]:
    def run(share: float, count: int | None) -> Option:
        return Option.trunk(share, size, horizons[:count], DECAY)

    lengths = first_lengths(shares, lambda share, count: tokens_of(run(share, count)), most)
    return [run(share, count) for share, count in zip(shares, lengths, strict=True)]


def distinct(observations) -> list[Observation]:  # type: ignore[no-untyped-def]
    return list({(one.run, one.tokens, one.evaluated): one for one in observations}.values())


def row(params: float, share: float, tokens: float, role: Role, loss: float) -> Observation:
    return Observation(
        run=f"{params:.0f}-{share}-{tokens:.0f}",
        group=f"{params:.0f}-{share}",
        commit=None,
        config="",
        model="proxy",
        params_non_embedding=int(params),
        tokens=int(tokens),
        share=share,
        learning_rate=1e-3,
        step=1,
        finished=True,
        evaluated=role,
        role=role,
        loss_nats=loss,
        bits_per_byte=None,
    )


# ---------------------------------------------------------------- planted


def planted(truth: Truth, noise: float, seed: int) -> Measure:
    def measure(run: Option) -> list[Observation]:
        found = []
        for role in ROLES:
            own = run.share if role == "domain" else 1 - run.share
            key = [seed, int(run.params), round(run.share * 1000), role == "domain"]
            luck, *each = np.random.default_rng(key).normal(0, noise, 1 + len(HORIZONS))
            for tokens in run.horizons:
                loss = truth(role, run.params, tokens, own) + luck + each[HORIZONS.index(int(tokens))]
                found.append(row(run.params, run.share, tokens, role, loss))
        return found

    return measure


def cost(size: float, share: float, lengths: tuple[float, ...]) -> float:
    return Option.trunk(share, size, lengths, DECAY).flops


def study(truth: Truth, share: float, seed: int, options_: argparse.Namespace) -> dict[str, float]:
    measure = planted(truth, options_.noise, seed)
    target = options_.stretch * LONGEST
    config = ChooseConfig.model_validate({"law": options_.law, "form_doubt": 1.0 if options_.law == "auto" else 0.0})
    question = Question(OWN, target, truth("general", OWN, target, 1 - share), config)
    sizes = (OWN, SMALL)[: options_.sizes]
    grid = [Option.trunk(ratio, N, HORIZONS, DECAY) for N in sizes for ratio in RATIOS]
    whole = sum(map(tokens_of, grid))
    start = begin(START, OWN, HORIZONS, BUDGET * whole)

    def among(made: list[Option]) -> list[Option]:
        return options(sizes, HORIZONS, [(run.params, run.share) for run in made], cost)

    made, belief = grow(question, measure, start, among, BUDGET * whole, options_.width)
    full = question.believe([one for run in grid for one in measure(run)])
    again = question.believe([one for run in grid for one in planted(truth, options_.noise, AGAIN + seed)(run)])
    ends = [np.quantile(one.best, [0.05, 0.95]) for one in (belief, full)]
    inside = [low - 0.005 <= share <= high + 0.005 for low, high in ends]
    return {
        "from grid": abs(belief.median - full.median),
        "grids apart": abs(again.median - full.median),
        "error": abs(belief.median - share),
        "grid's error": abs(full.median - share),
        "width": belief.width,
        "grid's width": full.width,
        "tokens": sum(map(tokens_of, made)) / whole,
        "FLOPs": sum(run.flops for run in made) / sum(run.flops for run in grid),
        "runs": len(made),
        "covered": float(inside[0]),
        "grid covered": float(inside[1]),
        "within 0.02": float(abs(belief.median - full.median) <= WITHIN),
        "grids within 0.02": float(abs(again.median - full.median) <= WITHIN),
    }


def simulate(asked: argparse.Namespace) -> None:
    for truth in (one for one in TRUTHS if not asked.truth or one.__name__ in asked.truth):
        for share in asked.shares:
            found = [study(truth, share, asked.first + k, asked) for k in range(asked.studies)]
            figures = {}
            for key in found[0]:
                values = [one[key] for one in found]
                figures[key] = np.mean(values) if key in SHARES_OF_STUDIES else np.median(values)
            said = "  ".join(f"{key} {value:.3f}" for key, value in figures.items())
            print(f"{truth.__name__:10} r* {share:.2f}  {said}", flush=True)


# ---------------------------------------------------------------- measured


def prefixes(horizons: Sequence[float]) -> list[tuple[float, ...]]:
    return [tuple(horizons[: n + 1]) for n in range(len(horizons))]


def anew(question: Question, observations: list[Observation], full: Belief) -> list[float]:
    """r* of the same runs with other noise, as large as it was seen to be, about the laws that were seen."""
    found = []
    for seed in range(REPEATS):
        random, again = np.random.default_rng(seed), []
        for key, part in by_trunk(observations).items():
            role, share = key
            tokens = np.array([float(one.tokens) for one in part])
            expected = full.said[role].laws.loss(question.params, tokens, own_share(role, np.array(share))).mean(axis=0)
            noise = full.said[role].laws.noise_of(expected)
            losses = random.multivariate_normal(expected, noise)
            again += [one.model_copy(update={"loss_nats": float(x)}) for one, x in zip(part, losses, strict=True)]
        found.append(question.believe(again).median)
    return found


def by_trunk(observations: list[Observation]) -> dict[tuple[Role, float], list[Observation]]:
    found: dict[tuple[Role, float], list[Observation]] = {}
    for one in observations:
        found.setdefault((one.role, one.share), []).append(one)
    return found


def read_published() -> tuple[Question, dict[float, list[Observation]], float]:
    """What is asked, the checkpoints of each share, and tokens per step."""
    with (PUBLISHED / "dml_ct_pythia70m.csv").open() as file:
        table = list(csv.DictReader(file))
    with (PUBLISHED / "dml_ct_base.csv").open() as file:
        base = float(next(csv.DictReader(file))["general_loss"])
    size = float(table[0]["model_params"])
    per_step = float(table[0]["tokens"]) / float(table[0]["step"])
    rows: dict[float, list[Observation]] = {}
    for line in table:
        share, tokens = float(line["domain_proportion"]), float(line["tokens"])
        for role, column in (("general", "general_loss"), ("domain", "python_loss")):
            rows.setdefault(share, []).append(row(size, share, tokens, role, float(line[column])))  # type: ignore[arg-type]
    return Question(size, STEPS[-1] * per_step, base), rows, per_step


def scatter(observations: list[Observation]) -> float:
    """Nats: how far a checkpoint is off the smooth line of its trunk, by second differences where that is flat."""
    late = [[one.loss_nats for one in part][len(part) // 3 :] for part in by_trunk(observations).values()]
    return float(np.median([np.std(np.diff(losses, 2)) / np.sqrt(6) for losses in late]))


def published() -> None:
    """r* of few runs of the published grid against all of it, for every start of two or three ratios."""
    question, rows, per_step = read_published()
    size = question.params
    every = [one for part in rows.values() for one in part]
    full = question.believe(every)
    apart = [abs(x - y) for x, y in itertools.combinations(anew(question, every, full), 2)]
    print(f"grids apart: {np.median(apart):.3f}, within {WITHIN:g}: {np.mean(np.array(apart) <= WITHIN):.0%}")
    print(f"losses repeat to {scatter(every):.4f} nats")
    print(f"all 40 checkpoints: r* {full.median:.3f}, interval {full.width:.3f} wide; printed in the source: 0.714")

    def measure(run: Option) -> list[Observation]:
        return [one for one in rows[run.share] if one.tokens <= max(run.horizons)]

    def run_to(share: float, step: int, seen: float = 0.0) -> Option:
        lengths = tuple(s * per_step for s in STEPS if seen < s * per_step <= step * per_step)
        return Option(share, size, lengths, 6 * size * step * per_step)

    def among(made: list[Option]) -> list[Option]:
        found = []
        for share, step in itertools.product(rows, STEPS):
            seen = max((max(run.horizons) for run in made if run.share == share), default=0.0)
            if step * per_step > seen:
                found.append(run_to(share, step, seen))
        return found

    whole = 4 * STEPS[-1] * per_step
    for shares in itertools.combinations(sorted(rows), 3):
        for lengths in ((2000, 10000, 2000), (2000, 5000, 2000), (2000, 2000, 2000), (1000, 1000, 1000)):
            start = [run_to(share, step) for share, step in zip(shares, lengths, strict=True)]
            made, belief = grow(question, measure, start, among, BUDGET * whole, 0.0)
            runs = ", ".join(f"{run.share:g} to {max(run.horizons) / per_step:.0f}" for run in made)
            print(
                f"r* {belief.median:.3f} ({belief.median - full.median:+.3f})  width {belief.width:.3f}  "
                f"tokens {sum(map(tokens_of, made)) / whole:.1%}  {runs}",
                flush=True,
            )


def replay(path: Path, target: int, width: float) -> None:
    """A grid that was run: which of its runs would have been enough."""
    observations = records.read_observations(path)
    done = [one for one in observations if one.finished]
    own = max(one.params_non_embedding for one in done)
    ceiling = parent_losses(observations, own)["general"] * (1 + CONFIG.tolerance)
    question = Question(own, target, ceiling)
    horizons = sorted({float(one.tokens) for one in done})
    pairs = sorted({(float(one.params_non_embedding), one.share) for one in done})
    grid = [Option.trunk(share, N, horizons, DECAY) for N, share in pairs]
    whole = sum(map(tokens_of, grid))
    every = [Option.trunk(share, N, part, DECAY) for N, share in pairs if 0 < share < 1 for part in prefixes(horizons)]
    shares = sorted({share for N, share in pairs if own == N and 0 < share < 1})
    start = begin([shares[0], shares[len(shares) // 2], shares[-1]], own, horizons, BUDGET * whole)

    def measure(run: Option) -> list[Observation]:
        key = run.params, run.share
        return [one for one in done if (one.params_non_embedding, one.share) == key and one.tokens <= max(run.horizons)]

    def among(made: list[Option]) -> list[Option]:
        taken = {(run.params, run.share) for run in made}
        return [one for one in every if (one.params, one.share) not in taken]

    made, belief = grow(question, measure, start, among, BUDGET * whole, width)
    full = question.believe(done)
    runs = ", ".join(f"{run.params:.0f} at {run.share:g} to {max(run.horizons):.0f}" for run in made)
    print(
        f"{path}: grid r* {full.median:.3f}, {full.width:.3f} wide; chosen runs r* {belief.median:.3f} "
        f"({belief.median - full.median:+.3f}), {belief.width:.3f} wide, "
        f"tokens {sum(map(tokens_of, made)) / whole:.1%}: {runs}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="seed of the first study")
    parser.add_argument("--noise", type=float, default=0.002, help="nats, of a trunk and of a run")
    parser.add_argument("--stretch", type=float, default=3.0, help="target's tokens, in longest runs")
    parser.add_argument("--sizes", type=int, default=1, choices=[1, 2])
    parser.add_argument("--shares", type=float, nargs="*", default=[0.4, 0.7])
    parser.add_argument("--width", type=float, default=0.03, help="of the interval: narrow enough")
    parser.add_argument("--truth", nargs="*", choices=[one.__name__ for one in TRUTHS], help="default: all")
    parser.add_argument("--law", default="auto", help="the form is known to be this one; default: all forms, weighed")
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--target", type=int, help="tokens, with --replay")
    asked = parser.parse_args()
    if asked.published:
        published()
    elif asked.replay:
        replay(asked.replay, asked.target, asked.width)
    else:
        simulate(asked)


if __name__ == "__main__":
    main()
