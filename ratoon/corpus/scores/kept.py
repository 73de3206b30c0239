"""Scorers that are trained once and then kept, so that scores of text do not change when other text comes.

One folder for all sources: NAME-*.safetensors, named by what is declared and not by the text there was, and
scorers.json, which says what each was trained on. Another declaration (another `kept`, for one), or a release of
ratoon that computes otherwise, trains anew.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from safetensors import safe_open

from ratoon import records
from ratoon.config import ConfigError, Engine, PrepareConfig
from ratoon.corpus.documents import tally_of
from ratoon.corpus.edition import digest, sha256, shards
from ratoon.corpus.scores.models import Plan, plan, write_model
from ratoon.corpus.workers import each

LIST = "scorers.json"


class Kept(BaseModel):
    """One scorer that is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    sha256: str
    until: str | None = Field(description="the last day its training text may be from; none: any")
    trained: dict[str, Any] = Field(description="kind, what is known of its quality, documents and bytes of each side")


class Scorers(BaseModel):
    """scorers.json"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kept: dict[str, Kept] = {}


def scorers(config: PrepareConfig, documents: Path, out: Path, processes: Engine | int | None = None) -> Scorers:
    """Train what is to be kept and is not there yet. `documents`: the folder with all sources' documents.

    Raises ConfigError when a source it is trained on has no text, or a file that is kept is not what it was.
    """
    plans = {
        name: plan(scorer, config, documents)
        for name, scorer in sorted(config.scores.items())
        if scorer.kind != "model" and scorer.kept
    }
    out.mkdir(parents=True, exist_ok=True)
    before = records.read(out / LIST, Scorers).kept if (out / LIST).exists() else {}
    found = {
        name: each_ for name, each_ in before.items() if name in plans and each_.file == file_of(name, plans[name])
    }
    for name in found:
        check(out, name, found[name], plans[name])
    fresh = [name for name in plans if name not in found]
    beside = {name: out / f".{file_of(name, plans[name])}" for name in fresh}
    sizes = [sum(tally_of(path).bytes for path in _read(plans[name])) for name in fresh]
    for _ in each(make, [(name, plans[name], beside[name]) for name in fresh], sizes, processes):
        pass
    for name in fresh:
        file = file_of(name, plans[name])
        found[name] = Kept(file=file, sha256=sha256(beside[name]), until=plans[name].day, trained=facts(beside[name]))
        beside[name].replace(out / file)
    told = Scorers(kept=dict(sorted(found.items())))
    records.write(out / LIST, told)
    for path in out.iterdir():
        if path.name not in {LIST, *(one.file for one in found.values())}:
            path.unlink()
    return told


def file_of(name: str, asked: Plan) -> str:
    return f"{name}-{digest(*asked.asked())}.safetensors"


def _read(asked: Plan) -> list[Path]:
    return [path for side in asked.sides().values() for edition in side if edition.exists() for path in shards(edition)]


def make(name: str, asked: Plan, path: Path) -> None:
    """Runs in a process of its own."""
    try:
        asked.content()  # whether there is text at all
        write_model(asked, path)
    except ConfigError as error:
        raise ConfigError(f"params.yaml: prepare.scores.{name}: {error}") from error


def facts(path: Path) -> dict[str, Any]:
    with safe_open(path, "numpy") as file:
        found: dict[str, Any] = json.loads(file.metadata()["facts"])
    return found


def check(folder: Path, name: str, kept: Kept, asked: Plan) -> None:
    """Refuse a scorer that is not what it was, or that has read what the corpus is not to know of."""
    path = folder / kept.file
    anew = f"raise prepare.scores.{name}.kept in params.yaml to train it anew"
    if not path.exists() or sha256(path) != kept.sha256:
        raise ConfigError(f"{path}: not the scorer that {LIST} speaks of; bring it back (dvc checkout), or {anew}")
    if asked.day and (kept.until is None or kept.until > asked.day):
        read = f"text up to {kept.until}" if kept.until else "text of any time"
        raise ConfigError(
            f"params.yaml: prepare.scores.{name}: it was trained on {read}, and text may be from {asked.day} at the "
            f"latest\n  {anew}, or give a later day"
        )


def lend(folder: Path | None, name: str, asked: Plan) -> tuple[Path, str]:
    """A kept scorer and the digest of its bytes. Raises ConfigError where it was not trained yet."""
    listed = records.read(folder / LIST, Scorers).kept if folder and (folder / LIST).exists() else {}
    if folder is None or name not in listed or listed[name].file != file_of(name, asked):
        raise ConfigError(
            f"params.yaml: prepare.scores.{name}: it is kept, and was not trained yet as it is declared now; "
            f"run `ratoon prepare scorers`"
        )
    check(folder, name, listed[name], asked)
    return folder / listed[name].file, listed[name].sha256
