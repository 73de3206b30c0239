"""What the commands that decide do: judge again, promote by a person's word, go back."""

import argparse
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ratoon.commands import DONE, VERDICT, call_flow, line_of
from ratoon.config import Approval, ConfigError, GateConfig, Retreat, parse, read_yaml
from ratoon.records import Flips, Verdict, read


def gate(asked: argparse.Namespace, root: Path | None) -> int:
    from ratoon.evaluation import replay
    from ratoon.report.terminal import WIDTH

    folder = scores_of(asked, root)
    question = read(asked_in(folder), replay.Question)
    if asked.params:
        if asked.params.is_dir():
            raise ConfigError(f"ratoon gate --params: {asked.params} is a folder; name the file in it")
        given = read_yaml(asked.params)
        if "promote" not in given:
            raise ConfigError(
                f"{asked.params}: no section `promote`; write the policy there, `promote: {{}}` for defaults"
            )
        policy = parse(GateConfig, given["promote"] or {}, f"{asked.params}: promote")
        question = question.model_copy(update={"policy": policy})
    verdict = replay.decide(folder, question).verdict
    kept = folder.parent / "verdict.json"
    known = read(kept, Verdict) if kept.exists() else None
    if asked.json:
        print(verdict.model_dump_json(indent=2))
    else:
        for line in told(verdict, known):
            hang = " " * 11  # a path is left whole
            print(textwrap.fill(line, WIDTH, subsequent_indent=hang, break_on_hyphens=False, break_long_words=False))
    return VERDICT[verdict.decision]


def scores_of(asked: argparse.Namespace, root: Path | None) -> Path:
    """The folder `assess` that is meant."""
    if asked.folder is not None:
        inner = asked.folder / "assess"
        return inner if inner.is_dir() else asked.folder
    if root is None:
        raise ConfigError("ratoon gate: no params.yaml here or above; name a refresh's folder")
    from ratoon.layout import Layout

    layout, line = Layout(root), line_of(asked, root)
    if not layout.latest(line).exists():
        raise ConfigError(f"no refresh of {line} has come to a verdict yet; run `ratoon refresh`, or name a folder")
    name = json.loads(layout.latest(line).read_text(encoding="utf-8"))["folder"]
    return layout.refreshes(line) / name / "assess"


def asked_in(folder: Path) -> Path:
    """What the gate was told. Refreshes of an earlier release kept their scores and not this."""
    from ratoon.evaluation import replay

    if not (folder / "suite" / "suite.json").exists():
        raise ConfigError(
            f"{folder}: no suite and no scores here, so there is nothing to judge; name a refresh's folder, as "
            f".ratoon/refreshes/MODEL/NAME"
        )
    if not (folder / replay.QUESTION).exists():
        raise ConfigError(
            f"{folder / replay.QUESTION}: not there: this refresh was judged by a release that kept its scores and not "
            f"what the gate was told; its verdict stands in {folder.parent / 'verdict.json'}\n  `ratoon assess` judges "
            f"the last training anew and writes it; scores that are there are not made again"
        )
    return folder / replay.QUESTION


def told(verdict: Verdict, known: Verdict | None) -> Iterator[str]:
    yield verdict.decision
    yield from (f"  {demand.answer:<8} {demand.reason}" for demand in verdict.demands)
    won = verdict.outcomes
    yield f"  won {won['win']}, tied {won['tie']}, lost {won['loss']} of {len(verdict.comparisons)} comparisons"
    yield from (f"  {flips(one)}" for one in verdict.flips)
    if known is not None:
        same = "yes" if known == verdict else f"no, there it is {known.decision}"
        if known != verdict and known.decision == verdict.decision:
            same = "the decision is, not all that is said of it"
        yield f"  as in verdict.json: {same}"


def flips(found: Flips) -> str:
    rate = found.negative_rate
    return (
        f"{found.benchmark} on {found.source}, against the {found.against}: {found.negative} answers went wrong "
        f"({rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}]), {found.positive} became right, of {found.items}"
    )


def promote(asked: argparse.Namespace, root: Path) -> int:
    given = {name: getattr(asked, name) for name in Approval.model_fields}
    done: dict[str, Any] = call_flow("promote", parse(Approval, given, "command line"), root).result()
    if asked.json:
        print(json.dumps(done, indent=2))
        return DONE
    was = f" (was {done['replaces']})" if done["replaces"] is not None else ""
    print(f"{done['model']}: champion is version {done['version']}{was}, by {asked.by}")
    print("\n".join([*(f"note: {note}" for note in done["notes"]), f"report: {done['report'] or 'none'}"]))
    return DONE


def rollback(asked: argparse.Namespace, root: Path) -> int:
    given = {name: getattr(asked, name) for name in Retreat.model_fields}
    said = call_flow("rollback", parse(Retreat, given, "command line"), root).result()
    line, before, after = said["model"], said["from"], said["to"]
    print(json.dumps(said) if asked.json else f"{line}: champion is version {after} again (was {before})")
    return DONE
