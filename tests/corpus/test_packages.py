"""Installed packages as text: what is prose, what is code, and that the two never contain one another."""

import ast
import inspect
import sys
from pathlib import Path

import pytest
from small_sources import notes, tree

from ratoon import config
from ratoon.config import Packages
from ratoon.corpus import packages
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import shards
from ratoon.corpus.sources import ingest

ROOT = Path(__file__).parents[2]

MODULE = '''\
"""About the module."""

from x import y  # café

class Box:
    """A box.

    Lines:
        indented.
    """

    size = 1

    def open(self): "One line."; return """not a docstring"""

    def close(self):
        """Nothing but this."""

if y:
    async def later():
        ("In " "brackets")  # kept
        def inner():
            r"""Inner \\d."""
            return 1
'''

CODE = '''\
from x import y  # café

class Box:

    size = 1

    def open(self): return """not a docstring"""

    def close(self):
        pass

if y:
    async def later():
          # kept
        def inner():
            return 1
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A distribution written by hand, found like any other. It would do harm if it were imported."""
    files = {
        "made/__init__.py": MODULE + "raise SystemExit\n",
        "made/only_doc.py": '"""Only this."""\n# a remark\n',
        "made/broken.py": "def (\n",
        "made/tests/test_a.py": '"""A test."""\nx = 1\n',
        "made/conftest.py": '"""A test too."""\nx = 1\n',
        "made/guide.rst": "A guide.\n",
        "made/LICENSE.md": "All rights.\n",
        "made/data.bin": "\0",
        "made-2.0.dist-info/METADATA": "Metadata-Version: 2.4\nName: Made\nVersion: 2.0\nLicense-Expression: MIT\n",
        "made-2.0.dist-info/notes.md": "Not documentation.\n",
    }
    for name, text in files.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    record = "".join(f"{name},,\n" for name in [*files, "../bin/made", "made/gone.py"])
    (tmp_path / "site" / "made-2.0.dist-info" / "RECORD").write_text(record)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path


def read(root, content, **changes):
    out = root / content
    ledger = ingest(notes(origins=(Packages(packages=("made",), content=content),), **changes), root, out)
    return {row["url"]: row["text"] for path in shards(out) for row in rows(path)}, ledger


def test_prose_is_every_docstring_and_documentation_file(installed):
    found, ledger = read(installed, "prose", max_bad_share=0.5)
    assert found == {
        "Made==2.0/made/__init__.py": "About the module.",
        "Made==2.0/made/__init__.py::Box": "A box.\n\nLines:\n    indented.",
        "Made==2.0/made/__init__.py::Box.open": "One line.",
        "Made==2.0/made/__init__.py::Box.close": "Nothing but this.",
        "Made==2.0/made/__init__.py::later": "In brackets",
        "Made==2.0/made/__init__.py::later.inner": "Inner \\d.",
        "Made==2.0/made/guide.rst": "A guide.\n",
        "Made==2.0/made/only_doc.py": "Only this.",
    }
    assert ledger.funnel.dropped == {"not Python": 1}
    assert ledger.examples == {"not Python": ["Made==2.0/made/broken.py"]}
    assert "made" not in sys.modules


def test_code_is_the_source_without_docstrings_and_still_python(installed):
    found, _ = read(installed, "code", max_bad_share=0.5)
    assert found == {"Made==2.0/made/__init__.py": CODE + "raise SystemExit\n"}
    ast.parse(CODE)


def test_the_licence_of_the_distribution_is_written_to_its_documents(installed):
    read(installed, "prose", max_bad_share=0.5)
    (shard,) = shards(installed / "prose")
    assert {row["license"] for row in rows(shard)} == {"MIT"}


def test_cutting_docstrings_changes_nothing_else_in_real_packages():
    for part in packages.installed("networkx", "code").parts[::6]:
        text = part.path.read_text(encoding="utf-8")
        code = packages.without_docstrings(text)
        if code is not None:
            assert ast.dump(ast.parse(code)) == ast.dump(_bare(ast.parse(text))), part.name
            assert list(packages.docstrings(code)) == []


def _bare(tree):
    """The reference: docstrings taken out of the tree itself."""
    for node in ast.walk(tree):
        if isinstance(node, packages.Documented) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
            if not node.body and not isinstance(node, ast.Module):
                node.body = [ast.Pass()]
    return tree


def test_docstrings_are_those_the_language_knows():
    found = dict(packages.docstrings(inspect.getsource(packages)))
    assert found[""] == inspect.cleandoc(packages.__doc__)
    assert found["Distribution.digest"] == inspect.getdoc(packages.Distribution.digest)


def test_a_package_without_a_license_is_read_whoever_answers_for_installed_packages():
    import importlib_metadata  # noqa: F401  # takes Python's own place from here on

    assert packages.installed("safetensors", "prose").license is None


def test_the_same_packages_give_the_same_bytes(tmp_path):
    origins = (Packages(packages=("safetensors", "fsspec"), content="prose"),)
    ingest(notes(origins=origins), tmp_path, tmp_path / "a")
    ingest(notes(origins=origins), tmp_path, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert [path.name.split("-")[0] for path in shards(tmp_path / "a")] == ["fsspec", "safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["python-docs", "python-code"])
def test_each_embedded_source_gives_15_to_22_mb_of_clean_text(name, tmp_path):
    from ratoon.corpus.clean import clean

    source = config.source(ROOT, name)
    ingest(source, ROOT, tmp_path / "documents")
    prepare = config.parse(config.PrepareConfig, config.read_yaml(ROOT / "params.yaml")["prepare"], "params.yaml")
    kept = clean(source, prepare, tmp_path / "documents", tmp_path / "clean").funnel.bytes_kept
    assert 15e6 <= kept <= 22e6
