"""Shares over a run: phases that were asked for, and sources that end at their caps. Both begin on blocks."""

import math
from collections.abc import Mapping, Sequence

from ratoon.config import ConfigError, Phase, unknown
from ratoon.config.mixture import Until
from ratoon.stream.order import Stage, apportion

WHERE = "train.mixture"


def row_at(until: float, run_rows: int, row_tokens: int) -> int:
    """Rows of the run before the point `until`: up to 1 a share of the run, above that tokens."""
    return round(until * run_rows if until <= 1 else until / row_tokens)


def reached(parts: Sequence[Until], ends: Sequence[int], last: int, tokens: int, where: str) -> None:
    """Raises ConfigError where a run of so many tokens is over before a part of it: what follows is never read.

    ends, last  of the parts and of the run, counted alike
    """
    for number, (part, end) in enumerate(zip(parts, ends, strict=True)):
        if end > last:
            raise ConfigError(
                f"{where}.{number}: until {part.until:,.0f} tokens, and the run ends at {tokens:,}; lower it, give a "
                f"share of the run (1 at most), or raise the tokens of the run"
            )


def rising(untils: Sequence[float], points: Sequence[int], where: str, unit: str) -> None:
    """Raises ConfigError where a part of a run has no length."""
    for number, (before, after) in enumerate(zip([0, *points], points, strict=False)):
        if after <= before:
            raise ConfigError(
                f"{where}.{number}: until {untils[number]:g} is {unit} {after} and what is before it ends at {before}; "
                f"each must end later than the one before: write them in order, or at least one {unit} apart"
            )


def phased(
    phases: Sequence[Phase], own: Mapping[str, float], roles: Mapping[str, str], run_rows: int, *, block_rows: int,
    row_tokens: int,
) -> list[Stage]:  # fmt: skip
    """The stages of a run; after the last phase its own shares. A stage begins at the block nearest to where it was
    asked for. Raises ConfigError for phases of no length and shares that are none.

    own    source -> share, 0 included
    roles  source -> role
    """
    ends = [round(row_at(phase.until, run_rows, row_tokens) / block_rows) for phase in phases]
    reached(phases, ends, -(-run_rows // block_rows), run_rows * row_tokens, f"{WHERE}.phases")
    rising([phase.until for phase in phases], ends, f"{WHERE}.phases", "block")
    shares = [spread(phase.share, own, roles, f"{WHERE}.phases.{n}.share") for n, phase in enumerate(phases)]
    found = [Stage(begin, each) for begin, each in zip([0, *ends], [*shares, positive(own)], strict=True)]
    return [stage for stage in found if stage.block == 0 or stage.block * block_rows < run_rows]


def positive(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: share for name, share in shares.items() if share > 0}


def spread(
    share: float | Mapping[str, float], own: Mapping[str, float], roles: Mapping[str, str], where: str
) -> dict[str, float]:
    """A phase's share as shares of the sources."""
    if isinstance(share, Mapping):
        if strange := sorted({*share} - {*own}):
            raise ConfigError(f"{where}: {unknown('source', strange[0], sorted(own))}")
        if not math.isclose(total := math.fsum(share.values()), 1, abs_tol=1e-6):
            raise ConfigError(f"{where}: shares sum to {total:.4f}, not 1; nothing is rescaled for you")
        return positive(share)
    if math.isclose(share, math.fsum(own[name] for name in own if roles[name] == "domain"), abs_tol=1e-9):
        return positive(own)  # to the bit: a phase like the run itself is none
    found = {}
    for role, part in {"general": 1 - share, "domain": share}.items():
        mine = {name: own[name] for name in own if roles[name] == role}
        if part > 0 and len(mine) != 1 and not sum(mine.values()):
            raise ConfigError(
                f"{where}: {part:g} of {role} text, of which the run's own mixture has none to divide it by "
                f"({', '.join(sorted(mine)) or 'no source'}); give the share of each source instead"
            )
        whole = sum(mine.values())
        found.update({name: part * (of / whole if whole else 1) for name, of in mine.items()})
    return positive(found)


def capped(
    stages: Sequence[Stage], caps: Mapping[str, int], roles: Mapping[str, str], run_rows: int, block_rows: int
) -> list[Stage]:
    """The same stages, but from the block on that would bring a source above its cap, its share goes to others.

    caps  source -> rows it may give; a source that has come to its end does not come back
    """
    end = -(-run_rows // block_rows)
    left, gone, found = dict(caps), set[str](), list[Stage]()
    for stage, until in zip(stages, [*(later.block for later in stages[1:]), end], strict=True):
        block = stage.block
        while block < until:
            shares = handed_over(stage.shares, gone, roles)
            counts = apportion(shares, block_rows)
            blocks = {name: left[name] // count for name, count in counts.items() if name in left}
            lasts = min([until - block, *blocks.values()])
            if lasts:
                found.append(Stage(block, shares))
                left = {name: rows - lasts * counts.get(name, 0) for name, rows in left.items()}
                block += lasts
            if block < until:
                gone |= {name for name, count in blocks.items() if count <= lasts}
    return found


def handed_over(shares: Mapping[str, float], gone: set[str], roles: Mapping[str, str]) -> dict[str, float]:
    """Shares without those that are gone: theirs go to the rest of their role in proportion, or to all that is left."""
    kept = {name: share for name, share in shares.items() if name not in gone}
    if not kept:
        raise ConfigError(
            f"{WHERE}.max_epochs: {', '.join(sorted(shares))} all come to their end before the run does; lower "
            f"train.tokens or raise max_epochs"
        )
    found = dict(kept)
    for name in sorted({*shares} & gone):
        heirs = [heir for heir in kept if roles[heir] == roles[name]] or list(kept)
        whole = math.fsum(kept[heir] for heir in heirs)
        for heir in heirs:
            found[heir] = min(1.0, found[heir] + shares[name] * kept[heir] / whole)  # a sum may round above 1
    return found
