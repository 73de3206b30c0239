"""A declared source to an edition of documents: everything its origins hold, in one form, with a ledger."""

from pathlib import Path
from typing import Any

from ratoon.config import Amend, ConfigError, Packages, Source
from ratoon.corpus import amend, units
from ratoon.corpus.documents import ShardWriter, Tally, identify, tally_of
from ratoon.corpus.edition import Edition, digest, renew
from ratoon.corpus.formats import Bad, Record, as_json
from ratoon.corpus.packages import installed
from ratoon.corpus.units import UNKNOWN_SUFFIX, Input, Unit
from ratoon.corpus.web import blocklist
from ratoon.corpus.web.archive import EXPECTED
from ratoon.corpus.workers import Report, Seen, each
from ratoon.records import Ledger


def ingest(
    source: Source,
    root: Path,
    out: Path,
    report: Report | None = None,
    processes: int | None = None,
    asked: Amend | None = None,
) -> Ledger:
    """Bring `out` to what the source holds now, and return its ledger; only units that changed are read.

    `report` hears of bytes of input, once per unit. `asked` is what is repaired and masked before
    anything is stored. Bytes in the ledger are UTF-8 bytes of text for what is kept, of the raw record for what is
    dropped.

    Raises ConfigError, with the earlier edition untouched, when an origin is missing or damaged, when nothing
    is found, or when more than `max_bad_share` of the records are unreadable.
    """
    try:
        also_read = lists(source, root)
        plan = units.plan(source, root, amend.content(asked))
        with renew(out) as edition:
            tallies = _make(source, asked, plan.units, edition, report, processes)
            ledger = _ledger(source, asked, plan, tallies, edition, also_read)
            return edition.publish(ledger)
    except ConfigError as error:
        raise ConfigError(f"source {source.name!r}: {error}") from error


def _make(
    source: Source,
    asked: Amend | None,
    planned: tuple[Unit, ...],
    edition: Edition,
    report: Report | None,
    processes: int | None,
) -> list[Tally]:
    """The tallies of all units, in their order, once each has its shard."""
    fresh = [unit for unit in planned if not edition.reusable(unit.shard)]
    total = sum(unit.size for unit in fresh)
    done = kept = dropped = 0
    tasks: list[tuple[Any, ...]] = [(source, unit, edition.place(unit.shard), asked) for unit in fresh]
    for i, _ in each(write_unit, tasks, [unit.size for unit in fresh], processes):
        if report:
            found = tally_of(edition.path(fresh[i].shard))
            done, kept, dropped = done + fresh[i].size, kept + found.documents, dropped + found.dropped.total()
            report(done, total, f"read {fresh[i].name}", Seen(kept, dropped))
    return [tally_of(edition.path(unit.shard)) for unit in planned]


def write_unit(source: Source, unit: Unit, path: Path, asked: Amend | None = None) -> None:
    """Read one unit into one shard. Runs in a process of its own."""
    tally = Tally()
    writer = ShardWriter(path)
    license = source.license or _license(unit)
    for item, changes in amend.amended(units.records(unit), asked):
        if isinstance(item, Bad):
            tally.drop(item.reason, item.num_bytes, item.place)
            continue
        num_bytes = len(item.text.encode())
        tally.keep(num_bytes)
        tally.amend(changes)
        writer.add(_document(source, unit, item, license), num_bytes)
    writer.close(tally)


def _document(source: Source, unit: Unit, record: Record, license: str | None) -> dict[str, Any]:
    fields = dict(record.fields)
    columns = getattr(unit.origin, "columns", None)
    known: dict[str, Any] = {}
    for key in ("url", "date", "language", "license"):
        known[key] = _word(fields.pop(getattr(columns, key), None)) if columns else None
    return {
        "id": identify(source.name, record.text),
        "text": record.text,
        "source": source.name,
        "url": known["url"] or record.place,
        "date": known["date"],
        "language": known["language"] or source.language,
        "license": known["license"] or license,
        "metadata": as_json(fields),
    }


def _word(value: Any) -> str | None:
    """As a string Arrow can hold: dates in ISO form, lone surrogates escaped."""
    if value is None or value == "":
        return None
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return text.encode("utf-8", "backslashreplace").decode()


def _license(unit: Unit) -> str | None:
    if isinstance(unit.origin, Packages):
        return installed(unit.origin.packages[0], unit.origin.content).license
    return None


def _ledger(
    source: Source,
    asked: Amend | None,
    plan: units.Plan,
    tallies: list[Tally],
    edition: Edition,
    also_read: dict[str, str],
) -> Ledger:
    total = Tally()
    for tally in tallies:
        total.add(tally)
    _refuse(source, total, plan.skipped)
    changes = amend.content(asked)
    for item in plan.skipped:
        total.drop(UNKNOWN_SUFFIX, item.size, item.name)
    return Ledger(
        source=source.name,
        role=source.role,
        stage="ingest",
        config=digest(source.digest(), *changes) if changes else source.digest(),
        funnel=total.funnel(),
        shards=edition.hashes(unit.shard for unit in plan.units),
        examples=total.examples,
        amended=total.changes(),
        also_read=also_read,
    )


def lists(source: Source, root: Path) -> dict[str, str]:
    """The lists that pages of the source are held against -> a name for what each holds; '' where it is not there."""
    found: dict[str, str] = {}
    for name in source.lists:
        try:
            found[name] = blocklist.content((name if name == blocklist.WHEEL else str(root / name),))
        except ConfigError:  # refused by whoever reads pages; a source may hold none yet
            found[name] = ""
    return found


def _refuse(source: Source, total: Tally, skipped: tuple[Input, ...]) -> None:
    unreadable = {reason: n for reason, n in total.dropped.most_common() if reason not in EXPECTED}
    bad = sum(unreadable.values())
    seen = total.documents + bad
    if bad and bad / seen > source.max_bad_share:
        lines = [f"  {n} {reason}: {', '.join(total.examples[reason])}" for reason, n in unreadable.items()]
        raise ConfigError(
            f"{bad} of {seen} records are unreadable ({bad / seen:.1%}), more than max_bad_share "
            f"{source.max_bad_share:.1%}\n" + "\n".join(lines) + "\n  mend or remove them, or raise max_bad_share"
        )
    if not total.documents:
        also = f" ({len(skipped)} files of unknown suffix were left out)" if skipped else ""
        raise ConfigError(f"no documents in any of its origins{also}; put text there or declare another origin")
