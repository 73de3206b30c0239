"""A folder that appears whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into; it takes the place of `out` at the end, and goes if anything fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    former = out.with_name(f".{out.name}.{os.getpid()}.former")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.rmtree(former, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        if out.exists():
            out.replace(former)
        try:
            beside.replace(out)
        except OSError:
            if former.exists():
                former.replace(out)
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)
