"""What may go: planned by what is registered and by `retention`, told, and removed only as told.

Needed is whatever a champion, its predecessor, a challenger or any version that was ever promoted is made of: its
weights, its trunk, its origin and the text it names. Records, reports and scores of refreshes are never removed.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ratoon import config
from ratoon.config import ConfigError, RetentionConfig
from ratoon.evaluation.trajectory import CHECKPOINTS, KEPT
from ratoon.layout import Layout
from ratoon.training.disk import discard
from tasks import commits, disk, dvc_locks, objects, origin, tracking, versions
from tasks.job import held
from tasks.objects import Objects
from tasks.origin import Origin
from tasks.tracking import Version

DAY = 86_400.0
WEIGHTS = "*.safetensors"


@dataclass(frozen=True)
class Item:
    """One thing that would go."""

    kind: str
    path: Path | None  # None: an object at the remote
    bytes: int
    hash: str = ""  # of an object of DVC's
    version: tuple[str, int] | None = None  # whose weights these are


@dataclass
class Plan:
    items: list[Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what stays because it is not known whether it is needed

    def table(self) -> dict[str, tuple[int, int]]:
        """Kind -> (how many, bytes)."""
        count, size = Counter[str](), Counter[str]()
        for item in self.items:
            count[item.kind] += 1
            size[item.kind] += item.bytes
        return {kind: (count[kind], size[kind]) for kind in sorted(count)}


@dataclass(frozen=True)
class Kept:
    """What stays, of all model lines."""

    needed: list[Version]  # in use, or ever promoted
    spared: list[Version]  # the newest others
    gone: list[Version]
    origins: dict[str, Origin]
    dropped: dict[str, Origin]

    @property
    def versions(self) -> list[Version]:
        return [*self.needed, *self.spared]


# ---------------------------------------------------------------- what stays


def is_needed(version: Version) -> bool:
    """In use, or promoted at any time: `replaces` is tagged whenever an alias moves, a verdict may be written over."""
    return bool(version.aliases) or version.tags.get("verdict") == "promoted" or "replaces" in version.tags


def kept(layout: Layout, asked: RetentionConfig) -> Kept:
    needed, spared, gone = [], [], []
    for line in lines(layout):
        of_line = tracking.versions(line)
        needed += [one for one in of_line if is_needed(one)]
        others = [one for one in of_line if not is_needed(one)]
        young = [one for one in others[asked.refused :] if recent(one.path, asked)]
        spared += [*others[: asked.refused], *young]
        gone += [one for one in others[asked.refused :] if one not in young]
    every = origin.every(layout)
    wanted = {one.tags[origin.TAG] for one in (*needed, *spared) if origin.TAG in one.tags}
    taken = {one.tags[origin.TAG] for one in gone if origin.TAG in one.tags}
    free = [name for name in every if name not in wanted | taken]
    wanted |= {*free[: asked.editions], *(name for name in every if recent(origin.manifest(layout, name), asked))}
    # A refresh under way has no version yet, and its origin may be old.
    wanted |= {name for folder in unfinished(layout) if (name := origin.of_folder(folder))}
    return Kept(
        needed,
        spared,
        gone,
        {name: one for name, one in every.items() if name in wanted},
        {name: one for name, one in every.items() if name not in wanted},
    )


def recent(path: Path, asked: RetentionConfig) -> bool:
    """Written within the days that everything stays."""
    newest = max((max(one.lstat().st_mtime, one.lstat().st_ctime) for one in disk.files(path)), default=0.0)
    return time.time() - newest < asked.days * DAY


def lines(layout: Layout) -> list[str]:
    """Model lines refreshed in this project. The registry may hold others', which are none of its business."""
    return sorted(path.name for path in (layout.state / "refreshes").glob("*") if path.is_dir())


def folders(layout: Layout) -> list[Path]:
    """Of all refreshes of all lines."""
    return sorted(path for path in (layout.state / "refreshes").glob("*/*") if path.is_dir())


def unfinished(layout: Layout) -> list[Path]:
    return [folder for folder in folders(layout) if not (folder / "refresh.json").exists()]


# ---------------------------------------------------------------- what goes


def plan(root: Path, *, remote: bool = False) -> Plan:
    """What `ratoon gc` would remove now. Nothing is touched, but for lists of files fetched from the remote."""
    layout, asked = Layout(root), config.load(root).retention
    stays = kept(layout, asked)
    found = Plan()
    if away := [one for one in stays.needed if not (one.path.is_relative_to(layout.root) and one.path.is_dir())]:
        names = ", ".join(f"{one.line} version {one.version} at {one.path}" for one in away)
        found.notes.append(f"weights stay: those of {names} are not in this project, or gone; was its folder moved?")
    else:
        found.items += weights(layout, asked, stays)
    found.items += scores(layout, asked)
    if versions.hashes(root) or stays.origins or stays.dropped:
        with objects.opened(root) as store:
            editions(layout, asked, stays, store, found, remote)
    return found


def weights(layout: Layout, asked: RetentionConfig, stays: Kept) -> Iterator[Item]:
    """Candidates that were not promoted, checkpoints of runs that have ended, models of refreshes that never did."""
    mine = {one.path.resolve() for one in stays.versions}
    lost = {one.path.resolve(): (one.line, one.version) for one in stays.gone}
    for folder in folders(layout):
        ended = (folder / "refresh.json").exists()
        holds = any(path.is_relative_to(folder.resolve()) for path in mine)
        former = checkpoints(folder / "train", asked)
        for model in models(folder):
            if model.resolve() in mine or recent(model, asked) or (holds and not ended):
                continue
            version = lost.get(model.resolve())
            beside = model.relative_to(folder).parts[0] in ("sweep", "arms", "judges")
            kind = "proxies" if beside else "candidates"
            if ended and (model in former or model.parent.name == KEPT):
                kind = "checkpoints"
            elif not ended:
                kind = "unfinished"
            elif holds and kind == "candidates":  # its trunk, its siblings: the next refresh goes on from them
                continue
            elif version is None and kind == "candidates" and not any(p.is_relative_to(folder.resolve()) for p in lost):
                continue  # of a candidate that was not registered: nobody said that it may go
            yield Item(kind, model, disk.bytes_of(model), version=version)


def models(folder: Path) -> list[Path]:
    """Directories that hold weights, the outermost of each."""
    found = sorted({path.parent for path in folder.rglob(WEIGHTS)})
    return [one for one in found if not any(one.is_relative_to(other) for other in found if other != one)]


def checkpoints(run: Path, asked: RetentionConfig) -> list[Path]:
    """Of a run that has ended, those before the newest that stay."""
    if not (run / "result.json").exists():
        return []
    return sorted((run / CHECKPOINTS).glob("step-*"))[: -asked.checkpoints]


def scores(layout: Layout, asked: RetentionConfig) -> Iterator[Item]:
    """Of models on items: made again where they are asked for once more."""
    for path in sorted(disk.files(layout.score_cache)):
        if not recent(path, asked):
            yield Item("cached scores", path, path.stat().st_size)


def editions(layout: Layout, asked: RetentionConfig, stays: Kept, store: Objects, found: Plan, remote: bool) -> None:
    """Objects of DVC's that no origin kept, no pointer here or in Git, and no tag of a kept version names."""
    unknown = [one for one in stays.needed if one.tags.get(origin.TAG) not in stays.origins]
    if unknown:
        names = ", ".join(f"{one.line} version {one.version}" for one in unknown)
        found.notes.append(f"editions stay: there is no record here of what {names} was made of")
        return
    try:
        used = expanded(store, {*named(layout.root), *tagged(stays.versions), *of_origins(stays.origins)})
    except ConfigError as error:
        found.notes.append(f"editions stay: what is needed is not wholly known: {error}")
        return
    for name in stays.dropped:
        path = origin.manifest(layout, name)
        found.items.append(Item("origins", path, path.stat().st_size))
    mine = {hash_ for one in stays.origins.values() for hash_ in one.files.values()}
    for path in sorted((layout.origins / "files").glob("[0-9a-f]*")):
        if path.name not in mine and not recent(path, asked):
            found.items.append(Item("origins", path, path.stat().st_size))
    idle = {hash_: path for hash_, path in store.every().items() if hash_ not in used and not recent(path, asked)}
    found.items += [Item("editions", path, path.stat().st_size, hash_) for hash_, path in sorted(idle.items())]
    if remote:
        found.items += at_remote(store, idle, stays.dropped, used)


def at_remote(store: Objects, idle: dict[str, Path], dropped: dict[str, Origin], used: set[str]) -> Iterator[Item]:
    """Only what this project made: others may keep their own objects at the same place."""
    ours = {*idle}
    for hash_ in of_origins(dropped):
        try:
            ours |= expanded(store, {hash_})
        except ConfigError:  # its list is gone already, and with it the names
            continue
    for hash_ in sorted(ours - used):
        if (size := store.held_away(hash_)) is not None:
            yield Item("remote", None, size, hash_)


def of_origins(found: dict[str, Origin]) -> set[str]:
    return {hash_ for one in found.values() for hash_ in one.editions.values()}


def tagged(found: list[Version]) -> set[str]:
    return {md5 for one in found for key, md5 in one.tags.items() if key.startswith("edition.")}


def named(root: Path) -> set[str]:
    """Hashes in dvc.lock and *.dvc, here and at every branch and tag."""
    places = [root / "dvc.lock", *root.glob("*.dvc"), *root.glob("data/**/*.dvc"), *root.glob("models/**/*.dvc")]
    here = [path.read_bytes() for path in places if path.is_file()]
    return {hash_ for text in (*here, *commits.at_tips(root)) for hash_ in hashes_in(yaml.safe_load(text))}


def hashes_in(found: object) -> Iterator[str]:
    """Every md5 of an output. Dependencies are not in the cache, but for imports."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key == "outs" and isinstance(value, list):
                yield from (str(out["md5"]) for out in value if isinstance(out, dict) and "md5" in out)
            yield from hashes_in(value)
    elif isinstance(found, list):
        for value in found:
            yield from hashes_in(value)


def expanded(store: Objects, hashes: set[str]) -> set[str]:
    """With the files of each folder. Raises ConfigError where a list is neither in the cache nor at the remote."""
    return hashes | {md5 for hash_ in sorted(hashes) for md5 in store.files(hash_).values()}


# ---------------------------------------------------------------- doing it


def collect(root: Path, *, remote: bool = False) -> Plan:
    """Remove what is planned now, while nothing else runs; what was removed."""
    layout = Layout(root)
    with dvc_locks.writer(root), ExitStack() as locks:
        for line in lines(layout):
            locks.enter_context(held(layout, line))
        planned = plan(root, remote=remote)
        for item in planned.items:
            remove(item)
        if any(item.path is None for item in planned.items):
            with objects.opened(root) as store:
                for item in planned.items:
                    if item.path is None:
                        store.forget(item.hash)
    return planned


def remove(item: Item) -> None:
    if item.path is None:
        return
    if item.version:
        # Said first: cut short, weights that are there are called removed, and never the other way round.
        tracking.tag(*item.version, {"weights": f"removed by ratoon gc {time.strftime('%Y-%m-%d')}"})
    if item.path.is_dir():
        discard(item.path)
    else:
        item.path.unlink(missing_ok=True)
