"""Where a version came from, to the byte: what was asked, the declarations, dvc.lock and the commit.

Kept by content under `.ratoon/origins`: an origin is named by its hash, and a file that did not change is kept once.
"""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratoon import records
from ratoon.config import Ask, ConfigError
from ratoon.layout import Layout
from tasks import commits, objects, tracking, versions
from tasks.job import Job, resolve
from tasks.live import warn

ALONE = ("params.yaml", "dvc.yaml", "dvc.lock", "constraints.txt")
FOLDERS = ("data/sources", "data/benchmarks", "models/bases")
POINTER = "origin.json"  # in a refresh's folder: the name of its origin
TAG = "origin"  # of a registered version


class Origin(records.Record):
    line: str
    question: str
    created: str
    ask: Ask
    files: dict[str, str]  # path -> sha256
    editions: dict[str, str]  # path -> DVC hash, all that was read or made on the way
    commit: str | None
    dirty: bool | None

    @property
    def name(self) -> str:
        """Without the day: the same question of the same text is one origin."""
        content = self.model_dump(mode="json", exclude={"created"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@task(cache_policy=NO_CACHE)
def keep_origin(job: Job) -> str:
    """Put by what this refresh begins with; the origin's name. Raises ConfigError where it changed since."""
    root, layout = job.layout.root, job.layout
    found = {path: (root / path).read_bytes() for path in declared(root)}
    lock = found.get("dvc.lock", b"")
    outs = versions.outs_of(lock, root / "dvc.lock")
    if resolve(root, job.ask) != (job.params, job.base, job.sources) or not job.editions.items() <= outs.items():
        raise ConfigError(
            "params.yaml, a declaration or dvc.lock changed while this refresh began; "
            "run it again, and edit once it is under way"
        )
    commit, dirty = commits.commit(root)
    origin = Origin(
        line=job.line,
        question=job.question,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        ask=job.ask,
        files={path: keep_file(layout, content) for path, content in found.items()},
        editions={path: outs[path] for path in sorted(concerned(job)) if path in outs},
        commit=commit,
        dirty=dirty,
    )
    if not manifest(layout, origin.name).exists():
        records.write(manifest(layout, origin.name), origin)
    records.write_text(job.folder / POINTER, json.dumps({"origin": origin.name}))
    return origin.name


def declared(root: Path) -> list[str]:
    """Files that say what is done with which text, relative to the project."""
    found = [root / name for name in ALONE if (root / name).is_file()]
    for folder in FOLDERS:
        found += [path for path in sorted((root / folder).rglob("*")) if path.is_file()]
    return [path.relative_to(root).as_posix() for path in found]


def benchmarks_since(layout: Layout, folder: Path) -> list[str]:
    """Files of benchmarks that are new, changed or gone since the refresh of this folder began."""
    name = of_folder(folder)
    if name is None or not manifest(layout, name).exists():  # of an earlier release, or none of its is kept
        return []
    then = records.read(manifest(layout, name), Origin).files
    now = {path: hashlib.sha256((layout.root / path).read_bytes()).hexdigest() for path in declared(layout.root)}
    return sorted(path for path in then.keys() | now.keys() if is_benchmark(path) and then.get(path) != now.get(path))


def is_benchmark(path: str) -> bool:
    file = Path(path)
    return path.startswith("data/benchmarks/") and not file.name.startswith(".") and file.suffix != ".md"


def concerned(job: Job) -> set[str]:
    """Editions of every stage that this refresh passed through."""
    layout, base = job.layout, job.base.name
    paths = [layout.scorers, layout.tokenizer(base)]
    for name in [source.name for source in job.sources]:
        paths += [layout.documents(name), layout.scores(name), layout.clean(name), layout.rows(base, name)]
    for name in job.params.refresh.watch:
        paths += [layout.documents(name), layout.clean(name)]
    return {path.relative_to(layout.root).as_posix() for path in paths}


def keep_file(layout: Layout, content: bytes) -> str:
    name = hashlib.sha256(content).hexdigest()
    place = kept_file(layout, name)
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{name}.new")
        beside.write_bytes(content)
        beside.replace(place)
    return name


def kept_file(layout: Layout, name: str) -> Path:
    return layout.origins / "files" / name


def manifest(layout: Layout, name: str) -> Path:
    return layout.origins / f"{name}.json"


def every(layout: Layout) -> dict[str, Origin]:
    """Name -> origin, of all lines, the newest first."""
    found = {path.stem: records.read(path, Origin) for path in layout.origins.glob("*.json")}
    return dict(sorted(found.items(), key=lambda one: (one[1].created, one[0]), reverse=True))


def of_folder(folder: Path) -> str | None:
    path = folder / POINTER
    return str(json.loads(path.read_text(encoding="utf-8"))["origin"]) if path.exists() else None


def of_version(layout: Layout, version: tracking.Version) -> Origin:
    """Raises ConfigError where it was registered before origins were kept, or its origin is gone or damaged."""
    name, what = version.tags.get(TAG), f"{version.line} version {version.version}"
    if name is None:
        editions = {
            key.removeprefix("edition."): md5 for key, md5 in version.tags.items() if key.startswith("edition.")
        }
        raise ConfigError(
            f"{what}: registered before ratoon kept where versions come from; its editions are tagged with it: "
            f"{', '.join(f'{path} {md5}' for path, md5 in sorted(editions.items())) or 'none'}"
        )
    path = manifest(layout, name)
    if not path.exists():
        raise ConfigError(f"{what}: {path} is gone; `ratoon backup restore FILE` brings it back from a backup")
    found = records.read(path, Origin)
    for file, hash_ in found.files.items():
        kept = kept_file(layout, hash_)
        if not kept.exists() or objects.sha256(kept) != hash_:
            raise ConfigError(f"{what}: {kept}, its {file}, is gone or damaged; take it from a backup")
    return found


@task(cache_policy=NO_CACHE)
def record_pointers(job: Job, version: int | None) -> str | None:
    """dvc.lock as this refresh read it, on the line's branch in Git, where refresh.commit asks for it.

    That Git does not take it is told and no fault: the origin has the same bytes.
    """
    name = of_folder(job.folder)
    if not job.params.refresh.commit or name is None:
        return None
    origin = records.read(manifest(job.layout, name), Origin)
    lock = kept_file(job.layout, origin.files["dvc.lock"]).read_bytes()
    what = f"version {version}" if version else "a candidate that was not registered"
    title = f"Record the editions of {job.line} {what}"
    body = "\n".join([f"Refresh: {job.folder.name}", f"Origin: {name}", *edition_lines(origin)])
    try:
        sha = commits.record(job.layout.root, job.line, lock, title, body)
    except commits.NotRecorded as error:
        warn(f"editions are not recorded in Git: {error}")
        return None
    if sha and version:
        tracking.tag(job.line, version, {"editions_commit": sha})
    return sha


def edition_lines(origin: Origin) -> list[str]:
    return [f"Edition: {path} {md5}" for path, md5 in sorted(origin.editions.items())]
