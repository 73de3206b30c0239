"""The files: read, laid over each other, and refused with the place and what is allowed there."""

from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ratoon.config.bases import Base
from ratoon.config.benchmarks import Benchmark
from ratoon.config.declaration import NAME, ConfigError, T, unknown
from ratoon.config.params import Params
from ratoon.config.sources import Source


def load(root: Path, *, budget: str | None = None, changes: dict[str, dict[str, Any]] | None = None) -> Params:
    """params.yaml under `root`, with a named budget and then `changes` (section -> key -> value) laid over it.

    Raises ConfigError with the place, what was found and what is allowed.
    """
    path = root / "params.yaml"
    raw = read_yaml(path)
    name = budget or (raw.get("refresh") or {}).get("budget", "default")
    budgets = raw.get("budgets") or {}
    if name != "default":
        if name not in budgets:
            raise ConfigError(f"{path.name}: budgets: {unknown('budget', name, ['default', *budgets])}")
        raw = merge(raw, budgets[name])
        raw["refresh"]["budget"] = name
    raw = merge(raw, changes or {})
    return parse(Params, raw, path.name)


def merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `under`, section by section."""
    merged = dict(under)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return merged


def source(root: Path, name: str) -> Source:
    return declared(root / "data" / "sources", name, Source, "source")


def base(root: Path, name: str) -> Base:
    return declared(root / "models" / "bases", name, Base, "base")


def benchmark(root: Path, name: str) -> Benchmark:
    return declared(root / "data" / "benchmarks", name, Benchmark, "benchmark")


def declared(folder: Path, name: str, model: type[T], word: str) -> T:
    """The declaration `name` in `folder`; its file is called like it."""
    path = folder / f"{name}.yaml"
    # A name may come from a form in a page: with slashes it would name any file of the machine.
    if not NAME.fullmatch(name) or not path.exists():
        found = sorted(p.stem for p in folder.glob("*.yaml"))
        place = f"{folder.parent.name}/{folder.name}/{name}.yaml"
        raise ConfigError(f"{unknown(word, name, found)}\n  to declare it, write {place}")
    item = parse(model, read_yaml(path), f"{folder.name}/{path.name}")
    if item.name != name:  # type: ignore[attr-defined]
        raise ConfigError(f"{folder.name}/{path.name}: name is {item.name!r}; it must be the file's, {name!r}")  # type: ignore[attr-defined]
    return item


class _Placed(yaml.SafeLoader):
    """Says where a value stands that looks like one of a type and is none, such as the 31st of February."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error


def read_yaml(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ConfigError(f"{path}: not found; run from the project's folder or pass --root")
    try:
        raw = _Placed(path.read_text(encoding="utf-8")).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: found {type(raw).__name__}, expected keys and values")
    return raw


def parse(model: type[T], raw: dict[str, Any], where: str) -> T:
    """`raw` as `model`; each thing wrong on a line of its own, with its place and the keys allowed there."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{where}: {line}" for line in _letters(model, error))) from None


def _letters(model: type[BaseModel], error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"]) or "(whole file)"
        if item["type"] == "extra_forbidden":
            keys = _keys_at(model, item["loc"][:-1])
            lines.append(f"{place}: {unknown('key', str(item['loc'][-1]), keys)}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            given = item.get("input")
            found = f" (found {given!r})" if isinstance(given, str | int | float | bool | None) else ""
            lines.append(f"{place}: {message}{found}")
    return lines


def _keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    here: Any = model
    for part in loc:
        field = getattr(here, "model_fields", {}).get(part)
        here = field.annotation if field is not None else None
        if type(None) in get_args(here):
            here = get_args(here)[0]
    return sorted(getattr(here, "model_fields", {}))
