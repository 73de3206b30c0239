"""One page to its main text."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from ratoon.config import WebPages

Extract = Callable[[str], str | None]
# Ways in which a page says that it is not for training: TDM Reservation Protocol (W3C community report, 2024), and the
# `noai` robots directive that large hosts send.
RESERVED_META = re.compile(
    rb"""<meta\s[^>]*name\s*=\s*["']?(?:tdm-reservation["']?[^>]*content\s*=\s*["']?1|"""
    rb"""robots["']?[^>]*content\s*=\s*["'][^"'>]*\bnoai\b)""",
    re.IGNORECASE,
)
CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
HEAD = 1 << 16


def extractor(web: WebPages) -> Extract:
    """HTML to main text."""
    if web.extractor == "resiliparse":
        from resiliparse.extract.html2text import extract_plain_text

        return partial(extract_plain_text, main_content=web.prefer != "recall", alt_texts=False)
    from trafilatura import extract

    # Its own deduplication remembers pages across calls: a text would depend on those before it.
    return partial(
        extract,
        favor_precision=web.prefer == "precision",
        favor_recall=web.prefer == "recall",
        include_comments=False,
        deduplicate=False,
    )


def page_text(raw: bytes, charset: str | None, extract: Extract) -> str:
    """'' for a page without main text, or one that cannot be parsed."""
    html = plain_text(raw, charset, html=True)
    if not html.strip():
        return ""
    try:
        return extract(html) or ""
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # parsers name no errors, and compiled ones panic: one page must not end a crawl
        return ""


def content_type(header: str) -> tuple[str, str | None]:
    """(media type, charset or None) of a Content-Type header."""
    kind, _, rest = header.partition(";")
    charset = CHARSET.search(rest)
    return kind.strip().lower(), charset.group(1) if charset else None


def plain_text(raw: bytes, charset: str | None = None, html: bool = False) -> str:
    """Decoded as the server says, else as the page says, else as it looks."""
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    for name in (charset, None):
        try:
            return str(bytes_to_str(raw, name or detect_encoding(raw, from_html_meta=html) or "utf-8"))
        except LookupError:
            continue
    return raw.decode("utf-8", "replace")


def reserved(raw: bytes, headers: Any) -> bool:
    """Whether the page says, in its headers or its head, that it is not for text and data mining."""
    tags = (headers.get_header("X-Robots-Tag") or "").lower()
    if (headers.get_header("tdm-reservation") or "").strip() == "1" or re.search(r"\bnoai\b", tags):
        return True
    return RESERVED_META.search(raw[:HEAD]) is not None
