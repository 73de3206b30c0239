"""What the truth may have that no form has: a smooth departure from it in log tokens, share and log size.

    L = form + d,    d ~ Gaussian process, level^2 exp(-|x - x'|^2 / 2) in units of TOKENS, SHARE and SIZE

Model discrepancy (Kennedy and O'Hagan 2001). Beside a form that errs, more runs of any kind only make one surer of what
is wrong; beside a departure that is smooth, a run tells most of its own neighbourhood, and of the target when near it.
The level is a parameter like the form's own: where the form fits it shrinks; and that there is no departure is as
likely beforehand as that there is one (posterior.py), so that beside a true law there is hardly any. The process is
represented by its projection on nodes (Nystrom), d = phi(x) w with w standard normal: linear, so that it is integrated
out.
"""

from dataclasses import dataclass

import numpy as np

from ratoon.laws.form import Array, Inputs

TOKENS = 1.0  # of log tokens over which a departure keeps its sign: a factor of e
SHARE = 0.5  # of the share
SIZE = 1.4  # of log parameters: a factor of four
APART = 0.8  # of these lengths, between nodes
JITTER = 1e-6


@dataclass(frozen=True)
class Departure:
    """k basis functions of a process of variance 1 over the box that the runs and the target span."""

    nodes: Array  # (k, 3), in units of the lengths
    root: Array  # (k, k) inverse Cholesky factor of the nodes' covariance, transposed

    @classmethod
    def over(cls, inputs: Inputs, reach: Inputs) -> "Departure":
        sizes = np.log(np.unique(np.append(inputs["N"], reach["N"]))) / SIZE
        tokens = np.log(np.append(inputs["D"], reach["D"])) / TOKENS
        grid = np.meshgrid(_nodes(tokens.min(), tokens.max()), _nodes(0.0, 1 / SHARE), sizes, indexing="ij")
        nodes = np.stack([axis.ravel() for axis in grid], axis=1)
        covariance = _covariance(nodes, nodes) + JITTER * np.eye(len(nodes))
        return cls(nodes, np.asarray(np.linalg.inv(np.linalg.cholesky(covariance)).T))

    def columns(self, inputs: Inputs) -> Array:
        """(n, k)."""
        N, D, r = np.broadcast_arrays(inputs["N"], inputs["D"], inputs["r"])
        at = np.stack([np.log(D) / TOKENS, r / SHARE, np.log(N) / SIZE], axis=1)
        return np.asarray(_covariance(at, self.nodes) @ self.root)


NO_DEPARTURE = Departure(np.zeros((0, 3)), np.zeros((0, 0)))


def _nodes(low: float, high: float) -> Array:
    return np.linspace(low, high, 2 + int((high - low) / APART))


def _covariance(x: Array, y: Array) -> Array:
    return np.asarray(np.exp(-0.5 * ((x[:, None] - y[None]) ** 2).sum(axis=-1)))
