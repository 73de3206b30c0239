"""What kind of text a document is: by the file it is from, else by how it is written; and it is asked those rules."""

import inspect
import json
from pathlib import Path

import polars as pl
import pytest
from language_pages import PAGES, SENTENCES
from odd_texts import ODD, OTHER, PROSE
from small_sources import notes

from ratoon.config import ConfigError, HeldOut, PrepareConfig, load
from ratoon.corpus import judge
from ratoon.corpus.clean import clean
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import shards
from ratoon.corpus.filters.kinds import kinds
from ratoon.corpus.sources import ingest

ROOT = Path(__file__).parents[2]
JAVASCRIPT = """// Sums what a list holds.
export function total(items) {
  let sum = 0;
  for (const item of items) {
    sum += item.price * item.count;
  }
  return sum;
}
"""
C = """#include <stdio.h>

static int twice(int n) {
    return 2 * n;
}

int main(void) {
    printf("%d\\n", twice(21));
    return 0;
}
"""
SQL = """CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    customer TEXT NOT NULL
);
SELECT customer, count(*) FROM orders GROUP BY customer;
"""
JSON = json.dumps({"name": "a", "items": [{"id": i, "price": i * 2} for i in range(5)]}, indent=2)
MINIFIED = (
    "function a(b){return b.c?d[b.c]:(e=f(b),e&&e.g?e.g(b):null)};var h={i:1,j:[2,3],k:function(){return a(h)}};" * 20
)
CSV = "name,count,price\n" + "\n".join(f"item{i},{i * 7},{i}.50" for i in range(60))
TSV = "\n".join(f"{i}\tred\t{i * i}" for i in range(20))
MARKDOWN_TABLE = "\n".join(f"| item {i} | {i * 3} | 12 |" for i in range(10))


def kind(text, url=None):
    return kinds(pl.Series([text], dtype=pl.String), [url])[0]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("src/a.py", "code"),
        ("src/A.PY", "code"),
        ("networkx==3.6.1/networkx/graph.py", "code"),
        ("https://raw.example.org/x/main.rs", "code"),
        ("https://example.org/data.csv?download=1#top", "table"),
        ("data/prices.tsv", "table"),
        ("README.md", "prose"),
        ("https://example.org/README.md", "web"),
        ("https://example.org/index.php", "web"),
        ("https://example.org/a.b/page", "web"),
        ("https://example.org", "web"),
        ("https://docs.py", "web"),
        ("http://example.org/search?q=x.py", "web"),
        ("numpy==2.4.6/numpy/core.py::array", "prose"),
        ("raw/notes.jsonl:7", "prose"),
        ("raw/table.csv:7", "prose"),
        ("notes.unknown", "prose"),
        ("", "prose"),
        (None, "prose"),
    ],
)
def test_the_file_a_text_is_from_says_its_kind_and_a_place_inside_a_file_does_not(url, expected):
    assert kind(PROSE, url) == expected


@pytest.mark.parametrize("text", [inspect.getsource(judge), JAVASCRIPT, C, SQL, JSON, MINIFIED])
def test_code_is_known_by_how_it_is_written(text):
    assert kind(text) == kind(text, "raw/notes.jsonl:7") == kind(text, "https://example.org/page") == "code"


@pytest.mark.parametrize("text", [CSV, TSV, MARKDOWN_TABLE, CSV.replace(",", ";")])
def test_tables_are_known_by_their_even_rows(text):
    assert kind(text) == "table"


@pytest.mark.parametrize("text", [PROSE, OTHER, *PAGES.values(), *SENTENCES.values()])
def test_prose_is_prose_in_every_language_and_a_page_on_the_web(text):
    assert kind(text) == "prose"
    assert kind(text, "https://example.org/page") == "web"


def test_prose_with_some_code_in_it_is_prose():
    assert kind(f"{PROSE}\n\n```python\n{C}```\n\n{OTHER}") == "prose"
    lines = PROSE.replace(". ", ".\n")
    assert kind(f"{lines}\n\n    total = total(items)\n    print(total)\n\n{OTHER}") == "prose"


def test_our_own_files_are_what_they_are():
    code = [path.read_text() for path in sorted((ROOT / "ratoon/corpus").rglob("*.py")) if path.stat().st_size > 400]
    pages = [path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))]
    assert kinds(pl.Series(code), [None] * len(code)).count("code") >= 0.9 * len(code)
    assert kinds(pl.Series(pages), [None] * len(pages)) == ["prose"] * len(pages)


@pytest.mark.parametrize(
    "text", ["", " \n", "\n" * 1_000_000, "x" * 10_000, "a,b\n" * 500_000, "(" * 5_000_000, "\0", "\u202e"]
)
def test_a_poison_document_has_a_kind_too(text):
    assert kind(text) in ("prose", "code", "table")


def test_the_kind_of_a_text_depends_on_no_other():
    texts, urls = [*ODD.values(), CSV, C, PROSE], [None] * (len(ODD) + 2) + ["https://example.org/a"]
    whole = kinds(pl.Series(texts), urls)
    assert whole == [kind(text, url) for text, url in zip(texts, urls, strict=True)]
    assert kinds(pl.Series(texts[::-1]), urls[::-1]) == whole[::-1]


def test_documents_of_a_mixed_source_are_asked_the_rules_of_what_they_are(tmp_path):
    page = PAGES["en"]
    found = [{"text": f"{page} {i}", "url": f"https://example.org/{i}"} for i in range(20)]
    found += [{"text": f"{inspect.getsource(clean)}\n# {i}\n"} for i in range(20)]
    found += [{"text": f"{CSV}\nlast,{i},0"} for i in range(20)]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    prepare = load(ROOT).prepare
    config = PrepareConfig(rules=prepare.rules, held_out=HeldOut(share=0.2, min_documents=1))
    ingest(notes(kind="auto"), tmp_path, tmp_path / "documents")
    ledger = clean(notes(kind="auto"), config, tmp_path / "documents", tmp_path / "auto")
    assert ledger.funnel.dropped == {}
    assert {name: amount.documents for name, amount in ledger.kept_by["kind"].items()} == {
        "web": 20,
        "code": 20,
        "table": 20,
    }
    as_web = clean(notes(kind="web"), config, tmp_path / "documents", tmp_path / "web")
    assert as_web.funnel.documents_kept == 20
    told = [row for path in shards(tmp_path / "auto", "verdicts/") for row in rows(path)]
    assert [row["kind"] for row in told] == ["web"] * 20 + ["code"] * 20 + ["table"] * 20


def test_a_mixed_source_wants_rules_for_every_kind(tmp_path):
    config = PrepareConfig(rules={"prose": {}, "web": {}, "code": {}})
    with pytest.raises(
        ConfigError, match=r"prepare.rules.table: not there, but source 'notes' is auto; add it, `table"
    ):
        clean(notes(kind="auto"), config, tmp_path, tmp_path / "clean")
