"""Text of installed Python packages, read as files: nothing is ever imported or run.

`prose` is every docstring, cleaned of its indentation, and the documentation files. `code` is the source with
the docstrings cut out, so that the two never contain one another. Tests are left out of both.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from ratoon.config import ConfigError
from ratoon.corpus.formats import INVALID_UTF8, Bad, Record

TEST_FOLDERS = frozenset({"test", "tests", "testing", "_tests"})
TEST_FILES = re.compile(r"^(test_.*|.*_test|conftest)\.py$")
LEGAL = re.compile(r"^(licen[cs]e|copying|notice|authors|contributors)", re.IGNORECASE)
NOT_PYTHON = "not Python"

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Part(NamedTuple):
    """One file of a distribution."""

    name: str  # inside the distribution, with /
    path: Path


class Distribution(NamedTuple):
    name: str
    version: str
    license: str | None
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        return sum(part.path.stat().st_size for part in self.parts)

    def digest(self) -> str:
        """Over the names and bytes of its parts."""
        total = hashlib.blake2b(f"{self.name}=={self.version} {self.license}".encode(), digest_size=16)
        for part in self.parts:
            content = part.path.read_bytes()
            total.update(f"\0{part.name}\0{len(content)}\0".encode())
            total.update(content)
        return total.hexdigest()


def installed(name: str, content: Literal["prose", "code"]) -> Distribution:
    """The distribution's files that hold `content`, sorted by name.

    Raises ConfigError when it is not installed or does not say which files are its own.
    """
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(f"package {name!r} is not installed; pip install it, or take it off the list") from None
    if found.files is None:
        raise ConfigError(f"package {name!r} has no list of its files (RECORD); install it from a wheel")
    wanted = {str(file): file for file in found.files if _wanted(file.parts, content)}
    parts = tuple(Part(key, Path(str(wanted[key].locate()))) for key in sorted(wanted))
    return Distribution(
        found.metadata["Name"],
        found.version,
        # All of none or one: importlib_metadata, which takes Python's place once imported, raises where asked for one.
        (found.metadata.get_all("License-Expression") or [None])[0],
        tuple(p for p in parts if p.path.is_file()),
    )


def _wanted(parts: tuple[str, ...], content: str) -> bool:
    folders, file = parts[:-1], parts[-1]
    if ".." in folders or TEST_FOLDERS & set(folders) or any(f.endswith((".dist-info", ".data")) for f in folders):
        return False
    if file.endswith(".py"):
        return not TEST_FILES.match(file)
    return content == "prose" and file.endswith((".md", ".rst")) and not LEGAL.match(file)


def read(distribution: Distribution, content: Literal["prose", "code"]) -> Iterator[Record | Bad]:
    """Its documents in order. `place` is "distribution==version/path", with "::qualname" for a docstring."""
    for part in distribution.parts:
        place = f"{distribution.name}=={distribution.version}/{part.name}"
        raw = part.path.read_bytes()
        try:
            text = importlib.util.decode_source(raw) if part.name.endswith(".py") else raw.decode()
            if not part.name.endswith(".py"):
                yield Record(place, text, {})
            elif content == "code":
                code = without_docstrings(text)
                if code is not None:
                    yield Record(place, code, {})
            else:
                yield from (Record(f"{place}::{name}" if name else place, doc, {}) for name, doc in docstrings(text))
        except UnicodeDecodeError:
            yield Bad(place, INVALID_UTF8, len(raw))
        except (SyntaxError, ValueError, RecursionError):
            yield Bad(place, NOT_PYTHON, len(raw))


def docstrings(text: str) -> Iterator[tuple[str, str]]:
    """(qualified name, cleaned docstring) of the module, its classes and functions, in file order."""
    for name, _, statement in _documented(_parse(text)):
        cleaned = inspect.cleandoc(statement.value.value)  # type: ignore[attr-defined]
        if cleaned.strip():
            yield name, cleaned


def without_docstrings(text: str) -> str | None:
    """`text` without its docstrings, otherwise as it was; None when no code is left.

    A body that was nothing but its docstring becomes `pass`: what is read must stay Python.
    """
    tree = _parse(text)
    raw = text.encode()
    starts = [0, *(match.end() for match in re.finditer(rb"\n", raw))]
    if len(tree.body) <= (ast.get_docstring(tree, clean=False) is not None):
        return None
    for _, node, statement in reversed(list(_documented(tree))):
        begin = starts[statement.lineno - 1] + statement.col_offset
        end = starts[(statement.end_lineno or 1) - 1] + (statement.end_col_offset or 0)
        if len(node.body) == 1 and not isinstance(node, ast.Module):
            raw = raw[:begin] + b"pass" + raw[end:]
        else:
            begin, end = _widen(raw, begin, end)
            raw = raw[:begin] + raw[end:]
    return raw.decode().lstrip("\n")


def _widen(raw: bytes, begin: int, end: int) -> tuple[int, int]:
    """The stretch to cut so that no stray semicolon and no blank line is left where the docstring was."""
    if match := re.compile(rb"[ \t]*;[ \t]*").match(raw, end):
        end = match.end()
    line_begin = raw.rfind(b"\n", 0, begin) + 1
    line_end = raw.find(b"\n", end)
    line_end = len(raw) if line_end < 0 else line_end + 1
    alone = not raw[line_begin:begin].strip() and not raw[end:line_end].strip()
    return (line_begin, line_end) if alone else (begin, end)


def _parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's escapes are not ours to warn about
        return ast.parse(text)


def _documented(node: ast.AST, name: str = "") -> Iterator[tuple[str, Documented, ast.Expr]]:
    """(qualified name, node, docstring statement), in file order."""
    if isinstance(node, Documented):
        if not isinstance(node, ast.Module):
            name = f"{name}.{node.name}" if name else node.name
        if ast.get_docstring(node, clean=False) is not None:
            yield name, node, node.body[0]  # type: ignore[misc]
    # Only statements can hold definitions: expressions, most of a tree, are never walked.
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        children = getattr(node, field, None)
        for child in children if isinstance(children, list) else ():
            yield from _documented(child, name)
