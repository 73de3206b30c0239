"""What a law gets wrong of the course of its runs: smooth bends along tokens and size.

    truth = law x exp(b1 s^2 + sum over the other inputs z of (b2 s z + b3 s z^2 + b4 s^2 z))

(or law + the sum, in nats); s is log tokens and log size, z are shares and logarithms, all -1..1 over the runs. A law
that is wrong by such a bend may fit its runs to a hair and leave them where it is asked, for tokens and size are what
it is asked to stretch. A residual that looks like a bend is not noise. How large bends are is learnt with the noise
(noise.py), and that there are none is likely beforehand (a discrepancy in the manner of Kennedy and O'Hagan 2001).
"""

from dataclasses import dataclass

import numpy as np

from ratoon.laws.form import Array, Inputs

STRETCHED = ("D", "N")
SHARES = ("r",)
SAME = 0.02  # within which sizes, rates or token counts are one
FARTHEST = 4.0  # half ranges from the middle of the runs: beyond it a square says nothing any more


@dataclass(frozen=True)
class Bend:
    """ranges  input -> middle and half of its range over the runs, in log where `logs` says so."""

    ranges: dict[str, tuple[float, float]]
    logs: frozenset[str]

    @classmethod
    def of(cls, inputs: Inputs) -> "Bend":
        plain = {name: values for name, values in inputs.items() if values.ndim == 1}
        logs = frozenset(name for name, values in plain.items() if name not in SHARES and (values > 0).all())
        ranges = {}
        for name, values in plain.items():
            scaled = np.log(values) if name in logs else values
            if np.ptp(scaled) > SAME:
                ranges[name] = (float(scaled.max() + scaled.min()) / 2, float(np.ptp(scaled)) / 2)
        return cls(ranges, logs)

    @property
    def number(self) -> int:
        stretched = sum(name in self.ranges for name in STRETCHED)
        pairs = stretched * (len(self.ranges) - 1) - (stretched == 2)
        return stretched + 3 * pairs

    def columns(self, inputs: Inputs) -> Array:
        """(n, q) at any inputs."""
        placed = {name: self._place(name, inputs[name]) for name in self.ranges}
        stretched = [name for name in STRETCHED if name in placed]
        found = [placed[name] ** 2 for name in stretched]
        for k, name in enumerate(stretched):
            s = placed[name]
            for z in (z for other, z in placed.items() if other not in stretched[: k + 1]):
                found += [s * z, s * z**2, s**2 * z]
        if not found:
            return np.empty((len(next(iter(inputs.values()))), 0))
        return np.stack(np.broadcast_arrays(*found), axis=1)

    def _place(self, name: str, values: Array) -> Array:
        middle, half = self.ranges[name]
        placed = ((np.log(values) if name in self.logs else values) - middle) / half
        return np.asarray(np.clip(placed, -FARTHEST, FARTHEST))
