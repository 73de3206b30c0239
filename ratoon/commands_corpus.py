"""What `ratoon corpus` answers."""

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratoon import config
from ratoon.commands import DONE, embedded
from ratoon.config import ConfigError
from ratoon.layout import Layout

TEXT = re.compile(r"(?:^|/)(?:train|held_out)-")  # files of an edition that no question about it reads

if TYPE_CHECKING:
    from ratoon.corpus.accounts.table import Accounts
    from ratoon.records import Ledger


def sources(asked: argparse.Namespace, root: Path) -> tuple[str, ...]:
    """The one named, or all of params.yaml."""
    declared = config.load(root).refresh.sources
    if not asked.source:
        return declared
    config.source(root, asked.source)
    return (asked.source,)


def read(root: Path, source: str) -> "Accounts":
    from ratoon.corpus.accounts.table import accounts

    layout = Layout(root)
    return accounts(source, layout.documents(source), layout.clean(source))


def show(asked: argparse.Namespace, root: Path) -> int:
    from ratoon.corpus.decontaminate import report as contamination
    from ratoon.report import corpus_text

    found = {source: ledgers(root, source) for source in sources(asked, root)}
    if asked.json:
        print(
            json.dumps({name: [one.model_dump(mode="json") for one in each] for name, each in found.items()}, indent=2)
        )
        return DONE
    parts = []
    for source, each in found.items():
        parts.append(corpus_text.show(each))
        if told := contamination.load(Layout(root).clean(source)):
            parts.append(contamination.show(told))
    print("\n\n".join(parts))
    return DONE


def ledgers(root: Path, source: str) -> "list[Ledger]":
    from ratoon.corpus.edition import LEDGER, read_ledger

    layout = Layout(root)
    folders = [layout.documents(source), layout.clean(source)]
    folders += [layout.rows(base, source) for base in config.load(root).prepare.bases]
    found = [read_ledger(folder) for folder in folders if (folder / LEDGER).exists()]
    if not found:
        raise ConfigError(f"source {source!r}: no edition yet; run `ratoon prepare`")
    return found


def stats(asked: argparse.Namespace, root: Path) -> int:
    from ratoon.corpus.accounts.stats import stats as count
    from ratoon.corpus.edition import LEDGER
    from ratoon.report import corpus_text

    names = sources(asked, root)
    every = {source: read(root, source) for source in names}
    for other in config.load(root).refresh.sources:
        # With what is not prepared yet nothing is compared.
        if other not in every and (Layout(root).clean(other) / LEDGER).exists():
            every[other] = read(root, other)
    found = [count(every[name], [of for other, of in sorted(every.items()) if other != name]) for name in names]
    if asked.json:
        print(json.dumps([_plain(one) for one in found], indent=2))
    else:
        print("\n\n".join(corpus_text.stats(one) for one in found))
    return DONE


def sample(asked: argparse.Namespace, root: Path) -> int:
    from ratoon.corpus.accounts.sample import sample as draw
    from ratoon.report import corpus_text

    if asked.number < 1:
        raise ConfigError(f"ratoon corpus sample: --number is {asked.number}; give 1 or more documents of each fate")
    for source in sources(asked, root):
        found = draw(read(root, source), asked.number, asked.reason, asked.seed)
        if asked.json:
            for seen in found.values():
                for one in seen:
                    print(json.dumps({"source": source, **one._asdict()}, ensure_ascii=False))
        else:
            print(f"{source}\n{corpus_text.sample(found)}\n")
    return DONE


def why(asked: argparse.Namespace, root: Path) -> int:
    from ratoon.corpus.accounts.why import why as tell
    from ratoon.report import corpus_text

    params = config.load(root).prepare
    told, errors = [], []
    for source in sources(asked, root):
        try:
            told += tell(read(root, source), asked.document, config.source(root, source), params)
        except ConfigError as error:
            errors.append(str(error))
    if not told:
        raise ConfigError("\n".join(errors))
    print(json.dumps([_plain(one) for one in told], indent=2) if asked.json else corpus_text.why(told))
    return DONE


def diff(asked: argparse.Namespace, root: Path) -> int:
    from ratoon.corpus.accounts.change import change
    from ratoon.corpus.accounts.table import accounts, edition
    from ratoon.report import corpus_text

    embedded(root)
    for source in sources(asked, root):
        now = read(root, source)
        with tempfile.TemporaryDirectory() as folder:
            former = earlier(root, source, asked.against, Path(folder))
            moves = change(accounts(source, now.folder, former), now)
            names = edition(former), edition(now.clean)
        if asked.json:
            moved = [move._asdict() for move in moves]
            print(json.dumps({"source": source, "before": names[0], "after": names[1], "moves": moved}, indent=2))
        else:
            print(corpus_text.change(source, *names, moves))
    return DONE


def earlier(root: Path, source: str, against: str | None, into: Path) -> Path:
    """The clean edition to compare with: a folder, a DVC hash, or that of the last refresh that had another."""
    from tasks import versions

    if against and (Path(against) / "ledger.json").exists():
        return Path(against)
    from ratoon.corpus.edition import read_ledger

    path = Layout(root).clean(source).relative_to(root).as_posix()
    now = read_ledger(Layout(root).clean(source)).shards
    for hash_ in [against] if against else editions(root, path):
        found = versions.lay_out(root, hash_, into / hash_, lambda name: not TEXT.search(name))
        if against or read_ledger(found).shards != now:
            return found
    raise ConfigError(
        f"source {source!r}: no refresh has used another edition than this one; name one with --against: a folder "
        f"with a clean edition, or a DVC hash of {path} from an earlier dvc.lock"
    )


def editions(root: Path, path: str) -> list[str]:
    """DVC hashes of `path` in the refreshes of this project, the last first."""
    from ratoon import records
    from ratoon.records import Refresh

    found = [records.read(file, Refresh) for file in (Layout(root).state / "refreshes").glob("*/*/refresh.json")]
    found.sort(key=lambda one: one.started, reverse=True)
    return [one.lineage.editions[path] for one in found if path in one.lineage.editions]


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {name: _plain(each) for name, each in value._asdict().items()}
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
