"""How observations are off: noise that runs of one trunk share in part, and what a former sweep may be off by."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag

from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Array, Mask
from ratoon.laws.tables.table import Table

NOISE = 0.002  # relative: proxies of this size repeat to about this with another seed
LUCK = 0.5  # share of the noise's variance that runs of one trunk have in common


@dataclass(frozen=True)
class Rows:
    """n observations of one role, and how far they may be trusted.

    loose  (n, q) ways in which rows may be off together, each by about its length in nats: a former sweep whose level
           and scale are its own. Noise being scaled as it is, so are they; they are taken for wide, not for known
    """

    runs: Runs
    group: Array  # (n,) of str
    loose: Array

    @classmethod
    def of(cls, table: Table) -> "Rows":
        return cls(table.runs, table.group, np.zeros((len(table.group), 0)))

    def where(self, mask: Mask) -> "Rows":
        return Rows(self.runs.where(mask), self.group[mask], self.loose[mask])

    def and_former(self, former: "Rows") -> "Rows":
        """With those of another sweep, whose groups are others though they bear the same names."""
        inputs = {name: np.concatenate([x, former.runs.inputs[name]]) for name, x in self.runs.inputs.items()}
        loss = np.concatenate([self.runs.loss, former.runs.loss])
        weights = np.concatenate([self.runs.weights, former.runs.weights])
        renamed = np.array([f"former {name}" for name in former.group])
        return Rows(
            Runs(inputs, loss, weights), np.concatenate([self.group, renamed]), block_diag(self.loose, former.loose)
        )

    @property
    def whiten(self) -> Array:
        """(n, n) W with W'W the inverse covariance of the noise at a relative level of 1."""
        length = self.runs.loss / np.sqrt(self.runs.weights)
        covariance = np.outer(length, length) * correlation(self.group) + self.loose @ self.loose.T / NOISE**2
        return np.asarray(np.linalg.inv(np.linalg.cholesky(covariance)))


def correlation(member: Array) -> Array:
    """(n, n) of the noise of observations, by the trunk each belongs to."""
    same = member[:, None] == member[None, :]
    return np.where(same, LUCK, 0.0) + (1 - LUCK) * np.eye(len(member))
