"""What a law is fitted on, and whether it is enough."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ConfigError
from ratoon.laws.fitting.refuse import refuse
from ratoon.laws.form import Array, Form, Inputs, Mask, Settled


@dataclass(frozen=True)
class Runs:
    """What one law is fitted on: n observations."""

    inputs: Inputs  # name -> (n,) or (n, d)
    loss: Array  # nats per token
    weights: Array  # (n,), 1 unless told

    @classmethod
    def of(cls, N: ArrayLike, D: ArrayLike, r: ArrayLike, loss: ArrayLike) -> "Runs":
        """Sizes (embeddings excluded), tokens, the evaluated corpus's own share of them."""
        return cls.gather({"N": N, "D": D, "r": r}, loss)

    @classmethod
    def gather(cls, inputs: Mapping[str, ArrayLike], loss: ArrayLike, weights: ArrayLike | None = None) -> "Runs":
        found = np.atleast_1d(np.asarray(loss, dtype=float))
        arrays = {}
        for name, values in inputs.items():
            array = np.asarray(values, dtype=float)
            arrays[name] = np.broadcast_to(array, (len(found),)) if array.ndim == 0 else array
            if len(arrays[name]) != len(found):
                raise ConfigError(f"{name} has {len(arrays[name])} values and loss {len(found)}; one per observation")
        counted = np.ones_like(found) if weights is None else np.atleast_1d(np.asarray(weights, dtype=float))
        _refuse_weights(counted, len(found))
        return cls(arrays, found, counted)

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def params(self) -> Array:
        return self.inputs["N"]

    @property
    def tokens(self) -> Array:
        return self.inputs["D"]

    @property
    def own(self) -> Array:
        return self.inputs["r"]

    def where(self, mask: Mask) -> "Runs":
        kept = {name: values[mask] for name, values in self.inputs.items()}
        return Runs(kept, self.loss[mask], self.weights[mask])


def _refuse_weights(weights: Array, rows: int) -> None:
    if weights.shape != (rows,):
        raise ConfigError(f"weights have shape {weights.shape} and loss has {rows} values; one per observation")
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
    if len(wrong):
        raise ConfigError(
            f"weights: observation {wrong[0] + 1} counts {weights[wrong[0]]:g}, {len(wrong)} of {rows} are no finite "
            f"numbers above 0; leave out observations that should not count"
        )


def longest_two(runs: Runs) -> tuple[float, float]:
    """The longest run, and the longest that is left when the longest are held out."""
    longest = float(runs.tokens.max())
    shorter = runs.tokens[runs.tokens <= longest / 1.5]
    return longest, float(shorter.max()) if len(shorter) else longest


def enough(form: Form, runs: Runs) -> bool:
    if len(runs) == 0:
        return False
    try:
        refuse(form, runs.inputs, runs.loss)
    except ConfigError:
        return False
    return num_points(runs) >= num_free(form, form.settle(runs.inputs))


def num_free(form: Form, settled: Settled) -> int:
    return form.num_parameters - len(settled.exponents) - len(settled.absent) - len(settled.given)


def refuse_too_few(form: Form, runs: Runs, settled: Settled) -> None:
    needed = num_free(form, settled)
    points = num_points(runs)
    if points < needed:
        same = f" at {points} different points" if points < len(runs) else ""
        raise ConfigError(
            f"{form.name}: {len(runs)} observations{same} cannot pin its {needed} free parameters; add "
            f"{_what_varies(form)} until there are at least {needed}, better twice as many"
        )


def num_points(runs: Runs) -> int:
    """Different inputs: a repeat tells of noise, not of the law."""
    table = np.concatenate([values.reshape(len(runs), -1) for values in runs.inputs.values()], axis=1)
    return len(np.unique(table, axis=0))


def _what_varies(form: Form) -> str:
    words = {"r": "ratios", "D": "run lengths", "N": "model sizes", "h": "mixtures"}
    found = [words[name] for name in ("r", "D", "N", "h") if name in form.inputs]
    return " or ".join(found[:2]) or "runs"
