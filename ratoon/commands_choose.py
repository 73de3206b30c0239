"""What `ratoon choose QUESTION` does: the questions beside the share that a table of runs can be asked."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratoon.commands import DONE, percent
from ratoon.commands_laws import as_json, config_of, domain_tokens_of, named, number, parent_of, table_of, target_of
from ratoon.config import ChooseConfig, ConfigError, Role

if TYPE_CHECKING:
    from ratoon.records import Observation


def scarce(asked: argparse.Namespace, root: Path | None) -> int:
    from ratoon.laws.decision.scarce import choose_scarce
    from ratoon.laws.decision.study import round_target
    from ratoon.report import laws_answers

    table, config = table_of(asked, root), config_of(asked, root, law=asked.law)
    tokens, target = domain_tokens_of(asked), target_of(asked)
    assert tokens is not None
    observations = table.observations()
    params, _ = round_target(table, target)
    found = choose_scarce(
        observations,
        params_non_embedding=params,
        domain_tokens=tokens,
        config=config,
        longest=round(target["D"]) if "D" in target else None,
        ceiling=None if asked.no_ceiling else ceiling_of(observations, params, parent_of(asked), config),
    )
    return say(asked, found, laws_answers.scarce(found))


def ceiling_of(
    observations: Sequence["Observation"], params: int, told: Mapping[Role, float], config: ChooseConfig
) -> float:
    """Nats that general loss must stay under."""
    from ratoon.laws.tables.nats import refuse_parent_unit
    from ratoon.laws.tables.parents import parent_losses

    general = told["general"] if "general" in told else parent_losses(observations, params, ["general"])["general"]
    refuse_parent_unit(observations, params, "general", general)
    return general * (1 + config.tolerance)


def allocate(asked: argparse.Namespace, root: Path | None) -> int:
    from ratoon.laws.decision.allocate import allocate as split
    from ratoon.report import laws_answers

    table, config = table_of(asked, root), config_of(asked, root)
    share = percent(asked.share)
    if not 0 <= share <= 1:
        raise ConfigError(f"--share: {asked.share!r} is outside 0..1; for percent, --share {asked.share}%")
    try:
        flops = number(asked.flops)
    except ValueError:
        flops = 0.0
    if not (math.isfinite(flops) and flops > 0):
        raise ConfigError(f"--flops: {asked.flops!r} is no number of operations; for example 1e21")
    found = split(table.observations(), share=share, flops=flops, config=config, role=asked.loss)
    return say(asked, found, laws_answers.allocation(found, asked.loss))


def rate(asked: argparse.Namespace, root: Path | None) -> int:
    from ratoon.laws.decision.rates import choose_rate
    from ratoon.laws.decision.study import parents, round_target
    from ratoon.report import laws_answers

    table, config = table_of(asked, root), config_of(asked, root)
    if "lr" not in table.inputs:
        raise ConfigError(f"{table.sheet.where}: no peak learning rate; {table.ask('lr')}")
    observations = table.observations()
    params, tokens = round_target(table, target_of(asked))
    known = parents(observations, params, parent_of(asked))
    found = choose_rate(
        observations,
        params_non_embedding=params,
        parent_general=known["general"],
        parent_domain=known["domain"],
        config=config,
        tokens=tokens,
    )
    return say(asked, found, laws_answers.rate(found))


def stage(asked: argparse.Namespace, root: Path | None) -> int:
    from ratoon.laws.decision.stage import choose_stage
    from ratoon.report import laws_answers

    table, config = table_of(asked, root), config_of(asked, root)
    found = choose_stage(
        table,
        peaks=listed(asked.peaks, "--peaks", "1e-5,3e-5,1e-4"),
        steps=[round(x) for x in listed(asked.steps, "--steps", "1000,4000")],
        schedules={name: written_out(name, asked.warmup) for name in asked.schedules.split(",")},
        config=config,
        params=target_of(asked).get("N"),
        parent=parent_of(asked),
    )
    return say(asked, found, laws_answers.stage(found))


def written_out(name: str, warmup: int) -> Callable[[float, int], Any]:
    """A schedule of this name as one learning rate per step."""
    from ratoon.config import Schedule, parse
    from ratoon.training.schedules import learning_rate

    schedule = parse(Schedule, {"name": name, "warmup_steps": warmup}, "--schedules")

    def rates(peak: float, steps: int) -> list[float]:
        at = learning_rate(schedule, peak, steps)
        return [at(step) for step in range(steps)]

    return rates


def listed(text: str, option: str, example: str) -> list[float]:
    """1e-5,3e-5 as numbers above 0."""
    try:
        found = [number(item) for item in text.split(",")]
    except ValueError:
        found = [0.0]
    if not all(math.isfinite(x) and x > 0 for x in found):
        raise ConfigError(f"{option}: {text!r} is no list of numbers above 0; for example {example}")
    return sorted(found)


def mixture(asked: argparse.Namespace, root: Path | None) -> int:
    from ratoon.laws.mixtures.choose import choose_mixture
    from ratoon.laws.mixtures.limits import EPOCHS, Goal, Limits
    from ratoon.laws.mixtures.runs import MixtureRuns
    from ratoon.laws.mixtures.validate import compare
    from ratoon.report import laws_answers

    table, config, target = table_of(asked, root), config_of(asked, root), target_of(asked)
    for option, said, other in (("--epochs", asked.epochs, "--unique"), ("--reference", asked.reference, "--pull")):
        if said is not None and not getattr(asked, other.removeprefix("--")):
            raise ConfigError(f"{option} {said}: without {other} it changes nothing; add {other}, or leave it out")
    runs = MixtureRuns.of_table(table, target)
    limits = Limits.of(
        runs.domains,
        minimum=numbers(asked.minimum, "--minimum", "web=0.2"),
        maximum=numbers(asked.maximum, "--maximum", "code=0.5"),
        unique_tokens=numbers(asked.unique, "--unique", "code=3B"),
        tokens=target.get("D"),
        epochs=EPOCHS if asked.epochs is None else asked.epochs,
    )
    reference = numbers(asked.reference, "--reference", "web=0.7,code=0.3")
    goal = Goal.of(
        runs.evaluated,
        weights=numbers(asked.weights, "--weights", "loss_code=2,loss_web=1"),
        ceilings=numbers(asked.ceilings, "--ceilings", "loss_web=2.9"),
        reference=reference,
        domains=runs.domains,
        pull=asked.pull,
    )
    compared = compare(runs, wanted=asked.law or "auto", seed=config.seed)
    found = choose_mixture(runs, goal, limits, compared=compared, seed=config.seed)
    return say(asked, found.document(), laws_answers.mixture(found, limits))


def transfer(asked: argparse.Namespace, root: Path | None) -> int:
    from ratoon.laws.decision.newcomer import foretell
    from ratoon.laws.tables.reading import parse_columns, read_sheet
    from ratoon.report import laws_answers

    found = foretell(
        read_sheet(asked.runs),
        read_sheet(asked.probes),
        asked.new,
        columns=parse_columns(asked.columns),
        target=target_of(asked),
        config=config_of(asked, root),
    )
    return say(asked, found, laws_answers.newcomer(found))


def numbers(text: str | None, option: str, example: str) -> dict[str, float] | None:
    """web=0.4,code=3B as numbers; None where nothing was said."""
    if not text:
        return None
    found = {}
    for name, value in named(text, option, example).items():
        try:
            found[name] = number(value)
        except ValueError:
            raise ConfigError(f"{option}: {name}={value}: {value!r} is no number; for example {example}") from None
    return found


def say(asked: argparse.Namespace, found: Any, text: str) -> int:
    """The answer as a table, or everything that is known of it."""
    if asked.json:
        print(as_json(found))
    else:
        print(text)
    return DONE
