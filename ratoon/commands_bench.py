"""What `ratoon bench` answers."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ratoon import config
from ratoon.commands import DONE
from ratoon.config import Benchmark, ConfigError
from ratoon.config.building import BuildRecipe
from ratoon.layout import Layout

if TYPE_CHECKING:
    pass

LARGE_BYTES = 5_000_000  # of items; more is for DVC rather than for Git


def names(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "data" / "benchmarks").glob("*.yaml"))


def show_all(asked: argparse.Namespace, root: Path) -> int:
    from ratoon.report import bench_text

    found = [config.benchmark(root, name) for name in names(root)]
    counts = {item.name: count(item, root) for item in found}
    if asked.json:
        print(json.dumps([item.model_dump(mode="json") | {"items": counts[item.name]} for item in found], indent=2))
    else:
        print(bench_text.listed(found, counts))
    return DONE


def count(benchmark: Benchmark, root: Path) -> int | None:
    """Items on disk; None: made from held-out documents, or not there."""
    path = root / benchmark.items if benchmark.items else None
    if path is None or not path.exists():
        return None
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def build(asked: argparse.Namespace, root: Path) -> int:
    from ratoon.evaluation.building.build import build as make
    from ratoon.evaluation.building.publish import declared as declaration
    from ratoon.evaluation.building.publish import known, publish
    from ratoon.report import bench_text

    recipe = recipe_of(asked, root)
    config.parse(Benchmark, declaration(asked.name, recipe), "command line")  # a name is also a path
    former = known(root, asked.name)
    places = cleans(root, recipe.source)
    report, benchmark = publish(root, asked.name, recipe, make(recipe, places[recipe.source], list(places.values())))
    if asked.json:
        print(report.model_dump_json(indent=2))
        return DONE
    print(bench_text.built(benchmark, report, former))
    if (size := (root / str(benchmark.items)).stat().st_size) > LARGE_BYTES:
        print(f"{size / 1e6:.0f} MB of items: `dvc add {benchmark.items}` keeps them out of Git")
    return DONE


def recipe_of(asked: argparse.Namespace, root: Path) -> BuildRecipe:
    source = config.source(root, asked.source.split(".")[0] if asked.source not in declared(root) else asked.source)
    numbers = ("items", "choices", "least", "seed")
    given = {key: getattr(asked, key) for key in numbers if getattr(asked, key) is not None}
    kinds = {"kinds": tuple(asked.kinds.split(","))} if asked.kinds else {}
    text = source.kind if source.kind != "auto" else "prose"
    return config.parse(
        BuildRecipe, {"source": asked.source, "text": text, "role": source.role, **given, **kinds}, "command line"
    )


def declared(root: Path) -> list[str]:
    return [path.stem for path in (root / "data" / "sources").glob("*.yaml")]


def cleans(root: Path, source: str) -> dict[str, Path]:
    """Portion or source -> its clean edition, of all that params.yaml trains on and of `source`."""
    from ratoon.corpus.portions import shares

    layout, found = Layout(root), dict[str, Path]()
    whole = source if source in declared(root) else source.split(".")[0]
    for name in dict.fromkeys([*config.load(root).refresh.sources, whole]):
        clean = layout.clean(name)
        if not clean.exists():
            raise ConfigError(f"source {name!r}: no clean edition yet, so nothing to build from; run `ratoon prepare`")
        for share in shares(config.source(root, name), clean):
            found[share.name] = clean / share.folder
    if source not in found:
        portions = sorted(name for name in found if name.startswith(f"{whole}."))
        raise ConfigError(
            f"source {source!r}: split into {', '.join(portions)}; name one of them: items are of one language"
            if portions
            else f"source {source!r}: {whole!r} is not split; give it as --source {whole}"
        )
    return found


def show(asked: argparse.Namespace, root: Path) -> int:
    from ratoon.evaluation.asking import shown
    from ratoon.report import bench_text

    benchmark = config.benchmark(root, asked.name)
    if not benchmark.items:
        raise ConfigError(
            f"benchmark {asked.name!r}: of kind {benchmark.form.kind}, made anew of every source's held-out documents; "
            f"its items lie in the suite of a refresh: .ratoon/refreshes/*/*/assess/suite"
        )
    if asked.number < 1:
        raise ConfigError(f"ratoon bench show: --number is {asked.number}; give 1 or more items of each kind")
    items = shown(benchmark, root, asked.number, asked.seed)
    if asked.json:
        for item in items:
            print(json.dumps(item, ensure_ascii=False))
    else:
        print(bench_text.items(benchmark, count(benchmark, root) or 0, items))
    return DONE


def fetch(asked: argparse.Namespace, root: Path) -> int:
    from ratoon.evaluation import standard

    benchmark = config.benchmark(root, asked.name)
    found = standard.fetch(benchmark, root)
    if asked.json:
        print(found.model_dump_json(indent=2))
        return DONE
    revision = f" at {found.revision}" if found.revision else ""
    print(f"{found.items:,} items of {found.task} ({found.dataset}{revision}) from {found.origin} in {benchmark.items}")
    print(f"sha256 {found.sha256}; `revision` and `sha256` in the declaration's form pin both")
    return DONE
