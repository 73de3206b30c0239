"""A few seconds of fuzz_parsers.py, and what longer runs of it have found."""

import pytest
from fuzz_parsers import AMEND, FORMATS, case, read


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(kind, tmp_path):
    for number in range(120):
        name, raw = case(kind, 7, number)
        read(name, raw, tmp_path, AMEND if number % 2 else None)


# ---------------------------------------------------------------- findings


def test_a_page_of_an_archive_without_an_address_is_refused(tmp_path):
    raw = FORMATS["warc"]().replace(b"WARC-Target-URI: http://a.example/1\r\n", b"")
    read("file.warc", raw, tmp_path, None)
