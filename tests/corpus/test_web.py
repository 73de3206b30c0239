"""Archives of the web: main text, where it came from, and what is left alone."""

import gzip
import io
import tarfile

import pytest
from small_sources import notes, sentence, tree

from ratoon.config import ConfigError, Files, WebPages
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import shards
from ratoon.corpus.sources import ingest
from ratoon.corpus.web import blocklist, page

DATE = "2026-03-04T05:06:07Z"


def warc(kind, address, body, content_type="text/html; charset=utf-8", status=200, date=DATE, headers=""):
    """One record, as WARC 1.1 (ISO 28500) writes it."""
    raw = body if isinstance(body, bytes) else body.encode()
    own = content_type
    if kind == "response":
        raw = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\n{headers}\r\n".encode() + raw
        own = "application/http; msgtype=response"
    head = (
        f"WARC/1.1\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {address}\r\nWARC-Date: {date}\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000000>\r\nContent-Type: {own}\r\n"
        f"Content-Length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw + b"\r\n\r\n"


def article(i, head=""):
    body = "".join(f"<p>{sentence(10 * i + k)} {sentence(10 * i + k + 1)}</p>" for k in range(6))
    menu = "".join(f'<li><a href="/{k}">Menu entry {k}</a></li>' for k in range(8))
    return (
        f"<html><head><title>Page {i}</title>{head}</head><body><nav><ul>{menu}</ul></nav>"
        f"<article><h1>Page {i}</h1>{body}</article><footer>All rights and cookies</footer></body></html>"
    )


def response(i, address=None, **how):
    return warc("response", address or f"http://a.example/{i}", article(i, how.pop("head", "")), **how)


def pack(*records):
    """As crawls are stored: every record a gzip member of its own."""
    return b"".join(gzip.compress(record, mtime=0) for record in records)


@pytest.fixture
def bring(tmp_path):
    def run(*records, name="crawl.warc.gz", raw=None, **web):
        (tmp_path / "raw").mkdir(exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(pack(*records) if raw is None else raw)
        source = notes(origins=(Files(path="raw", web=WebPages(**web)),), max_bad_share=0.5)
        ledger = ingest(source, tmp_path, tmp_path / "out")
        found = [row for shard in shards(tmp_path / "out") for row in rows(shard)]
        return ledger, sorted(found, key=lambda row: row["url"])

    return run


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse"])
def test_a_page_becomes_its_main_text_with_its_address_and_day(bring, extractor):
    ledger, found = bring(response(1), response(2), extractor=extractor)
    assert [row["url"] for row in found] == ["http://a.example/1", "http://a.example/2"]
    assert {row["date"] for row in found} == {DATE}
    assert sentence(13) in found[0]["text"]
    assert "Menu entry" not in found[0]["text"]
    assert "cookies" not in found[0]["text"]
    assert ledger.funnel.documents_kept == 2


def test_plain_text_archives_keep_their_text_as_it_is(bring):
    record = warc("conversion", "http://a.example/wet", "First line\nZweite Zeile: größer\n", "text/plain")
    _, found = bring(warc("warcinfo", "", "software: x"), record, name="part.warc.wet.gz")
    assert [row["text"] for row in found] == ["First line\nZweite Zeile: größer\n"]


def test_packed_and_plain_archives_hold_the_same_documents(bring, tmp_path):
    _, packed = bring(response(1))
    (tmp_path / "raw" / "crawl.warc.gz").unlink()
    _, plain = bring(name="crawl.warc", raw=response(1))
    assert [row["text"] for row in plain] == [row["text"] for row in packed]


def test_the_server_says_how_a_page_is_written_then_the_page_then_its_bytes(bring):
    def written(i, encoding, charset="", head=""):
        text = article(i, head).replace("Text", "Füße und Straße")
        kind = f"text/html{charset}"
        return warc("response", f"http://a.example/{i}", text.encode(encoding), kind)

    _, found = bring(
        written(1, "iso-8859-1", "; charset=iso-8859-1"),
        written(2, "utf-16", "; charset=utf-16"),
        written(3, "iso-8859-1", head='<meta charset="iso-8859-1">'),
        written(4, "utf-8"),
        written(5, "utf-8", "; charset=no-such-code"),
    )
    assert len(found) == 5
    assert all("Füße und Straße" in row["text"] for row in found)


def test_what_is_no_page_is_counted_by_its_reason_and_damages_nothing(bring):
    ledger, found = bring(
        response(1),
        warc("response", "http://a.example/img", b"\x89PNG", "image/png"),
        response(2, status=404),
        response(3, status=301),
        warc("response", "http://a.example/void", "<html><body></body></html>"),
        warc("response", "http://a.example/big", article(4) + " " * 9000),
        warc("request", "http://a.example/1", "GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request"),
        max_bytes=8000,
    )
    assert len(found) == 1
    assert ledger.funnel.dropped == {
        "no main text": 1,
        "not a page": 1,
        "not answered with 200": 2,
        "page too large": 1,
    }


@pytest.mark.parametrize("name", ["crawl.warc.gz", "crawl.warc"])
def test_records_without_a_page_s_address_are_counted_and_stop_nothing(bring, name):
    records = (
        response(1),
        response(2).replace(b"WARC-Target-URI: http://a.example/2\r\n", b""),
        warc("response", "dns:a.example", "192.0.2.1", "text/dns"),
        warc("resource", "urn:x-notes:1", "notes of the crawl", "text/plain"),
        warc("metadata", "http://a.example/1", "fetchTimeMs: 7", "application/warc-fields"),
        response(3),
    )
    ledger, found = bring(raw=pack(*records) if name.endswith("gz") else b"".join(records), name=name)
    assert [row["url"] for row in found] == ["http://a.example/1", "http://a.example/3"]
    assert ledger.funnel.dropped == {"no address": 1, "not a page": 2}
    assert ledger.examples["no address"] == [f"raw/{name}:2"]


def test_robots_txt_as_fetched_with_the_pages_is_obeyed(bring):
    def robots(text, date=DATE, status=200, host="a.example"):
        return warc("response", f"http://{host}/robots.txt", text, "text/plain", status, date)

    records = (
        response(1, "http://a.example/open"),
        response(2, "http://a.example/closed/x"),
        response(3, "http://b.example/x"),
        response(4, "http://c.example/x"),
        response(5, "http://a.example/closed/later", date="2026-09-01T00:00:00Z"),
        response(6, "http://d.example/x"),
        robots("User-agent: *\nDisallow: /closed/\n", "2026-01-01T00:00:00Z"),
        robots("User-agent: *\nDisallow:\n", "2026-08-01T00:00:00Z"),
        robots("gone", status=404, host="c.example"),
        robots("down", status=503, host="d.example"),
    )
    ledger, found = bring(*records, robots_agent="ratoon")
    kept = {row["url"] for row in found}
    assert kept == {
        "http://a.example/open",
        "http://a.example/closed/later",
        "http://b.example/x",
        "http://c.example/x",
    }
    assert ledger.funnel.dropped["robots.txt"] == 2
    ledger, found = bring(*reversed(records), robots_agent="ratoon")
    assert {row["url"] for row in found} == kept


def test_robots_txt_may_lie_in_archives_of_their_own(bring, tmp_path):
    rule = warc("response", "http://a.example/robots.txt", "User-agent: ratoon\nDisallow: /1\n", "text/plain")
    (tmp_path / "robots.warc.gz").write_bytes(pack(rule))
    _, found = bring(response(1), response(2), robots_agent="ratoon", robots=("robots.warc.gz",))
    assert [row["url"] for row in found] == ["http://a.example/2"]


def test_pages_that_reserve_their_rights_are_left_out_unless_told_otherwise(bring):
    pages = (
        response(1, headers="tdm-reservation: 1\r\n"),
        response(2, headers="X-Robots-Tag: noindex, noai\r\n"),
        response(3, head='<meta name="tdm-reservation" content="1">'),
        response(4, head='<meta name="robots" content="noai, noimageai">'),
        response(5, head='<meta name="robots" content="index, follow">'),
    )
    ledger, found = bring(*pages)
    assert [row["url"] for row in found] == ["http://a.example/5"]
    assert ledger.funnel.dropped == {"rights reserved": 4}
    _, found = bring(*pages, opt_out=False)
    assert len(found) == 5


def test_blocked_hosts_take_their_subdomains_along_and_blocked_pages_only_themselves(bring, tmp_path):
    (tmp_path / "block.txt").write_text("# ours\nbad.example\nhttp://www.a.example/2/\n")
    pages = [
        response(1, "http://bad.example/x"),
        response(2, "https://deep.sub.bad.example:8080/y?z=1"),
        response(3, "http://notbad.example/x"),
        response(4, "http://a.example/2"),
        response(5, "http://a.example/22"),
    ]
    ledger, found = bring(*pages, block=("block.txt",))
    assert [row["url"] for row in found] == ["http://a.example/22", "http://notbad.example/x"]
    assert ledger.funnel.dropped == {"blocked address": 3}


def test_a_list_in_a_wheel_is_read_where_it_lies(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "lists.tar.gz", "w:gz") as archive:
        for name, text in {"domains": b"bad.example\n", "urls": b"a.example/x\n"}.items():
            item = tarfile.TarInfo(name)
            item.size = len(text)
            archive.addfile(item, io.BytesIO(text))
    monkeypatch.setattr(blocklist, "_path", lambda name: tmp_path / "lists.tar.gz")
    asked = {"http://bad.example/1", "http://a.example/x", "http://a.example/y"}
    assert blocklist.blocked(asked, ("datatrove",)) == {"http://bad.example/1", "http://a.example/x"}


def test_another_list_makes_other_documents_and_the_same_list_reads_nothing_twice(bring, tmp_path):
    (tmp_path / "block.txt").write_text("bad.example\n")
    bring(response(1), response(2), block=("block.txt",))
    before = tree(tmp_path / "out")
    bring(response(1), response(2), block=("block.txt",))
    assert tree(tmp_path / "out") == before
    (tmp_path / "block.txt").write_text("a.example\n")
    with pytest.raises(ConfigError, match="no documents"):
        bring(response(1), response(2), block=("block.txt",))


def test_a_page_does_not_depend_on_the_pages_before_it(bring, tmp_path):
    repeated = [warc("response", f"http://a.example/{i}", article(1)) for i in range(6)]
    _, found = bring(*repeated)
    assert len({row["text"] for row in found}) == 1


@pytest.mark.parametrize("cut", [10, 200, -4, -30])
@pytest.mark.parametrize("name", ["crawl.warc.gz", "crawl.warc"])
def test_an_archive_cut_short_is_refused(bring, name, cut):
    whole = pack(response(1), response(2)) if name.endswith("gz") else response(1) + response(2)
    with pytest.raises(ConfigError, match="cut short"):
        bring(name=name, raw=whole[:cut])


@pytest.mark.parametrize("raw", [b"not an archive" * 50, b"\x1f\x8b" + b"\0" * 100, b""])
def test_what_is_no_archive_is_refused(bring, raw):
    with pytest.raises(ConfigError, match=r"damaged|cut short"):
        bring(raw=raw)


@pytest.mark.parametrize("name", ["crawl.warc.gz", "crawl.warc"])
def test_a_record_of_wrong_length_is_counted_by_name_and_nothing_is_printed(bring, name, capfd):
    broken = response(3)[:-4] + b"more than was said\r\n\r\n"
    records = [*(response(i) for i in range(3)), broken, response(4)]
    ledger, found = bring(name=name, raw=pack(*records) if name.endswith("gz") else b"".join(records))
    assert [row["url"][-1] for row in found] == ["0", "1", "2", "4"]
    assert ledger.funnel.dropped == {"wrong record length": 1}
    assert ledger.examples == {"wrong record length": [f"raw/{name}:4"]}
    assert capfd.readouterr().err == ""


def test_a_compressed_body_that_is_damaged_is_counted_by_name_and_nothing_is_printed(bring, capfd):
    body = bytearray(gzip.compress(article(3).encode() * 400, mtime=0, compresslevel=0))
    body[70_000] ^= 0xFF
    body[65_560:65_570] = b"\xff" * 10
    damaged = warc("response", "http://a.example/3", bytes(body), headers="Content-Encoding: gzip\r\n")
    ledger, found = bring(response(1), damaged, warc("response", "http://a.example/a b", article(2)))
    assert [row["url"] for row in found] == ["http://a.example/1", "http://a.example/a%20b"]
    assert ledger.funnel.dropped == {"damaged body": 1}
    assert capfd.readouterr().err == ""


POISON = {
    "deep": "<div>" * 4_000 + "x",
    "attributes": "<p " + "a=1 " * 50_000 + ">x</p>",
    "no end": "<html><body><p>" + "&#" * 50_000,
    "nul": "<p>a\0b</p>" * 100,
    "surrogates": "<p>&#xD800;&#xDFFF;</p>" * 100,
    "comment": "<!--" * 20_000,
    "table": "<table>" * 3_000 + "<tr><td>x",
    "script": "<script>" + "<" * 100_000,
}


@pytest.mark.parametrize("extract", ["trafilatura", "resiliparse"])
@pytest.mark.parametrize("html", list(POISON.values()), ids=list(POISON))
def test_a_poisoned_page_harms_no_other(extract, html):
    text = page.page_text(html.encode(), None, page.extractor(WebPages(extractor=extract)))
    assert isinstance(text, str)
    text.encode()


def test_a_missing_list_is_refused_with_its_place(bring):
    with pytest.raises(ConfigError, match=r"nowhere.txt: not found"):
        bring(response(1), block=("nowhere.txt",))
