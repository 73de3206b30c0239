"""WARC and WET archives to records: the main text of each page, with where and when it was fetched.

Two passes over one file: the first reads addresses and robots.txt, the second reads pages. What a page becomes depends
on the page, on the robots.txt fetched with it and on the lists declared, never on other pages.
"""

import io
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from ratoon.config import Columns, ConfigError, WebPages
from ratoon.corpus.formats import Bad, Record, compression_of
from ratoon.corpus.web.blocklist import blocked
from ratoon.corpus.web.page import Extract, content_type, extractor, page_text, plain_text, reserved
from ratoon.corpus.web.robots import Robots, is_robots, site

# Raise it whenever the same archive would give other documents.
VERSION = 1
KINDS = frozenset({"response", "resource", "conversion"})
PAGES = frozenset({"text/html", "application/xhtml+xml"})
NOT_FOUND, NOT_PAGE, TOO_LARGE, NO_MAIN_TEXT = "not answered with 200", "not a page", "page too large", "no main text"
BLOCKED, ROBOTS, RESERVED = "blocked address", "robots.txt", "rights reserved"
WRONG_LENGTH, DAMAGED_BODY, NO_ADDRESS = "wrong record length", "damaged body", "no address"
# What a crawl always holds: no sign of a damaged source.
EXPECTED = frozenset({NOT_FOUND, NOT_PAGE, TOO_LARGE, NO_MAIN_TEXT, BLOCKED, ROBOTS, RESERVED})


class Left(NamedTuple):
    reason: str


class Rights(NamedTuple):
    blocked: frozenset[str]
    robots: Robots


def read_archive(file: BinaryIO, name: str, columns: Columns, web: WebPages) -> Iterator[Record | Bad]:
    """The pages of the open archive `name`, in order.

    Raises ConfigError for an archive that is damaged or cut short, and where the packages that read pages are missing.
    """
    _installed()
    with _rewindable(file) as again:
        rights = _rights(again, name, web)
        again.seek(0)
        extract = extractor(web)
        number, item = 0, None
        for record in _records(again, name):
            if isinstance(record, Left):
                item = item and Bad(f"{name}:{number}", record.reason, _size(item))
                continue
            if item is not None:
                yield item
            number += 1
            item = _page(record, f"{name}:{number}", columns, web, rights, extract)
        if item is not None:
            yield item


def _size(item: Record | Bad) -> int:
    return item.num_bytes if isinstance(item, Bad) else len(item.text.encode("utf-8", "replace"))


def _installed() -> None:
    try:
        import protego  # noqa: F401
        import resiliparse  # noqa: F401
        import trafilatura  # noqa: F401
        import warcio  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"web archives need {error.name}, which is not installed: pip install 'ratoon[web]'"
        ) from error


@contextmanager
def _rewindable(file: BinaryIO) -> Iterator[BinaryIO]:
    if file.seekable():
        yield file
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
        copy.seek(0)
        yield copy


class _Lent:
    """A file that is read once more: Arrow closes what it has read."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read

    def close(self) -> None:
        return None


class _Watched:
    """A stream that remembers its last bytes: the reader takes the end of a file for the end of a record."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.tail = stream, b""

    def read(self, size: int = -1) -> bytes:
        chunk = bytes(self.stream.read(size if size > 0 else 1 << 20))
        self.tail = (self.tail + chunk)[-4:]
        return chunk


def _records(file: BinaryIO, name: str) -> Iterator[Any]:
    """Records that may be pages, and behind one that does not end where it says a Left."""
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed
    from warcio.recordloader import ArcWarcRecordLoader

    class Archive(ArchiveIterator):  # type: ignore[misc]  # warcio is untyped
        INC_RECORD = ""  # printed for a record of wrong length; the ledger counts these

    class Loader(ArcWarcRecordLoader):  # type: ignore[misc]
        def load_http_headers(self, rec_type: str, uri: str | None, stream: Any, length: int | None) -> Any:
            # warcio itself breaks at a page without an address.
            return super().load_http_headers(rec_type, uri or "", stream, length)

    # It warns of spaces in addresses, which it writes as %20.
    logging.getLogger("warcio.recordloader").setLevel(logging.ERROR)
    compression = compression_of(name)
    plain: Any = pa.CompressedInputStream(pa.PythonFile(_Lent(file), mode="r"), compression) if compression else file
    watched = _Watched(plain)
    try:
        archive = Archive(watched)
        archive.loader = Loader(verify_http=False, arc2warc=False)
        for record in archive:
            if record.rec_type in KINDS:
                yield record
                errors = archive.err_count
                archive.read_to_end()
                if archive.err_count > errors:
                    yield Left(WRONG_LENGTH)
        while watched.read(1 << 20):  # what follows the last record
            pass
    except (OSError, EOFError, pa.ArrowInvalid, ArchiveLoadFailed) as error:
        if isinstance(error, ConnectionError | TimeoutError):
            raise
        raise ConfigError(f"{name}: damaged or cut short ({error}); fetch the file again or remove it") from error
    if not watched.tail.endswith(b"\n\n") and watched.tail != b"\r\n\r\n":
        raise ConfigError(f"{name}: cut short: it does not end where a record ends; fetch the file again or remove it")


def _responses(file: BinaryIO, name: str) -> Iterator[Any]:
    return (record for record in _records(file, name) if not isinstance(record, Left))


def _rights(file: BinaryIO, name: str, web: WebPages) -> Rights:
    if not web.block and not web.robots_agent:
        return Rights(frozenset(), Robots(None))
    addresses: set[str] = set()
    robots = Robots(web.robots_agent)
    for record in _responses(file, name):
        address = _address(record)
        addresses.add(address)
        with redirect_stderr(io.StringIO()):  # of a damaged robots.txt what there is counts
            robots.learn(address, record)
    sites = {site(address) for address in addresses}
    for path in web.robots if web.robots_agent else ():
        with open(path, "rb") as other:
            for record in _responses(other, path):
                if site(_address(record)) in sites:
                    robots.learn(_address(record), record)
    return Rights(blocked(addresses, web.block), robots)


def _address(record: Any) -> str:
    return str(record.rec_headers.get_header("WARC-Target-URI") or "").strip("<>")


def _page(record: Any, place: str, columns: Columns, web: WebPages, rights: Rights, extract: Extract) -> Record | Bad:
    address, date = _address(record), record.rec_headers.get_header("WARC-Date")
    if reason := _unwanted(address, date, rights):
        return Bad(place, reason, int(record.length or 0))
    fields = _fields(record, {columns.url: address or place, columns.date: date}, rights.robots.digest(address, date))
    if record.rec_type == "conversion":
        return Record(place, plain_text(record.content_stream().read()), fields)
    if record.http_headers is None:  # fetched otherwise than by HTTP (a host's number), or notes of the crawler
        return Bad(place, NOT_PAGE if address else NO_ADDRESS, int(record.length or 0))
    found = _text(record, web, extract)
    return (
        Bad(place, found.reason, int(record.length or 0)) if isinstance(found, Left) else Record(place, found, fields)
    )


def _text(record: Any, web: WebPages, extract: Extract) -> str | Left:
    if record.http_headers.get_statuscode() != "200":
        return Left(NOT_FOUND)
    kind, charset = content_type(record.http_headers.get_header("Content-Type") or "")
    if kind not in PAGES and kind != "text/plain":
        return Left(NOT_PAGE)
    said = io.StringIO()
    with redirect_stderr(said):  # where warcio says that a compressed body is damaged, and hands out what it has
        raw = record.content_stream().read(web.max_bytes + 1)
    if said.getvalue():
        return Left(DAMAGED_BODY)
    if len(raw) > web.max_bytes:
        return Left(TOO_LARGE)
    if web.opt_out and reserved(raw, record.http_headers):
        return Left(RESERVED)
    text = plain_text(raw, charset) if kind == "text/plain" else page_text(raw, charset, extract)
    return text if text.strip() else Left(NO_MAIN_TEXT)


def _fields(record: Any, fields: dict[str, Any], robots: str | None) -> dict[str, Any]:
    """With what the archive and its maker say of the page beside its text."""
    told = {
        "robots": robots,
        "truncated": record.rec_headers.get_header("WARC-Truncated"),
        "identified_languages": record.rec_headers.get_header("WARC-Identified-Content-Language"),
    }
    return {**fields, **{key: value for key, value in told.items() if value}}


def _unwanted(address: str, date: str | None, rights: Rights) -> str | None:
    if is_robots(address):
        return NOT_PAGE
    if address in rights.blocked:
        return BLOCKED
    return None if rights.robots.allows(address, date) else ROBOTS
