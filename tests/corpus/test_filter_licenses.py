"""Licences: what is not allowed stays out, and what says nothing is not taken for allowed."""

import json

import pytest
from small_sources import notes, recipe, sentence

from ratoon.config import LicenseFilter
from ratoon.corpus.clean import clean
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import shards
from ratoon.corpus.filters.licenses import licenses
from ratoon.corpus.sources import ingest

OPEN = LicenseFilter(allow=("MIT", "Apache-2.0", "BSD-*", "CC-BY-4.0"), deny=("BSD-4-Clause",))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("MIT", None),
        ("mit", None),
        (" Apache-2.0 ", None),
        ("BSD-3-Clause", None),
        ("BSD-4-Clause", "license"),
        ("GPL-3.0-only", "license"),
        ("MIT License", "license"),
        ("GPL-3.0-only OR MIT", None),
        ("GPL-3.0-only AND MIT", "license"),
        ("Apache-2.0 WITH LLVM-exception", None),
        ("MIT AND (GPL-2.0-only OR BSD-2-Clause)", None),
        ("MIT AND (GPL-2.0-only OR BSD-4-Clause)", "license"),
        ("MIT OR GPL-2.0-only AND BSD-4-Clause", None),
        ("(MIT", "license"),
        ("MIT OR", "license"),
        ("MIT) OR (MIT", "license"),
        ("(" * 100_000, "license"),
        ("MIT OR " * 100_000, "license"),
        (None, "license_unknown"),
        ("", "license_unknown"),
        ("NOASSERTION", "license_unknown"),
        ("unknown", "license_unknown"),
    ],
)
def test_each_licence_is_judged_by_what_its_expression_asks(text, reason):
    assert licenses(OPEN).reason(text) == reason


def test_with_only_a_list_of_denied_ones_the_others_are_allowed():
    asked = licenses(LicenseFilter(deny=("CC-BY-NC-*", "*-only"), unknown="keep"))
    assert [asked.reason(text) for text in ("MIT", "All rights reserved", None)] == [None] * 3
    assert [asked.reason(text) for text in ("cc-by-nc-sa-4.0", "GPL-2.0-only")] == ["license"] * 2


def test_nothing_kept_is_without_an_allowed_licence_and_the_ledger_says_how_many_were_not(tmp_path):
    said = ["MIT", None, "GPL-3.0-only", "unknown", "Apache-2.0"]
    found = [{"text": sentence(i), "license": said[i % 5]} for i in range(100)]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    ingest(notes(), tmp_path, tmp_path / "documents")
    config = recipe().model_copy(update={"licenses": OPEN})
    ledger = clean(notes(), config, tmp_path / "documents", tmp_path / "clean")
    assert ledger.funnel.dropped == {"license": 20, "license_unknown": 40}
    kept = [row for part in ("train-", "held_out-") for path in shards(tmp_path / "clean", part) for row in rows(path)]
    assert {row["license"] for row in kept} == {"MIT", "Apache-2.0"}
    assert len(kept) == 40


def test_text_without_a_licence_of_its_own_is_under_that_of_its_source(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.jsonl").write_text("".join(json.dumps({"text": sentence(i)}) + "\n" for i in range(40)))
    source = notes(license="CC-BY-4.0")
    ingest(source, tmp_path, tmp_path / "documents")
    config = recipe().model_copy(update={"licenses": OPEN})
    assert clean(source, config, tmp_path / "documents", tmp_path / "clean").funnel.dropped == {}


def test_the_order_of_the_lists_is_no_part_of_what_they_say():
    turned = LicenseFilter(allow=OPEN.allow[::-1], deny=OPEN.deny)
    assert licenses(OPEN).content() == licenses(turned).content() != licenses(LicenseFilter()).content()
