"""What a difference on these documents says of documents like them: errors, intervals, tests.

    R = sum(change) / sum(base)          over documents: bits per bits, or right answers per answers
    e = change - R base                  what a document says beside the ratio
    error^2 = sum (e / (1 - h))^2 / sum(base)^2,      h = base / sum(base)
    t = (R - margin) / error,            bent:  t + a t^2 + a^2 t^3 / 3 + b

Clustered by document: all items of one are one term (arXiv:2411.00640). Dividing by 1 - h leaves each document out of
the ratio it is held against. Documents are of unequal length and the effect on them is skewed, so t leans to one side;
the cubic takes that out (Hall's transformation, with the term a ratio adds):

    a = (skew/3 - E[e base] / (sd(e) E[base])) / sqrt(n),      b = skew / (6 sqrt(n))

and what is left follows Student's distribution. Its degrees of freedom are those of the documents that carry weight:
sqrt(k m) - 1, k = sum(base)^2 / sum(base^2), m = sum(base^2)^2 / sum(base^4). That mean of the two was chosen by
simulation (docs/evaluation.md): of what was tried, it alone held 93 to 97% for equal, unequal, clustered and skewed
documents.

Speaks of the choice of documents. Silent about another seed of the training.
"""

import math
from collections.abc import Sequence

import numpy as np

from ratoon.records import Estimate, Interval

PLANNED = 0.83  # power that is worked out, so that 80% are left
WARY = 3.0  # standard errors by which the lean is taken to be worse than it was seen
STRAIGHT = 1e-9  # a lean below this bends nothing
EXACT_UP_TO = 20_000  # answers that changed; past it the normal law is right to more digits than are shown


def ratio(change_D: np.ndarray, base_D: np.ndarray) -> Estimate:
    """sum(change) / sum(base) over documents, with what its tests need. Needs two documents."""
    n, total = len(change_D), base_D.sum()
    assert n > 1, "one document has no spread"
    value = change_D.sum() / total
    e_D = change_D - value * base_D
    variance = np.square(e_D).mean()
    # Where both models agree to the last digit, what is left of e is rounding.
    if variance <= (1e-12 * base_D.mean()) ** 2:
        return Estimate(value=float(value), error=0.0, freedom=n - 1)
    sd = math.sqrt(variance)
    skew = (e_D**3).mean() / sd**3
    drag = (e_D * base_D).mean() / (sd * base_D.mean())
    left_out_D = e_D / (1 - base_D / total)
    error = math.sqrt(np.square(left_out_D).sum()) / total
    squares = np.square(base_D).sum()
    carrying = math.sqrt(total**2 / squares * squares**2 / (base_D**4).sum())
    return Estimate(
        value=float(value),
        error=float(error),
        freedom=float(max(1.0, carrying - 1)),
        lean=float((skew / 3 - drag) / math.sqrt(n)),
        shift=float(skew / 6 / math.sqrt(n)),
        unsure=unsure(left_out_D),
        lean_error=lean_error(e_D / sd, base_D / base_D.mean()),
    )


def unsure(left_out_D: np.ndarray) -> float:
    """Relative variance of the squared error, itself an estimate: sum(e^4) / sum(e^2)^2 - 1/n. No less than 1/n."""
    squared_D, n = np.square(left_out_D), len(left_out_D)
    return float(max(np.square(squared_D).sum() / squared_D.sum() ** 2 - 1 / n, 1 / n))


def lean_error(z_D: np.ndarray, w_D: np.ndarray) -> float:
    """Standard error of the lean: root of the mean square of what each document moves it by, over n.

    z   e over its standard deviation      w   base over its mean      drag = E[z w]

    The documents move the ratio as well, by z each: hence the terms with a mean in front.
    """
    skew, drag = (z_D**3).mean(), (z_D * w_D).mean()
    wide_D = np.square(z_D) - 1 - 2 * drag * z_D
    skewing_D = z_D**3 - skew - 3 * (z_D**2 * w_D).mean() * z_D - 1.5 * skew * wide_D
    dragging_D = z_D * w_D - drag * w_D - np.square(w_D).mean() * z_D - 0.5 * drag * wide_D
    return float(math.sqrt(np.square(skewing_D / 3 - dragging_D).mean()) / len(z_D))


def share(change_D: np.ndarray, items_D: np.ndarray) -> Estimate:
    """Of answers, more right ones per answer. As if two documents more had been seen, one answer better and one worse.

    Without them, models that agree on a few hundred items would be sure to agree on all.
    """
    return ratio(np.append(change_D, [1.0, -1.0]), np.append(items_D, [1.0, 1.0]))


# ---------------------------------------------------------------- tests


def bent(estimate: Estimate, margin: float) -> float:
    """t against the margin, its skewness taken out: Student's t with `freedom` degrees of freedom."""
    if estimate.error == 0:
        return math.copysign(math.inf, estimate.value - margin) if estimate.value != margin else 0.0
    t, a = (estimate.value - margin) / estimate.error, estimate.lean
    return t + a * t**2 + a**2 * t**3 / 3 + estimate.shift


def below(estimate: Estimate, margin: float) -> float:
    """One-sided p of the hypothesis that the truth is at the margin or above. Small: it is below."""
    from scipy.special import stdtr

    if estimate.error == 0 and estimate.value == margin:
        return 1.0
    return float(stdtr(estimate.freedom, bent(estimate, margin)))


def above(estimate: Estimate, margin: float) -> float:
    """One-sided p of the hypothesis that the truth is at the margin or below. Small: it is above."""
    from scipy.special import stdtr

    if estimate.error == 0 and estimate.value == margin:
        return 1.0
    return float(stdtr(estimate.freedom, -bent(estimate, margin)))


def unchanged(estimate: Estimate) -> float:
    """Two-sided p of the hypothesis that the truth is zero."""
    return min(1.0, 2 * min(below(estimate, 0.0), above(estimate, 0.0)))


def interval(estimate: Estimate, confidence: float, value: float | None = None) -> Interval:
    """All margins that neither `below` nor `above` rules out at half of 1 - confidence each."""
    ends = [(1 + confidence) / 2, (1 - confidence) / 2]
    low, high = (estimate.value - quantile(estimate, share) * estimate.error for share in ends)
    shown = estimate.value if value is None else value
    return Interval(value=shown, low=min(low, shown), high=max(high, shown), confidence=confidence)


def within(found: Interval, low: float, high: float) -> Interval:
    """The part of it that can be: of few documents an interval reaches past all answers right, or wrong."""
    return found.model_copy(update={"low": max(found.low, low), "high": min(found.high, high)})


def quantile(estimate: Estimate, share: float) -> float:
    """What t stays under in this share of cases, if the margin is the truth: Student's, with the skewness put back."""
    from scipy.special import stdtrit

    x, a = float(stdtrit(estimate.freedom, share)) - estimate.shift, estimate.lean
    return x if abs(a) < STRAIGHT else (math.cbrt(1 + 3 * a * x) - 1) / a


def detectable(estimate: Estimate, level: float, lower_is_better: bool) -> float:
    """The smallest true change for the better that a one-sided test at `level` shows with a probability of 80%.

        error e^(2 u) (q(83%; a) - q(level; a + 3 s))          u  `unsure`      s  `lean_error`

    Error and lean are estimates, and of few, skewed documents mostly too small: another sample's test is then stricter
    than this one's. e^(2u), 3 s and 83% were chosen by simulation, so that 80% and little more are left where that is
    so (docs/evaluation.md).
    """
    error = estimate.error * math.exp(2 * estimate.unsure)
    wary = WARY * estimate.lean_error
    if lower_is_better:
        worse = estimate.model_copy(update={"lean": estimate.lean + wary})
        return error * (quantile(estimate, PLANNED) - quantile(worse, level))
    worse = estimate.model_copy(update={"lean": estimate.lean - wary})
    return error * (quantile(worse, 1 - level) - quantile(estimate, 1 - PLANNED))


def swapped(change_D: np.ndarray) -> float:
    """Two-sided exact p that nothing changed, from the change in right answers of each document.

    Had nothing changed, the two arms of a document could be swapped. With one item per document this is the exact
    McNemar test: binomial over the answers that differ.
    """
    sizes, counts = np.unique(np.abs(change_D[change_D != 0]).astype(int), return_counts=True)
    total, seen = int(sizes @ counts), abs(float(change_D.sum()))
    if total == 0:
        return 1.0
    if total > EXACT_UP_TO:
        from scipy.special import ndtr

        return float(min(1.0, 2 * ndtr(-seen / math.sqrt(np.square(sizes) @ counts))))
    law = np.ones(1)  # of the sum, in steps of two from -total
    for size, count in zip(sizes, counts, strict=True):
        law = np.convolve(law, spread(int(count), int(size)))
    sums = np.arange(len(law)) * 2 - total
    return float(min(1.0, law[np.abs(sums) >= seen - 0.5].sum()))


def spread(count: int, size: int) -> np.ndarray:
    """Binomial probabilities of `count` fair coins, `size` places apart."""
    from scipy.special import gammaln

    k = np.arange(count + 1)
    law = np.zeros(count * size + 1)
    law[::size] = np.exp(gammaln(count + 1) - gammaln(k + 1) - gammaln(count - k + 1) - count * math.log(2))
    return law


def holm(p: Sequence[float]) -> tuple[float, ...]:
    """Each p adjusted for all being asked at once: below the level, and it holds for all such together."""
    adjusted, so_far = [1.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        so_far = max(so_far, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = so_far
    return tuple(adjusted)


def clopper_pearson(count: int, items: int, confidence: float) -> Interval:
    """The exact interval of a share of independent items."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, items - count + 1, tail))
    high = 1.0 if count == items else float(betaincinv(count + 1, items - count, 1 - tail))
    return Interval(value=count / items, low=low, high=high, confidence=confidence)
