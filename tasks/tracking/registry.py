"""The registry: pointers to weights that stay where training left them, and which of them is in use.

`champion` is the version in use, `previous` the one before, `challenger` one that waits for a person; a move is written
into a tag before the alias moves.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ratoon.config import ConfigError
from tasks.reach import shown
from tasks.tracking.connection import LONGEST_TAG, ask, or_none, store
from tasks.tracking.models import PATH, logged_model
from tasks.tracking.naming import SAID

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
CARD = "README.md"  # in a model's directory


@dataclass(frozen=True)
class Version:
    """A registered version of a model line."""

    line: str
    version: int
    path: Path  # directory that transformers loads
    run_id: str | None
    tags: dict[str, str]
    aliases: tuple[str, ...]


def register(line: str, model: Path, run_id: str, tags: Mapping[str, Any] | None = None, said: str = "") -> int:
    """The model in `model` as the next version of the line, made by run `run_id`. Nothing is copied.

    said   the version's description, in Markdown

    The same bytes at the same place are the version they were: only what is said of it is new. A pointer is kept with
    the run: where the files are, their sizes and sha256. Raises ConfigError if there are none.
    """
    described = describe(model)
    where, sha256 = str(model.resolve()), fingerprint(described)
    given = {key: str(value)[:LONGEST_TAG] for key, value in (tags or {}).items()}
    if (known := _known(line, where, sha256)) is not None:
        tag(line, known, given)
        ask("update_model_version", line, str(known), said or None)
        return known
    ask("log_dict", run_id, {"path": where, "files": described}, "model/pointer.json")
    _registered(line)
    logged = logged_model(line, model)
    # MLflow's server takes a local source only from inside the run's or logged model's artifacts: hence the pointers.
    source = logged.artifact_location if logged else f"{ask('get_run', run_id).info.artifact_uri}/model"
    if logged:
        given["logged_model"] = logged.model_id  # MLflow's database forgets which one it was told
    made = ask(
        "create_model_version",
        line,
        source,
        run_id,
        tags={**given, PATH: where, "ratoon.sha256": sha256},
        description=said or None,
        await_creation_for=0,  # there is nothing to wait for: the pointer is written
        model_id=logged.model_id if logged else None,
    )
    return int(made.version)


def _known(line: str, where: str, sha256: str) -> int | None:
    """The version these weights are already, unless they were removed since."""
    same = (PATH, where), ("ratoon.sha256", sha256), ("weights", None)
    found = ask("search_model_versions", f"name = '{line}'")
    numbers = [int(item.version) for item in found if all(item.tags.get(key) == value for key, value in same)]
    return max(numbers, default=None)


def describe(model: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of each file of a model's directory. Raises ConfigError if it is none."""
    # The card tells what was found out about the files after they were registered, and is no part of them.
    files = {path.name: path for path in sorted(model.glob("*")) if path.is_file() and path.name != CARD}
    if "config.json" not in files or not any(name.endswith(".safetensors") for name in files):
        raise ConfigError(
            f"{model}: not a model transformers loads; config.json and *.safetensors were expected, "
            f"found {', '.join(files) or 'nothing'}"
        )
    return {name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for name, path in files.items()}


def fingerprint(described: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def intact(line: str, version: int) -> Version:
    """A version whose directory is what was registered, to the byte. Raises ConfigError if it is not."""
    path = version_path(line, version)
    found = _version(ask("get_model_version", line, str(version)))
    known = found.tags.get("ratoon.sha256")
    if known is not None and known != fingerprint(describe(path)):
        raise ConfigError(
            f"{line} version {version}: {path} is not what was registered and judged; bring those files back, or "
            f"refresh again"
        )
    return found


def _registered(line: str) -> None:
    from mlflow.exceptions import MlflowException

    if or_none("get_registered_model", line) is None:
        try:
            ask("create_registered_model", line)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(found: Any) -> Version:
    path = found.tags.get(PATH)
    if path is None:
        raise ConfigError(
            f"MLflow at {shown(store())}: {found.name} version {found.version} has no tag ratoon.path, so it was not "
            f"registered by ratoon; set that tag to the directory of its weights"
        )
    return Version(
        line=found.name,
        version=int(found.version),
        path=Path(path),
        run_id=found.run_id or None,
        tags=dict(found.tags),
        aliases=tuple(found.aliases),
    )


def _aliased(line: str, alias: str) -> Version | None:
    found = or_none("get_model_version_by_alias", line, alias)
    return None if found is None else _version(found)


def champion(line: str) -> Version | None:
    """The version in use; None before the first promotion."""
    return _aliased(line, CHAMPION)


def challenger(line: str) -> Version | None:
    """The version that waits for a person; None: none does."""
    return _aliased(line, CHALLENGER)


def versions(line: str) -> list[Version]:
    """All of the line, the newest first."""
    model = or_none("get_registered_model", line)
    if model is None:
        return []
    # A search leaves aliases out: the model has them.
    aliases: dict[int, list[str]] = {}
    for alias, number in sorted(model.aliases.items()):
        aliases.setdefault(int(number), []).append(alias)
    found = [_version(item) for item in ask("search_model_versions", f"name = '{line}'")]
    named = [replace(item, aliases=tuple(aliases.get(item.version, ()))) for item in found]
    return sorted(named, key=lambda item: -item.version)


def version_of(line: str, version: int) -> Version:
    """Wherever its weights are. Raises ConfigError if there is no such version."""
    found = or_none("get_model_version", line, str(version))
    if found is None:
        numbers = ", ".join(str(item.version) for item in versions(line)) or "none yet"
        raise ConfigError(f"{line}: no version {version}; there are {numbers}")
    return _version(found)


def version_path(line: str, version: int) -> Path:
    """The directory of a version's weights. Raises ConfigError if the version or the directory is not there."""
    found = version_of(line, version)
    path, removed = found.path, found.tags.get("weights")  # retention.py writes it
    if not (path / "config.json").exists() and removed:
        raise ConfigError(
            f"{line} version {version}: its weights were {removed}, from {path}; name another version, bring them back "
            f"from a backup, or train again on its text, which `ratoon restore {version}` brings back"
        )
    if not (path / "config.json").exists():
        raise ConfigError(
            f"{line} version {version}: its weights are not at {path}; "
            f"bring the directory back, or `ratoon rollback` to the version before"
        )
    return path


def promote(line: str, version: int, reasons: Sequence[str] = ()) -> None:
    """Make `version` the champion; the one before stays as `previous`. Doing it twice does it once."""
    before = champion(line)
    if before is not None and before.version == version:
        return
    said = {"verdict": "promoted", "replaces": str(before.version) if before else "none"}
    tag(line, version, {**said, "reasons": "\n".join(reasons)} if reasons else said)
    _move(line, version, before.version if before else None)
    _wait_no_more(line, version)


def _wait_no_more(line: str, version: int) -> None:
    waiting = challenger(line)
    if waiting is not None and waiting.version == version:
        ask("delete_registered_model_alias", line, CHALLENGER)


def challenge(line: str, version: int, reasons: Sequence[str]) -> None:
    """`version` waits for a person: the alias `challenger`, and the reasons. The champion stays."""
    tag(line, version, {"verdict": SAID["ask"], "reasons": "\n".join(reasons)})
    ask("set_registered_model_alias", line, CHALLENGER, str(version))


def refuse(line: str, version: int, reasons: Sequence[str]) -> None:
    """Keep `version` in the registry with the reasons why it is not the champion. It waits for nobody any more."""
    tag(line, version, {"verdict": "refused", "reasons": "\n".join(reasons)})
    _wait_no_more(line, version)


def rollback(line: str, tags: Mapping[str, str] | None = None) -> tuple[int, int]:
    """Champion and previous change places. Returns (champion before, champion now). Tags go to the one now."""
    now, before = champion(line), _aliased(line, PREVIOUS)
    if now is None or before is None or now.version == before.version:
        raise ConfigError(
            f"{line}: there is no previous champion to go back to; "
            f"{f'version {now.version} is the only one so far' if now else 'no version was ever promoted'}"
        )
    version_path(line, before.version)
    tag(line, before.version, {"replaces": str(now.version), "rolled_back": "to this version", **(tags or {})})
    _move(line, before.version, now.version)
    return now.version, before.version


def tag(line: str, version: int, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        ask("set_model_version_tag", line, str(version), key, value[:LONGEST_TAG])


def _move(line: str, version: int, before: int | None) -> None:
    """`previous` first: cut short between the two, the champion is the old one and can still be promoted over."""
    if before is not None:
        ask("set_registered_model_alias", line, PREVIOUS, str(before))
    ask("set_registered_model_alias", line, CHAMPION, str(version))
