"""Are these nats per token? What bits, perplexities and bits per byte look like among observations."""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ratoon.config import ConfigError, Role
from ratoon.laws.form import Mask
from ratoon.laws.tables.parents import own_start, same_size
from ratoon.records import Observation

WORST = 12.5  # nats: guessing from 262,144 words, about the largest vocabulary in use; trained models are far below
BITS = 1 / math.log(2)  # bits in a nat
NEAR = 0.02  # relative: what rounding to three digits may do to a ratio of two columns
# ln of the parent's general loss over that of the shortest runs with most general text, within which it can hardly be
# anything but another unit: a run that short moves general loss by less than the rest of ln(1/ln 2).
OTHER_UNIT = 0.1
ROUNDING = 1e-3  # relative
SHOWN = 5  # numbers in a letter

CONVERSIONS = {
    "bits": "in bits, not nats: multiply by ln 2 = 0.6931",
    "perplexity": "a perplexity: take its natural logarithm",
    "bits per byte": "bits per byte, not nats per token: multiply by ln 2 and by the bytes of a token",
}


def where(number: int, item: Observation) -> str:
    return f"observation {number} (run {item.run}, {item.tokens} tokens, {item.evaluated})"


def refuse_other_units(rows: Sequence[tuple[int, Observation]]) -> None:
    """`rows` are numbered from 1, each with a loss. A source's nats per token are a fixed multiple of its bits per
    byte, ln 2 times the bytes of a token, so that a table with both columns shows where one is in another unit."""
    for number, item in rows:
        loss = _loss(item)
        if loss > WORST:
            raise ConfigError(
                f"{where(number, item)}: loss_nats is {loss:g}, worse than guessing from any vocabulary (at most "
                f"{WORST} nats); if it is a perplexity, take its natural logarithm"
            )
    sources: dict[str, list[tuple[int, Observation]]] = defaultdict(list)
    for number, item in rows:
        if item.bits_per_byte is not None and item.bits_per_byte > 0:
            sources[item.evaluated].append((number, item))
    for measured in sources.values():
        _refuse_mixed(measured)


def _loss(item: Observation) -> float:
    assert item.loss_nats is not None
    return item.loss_nats


def _refuse_mixed(rows: list[tuple[int, Observation]]) -> None:
    loss = np.array([_loss(item) for _, item in rows])
    bits = np.array([item.bits_per_byte for _, item in rows], dtype=float)
    if np.allclose(loss, bits, rtol=ROUNDING):
        _refuse(rows, np.ones(len(rows), dtype=bool), "bits per byte", "equals bits_per_byte")
    per_token = loss / bits
    if np.ptp(np.log(per_token)) <= NEAR:
        return
    logged = np.log(loss) / bits if (loss > 1).all() else None
    if logged is not None and (logged > 0).all() and np.ptp(np.log(logged)) <= NEAR:
        _refuse(rows, np.ones(len(rows), dtype=bool), "perplexity", "moves with bits_per_byte as its exponential does")
    usual = float(np.median(per_token))
    odd = np.abs(np.log(per_token / usual)) > NEAR
    if not odd.any():
        return
    in_bits = np.abs(np.log(per_token / usual / BITS)) <= 2 * NEAR
    if (odd == in_bits).all():
        _refuse(rows, odd, "bits", "is 1.44 times what bits_per_byte and the other rows say")
    if (odd == (np.abs(np.log(per_token / usual * BITS)) <= 2 * NEAR)).all():
        _refuse(rows, ~odd, "bits", "is 1.44 times what bits_per_byte and the other rows say")
    numbers = [number for (number, _), strange in zip(rows, odd, strict=True) if strange]
    raise ConfigError(
        f"{where(*rows[int(odd.argmax())])}: loss_nats is {loss[odd.argmax()]:g} at {bits[odd.argmax()]:g} "
        f"bits_per_byte, {per_token[odd.argmax()]:.3g} to one where other rows of this source have {usual:.3g}; on one "
        f"text they must keep one ratio (observations {listed(numbers)}). Measure both on the same text, or leave "
        f"bits_per_byte empty"
    )


def _refuse(rows: list[tuple[int, Observation]], odd: Mask, unit: str, how: str) -> None:
    found = [row for row, strange in zip(rows, odd, strict=True) if strange]
    number, item = found[0]
    raise ConfigError(
        f"{where(number, item)}: loss_nats is {_loss(item):g}, which {how}; it is {CONVERSIONS[unit]} "
        f"(observations {listed([number for number, _ in found])})"
    )


def listed(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:SHOWN])
    return shown if len(numbers) <= SHOWN else f"{shown} and {len(numbers) - SHOWN} more"


def refuse_parent_unit(observations: Sequence[Observation], params: float, role: Role, parent: float) -> None:
    """The parent's loss against its own rows (0 tokens) where the table has them, else, for general loss, against the
    shortest runs with most general text."""
    own, near = _start(observations, params, role)
    refuse_told_unit(role, parent, own, near)


def refuse_told_unit(role: Role, parent: float, own: float | None, near: float | None = None) -> None:
    """`own` is what the parent's own rows say, `near` what the shortest runs with most general text end at."""
    name = f"parent_{role}"
    if not np.isfinite(parent) or parent <= 0:
        raise ConfigError(f"{name} is {parent}; expected its held-out loss in nats per token")
    if parent > WORST:
        raise ConfigError(
            f"{name} is {parent:g}, worse than guessing from any vocabulary (at most {WORST} nats); if it is a "
            f"perplexity, take its natural logarithm, {math.log(parent):.4f}"
        )
    if own is None and (near is None or role == "domain"):
        return
    expected, within = (own, NEAR) if own is not None else (near, OTHER_UNIT)
    assert expected is not None
    known = "its own rows say" if own is not None else "the shortest run with most general text ends at"
    mend = "" if own is not None else ". If both are nats, add the parent's own rows (0 tokens) to the table"
    gap = math.log(parent / expected)
    if abs(gap - math.log(BITS)) <= within:
        raise ConfigError(
            f"{name} is {parent:g}, 1/ln 2 times what {known} ({expected:.4f}): it is in bits where the runs are in "
            f"nats; multiply it by ln 2 = 0.6931{mend}"
        )
    if abs(gap + math.log(BITS)) <= within:
        raise ConfigError(
            f"{name} is {parent:g}, ln 2 times what {known} ({expected:.4f}): it is in nats where the runs are in "
            f"bits; multiply their loss_nats by ln 2 = 0.6931{mend}"
        )
    if own is not None and abs(math.log(parent) / expected - 1) <= NEAR and parent > 1:
        raise ConfigError(f"{name} is {parent:g}, the exponential of what {known} ({expected:.4f}): a perplexity; "
                          f"take its natural logarithm")  # fmt: skip


def _start(observations: Sequence[Observation], params: float, role: Role) -> tuple[float | None, float | None]:
    """Mean losses of this role, of the parent's own rows and of the shortest runs with least domain text, or None."""
    rows = [x for x in observations if x.role == role and x.loss_nats is not None]
    runs = [x for x in rows if x.finished and x.tokens > 0 and same_size(x.params_non_embedding, params)]
    if runs:
        share = min(x.share for x in runs)
        tokens = min(x.tokens for x in runs if x.share == share)
        runs = [x for x in runs if x.share == share and x.tokens == tokens]
    means = float(np.mean([_loss(x) for x in runs])) if runs else None
    return own_start(observations, params, role), means
