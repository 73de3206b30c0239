"""What the gate promises, in simulation: coverage, false promotions, power, symmetry.

python benchmarks/evaluation_gate.py            prints the table of benchmarks/README.md
python benchmarks/evaluation_gate.py power      a part of it: coverage, promotions, power, tails or symmetry
"""

import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from ratoon.config import AssessConfig, GateConfig
from ratoon.evaluation import gate, paired, statistics
from ratoon.evaluation.paired import Pairs
from ratoon.records import Comparison

CONFIG = AssessConfig()
Draw = np.random.Generator
MAX_BYTES = 4096.0
SOURCES = (("held-out", "code", "domain"), ("held-out", "docs", "general"))
QUIZZES = (("quiz", "code", "domain"), ("quiz", "docs", "general"))


# ---------------------------------------------------------------- simulated scores


def alike(draw: Draw, n: int, change: float) -> Pairs:
    """Documents of similar length."""
    return of_texts(draw, draw.lognormal(6, 0.5, n), change, np.ones(n))


def unequal(draw: Draw, n: int, change: float, side: float = 1.0, scale: float = 0.6) -> Pairs:
    """Lengths spread as on the web, cut at assess.max_bytes; effects skewed, as few texts lose (side -1: gain) much."""
    weight = np.minimum(draw.lognormal(7.3, 1.2, n), MAX_BYTES)
    bits = weight * draw.gamma(20, 0.1, n)
    return Pairs(bits, bits * (1 + change + side * skewed(draw, n, scale)), weight, n)


def heavy(draw: Draw, n: int, change: float) -> Pairs:
    """A tail that no constant of the printed change was chosen on."""
    return unequal(draw, n, change, scale=0.9)


def unequal_mirrored(draw: Draw, n: int, change: float) -> Pairs:
    return unequal(draw, n, change, -1.0)


def skewed(draw: Draw, n: int, scale: float = 0.6) -> np.ndarray:
    """Effects of mean 0."""
    return 0.04 * (draw.lognormal(0, scale, n) - np.exp(scale**2 / 2))


def clustered(draw: Draw, n: int, change: float) -> Pairs:
    """One to fifteen items of a document, which rise and fall together."""
    items = np.minimum(draw.geometric(0.3, n), 15).astype(float)
    return of_texts(draw, items * draw.lognormal(6, 0.3, n), change, items)


def clustered_skewed(draw: Draw, n: int, change: float) -> Pairs:
    items = np.minimum(draw.geometric(0.3, n), 15).astype(float)
    weight = np.minimum(items * draw.lognormal(7.3, 1.2, n), MAX_BYTES * items)
    bits = weight * draw.gamma(20, 0.1, n)
    return Pairs(bits, bits * (1 + change + skewed(draw, n)), weight, int(items.sum()))


def of_texts(draw: Draw, weight: np.ndarray, change: float, items: np.ndarray) -> Pairs:
    n = len(weight)
    bits = weight * draw.gamma(20, 0.1, n)
    effect = change + draw.normal(0, 0.02, n) + draw.normal(0, 0.02, n) / np.sqrt(items)
    return Pairs(bits, bits * (1 + effect), weight, int(items.sum()))


def answers(draw: Draw, n: int, change: float, changed: float = 0.2, most: int = 1) -> Pairs:
    """Right and wrong; a fifth of the answers differ. With `most`, up to so many items of one document."""
    items = np.ones(n) if most == 1 else np.minimum(draw.geometric(0.35, n), most).astype(float)
    leaning = draw.beta(2, 2, n) if most > 1 else np.full(n, 0.5)
    differ = draw.binomial(items.astype(int), changed)
    better = draw.binomial(differ, np.clip(leaning + change / changed / 2, 0, 1))
    right = draw.binomial(items.astype(int) - differ, 0.5)
    return Pairs(right + differ - better, right + better, items, int(items.sum()))


def answers_clustered(draw: Draw, n: int, change: float) -> Pairs:
    return answers(draw, n, change, most=8)


def answers_many_changed(draw: Draw, n: int, change: float) -> Pairs:
    return answers(draw, n, change, changed=0.5, most=8)


SCENES: dict[str, tuple[Callable[..., Pairs], bool, float]] = {
    "bits per byte, texts of similar length": (alike, True, -0.01),
    "bits per byte, lengths unequal, effects skewed": (unequal, True, -0.01),
    "bits per byte, several items per document": (clustered, True, -0.01),
    "accuracy, one item per document": (answers, False, 0.0),
    "accuracy, several items per document": (answers_clustered, False, 0.0),
}


POWERED: dict[str, tuple[Callable[..., Pairs], bool]] = {
    "alike": (alike, True),
    "unequal and skewed": (unequal, True),
    "skewed the other way": (unequal_mirrored, True),
    "several items per document": (clustered, True),
    "these skewed too": (clustered_skewed, True),
    "accuracy": (answers_many_changed, False),
    "unequal, with a heavier tail": (heavy, True),
}


def compared(pairs: Pairs, named: tuple[str, str, str], bits: bool) -> Comparison:
    found = paired.effect(pairs, CONFIG, relative=bits)
    benchmark, source, role = named
    return Comparison(
        benchmark=benchmark,
        source=source,
        role=role,  # type: ignore[arg-type]
        metric="bits_per_byte" if bits else "accuracy",
        items=pairs.items,
        documents=len(pairs.weight),
        parent=found.parent,
        candidate=found.candidate,
        difference=found.difference,
        relative=found.relative,
        outcome=paired.outcome(found.difference, found.p, lower_is_better=bits),
        tested=found.tested,
        p=found.p,
    )


def refresh(draw: Draw, n: int, domain: float, general: float, quiz: float = 0.0) -> tuple[Comparison, ...]:
    """One simulated refresh: two sources of text, two quizzes, with the true changes given."""
    made = [compared(unequal(draw, n, x), name, True) for name, x in zip(SOURCES, (domain, general), strict=True)]
    made += [compared(answers_clustered(draw, n, quiz), name, False) for name in QUIZZES]
    return paired.together(made, CONFIG.level)


# ---------------------------------------------------------------- the figures


def coverage(trials: int = 3000) -> Iterator[tuple[str, str]]:
    for name, (scene, bits, change) in SCENES.items():
        held = []
        for n in (20, 50, 100, 300, 2000):
            draw, hits = np.random.default_rng(n), 0
            for _ in range(trials if n < 2000 else trials // 2):
                found = paired.effect(scene(draw, n, change), CONFIG, relative=bits)
                span = found.relative or found.difference
                hits += span.low <= change <= span.high
            held.append(f"{n}: {hits / (trials if n < 2000 else trials // 2):.1%}")
        yield f"coverage of 95% intervals, {name}, by documents", ", ".join(held)


def promotions(refreshes: int = 500) -> Iterator[tuple[str, str]]:
    limit = GateConfig().max_general_loss
    worse = -GateConfig().max_benchmark_loss
    asked = {
        "nothing changed": (0.0, 0.0, 0.0),
        "domain unchanged, general better": (0.0, -0.05, 0.05),
        "domain 5% better, general exactly at the limit": (-0.05, limit, 0.0),
        "domain 5% better, quizzes exactly at the limit": (-0.05, 0.0, worse),
        "domain 5% better, the rest unchanged": (-0.05, 0.0, 0.0),
    }
    for what, true in asked.items():
        for n in (50, 300):
            draw = np.random.default_rng(n)
            said = [gate.judge(refresh(draw, n, *true), GateConfig(), "p", "c").decision for _ in range(refreshes)]
            share = {kind: said.count(kind) / refreshes for kind in ("promote", "refuse", "ask")}
            told = ", ".join(f"{kind} {x:.1%}" for kind, x in share.items())
            yield f"{refreshes} refreshes, {n} documents each: {what}", told


def power(trials: int = 1000) -> Iterator[tuple[str, str]]:
    """A second refresh whose true change is what the first printed as detectable: how often is it shown?"""
    level = CONFIG.level / 4  # as among four comparisons
    for n in (50, 100, 300, 1000, 2000):
        told, done = [], trials if n < 1000 else trials // 2
        for name, (scene, bits) in POWERED.items():
            found = printed_and_shown(scene, bits, n, done, level)
            told.append(f"{name} {np.mean([shown for _, shown in found]):.1%}")
        yield f"power at the printed detectable change, {n} documents", ", ".join(told)


def printed_and_shown(
    scene: Callable[..., Pairs], bits: bool, n: int, trials: int, level: float
) -> list[tuple[float, bool]]:
    """What a first sample prints, and whether a second one shows it where it is the truth."""
    draw, found = np.random.default_rng(n), []
    for _ in range(trials):
        first = paired.effect(scene(draw, n, 0.0), CONFIG, relative=bits).tested
        truth = statistics.detectable(first, level, lower_is_better=bits)
        again = paired.effect(scene(draw, n, -truth if bits else truth), CONFIG, relative=bits).tested
        p = statistics.below(again, 0.0) if bits else statistics.above(again, 0.0)
        found.append((truth, p <= level))
    return found


def tails(trials: int = 3000) -> Iterator[tuple[str, str]]:
    """Why a heavier tail leaves less: the third of the samples that saw least of it prints too small a change."""
    level = CONFIG.level / 4
    for n in (50, 300, 2000):
        for name in ("unequal and skewed", "unequal, with a heavier tail"):
            scene, bits = POWERED[name]
            found = sorted(printed_and_shown(scene, bits, n, trials if n < 1000 else trials // 2, level))
            thirds = [found[k * len(found) // 3 : (k + 1) * len(found) // 3] for k in range(3)]
            told = ", ".join(
                f"{which} {np.median([change for change, _ in part]):.2%} with {np.mean([x for _, x in part]):.1%}"
                for which, part in zip(("least", "middle", "most"), thirds, strict=True)
            )
            whole = np.mean([shown for _, shown in found])
            yield f"printed change and its power, by thirds of it, {name}, {n} documents", f"{told}; all {whole:.1%}"


def symmetry(trials: int = 300) -> Iterator[tuple[str, str]]:
    draw, kept, tied, refused = np.random.default_rng(1), 0, 0, 0
    back = {"win": "loss", "loss": "win", "tie": "tie"}
    for k in range(trials):
        scene, bits, _ = list(SCENES.values())[k % len(SCENES)]
        pairs = scene(draw, 100, draw.normal(0, 0.01))
        swapped = Pairs(pairs.candidate, pairs.parent, pairs.weight, pairs.items)
        there, here = (compared(one, SOURCES[0], bits) for one in (pairs, swapped))
        kept += back[there.outcome] == here.outcome
        itself = [compared(Pairs(p.parent, p.parent, p.weight, p.items), SOURCES[0], bits) for p in (pairs,)]
        tied += itself[0].outcome == "tie"
        same = refresh_of_itself(draw)
        refused += gate.judge(same, GateConfig(), "p", "p").decision == "refuse"
    yield "swapped arms swap wins and losses", f"{kept} of {trials}"
    yield "a model against itself ties; the gate refuses", f"{tied} and {refused} of {trials}"


def refresh_of_itself(draw: Draw) -> tuple[Comparison, ...]:
    scenes = [(unequal(draw, 100, 0.0), name, True) for name in SOURCES]
    scenes += [(answers_clustered(draw, 100, 0.0), name, False) for name in QUIZZES]
    made = [compared(Pairs(p.parent, p.parent, p.weight, p.items), name, bits) for p, name, bits in scenes]
    return paired.together(made, CONFIG.level)


def main() -> None:
    asked = sys.argv[1:] or list(FIGURES)
    for name in asked:
        begun = time.process_time()
        for what, measured in FIGURES[name]():
            print(f"| {what} | {measured} |", flush=True)
        print(f"{name}: {time.process_time() - begun:.0f} s of processor", file=sys.stderr)


FIGURES: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
    "coverage": coverage,
    "promotions": promotions,
    "power": power,
    "tails": tails,
    "symmetry": symmetry,
}


if __name__ == "__main__":
    main()
