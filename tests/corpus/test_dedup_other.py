"""Deduplication besides near-duplicates: paragraphs, raw texts, and what cannot be asked."""

import pytest
from repeated_texts import FORTY, config, essay, everything, prepare

from ratoon.config import ConfigError, Dedup, parse


def page(own: int, shared: int) -> str:
    """Ten lines of ten words, so many of which others hold too, and one line too short to count."""
    return "\n".join([*(essay(k, 10) for k in range(9000, 9000 + shared)), essay(own, 10 * (10 - shared)), "See also"])


@pytest.mark.parametrize(("share", "dropped"), [(0.58, 1), (0.59, 0)])
def test_a_document_mostly_of_paragraphs_found_before_goes(tmp_path, share, dropped):
    # 60 of 102 words are in shared lines: 0.588.
    settings = config(near=None, paragraphs={"min_words": 8, "max_share": share})
    pages = [page(700, 6), page(701, 6)]
    ledger = prepare(tmp_path, {"a.jsonl": [*FORTY, *pages]}, settings)
    assert ledger.funnel.dropped.get("repeated_paragraphs", 0) == dropped
    again = prepare(tmp_path, {"a.jsonl": [*FORTY, *pages]}, settings)
    assert again == ledger


def test_lines_shorter_than_a_paragraph_are_anybodys(tmp_path):
    settings = config(near=None, paragraphs={"min_words": 11, "max_share": 0})
    ledger = prepare(tmp_path, {"a.jsonl": [*FORTY, page(700, 6), page(701, 6)]}, settings)
    assert ledger.funnel.dropped == {}


def test_a_page_stitched_from_an_earlier_edition_goes_and_the_earlier_stays(tmp_path):
    settings = config(near=None, paragraphs={})
    first = [*FORTY, "\n".join(FORTY[i] for i in range(3))]
    prepare(tmp_path, {"a.jsonl": FORTY}, settings)
    ledger = prepare(tmp_path, {"a.jsonl": first, "b.jsonl": ["\n".join(FORTY[i] for i in range(4, 9))]}, settings)
    assert ledger.funnel.dropped == {"repeated_paragraphs": 2}
    assert everything(tmp_path / "clean") == sorted(FORTY)


def test_a_paragraph_that_stands_only_in_a_text_that_is_gone_is_nobodys(tmp_path):
    shared, lost = essay(800, 120), essay(801, 12)
    longer, shorter = f"{shared}\n{essay(802, 13)}", f"{shared}\n{lost}"
    ledger = prepare(tmp_path, {"a.jsonl": [*FORTY, longer, shorter, lost]}, config(paragraphs={"max_share": 0.5}))
    assert ledger.funnel.dropped == {"near_duplicate": 1}
    assert {longer, lost} <= set(everything(tmp_path / "clean"))


def test_raw_duplicates_alone_leave_in_what_differs_by_a_blank(tmp_path):
    settings = config(near=None, exact="raw")
    ledger = prepare(tmp_path, {"a.jsonl": [*FORTY, FORTY[0] + " ", FORTY[0]]}, settings)
    assert ledger.funnel.dropped == {"duplicate": 1}
    assert everything(tmp_path / "clean") == sorted([*FORTY, FORTY[0] + " "])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"exact": "raw", "near": {}}, "exact: raw keeps apart what the other keys join"),
        ({"across": ["web", "books", "web"]}, r"across: \['web', 'books', 'web'\] names a source twice"),
        ({"copies": {1: 2}}, "greater than or equal to 2"),
        ({"copies": {2: 0}}, "greater than or equal to 1"),
        ({"near": {"agreement": 70}}, "less than or equal to 1"),
        ({"near": {"bands": 0}}, "greater than 0"),
        ({"near": {"band": 14}}, "no key 'band'; did you mean 'bands'"),
    ],
)
def test_what_cannot_be_is_refused_at_the_door(asked, message):
    with pytest.raises(ConfigError, match=message):
        parse(Dedup, asked, "params.yaml: prepare.dedup")
