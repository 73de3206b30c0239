"""What is left out in turn: the runs a law must have predicted to be believed."""

from dataclasses import dataclass

import numpy as np

from ratoon.laws.form import Array, Inputs, Mask, count_levels, share_levels

STRETCH = 1.5  # beyond the longest that is kept; dense checkpoints just below it would tell nothing
ROUNDED = 6  # digits of a share that tell mixtures apart: the rest is arithmetic
FEW_MIXTURES = 12  # up to which each is left out alone


@dataclass(frozen=True)
class Fold:
    name: str
    keep: Mask  # (n,)


def leave_out(inputs: Inputs) -> list[Fold]:
    """Without the longest runs (of each size), without each ratio that has neighbours on both sides, without the
    largest models and the most compute where there are four sizes, without mixtures in turn."""
    found: list[Fold] = []
    if "D" in inputs:
        found.append(_longest(inputs))
    if "r" in inputs:
        ratios = share_levels(inputs["r"])
        found += [Fold("a ratio", ratios != inner) for inner in range(1, ratios.max())]
    elif "N" in inputs and count_levels(inputs["N"]) >= 4:
        found.append(Fold("largest models", inputs["N"] <= inputs["N"].max() / STRETCH))
        if "D" in inputs:
            compute = inputs["N"] * inputs["D"]
            found.append(Fold("largest budgets", compute <= compute.max() / STRETCH))
    if "h" in inputs:
        found += _mixtures(inputs["h"])
    return [fold for fold in found if fold.keep.any() and not fold.keep.all()]


def _longest(inputs: Inputs) -> Fold:
    D = inputs["D"]
    sizes = inputs.get("N", np.ones_like(D))
    if count_levels(sizes) > len(D) / 3:  # sizes that are all different: no size has a length of its own
        sizes = np.ones_like(D)
    longest = np.array([D[np.isclose(sizes, size)].max() for size in sizes])
    return Fold("longest runs", longest / STRETCH >= D)


def _mixtures(h: Array) -> list[Fold]:
    names, member = np.unique(h.round(ROUNDED), axis=0, return_inverse=True)
    member = member.ravel()
    if len(names) > FEW_MIXTURES:
        deck = np.random.default_rng(0).permutation(len(names))
        member = deck[member] % 10
    return [Fold("mixtures", member != fold) for fold in np.unique(member)]
