"""Damaged files of every format, made from sound ones by seeded edits, through the whole way from file to shard.

    python tests/corpus/fuzz_parsers.py --seconds 600 [--seed 0] [--format csv]

Nothing but ConfigError may come out, in ten seconds each and two gigabytes. Cases run in a process of their own, so
that a crash of a native library is a finding too. A case is its format, seed and number: `--seed S --format F --only N`
runs it again.
"""

import argparse
import gzip
import io
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
from small_sources import notes, sentence

from ratoon.config import Amend, ConfigError, Files, WebPages
from ratoon.corpus.sources import write_unit
from ratoon.corpus.units import Input, Unit

SECONDS_EACH, MEMORY = 10, 2 << 30
WEB = WebPages(extractor="resiliparse")
AMEND = Amend(repair=True, mask=("email", "ip", "phone", "card", "iban", "private_key", "access_token", "credential"))
TOKENS = (
    b'"', b"'", b"\\", b"\\u", b"\\ud800", b"\\u0000", b"{", b"}", b"[" * 2000, b'{"text":' * 2000, b"]", b",", b":",
    b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"1" * 5000, b"-0", b"\0", b"\n", b"\r", b"\r\n", b"\n" * 300,
    b"Content-Length: -1", b"\xe2\x80\xae", b"\x1a",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
    b"text", b'"text":"', b'""', b'"""', b"a@b.example", b"x" * 3000, b"PAR1", b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd",
    b"\xff" * 8, b"\x00" * 8, b"WARC/1.0\r\n", b"WARC/1.1\r\n", b"Content-Length: 99999999999\r\n",
    b"Content-Type: application/http\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n",
    b"Content-Encoding: gzip\r\n", b"Content-Encoding: br\r\n", b"charset=utf-7", b"charset=idna", b"charset=\xe9",
    b"<!--", b"<svg><p>", b"&#x110000;", b"&#xd800;", b"WARC-Date: 9999-99-99", b"http://[::1", b"\x7f", b"<",
    b"WARC-Type: revisit\r\n",
)  # fmt: skip


# ---------------------------------------------------------------- sound files


def _rows() -> list[dict[str, object]]:
    odd = {"url": "http://a.example/1", "date": "2026-01-02", "language": "en", "license": "MIT", "n": 1.5}
    return [{"text": sentence(i), "id": i, **(odd if i % 2 else {"more": {"deep": [1, None, "x"]}})} for i in range(8)]


def _json_lines() -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in _rows())


def _csv() -> bytes:
    head = b"text,url,date\n"
    return head + b"".join(
        f'"{sentence(i)} ""so"", he said\nagain",http://a.example/{i},2026\n'.encode() for i in range(8)
    )


def _parquet() -> bytes:
    texts = [sentence(i) for i in range(40)]
    table = pa.table(
        {
            "text": pa.array(texts).dictionary_encode() if len(texts) % 2 else pa.array(texts),
            "url": pa.array([None, *texts[1:]]),
            "date": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * 40),
            "tags": pa.array([[1, 2], None] * 20),
            "deep": pa.array([{"a": 1, "b": b"\xff"}] * 40),
        }
    )
    out = io.BytesIO()
    parquet.write_table(table, out, compression="zstd", row_group_size=16)
    return out.getvalue()


def _text() -> bytes:
    return "\n\n".join(sentence(i) for i in range(12)).encode() + "\nÄpfel, 今天, 🧭".encode()


def _page(i: int) -> bytes:
    body = "".join(f"<p>{sentence(10 * i + k)} {sentence(10 * i + k + 1)}</p>" for k in range(6))
    return f'<html lang="en"><head><title>{i}</title></head><body><article>{body}</article></body></html>'.encode()


def _warc(kind: str = "response") -> bytes:
    found = []
    for i in range(4):
        raw = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + _page(i)
        own = b"application/http; msgtype=response"
        if kind == "conversion":
            raw, own = _text(), b"text/plain"
        elif i == 0:
            raw = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nUser-agent: *\nDisallow: /2\n"
        place = "robots.txt" if i == 0 else str(i)
        head = (
            f"WARC/1.1\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://a.example/{place}\r\n"
            f"WARC-Date: 2026-01-02T03:04:05Z\r\nContent-Type: {own.decode()}\r\nContent-Length: {len(raw)}\r\n\r\n"
        )
        found.append(head.encode() + raw + b"\r\n\r\n")
    return b"".join(found)


def _zstd(raw: bytes) -> bytes:
    return bytes(pa.compress(raw, codec="zstd", asbytes=True))


def _gzip(raw: bytes) -> bytes:
    return gzip.compress(raw, mtime=0)


FORMATS: dict[str, Callable[[], bytes]] = {
    "jsonl": _json_lines,
    "csv": _csv,
    "parquet": _parquet,
    "txt": _text,
    "warc": _warc,
    "wet": lambda: _warc("conversion"),
}
PACKINGS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": _gzip, ".zst": _zstd}


# ---------------------------------------------------------------- damage


def damaged(raw: bytes, draw: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(draw.choice((1, 1, 2, 3, 8, 30))):
        at, more = draw.randrange(len(data) + 1), draw.choice((1, 2, 4, 16, 200))
        match draw.randrange(8):
            case 0 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case 1 if at < len(data):
                data[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x22, draw.randrange(256)))
            case 2:
                del data[at : at + more]
            case 3:
                data[at:at] = data[(begin := draw.randrange(len(data) + 1)) : begin + more]
            case 4:
                data[at:at] = draw.randbytes(more)
            case 5:
                data[at:at] = draw.choice(TOKENS)
            case 6:
                width = draw.choice((1, 2, 4, 8))
                data[at : at + width] = draw.choice((b"\xff", b"\0", b"\x7f")) * width
            case 7 if draw.random() < 0.3:
                del data[at:]
    return bytes(data)


def case(kind: str, seed: int, number: int) -> tuple[str, bytes]:
    """(name, bytes) of a damaged file: damaged before it is packed, after, or both."""
    draw = random.Random(f"{kind} {seed} {number}")
    packing = draw.choice(list(PACKINGS))
    raw = FORMATS[kind]()
    inside = packing == "" or draw.random() < 0.7
    raw = PACKINGS[packing](damaged(raw, draw) if inside else raw)
    if packing and (not inside or draw.random() < 0.1):
        raw = damaged(raw, draw)
    return f"file.{kind}{packing}", raw


def read(name: str, raw: bytes, folder: Path, amend: Amend | None) -> None:
    """From file to shard, as ingest does it; ConfigError is an answer."""
    path = folder / name
    path.write_bytes(raw)
    unit = Unit("file", "digest", len(raw), Files(path=name, web=WEB), (Input(str(path), name, len(raw)),))
    try:
        write_unit(notes(), unit, folder / "shard.parquet", amend)
    except ConfigError as error:
        if name not in str(error):
            raise AssertionError("the letter does not say where") from error


# ---------------------------------------------------------------- the run


def run(kind: str, seed: int, numbers: range, told, until: float) -> None:  # type: ignore[no-untyped-def]
    """Cases in their order; `told` hears of each begun, and of every finding."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,) * 2)
    signal.signal(signal.SIGALRM, _late)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # warcio tells of every odd record
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        for number in numbers:
            if time.monotonic() > until:
                return
            told(number, None)
            signal.alarm(SECONDS_EACH)
            try:
                read(*case(kind, seed, number), Path(folder), AMEND if number % 2 else None)
            except Exception:
                told(number, traceback.format_exc())
            finally:
                signal.alarm(0)


def _late(*_: object) -> None:
    raise AssertionError(f"took more than {SECONDS_EACH} seconds")


def fuzz(kind: str, seed: int, seconds: float) -> tuple[int, dict[int, str]]:
    """(cases run, number of each finding -> what came out)."""
    context, found, first = multiprocessing.get_context("fork"), {}, 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ours, theirs = context.Pipe(duplex=False)
        say = lambda number, text, theirs=theirs: theirs.send((number, text))  # noqa: E731
        child = context.Process(target=run, args=(kind, seed, range(first, 1 << 40), say, until))
        child.start()
        theirs.close()
        try:
            while True:
                number, text = ours.recv()
                first = number + 1
                if text:
                    found[number] = text
        except EOFError:
            child.join()
        if child.exitcode:
            found[first - 1] = f"the process died with exit code {child.exitcode}"
    return first, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=list(FORMATS), action="append")
    parser.add_argument("--only", type=int, help="number of a case: run it, and show its file and what comes out")
    arguments = parser.parse_args()
    kinds = arguments.format or list(FORMATS)
    if arguments.only is not None:
        name, raw = case(kinds[0], arguments.seed, arguments.only)
        print(name, raw[:2000])
        with tempfile.TemporaryDirectory() as folder:
            read(name, raw, Path(folder), AMEND if arguments.only % 2 else None)
        return
    every = 0
    for kind in kinds:
        count, found = fuzz(kind, arguments.seed, arguments.seconds / len(kinds))
        print(f"{kind}: {count:,} cases, {len(found)} findings", flush=True)
        alike: dict[str, int] = {}
        for number, text in found.items():
            alike.setdefault(text.strip().splitlines()[-1][:160], number)
        for last, number in alike.items():
            print(f"--- {kind} seed {arguments.seed} case {number}: {last}\n{found[number]}", flush=True)
        every += len(found)
    sys.exit(bool(every))


if __name__ == "__main__":
    main()
