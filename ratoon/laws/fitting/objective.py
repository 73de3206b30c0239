"""What a fit makes small: robust losses on log loss or on loss itself, and the least squares that equal them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ratoon.laws.form import Array

FLOOR = 0.05  # of the measured loss: below it a prediction is no loss at all, and its logarithm would run away


@dataclass(frozen=True)
class Objective:
    """Sum over observations of the Huber loss of log(predicted/measured), or of predicted - measured in nats.

    delta  where squares end and absolute values begin. 1e-3 on log loss is customary for scaling laws
           (arXiv:2203.15556), 0.01 to 0.05 on raw loss for mixing laws (arXiv:2403.16952, 2602.12237)
    """

    space: Literal["log", "raw"] = "log"
    delta: float = 1e-3

    def residual(self, predicted: Array, loss: Array) -> Array:
        if self.space == "raw":
            return predicted - loss
        return np.asarray(np.log(np.maximum(predicted, FLOOR * loss) / loss))

    def value(self, predicted: Array, loss: Array, weights: Array) -> Array:
        """(B,) from predicted (B, n), loss (n,), weights (B, n)."""
        distance = np.abs(self.residual(predicted, loss))
        each = np.where(distance <= self.delta, distance**2 / 2, self.delta * (distance - self.delta / 2))
        return np.asarray((weights * each).sum(axis=-1))

    def pull(self, predicted: Array, loss: Array) -> Array:
        """d value / d predicted, per observation, at weight one."""
        inner = np.clip(self.residual(predicted, loss), -self.delta, self.delta)
        return inner if self.space == "raw" else np.asarray(inner / np.maximum(predicted, FLOOR * loss))

    def reweight(self, predicted: Array, loss: Array, weights: Array) -> Array:
        """Weights with which least squares on the loss has this optimum as its fixed point."""
        return np.asarray(weights * self.squares(predicted, loss) * self.trust(predicted, loss))

    def squares(self, predicted: Array, loss: Array) -> Array:
        """What turns a squared difference in nats into one of this space."""
        if self.space == "raw":
            return np.ones_like(predicted)
        predicted = np.maximum(predicted, FLOOR * loss)
        distance = np.log(predicted / loss)
        near = np.abs(distance) < 1e-7
        gap = np.where(near, 1.0, predicted * (predicted - loss))
        return np.asarray(np.where(near, loss**-2.0, distance / gap))

    def trust(self, predicted: Array, loss: Array) -> Array:
        """1 where squares reign, below it the less an observation counts the further it lies out."""
        distance = np.abs(self.residual(predicted, loss))
        return np.asarray(np.minimum(1.0, self.delta / np.maximum(distance, 1e-300)))


HUBER = Objective("log", 1e-3)
SQUARES = Objective("log", np.inf)
# Least absolute deviations on log loss: squares reign only over a width no measurement resolves.
ABSOLUTE = Objective("log", 1e-7)
