"""How sure the law of a domain nobody has swept is: draws of its loss.

    draw = a law the source runs allow, at a probe the new domain's first percent allows
           x (1 + what this domain may have of its own, that no probe tells)
           conditioned on the few runs the new domain has, where it has any

Source laws are fitted again to whole runs drawn anew, trunk by trunk (forecast.py), and the probe is measured again
with as much noise as probes show. A domain's own level is as large as each known domain was missed by when foreseen
from the others; that many domains leave few misses that are free to differ, so it is Student's, of as many degrees of
freedom as there are domains beyond the four numbers by which the law tells them apart, and of one where there are four.
Axes: R draws, n observations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from ratoon.laws.equations import crossdomain
from ratoon.laws.fitting.fit import Fit
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Array
from ratoon.laws.intervals.forecast import bootstrap
from ratoon.laws.intervals.lanes import Lanes
from ratoon.laws.intervals.noise import Noise
from ratoon.laws.intervals.simulate import Replicates, noise_of

DRAWS = 400
OF_DOMAINS = 4  # numbers the law has to tell domains apart by: E, F, m and w2/w1
FLAT = 1e-3  # of the decline rate that was probed: as little as a draw may have


@dataclass(frozen=True)
class Foresight:
    """R draws of the new domain's law."""

    laws: Replicates
    features: Array  # (R, 2)
    levels: Array  # (R,) relative, of its own

    def loss(self, runs: Runs) -> Array:
        """(R, n) nats per token; of `runs` only N, D and r are read."""
        found = np.empty((len(self.levels), len(runs)))
        for k in range(len(found)):
            own = {**runs.inputs, "k1": np.full(len(runs), self.features[k, 0])}
            own["k2"] = np.full(len(runs), self.features[k, 1])
            found[k] = self.laws.take(np.array([k])).at(own)[0]
        return found * np.exp(self.levels)[:, None]

    def having_seen(self, few: Runs, noise: Noise, lanes: Lanes, random: np.random.Generator) -> "Foresight":
        """Levels moved by the new domain's own runs, as far as these draws and the noise let them (Matheron's rule:
        draws of a normal, conditioned)."""
        said = np.log(self.loss(few)).mean(axis=1)
        luck = noise.draw(lanes, random).mean(axis=1)
        pull = np.var(said) / max(float(np.var(said) + np.var(luck)), 1e-300)
        moved = pull * (np.log(few.loss).mean() - said - luck)
        return Foresight(self.laws, self.features, self.levels + moved)


def foresee(
    fitted: Fit,
    runs: Runs,
    groups: Sequence[str],
    probe: tuple[Array, Array],
    probe_noise: float | None,
    misses: Sequence[Array],
    seed: int,
) -> tuple[Foresight, Noise]:
    """Draws of the domain that was probed so, and the noise of the runs.

    probe_noise  relative, of a loss along a probe; None: as noisy as a measurement of the runs
    misses       relative errors of each domain's runs, foreseen from the other domains
    """
    random = np.random.default_rng(seed)
    noise = noise_of(fitted, runs, Lanes.of(groups, runs.inputs), draws=DRAWS, random=random)
    features = _probed(probe, float(np.median(noise.measurement)) if probe_noise is None else probe_noise, random)
    laws = bootstrap(fitted, runs, groups, replicates=DRAWS, seed=seed)
    # What known domains were missed by holds the noise of their probes; the new one's is in its features.
    missed = np.mean([miss.mean() ** 2 for miss in misses]) - np.var(np.log(_at(fitted, runs, features)))
    student = t.ppf((np.arange(DRAWS) + 0.5) / DRAWS, max(len(misses) - OF_DOMAINS, 1))
    return Foresight(laws, features, np.sqrt(max(missed, 0.0)) * random.permutation(student)), noise


def _probed(probe: tuple[Array, Array], noise: float, random: np.random.Generator) -> Array:
    """(R, 2) features that the probe allows."""
    tokens, losses = probe
    again = losses * (1 + noise * random.normal(size=(DRAWS, len(losses))))
    found = np.array([crossdomain.probe(tokens, each) for each in again])
    flattest = FLAT * abs(crossdomain.probe(tokens, losses)[1])
    return np.stack([found[:, 0], np.maximum(found[:, 1], flattest)], axis=1)


def _at(fitted: Fit, runs: Runs, features: Array) -> Array:
    """(R,) of the best law at the middle of the runs."""
    N, D, r = (float(np.exp(np.log(runs.inputs[name]).mean())) for name in ("N", "D", "r"))
    return fitted.loss(N, D, r, features[:, 0], features[:, 1])


def scatter(probes: Sequence[tuple[Array, Array]]) -> float | None:
    """Relative noise of a loss along probes that are straight lines; None where they are of two losses each."""
    squares, degrees = 0.0, 0
    for tokens, losses in probes:
        line = np.vander(tokens / tokens.max(), 2)
        rest = losses - line @ np.linalg.lstsq(line, losses, rcond=None)[0]
        squares += float(((rest / losses) ** 2).sum())
        degrees += len(tokens) - 2
    return float(np.sqrt(squares / degrees)) if degrees > 0 else None
