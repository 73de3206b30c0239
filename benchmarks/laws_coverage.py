"""Does the choice know how sure it is? Simulated sweeps of known truth, shaped like the demo's.

    python benchmarks/laws_coverage.py --studies 100

Two sizes, six ratios, four run lengths, losses of 3 to 4 nats, noise of 0.002 nats per trunk and as much per run;
asked for three times the longest run. Per truth: how often the 90% interval holds the true largest share, how
often the chosen share keeps general loss under its ceiling (asked for: 90%), and the errors of what was predicted.
"""

import argparse
from collections.abc import Callable

import numpy as np

from ratoon.config import ChooseConfig, ConfigError, Role
from ratoon.laws.choose import choose
from ratoon.records import Observation

SIZES, LONGEST, TARGET = (40_000, 160_000), 400_000, 1_200_000
RATIOS = (0.1, 0.25, 0.4, 0.55, 0.7, 1.0)
Truth = Callable[[Role, float, float, float], float]  # role, N, D, own share -> nats


def dcpt_like(role: Role, N: float, D: float, own: float) -> float:
    """Planted D-CPT."""
    if role == "general":
        return 2.9 + 0.4 * (N / 1e5) ** -0.34 + 0.05 * own * (D / 1e5) ** -0.4 + 0.16 / (own + 0.15) ** 0.5
    return 1.7 + 0.3 * (N / 1e5) ** -0.34 + 0.35 * own**0.2 * (D / 1e5) ** -0.3 + 1.3 / (own + 0.05) ** 0.2


def warm_like(role: Role, N: float, D: float, own: float) -> float:
    """Planted warm start: loss falls ever faster in log D."""
    size, fresh = 0.2 * np.log(160_000 / N) / np.log(4), (1 + D / 3e5) ** -0.5
    if role == "general":
        return 3.1 + size + 0.5 * fresh + (0.65 - 0.5 * fresh) * (1 - own**0.3)
    return 2.9 + size + 1.0 * fresh + (0.9 - 0.5 * fresh) * (1 - own**0.15)


def neither(role: Role, N: float, D: float, own: float) -> float:
    """No law here has this form: pretraining that goes on, and a shift that saturates (in the manner of
    arXiv:2505.07796)."""
    base, seen = 0.2 * np.log(160_000 / N) / np.log(4), D / 1e5
    if role == "general":
        shift = 0.7 * (1 - (1 + 8 * seen) ** -0.25) * np.exp(-4.5 * own)
        return 2.2 + base + 1.55 * (16 + own * seen) ** -0.1 * 1.32 + shift
    return 2.4 + base + 1.9 * (1 + 5 * own * seen) ** -0.22


def sweep(truth: Truth, noise: float, random: np.random.Generator) -> list[Observation]:
    found = []
    for N in SIZES:
        for ratio in RATIOS:
            for role in ("general", "domain"):
                luck = random.normal(0, noise)
                for horizon in range(4):
                    tokens = LONGEST // 2 ** (3 - horizon)
                    own = ratio if role == "domain" else 1 - ratio
                    loss = truth(role, N, tokens, own) + luck + random.normal(0, noise)
                    found.append(_observation(N, ratio, tokens, role, loss))
    return found


def _observation(N: int, ratio: float, tokens: int, role: Role, loss: float) -> Observation:
    return Observation(
        run=f"{N}-{ratio}-{tokens}",
        group=f"{N}-{ratio}",
        commit=None,
        config="",
        model="proxy",
        params_non_embedding=N,
        tokens=tokens,
        share=ratio,
        learning_rate=1e-3,
        step=1,
        finished=True,
        evaluated=role,
        role=role,
        loss_nats=loss,
        bits_per_byte=None,
    )


def largest_share(truth: Truth, ceiling: float) -> float:
    shares = np.linspace(0.01, 1, 1000)
    under = [truth("general", SIZES[-1], TARGET, 1 - x) <= ceiling for x in shares]
    return float(shares[np.flatnonzero(under).max()])


def study(truth: Truth, share: float, law: str, seed: int) -> dict[str, float] | None:
    """One sweep and one choice, with the parent placed so that `share` is the true answer; None: refused."""
    N, config = SIZES[-1], ChooseConfig.model_validate({"bootstrap": 100, "law": law, "seed": seed})
    ceiling = truth("general", N, TARGET, 1 - share)
    try:
        choice = choose(
            sweep(truth, 0.002, np.random.default_rng(seed)),
            params_non_embedding=N,
            tokens=TARGET,
            parent_general=ceiling / (1 + config.tolerance),
            parent_domain=4.4,
            config=config,
        )
    except ConfigError:
        return None
    exact = largest_share(truth, ceiling)
    measured = {role: truth(role, N, TARGET, 1 - choice.share if role == "general" else choice.share)
                for role in ("general", "domain")}  # fmt: skip
    return {
        "covered": float(choice.interval.low - 0.005 <= exact <= choice.interval.high + 0.005),
        "kept": float(choice.share <= exact + 0.005),
        "width": choice.interval.high - choice.interval.low,
        "bias": choice.interval.value - exact,
        "general": abs(choice.predicted_general.value / measured["general"] - 1),
        "domain": abs(choice.predicted_domain.value / measured["domain"] - 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--law", default="auto")
    parser.add_argument("--truth", choices=["dcpt_like", "warm_like", "neither"], nargs="*")
    options = parser.parse_args()
    print("truth      true share  covered  kept  width  bias    general  domain  refused")
    for truth in (dcpt_like, warm_like, neither):
        if options.truth and truth.__name__ not in options.truth:
            continue
        for share in (0.4, 0.7):
            drawn = [study(truth, share, options.law, seed) for seed in range(options.studies)]
            found = [one for one in drawn if one is not None]
            mean = {key: float(np.mean([one[key] for one in found])) for key in found[0]} if found else {}
            figures = "  ".join(f"{key} {value:.3f}" for key, value in mean.items())
            print(f"{truth.__name__:10} {share:.2f}  {figures}  refused {len(drawn) - len(found)}", flush=True)


if __name__ == "__main__":
    main()
