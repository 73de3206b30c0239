"""A built benchmark on disk: items and report in a folder of its name, its declaration beside it.

What a person changed in the declaration stays; only its version is raised, and only when the items are others.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

from ratoon.config import Benchmark, ConfigError, Items, benchmark
from ratoon.config.building import BuildRecipe
from ratoon.evaluation.building.build import Built, Report
from ratoon.evaluation.building.choices import Item
from ratoon.records import read, write

COLUMNS = {"question": "context", "choices": "choices", "answer": "gold", "id": "id", "document": "document"}


def publish(root: Path, name: str, recipe: BuildRecipe, built: Built) -> tuple[Report, Benchmark]:
    """Write it all. Raises ConfigError where the name is that of a benchmark that was not built."""
    folder = root / "data" / "benchmarks" / name
    former = known(root, name)
    lines = "".join(json.dumps(line(item), ensure_ascii=False) + "\n" for item in built.items).encode()
    report = Report(
        recipe=recipe,
        digest=hashlib.sha256(lines).hexdigest(),
        held_out_documents=built.held_out_documents,
        training_documents=built.training.documents,
        training_bytes=built.training.bytes,
        kinds=built.kinds,
        left_out=built.left_out,
    )
    declaration = folder.with_suffix(".yaml")
    if former is not None and digest(folder) != report.digest:
        # Before the items: killed in between, a version is left out. After them it would stand for two sets of items.
        text = declaration.read_text(encoding="utf-8")
        replace(declaration, re.sub(r"^version:.*$", f"version: {former.version + 1}", text, flags=re.M).encode())
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / "items.jsonl", lines)
    write(folder / "build.json", report)
    if former is None:
        replace(declaration, yaml.safe_dump(declared(name, recipe), sort_keys=False, width=120).encode())
    return report, benchmark(root, name)


def known(root: Path, name: str) -> Benchmark | None:
    """The benchmark of this name if there is one, and it may be built anew."""
    if not (root / "data" / "benchmarks" / f"{name}.yaml").exists():
        return None
    found = benchmark(root, name)
    if not (isinstance(found.form, Items) and found.form.source):
        raise ConfigError(
            f"data/benchmarks/{name}.yaml: is of kind {found.form.kind} and was not built; "
            f"give the new one another name"
        )
    return found


def digest(folder: Path) -> str | None:
    path = folder / "items.jsonl"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(content)
    beside.replace(path)


def line(item: Item) -> dict[str, Any]:
    asked = item.asked
    return {
        "id": asked.id,
        "document": asked.document,
        "kind": asked.kind,
        "context": asked.context,
        "choices": list(item.choices),
        "gold": item.gold,
        "answers": [asked.answer.strip()],
    }


def declared(name: str, recipe: BuildRecipe) -> dict[str, Any]:
    return {
        "name": name,
        "version": 1,
        "description": f"Built from held-out documents of {recipe.source}: {', '.join(recipe.kinds)}.",
        "form": {
            "kind": "items",
            "path": f"data/benchmarks/{name}/items.jsonl",
            "source": recipe.source,
            "role": recipe.role,
            "ask": "choice",
            "columns": COLUMNS,
            "prompts": [{"name": "plain", "delimiter": ""}],
        },
    }


def report_of(root: Path, name: str) -> Report | None:
    path = root / "data" / "benchmarks" / name / "build.json"
    return read(path, Report) if path.exists() else None
