"""Which parameters the runs pin: standard errors from the curvature at the optimum, and how well it is conditioned."""

from dataclasses import dataclass

import numpy as np

from ratoon.laws.fitting import varpro
from ratoon.laws.form import Array, Form, Mask

LOOSE = 0.5  # standard error, in log, of a parameter that is known to a factor of two at best (90%: x 2.3)
LOOSE_LINEAR = 0.25  # of its range, where the scale is linear
TINY = 1e-100  # stands for a length of nought; its inverse squared is still a number
SINGULAR = 1e-7  # relative singular value below which a direction moves no prediction


@dataclass(frozen=True)
class Identification:
    """errors     name -> standard error: of log(parameter), or of the parameter where its sign is open
    condition  of the weighted Jacobian, columns of unit length: how near two parameters are to saying the same
    noise      relative residual spread (robust, corrected for the parameters spent)
    loose      parameters these runs do not decide although they were fitted
    """

    errors: dict[str, float]
    condition: float
    noise: float
    loose: tuple[str, ...]
    covariance: Array  # (p, p) of the parameters in `errors`, in its order
    used: Mask  # (k + m,) which parameters these are


def jacobian(problem: varpro.Problem, theta: Array, coefficients: Array) -> Array:
    """(n, k + m): d predicted by each exponent on the scale searched, and by each coefficient, of log where signed."""
    columns = problem.columns(theta[None])
    by_exponent = varpro.slopes(problem, theta[None], coefficients[None], columns)[0]
    by_coefficient = columns[0] * np.where(problem.signed, coefficients, 1.0)
    return np.concatenate([by_exponent, by_coefficient], axis=1)


def identify(
    problem: varpro.Problem,
    theta: Array,
    coefficients: Array,
    weights: Array,
    free: Mask,
    present: Mask,
    form: Form,
) -> Identification:
    names = [*form.exponents, *form.linear]
    used = np.concatenate([free, present & ~problem.known & ((coefficients != 0) | ~problem.signed)])
    predicted = problem.columns(theta[None])[0] @ coefficients
    slopes = jacobian(problem, theta, coefficients)[:, used]
    raw = problem.objective.space == "raw"
    root = np.sqrt(weights) / (1.0 if raw else problem.loss)
    errors = (predicted - problem.loss) * root
    noise = scatter(errors, slopes.shape[1])
    length = np.sqrt(((slopes * root[:, None]) ** 2).sum(axis=0))
    scaled = slopes * root[:, None] / np.maximum(length, TINY)
    _, singular, axes = np.linalg.svd(scaled, full_matrices=False)
    kept = np.maximum(singular, SINGULAR * singular.max(initial=0.0) + 1e-300)
    root_covariance = noise * (axes / kept[:, None]) / np.maximum(length, TINY)
    covariance = root_covariance.T @ root_covariance
    spread = np.sqrt(np.diagonal(covariance))
    found = dict(zip([name for name, use in zip(names, used, strict=True) if use], spread.tolist(), strict=True))
    return Identification(
        errors=found,
        condition=float(singular.max(initial=1.0) / max(singular.min(initial=1.0), 1e-300)),
        noise=noise,
        loose=tuple(name for name, error in found.items() if error > _limit(form, name, coefficients)),
        covariance=covariance,
        used=used,
    )


def _limit(form: Form, name: str, coefficients: Array) -> float:
    if name in form.exponents:
        at = form.exponents[name]
        return LOOSE if at.log else LOOSE_LINEAR * (at.high - at.low)
    if name in form.free:
        return LOOSE * max(abs(float(coefficients[form.linear.index(name)])), 1e-300)
    return LOOSE


def scatter(errors: Array, spent: int) -> float:
    """Standard deviation of the noise in residuals: root mean square and median, the smaller, so that a few outliers
    do not pass for noise; corrected for the parameters spent."""
    n = len(errors)
    if n <= spent:
        return float(np.sqrt(np.mean(errors**2)))
    robust = 1.4826 * float(np.median(np.abs(errors)))
    plain = float(np.sqrt(np.mean(errors**2)))
    return float((min(plain, robust) if robust > 0 else plain) * np.sqrt(n / (n - spent)))
